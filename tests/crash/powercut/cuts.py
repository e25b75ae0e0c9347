"""Cut one procedure short, by a power cut or a kill at any of its operations, and check what is left."""

from __future__ import annotations

import abc
import contextlib
import copy
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

import edgeshard
from tests.crash.powercut import os_calls
from tests.crash.powercut.contents import ViolationError
from tests.crash.powercut.disk import Crash, Disk
from tests.crash.powercut.machine import Machine, Patch, patched
from tests.crash.powercut.scheduler import Actor, Cut, Scheduler
from tests.crash.powercut.trial import ROOT

_BEGAN_S = 1_800_000_000.0

#: What is done with the store on a machine.
Work = Callable[[edgeshard.Store], None]


class Procedure(abc.ABC):
    """What is done to a store, and what must be true of it once that is cut short, and later.

    Attributes:
        outcomes: what `judge` may return for a procedure that was cut short; if it was not, always the last of these.
        is_durable: whether the procedure promises that the last outcome survives a power cut after its end.
        patches: limits to make small, for as long as the procedure is examined.
    """

    outcomes: tuple[str, ...]
    is_durable = True
    patches: tuple[Patch, ...] = ()

    @abc.abstractmethod
    def prepare(self, store: edgeshard.Store) -> None:
        """Make the store as it is before."""

    @abc.abstractmethod
    def act(self, store: edgeshard.Store) -> None:
        """Do what is to be cut short."""

    @abc.abstractmethod
    def judge(self, root: Path) -> str:
        """Look at what is left, with plain SQL, and return one of the outcomes.

        Raises:
            ViolationError: it is none of them.
        """

    @abc.abstractmethod
    def afterwards(self, outcome: str) -> list[Work]:
        """Return what is done next; each is done with a copy of what is left, and raises what is wrong with it."""

    def conclude(self, root: Path, outcome: str) -> None:  # noqa: B027
        """Check, with plain SQL, what is there after that and another power cut."""


@attrs.define
class Cuts:
    """Cuts a procedure short again and again, each time on a copy of the same simulated disk.

    Attributes:
        folder: for its files.
        procedure: the procedure.
        counts: how often each outcome was there.
        operations: how many operations the whole procedure takes.
        syncs: how many of them are syncs.
    """

    folder: Path
    procedure: Procedure
    counts: Counter[str] = attrs.Factory(Counter)
    operations: int = 0
    syncs: int = 0
    _disk: Disk = attrs.Factory(Disk)
    _places: int = 0

    def prepare(self) -> None:
        """Make the store, and measure the whole procedure.

        Raises:
            ViolationError: the procedure is wrong even if it is not cut short.
        """
        self._run(self._disk, self.procedure.prepare, random.Random(1), None)
        self._disk.sync()
        whole = self._play(copy.deepcopy(self._disk), self.procedure.act, random.Random(2), None)
        self.operations, self.syncs = whole.operations, whole.syncs
        self.check(Crash.POWER, None, 0)

    def cuts(self, most: int) -> Iterator[Cut]:
        """Yield about as many cuts as are wanted: at syncs, before and after them; at operations; and after the end."""
        for number in _spread(self.syncs, most * 4 // 10):
            yield Cut(number, at_sync=True, after=number % 2 == 0 or number == self.syncs)
        for number in _spread(self.operations, most * 4 // 10):
            yield Cut(number, at_sync=False)
        for _ in range(1 + most // 10):
            yield Cut(self.operations + 1, at_sync=False)

    def check(self, how: Crash, cut: Cut | None, seed: int) -> None:
        """Cut the procedure short once, and check what is left, and what comes after it.

        Raises:
            ViolationError: a promise was broken.
        """
        rng = random.Random(seed)
        disk = copy.deepcopy(self._disk)
        was_cut = self._run(disk, self.procedure.act, rng, cut)
        disk.crash(how, rng)
        with self._place(disk) as place:
            outcome = self.procedure.judge(place / ROOT)
        self.counts[outcome] += 1
        if not was_cut and outcome != self.procedure.outcomes[-1] and self.procedure.is_durable:
            raise ViolationError(f"it was not cut short, and left: {outcome}")
        if outcome not in self.procedure.outcomes:
            raise ViolationError(f"it left: {outcome}")
        for work in self.procedure.afterwards(outcome):
            left = copy.deepcopy(disk)
            self._run(left, work, rng, None)
            left.crash(Crash.POWER, rng)
            with self._place(left) as place:
                self.procedure.conclude(place / ROOT, outcome)

    # -- the machine --------------------------------------------------------------------------------------------------

    def _run(self, disk: Disk, work: Work, rng: random.Random, cut: Cut | None) -> bool:
        return self._play(disk, work, rng, cut).has_crashed

    def _play(self, disk: Disk, work: Work, rng: random.Random, cut: Cut | None) -> Scheduler:
        """Do work on a machine with the disk; return its scheduler."""
        scheduler = Scheduler(rng, 0.0, cut, _BEGAN_S + 100.0 * self._places)
        with self._place(disk) as place:
            machine = Machine(str(place), disk, scheduler, random.Random(rng.random()), f"boot {self._places}")
            with os_calls.running(machine), patched(list(self.procedure.patches)):
                actor = Actor("actor", [lambda: work(edgeshard.Store(place / ROOT))])
                scheduler.run([actor])
            if isinstance(actor.error, ViolationError):
                raise actor.error
            if actor.error is not None:
                raise ViolationError(f"it met {actor.error!r}") from actor.error
        return scheduler

    @contextlib.contextmanager
    def _place(self, disk: Disk) -> Iterator[Path]:
        place = self.folder / f"place{self._places}"
        self._places += 1
        disk.materialise(place)
        try:
            yield place
        finally:
            shutil.rmtree(place)


def _spread(last: int, most: int) -> list[int]:
    """Return at most so many numbers from 1 to `last`, evenly spread, these two among them."""
    if last <= most:
        return list(range(1, last + 1))
    return sorted({1 + round(k * (last - 1) / (most - 1)) for k in range(most)})
