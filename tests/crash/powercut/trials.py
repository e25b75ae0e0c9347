"""Play many trials, count them, and continue an interrupted campaign."""

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

#: How many trials to play between two saves of the progress.
NOTED_EVERY = 100


@attrs.frozen
class Violation:
    """A trial that broke a promise: its seed, the promise, and where it was found."""

    seed: str
    what: str
    details: str


@attrs.define
class Tally:
    """Counts of what the trials did.

    Attributes:
        counts: how often each event happened.
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
        """Return the counts as lines."""
        for name in sorted(self.counts):
            yield f"{self.counts[name]:>14,}  {name}"
        for violation in self.violations:
            yield f"VIOLATION in trial {violation.seed}: {violation.what}\n{violation.details}"

    def save(self, path: Path, seed: int) -> None:
        """Save the progress of the campaign, atomically."""
        text = json.dumps({"seed": seed, **attrs.asdict(self)}, indent=1)
        made = path.with_name(path.name + ".new")
        made.write_text(text)
        made.replace(path)

    @classmethod
    def load(cls, path: Path, seed: int) -> Tally:
        """Load what `save` wrote, or an empty tally if there is no file.

        Raises:
            ValueError: the file belongs to another campaign.
        """
        if not path.exists():
            return cls()
        noted = json.loads(path.read_text())
        if noted["seed"] != seed:
            raise ValueError(f"{path} is a campaign with seed {noted['seed']}, not {seed}")
        return cls(Counter(noted["counts"]), [Violation(**violation) for violation in noted["violations"]])


@contextlib.contextmanager
def playground() -> Iterator[Path]:
    """Yield a folder for trials, in memory if possible, with the simulated machine ready to run."""
    with (
        tempfile.TemporaryDirectory(prefix="edgeshard-powercut-", dir=_shared_folder()) as folder,
        vfs.installed(),
    ):
        gc.disable()  # what it closes, and when, would differ from run to run
        try:
            yield Path(folder).resolve()  # like the paths that SQLite is given
        finally:
            gc.enable()


def _shared_folder() -> str | None:
    """Return a folder in memory, or None if there is none."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def play_one(folder: Path, seed: str) -> Trial:
    """Play one trial."""
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
    """Play trials, each with its own seed.

    Args:
        trials: how many there shall be in the end.
        seed: the seed of the campaign.
        first: the number of the first trial.
        tally: the trials played before, which are not played again.
        after_each: called after each trial; returns whether to continue.
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
