"""Cut the power, or kill, at each operation of a restore: the old or the new master is there, and no row is unnamed."""

from __future__ import annotations

import contextlib
import copy
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

import edgeshard
from edgeshard.merge.locks import merge_lock
from edgeshard.merge.merger import Merger
from tests.crash.powercut import os_calls
from tests.crash.powercut.contents import ViolationError, look, record_of
from tests.crash.powercut.disk import Crash, Disk
from tests.crash.powercut.machine import Machine
from tests.crash.powercut.scheduler import Actor, Cut, Scheduler
from tests.crash.powercut.trial import ROOT
from tests.support.stores import contradictions

_BEGAN_S = 1_800_000_000.0

#: The rows of the snapshot, those that shards brought after it and that were removed, those that a live shard brought,
#: and those that are pending.
OLDER, REMOVED, TRUNCATED, PENDING = range(1, 6), range(6, 12), range(12, 15), range(15, 18)

_ALL = {*OLDER, *REMOVED, *TRUNCATED, *PENDING}


@attrs.define
class Restores:
    """A store with a snapshot, on a simulated disk that is copied for each restore.

    Attributes:
        folder: for its files.
        disk: the disk before a restore.
        counts: how often each outcome was there.
    """

    folder: Path
    disk: Disk = attrs.Factory(Disk)
    counts: Counter[str] = attrs.Factory(Counter)
    _places: int = 0

    def prepare(self) -> None:
        """Make the store: its master has commits in its WAL, as if its merger was killed."""

        def work(store: edgeshard.Store) -> None:
            _write(store, "ann", OLDER)
            store.merge()
            store.snapshot(store.root / "older.db")
            _write(store, "ann", REMOVED)
            store.merge()
            with store.shard("bob", durability="power") as shard:
                shard.write_many(map(record_of, TRUNCATED))
                _merge_and_leave_the_wal(store)
                shard.write_many(map(record_of, PENDING))

        self.run(self.disk, work, random.Random(1), None)

    def check(self, how: Crash, cut: Cut, seed: int) -> bool:
        """Cut one restore short, check what is left, and restore again; return whether it was cut short.

        Raises:
            ViolationError: a promise was broken.
        """
        rng = random.Random(seed)
        disk = copy.deepcopy(self.disk)

        def restore(store: edgeshard.Store) -> None:
            store.restore(store.root / "older.db")

        was_cut = self.run(disk, restore, rng, cut)
        disk.crash(how, rng)
        old = {*OLDER, *REMOVED, *TRUNCATED}
        found = self._numbers(disk)
        if found not in (old, set(OLDER)):
            raise ViolationError(f"the master has {sorted(found)}: neither the old nor the new one")
        self.counts["new master" if found == set(OLDER) else "old master"] += 1
        disk_of_merge = copy.deepcopy(disk)
        self.run(disk_of_merge, self._merge_and_account, rng, None)
        self.run(disk, restore, rng, None)
        if self._numbers(disk) != set(OLDER):
            raise ViolationError("a second restore did not put the snapshot in place")
        self.run(disk, self._merge_and_account, rng, None)
        return was_cut

    def _merge_and_account(self, store: edgeshard.Store) -> None:
        """Merge, and check that each row is there or named, and that the master is sound."""
        first, second = store.merge(), store.merge()
        report = store.verify(deep=True)
        if contradictions(report) or first.quarantined or second.rows:
            raise ViolationError(f"{contradictions(report)}, {first.quarantined}, {second.rows}")
        held = self._held(store)
        if report.states.total != len(_ALL) or held | self._named(store, report) != _ALL:
            raise ViolationError(f"the master has {sorted(held)}, and names {report.gaps}")

    @staticmethod
    def _held(store: edgeshard.Store) -> set[int]:
        return set(look(store.root).master or {})

    @staticmethod
    def _named(store: edgeshard.Store, report: edgeshard.VerifyReport) -> set[int]:
        """Return the rows in the gaps: each agent wrote its rows in order, and all of a stream at once."""
        firsts = {"ann": [*OLDER, *REMOVED], "bob": [*TRUNCATED, *PENDING]}
        if report.states.missing != sum(map(len, report.gaps)):
            raise ViolationError(f"{report.states} and {report.gaps}")
        named: set[int] = set()
        for gap in report.gaps:
            numbers = REMOVED if gap.agent == "ann" else firsts[gap.agent]
            named |= {numbers[seq - 1] for seq in range(gap.first, gap.last + 1)}
        return named

    # -- the machine --------------------------------------------------------------------------------------------------

    def run(self, disk: Disk, work: Callable[[edgeshard.Store], None], rng: random.Random, cut: Cut | None) -> bool:
        """Run work on a machine with the disk; return whether it was cut short."""
        scheduler = Scheduler(rng, 0.0, cut, _BEGAN_S + 100.0 * self._places)
        with self._place(disk) as place:
            machine = Machine(str(place), disk, scheduler, random.Random(rng.random()), f"boot {self._places}")
            with os_calls.running(machine):
                actor = Actor("restorer", [lambda: work(edgeshard.Store(place / ROOT))])
                scheduler.run([actor])
            if actor.error is not None:
                raise ViolationError(f"it met {actor.error!r}") from actor.error
        return scheduler.has_crashed

    @contextlib.contextmanager
    def _place(self, disk: Disk) -> Iterator[Path]:
        place = self.folder / f"place{self._places}"
        self._places += 1
        disk.materialise(place)
        try:
            yield place
        finally:
            shutil.rmtree(place)

    def _numbers(self, disk: Disk) -> set[int]:
        with self._place(disk) as place:
            return set(look(place / ROOT).master or {})


def _write(store: edgeshard.Store, agent: str, numbers: range) -> None:
    with store.shard(agent, durability="power") as shard:
        shard.write_many(map(record_of, numbers))


def _merge_and_leave_the_wal(store: edgeshard.Store) -> None:
    held = merge_lock(store.root, 0.0, lambda: False)
    assert held is not None
    merger = Merger(store.root, watching=True)
    merger.run()
    merger.run()
    merger.abandon()
    held.release()
