"""Play a trial: use a store and crash, four times in a row; then merge and judge what is left."""

from __future__ import annotations

import contextlib
import gc
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

import edgeshard
from edgeshard.format import blocks
from edgeshard.master import arrivals, database
from edgeshard.merge import chunk, locks, truncate
from edgeshard.retention import plan, shrink
from edgeshard.shard import wal_limit
from edgeshard.sources import attach
from tests.crash.powercut import os_calls, workload
from tests.crash.powercut.contents import Found, ViolationError, look
from tests.crash.powercut.disk import Crash, Disk
from tests.crash.powercut.machine import Logged, Machine, Patch, patched
from tests.crash.powercut.oracle import Oracle
from tests.crash.powercut.scheduler import Actor, Cut, Scheduler
from tests.crash.powercut.workload import Stage
from tests.support.stores import contradictions

CRASHES = 4
#: Where the store is; edgeshard makes the folders that lead there.
ROOT = "srv/data"
_BEGAN_S = 1_800_000_000.0


@attrs.frozen
class Settings:
    """Settings of a trial.

    Attributes:
        keep_empty: whether mergers keep the shards of ended agents.
        has_merge_lock: whether mergers lock each other out.
        switch_chance: the probability that another actor continues after a step.
        kills: whether individual actors are killed as well.
        restores: whether an older master is put back now and then.
        prunes: whether the master is pruned and shrunk.
        limits: edgeshard's own sizes, made small.
    """

    keep_empty: bool
    has_merge_lock: bool
    switch_chance: float
    kills: bool
    restores: bool
    prunes: bool
    limits: tuple[tuple[Any, str, int], ...]

    @classmethod
    def draw(cls, rng: random.Random, prunes: random.Random) -> Settings:
        """Draw settings; those of prunes come from a separate generator, so that trials without prunes stay the same."""
        cuts = random.Random(str(rng.getstate()))  # draws nothing from the others, so that those stay the same
        limits = (
            (blocks, "CHUNK_BYTES", rng.choice((200, 2_000, blocks.CHUNK_BYTES))),
            (attach, "GROUP_SIZE", rng.choice((1, 2, attach.GROUP_SIZE))),
            (truncate, "_DELETE_ROWS", rng.choice((1, 2, truncate._DELETE_ROWS))),
            (truncate, "_PUT_BACK_ROWS", rng.choice((0, 2, truncate._PUT_BACK_ROWS))),
            (truncate, "_LONG_WAL_BYTES", long := rng.choice((0, 8_000, truncate._LONG_WAL_BYTES))),
            (truncate, "_LONG_WAL_BYTES_WITHIN_BUDGET", min(long, truncate._LONG_WAL_BYTES_WITHIN_BUDGET)),
            (truncate, "_DEAD_BYTES", rng.choice((0, truncate._DEAD_BYTES))),
            (wal_limit, "LEAST_BYTES_AT_POWER", rng.choice((3_072, 20_480, wal_limit.LEAST_BYTES_AT_POWER))),
            (truncate, "_SHRINK_BYTES", rng.choice((1, 4_000, truncate._SHRINK_BYTES))),
            (wal_limit, "LEAST_BYTES", rng.choice((3_072, 20_480, wal_limit.LEAST_BYTES))),
            (wal_limit, "KEPT_BYTES", rng.choice((0, 4_000, wal_limit.KEPT_BYTES))),
            (database, "CHECKPOINT_BYTES", rng.choice((12_288, 122_880, database.CHECKPOINT_BYTES))),
            (wal_limit, "MOST_BYTES", 0),  # so that writers checkpoint
            (truncate, "_CUT_WAL_BYTES", cuts.choice((0, 8_000, truncate._CUT_WAL_BYTES))),
            (database, "_WAL_BYTES", rng.choice((0, 20_000, database._WAL_BYTES))),
            (plan, "FIRST_ROWS", prunes.choice((1, 3, plan.FIRST_ROWS))),
            (plan, "MIN_ROWS", 1),
            (plan, "MAX_ROWS", prunes.choice((1, 4, plan.MAX_ROWS))),
            (shrink, "FIRST_PAGES", 1),
            (shrink, "MIN_PAGES", 1),
            (shrink, "MAX_PAGES", prunes.choice((1, 3, shrink.MAX_PAGES))),
        )
        return cls(
            keep_empty=rng.random() < 0.5,
            has_merge_lock=rng.random() < 0.5,
            switch_chance=rng.choice((0.01, 0.05, 0.2, 0.6)),
            kills=rng.random() < 0.4,
            restores=rng.random() < 0.3,
            prunes=prunes.random() < 0.4,
            limits=limits,
        )


def _close(handle: edgeshard.Shard) -> None:
    try:
        handle.close()
    except edgeshard.ShardPoisonedError as error:  # it misses what it wrote
        raise ViolationError(str(error)) from error


class Trial:
    """A trial and its outcome.

    Args:
        seed: what replays it.
        folder: the folder for its files.

    Attributes:
        seed: what replays it.
        log: all changes of the disk.
        counts: how often each event happened.
        violation: which promise was broken, or "".
        details: where the violation was found.
    """

    def __init__(self, seed: str, folder: Path) -> None:
        self.seed = seed
        self.log: list[Logged] = []
        self.counts: Counter[str] = Counter()
        self.violation = ""
        self.details = ""
        self._folder = folder
        self._rng = random.Random(seed)
        self._disk = Disk()
        self._oracle = Oracle()
        self._prune_rng = random.Random(f"{seed} prune")
        self._key_rng = random.Random(f"{seed} key")
        self._is_keyed = self._key_rng.random() < 0.5
        self.settings = Settings.draw(self._rng, self._prune_rng)
        self._now_s = _BEGAN_S
        self._boot = 0
        self._places = 0
        self._copies: dict[str, frozenset[int]] = {}

    def play(self) -> None:
        """Play the trial to its end, or to the first violation."""
        try:
            for _ in range(CRASHES):
                self._stretch()
            self._end()
        except ViolationError as error:
            self.violation = str(error)
            self.details = "".join(traceback.format_exception(error))
        self.counts.update(self._oracle.counts)
        self.counts["trials"] += 1
        self.counts["violations"] += bool(self.violation)
        self.counts["operations"] += len(self.log)

    # -- between two crashes ------------------------------------------------------------------------------------------

    def _stretch(self) -> None:
        how = self._rng.choice((Crash.KILL, Crash.POWER, Crash.TORN))
        scheduler = Scheduler(self._rng, self.settings.switch_chance, self._draw_cut(), self._now_s)
        with self._machine(scheduler) as (stage, place):
            self._run(scheduler, workload.cast(stage, kills=self.settings.kills))
        self._copies.update(stage.snapshots)
        self.counts["actors killed alone"] += scheduler.killed
        self.counts[f"cuts: {how.value}"] += 1
        self.counts["cuts in the midst of work"] += scheduler.has_crashed
        self.counts["bytes unsynced at cuts"] += self._disk.unsynced_bytes()
        shutil.rmtree(place)
        self._disk.crash(how, self._rng)
        self._boot += how is not Crash.KILL
        self._oracle.judge(self._look(), how)
        if self.settings.restores and self._copies and self._rng.random() < 0.5:
            self._restore()

    def _draw_cut(self) -> Cut:
        if self._rng.random() < 0.5:
            return Cut(self._rng.randint(1, 80), at_sync=True, after=self._rng.random() < 0.5)
        return Cut(self._rng.randint(1, 500), at_sync=False)

    @contextlib.contextmanager
    def _machine(self, scheduler: Scheduler) -> Iterator[tuple[Stage, Path]]:
        """Yield a machine with the disk; after the block it is no longer used."""
        place = self._place()
        made = Machine(str(place), self._disk, scheduler, random.Random(self._rng.random()), f"boot {self._boot}")
        stage = Stage(
            edgeshard.Store(place / ROOT),
            self._oracle,
            self._rng,
            scheduler,
            self.counts,
            self.settings.keep_empty,
            self._prune_rng if self.settings.prunes else None,
            self._key_rng if self._is_keyed else None,
        )
        patches: list[Patch] = [
            *self.settings.limits,
            (chunk, "commit_chunk", workload.collecting(stage, chunk.commit_chunk)),
            *workload.watching_prunes(stage),
        ]
        if self._is_keyed and self.settings.prunes:
            patches.append((arrivals, "RESOLUTION_S", 1))  # a trial lasts for a minute or two
        if not self.settings.has_merge_lock:
            patches.append((locks, "merge_lock", workload.no_merge_lock))
        with os_calls.running(made), patched(patches), patched(workload.failpoints(stage)):
            yield stage, place
            for handle in stage.left_open:
                _close(handle)
            gc.collect(0)
        self.log += made.log
        self._now_s = scheduler.now_s + 10.0

    def _run(self, scheduler: Scheduler, actors: list[Actor]) -> None:
        scheduler.run(actors)
        for actor in actors:
            if actor.error is not None:
                raise ViolationError(f"{actor.name} met {actor.error!r}") from actor.error

    def _place(self) -> Path:
        place = self._folder / f"place{self._places}"
        self._places += 1
        self._disk.materialise(place)
        return place

    def _look(self) -> Found:
        place = self._place()
        try:
            return look(place / ROOT)
        finally:
            shutil.rmtree(place)

    # -- an older master ----------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Put a copy of the master back, as the README says."""
        name = self._rng.choice(sorted(self._copies))
        copy = self._disk.find(f"{ROOT}/{name}")
        if copy is None:
            raise ViolationError(f"a finished snapshot, {name}, is gone")
        self._disk.put_back(f"{ROOT}/{name}", f"{ROOT}/master.db")
        found = self._look()
        missing = self._copies[name] - self._oracle.held(found).keys()
        if missing:
            raise ViolationError(f"rows {sorted(missing)} were in the master, and are not in its snapshot {name}")
        self._oracle.restored(found)
        self.counts["masters restored"] += 1

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        scheduler = Scheduler(self._rng, 0.0, None, self._now_s)
        with self._machine(scheduler) as (stage, place):
            reports: list[Any] = []

            def merge_all() -> None:
                stage.commits["last"] = set()
                stage.store.init()  # the power may have been cut before any agent had made it
                reports.extend(stage.store.merge(keep_empty=True) for _ in range(2))
                reports.append(stage.store.verify())

            self._run(scheduler, [Actor("last", [merge_all])])
        shutil.rmtree(place)
        first, second, verified = reports
        for report in (first, second):
            if report.quarantined:
                raise ViolationError(f"set aside: {report.quarantined}")
        if second.rows:
            raise ViolationError(f"a second merge copied {second.rows} rows")
        if found := contradictions(verified):
            raise ViolationError(f"verify finds {found}")
        self._oracle.conclude(self._look(), verified.gaps)
