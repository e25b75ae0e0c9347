"""Many trials, counted; and where an interrupted campaign goes on."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from tests.crash.powercut import vfs
from tests.crash.powercut.trial import Trial

#: Trials between two notes of where the campaign is.
NOTED_EVERY = 100


@attrs.frozen
class Violation:
    """A trial in which a promise was broken: its seed, which promise, and where that was found."""

    seed: str
    what: str
    details: str


@attrs.define
class Tally:
    """What the trials did.

    Attributes:
        counts: how often what happened.
        violations: the trials in which a promise was broken.
    """

    counts: Counter[str] = attrs.Factory(Counter)
    violations: list[Violation] = attrs.Factory(list)

    def add(self, trial: Trial) -> None:
        """Count a trial."""
        self.counts.update(trial.counts)
        if trial.violation:
            self.violations.append(Violation(trial.seed, trial.violation, trial.details))

    def lines(self) -> Iterator[str]:
        """The counts, for people."""
        for name in sorted(self.counts):
            yield f"{self.counts[name]:>14,}  {name}"
        for violation in self.violations:
            yield f"VIOLATION in trial {violation.seed}: {violation.what}\n{violation.details}"

    def save(self, path: Path, seed: int) -> None:
        """Note where the campaign is, whole or not at all."""
        text = json.dumps({"seed": seed, **attrs.asdict(self)}, indent=1)
        made = path.with_name(path.name + ".new")
        made.write_text(text)
        made.replace(path)

    @classmethod
    def load(cls, path: Path, seed: int) -> Tally:
        """What `save` noted; nothing where there is no such file.

        Raises:
            ValueError: it is another campaign's.
        """
        if not path.exists():
            return cls()
        noted = json.loads(path.read_text())
        if noted["seed"] != seed:
            raise ValueError(f"{path} is a campaign with seed {noted['seed']}, not {seed}")
        return cls(Counter(noted["counts"]), [Violation(**violation) for violation in noted["violations"]])


@contextlib.contextmanager
def playground() -> Iterator[Path]:
    """A folder for trials, in memory where there is one, and the simulated machine ready to run."""
    with (
        tempfile.TemporaryDirectory(prefix="edgeshard-powercut-", dir=_shared_folder()) as folder,
        vfs.installed(),
    ):
        gc.disable()  # what it closes, and when, would differ from run to run
        try:
            yield Path(folder).resolve()  # as the paths are that SQLite is given
        finally:
            gc.enable()


def _shared_folder() -> str | None:
    """Where files are in memory, if such a folder is known here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def play_one(folder: Path, seed: str) -> Trial:
    """One trial."""
    place = folder / "trial"
    place.mkdir()
    trial = Trial(seed, place)
    trial.play()
    shutil.rmtree(place)
    return trial


def play(
    trials: int,
    seed: int,
    *,
    first: int = 0,
    tally: Tally | None = None,
    after_each: Callable[[Tally], bool] = lambda _: True,
) -> Tally:
    """Play trials, each with a seed of its own.

    Args:
        trials: how many there are to be in the end.
        seed: of all of them.
        first: the number of the first.
        tally: those that were played before; they are not played again.
        after_each: asked after each trial whether to go on.
    """
    tally = Tally() if tally is None else tally
    with playground() as folder:
        for number in range(first + tally.counts["trials"], first + trials):
            tally.add(play_one(folder, f"{seed}-{number}"))
            if number % NOTED_EVERY == 0:
                gc.collect()
            if not after_each(tally):
                break
    return tally
