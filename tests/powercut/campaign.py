"""Many trials, counted."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from . import machine
from .trial import Trial


@attrs.define
class Tally:
    """What the trials did.

    Attributes:
        counts: how often what happened.
        violations: the seed of each trial that broke a promise, and which.
    """

    counts: Counter[str] = attrs.Factory(Counter)
    violations: list[tuple[str, str, str]] = attrs.Factory(list)

    def add(self, trial: Trial) -> None:
        """Count a trial."""
        self.counts.update(trial.counts)
        if trial.violation:
            self.violations.append((trial.seed, trial.violation, trial.details))

    def lines(self) -> Iterator[str]:
        """The counts, for people."""
        for name in sorted(self.counts):
            yield f"{name}: {self.counts[name]:,}"
        for seed, violation, _ in self.violations:
            yield f"VIOLATION in trial {seed}: {violation}"


@contextlib.contextmanager
def playground() -> Iterator[Path]:
    """A folder for trials, in memory where there is one, and the simulated machine ready to run."""
    with (
        tempfile.TemporaryDirectory(prefix="edgeshard-powercut-", dir=machine.shared_folder()) as folder,
        machine.installed(),
    ):
        gc.disable()  # what it closes, and when, would differ from run to run
        try:
            yield Path(folder)
        finally:
            gc.enable()


def play_one(folder: Path, seed: str) -> Trial:
    """One trial."""
    place = folder / "trial"
    place.mkdir()
    trial = Trial(seed, place)
    trial.play()
    _empty(place)
    return trial


def _empty(place: Path) -> None:
    import shutil

    shutil.rmtree(place)


def play(
    trials: int, seed: int, *, first: int = 0, stop: Callable[[Tally], bool] = lambda _: False
) -> Tally:
    """Play trials, each with a seed of its own."""
    tally = Tally()
    with playground() as folder:
        for number in range(first, first + trials):
            tally.add(play_one(folder, f"{seed}-{number}"))
            if number % 50 == 0:
                gc.collect()
            if stop(tally):
                break
    return tally
