"""Play the history of a store with a disk budget over the pure policy: writers, a merger, and rows that grow as they like.

Each file is a number. What the real store enforces by SQLite (a page beyond a quota is refused, a step of a merge that
outgrows its part is rolled back) is a comparison here. Nothing else is assumed: not how large a row becomes in the
master, nor who opens, closes, is killed or stays idle in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage

#: What a page of the master takes.
PAGE = 4096


class BrokenPromiseError(AssertionError):
    """The budget was exceeded, or the store is stuck, or rows were dropped in vain."""


@attrs.frozen
class Shard:
    """One shard: what its database holds, what its side files take, and its quota while it is open."""

    rows: int = 0
    unit: int = 1  # the size of its largest transaction, which is not divided
    free: int = 0
    wal: int = 0
    shm: int = 0
    is_open: bool = False
    quota: int = 0
    growth: int = 0
    wal_target: int = 0

    @property
    def file(self) -> int:
        """The size of the database."""
        return policy.EMPTY_SHARD_BYTES + self.rows + self.free

    @property
    def size(self) -> int:
        """The size of all its files."""
        return self.file + self.wal + self.shm

    @property
    def committed(self) -> int:
        """What it counts with."""
        least = policy.LEAST_SHARD_BYTES if self.is_open else 0
        return max(self.quota, least, int(self.file * policy.MASTER_GROWTH) + self.wal + self.shm)


@attrs.define
class Store:
    """A store with a budget.

    Attributes:
        budget: its budget.
        growth: returns how many times their size the next rows take in the master's file and in its WAL.
        current_rows: bytes in the master that may never be dropped.
    """

    budget: Budget
    growth: Callable[[], tuple[float, float]]
    shards: dict[int, Shard] = attrs.Factory(dict)
    has_master: bool = False
    rows: int = 0
    current_rows: int = 0
    wal: int = 0
    known: tuple[float, float] = (1.6, 1.6)
    noted: int = 0
    dropped: int = 0
    largest: int = 0
    other: int = 500
    pending: int = 0
    _size: int = 0
    _committed: int = 0
    _live: int = 0

    # -- the picture --------------------------------------------------------------------------------------------------

    @property
    def master(self) -> int:
        """The size of the master's files."""
        return policy.EMPTY_MASTER_BYTES + self.rows + self.current_rows + self.wal if self.has_master else 0

    def _count(self, shard: Shard, sign: int) -> None:
        self.pending += sign * shard.rows
        self._size += sign * shard.size
        self._committed += sign * shard.committed
        self._live += sign * shard.is_open

    def _change(self, number: int, **values: Any) -> Shard:
        """Put another state of a shard in its place."""
        before = self.shards.get(number)
        if before is not None:
            self._count(before, -1)
        self.shards[number] = shard = attrs.evolve(before or Shard(), **values)
        self._count(shard, 1)
        return shard

    def _remove(self, number: int) -> None:
        self._count(self.shards.pop(number), -1)

    def usage(self, *, without: Shard | None = None, sizes_only: bool = False) -> Usage:
        """What the store takes."""
        size, committed, live = self._size, self._committed, self._live
        if sizes_only:
            committed = sum(attrs.evolve(shard, quota=0).committed for shard in self.shards.values())
        if without is not None:
            size, committed, live = size - without.size, committed - without.committed, live - without.is_open
        largest = min(self.noted, max((shard.size for shard in self.shards.values()), default=0)) if self.noted else 0
        return Usage(size, committed - size, self.master, 0, self.other, 0, open=live, largest=largest)

    def check(self) -> None:
        """All files fit into the budget at this moment."""
        used = self.usage().used
        self.largest = max(self.largest, used)
        if used > self.budget.max_bytes:
            raise BrokenPromiseError(f"{used} bytes of {self.budget}")

    # -- writers ------------------------------------------------------------------------------------------------------

    def open(self, number: int) -> bool:
        """Open a shard; return False if that is refused."""
        if number in self.shards and self.shards[number].is_open:
            return True
        if not self._renew(number):
            return False
        self._change(number, is_open=True, shm=max(self.shards[number].shm, policy.SHM_BYTES))
        self.check()
        return True

    def _renew(self, number: int, needed: int = 0) -> bool:
        known = self.shards.get(number)
        shard = known or Shard()
        usage = self.usage(without=known)
        found = policy.writer_quota(self.budget, usage, shard.file, shard.wal, needed_bytes=needed)
        if found.growth_bytes > max(policy.large_transaction(self.budget), usage.largest):
            self.noted = found.growth_bytes
        if known is not None or found.total_bytes:
            quota, growth, target = found.total_bytes, found.growth_bytes, found.wal_bytes
            self._change(number, quota=quota, growth=growth, wal_target=target)
        return found.growth_bytes > 0

    def write(self, number: int, size: int) -> bool:
        """Write one transaction; return False if it is refused."""
        shard = self.shards[number]
        new = max(0, size - shard.free)
        if shard.quota == 0 or new > shard.growth:
            if not self._renew(number, new) or new > self.shards[number].growth:
                return False
            shard = self.shards[number]
        # all of the transaction is in the WAL before it is in the file; then the WAL is restarted, and cut
        full = max(shard.wal, shard.wal_target + new)
        shard = self._change(number, wal=full)
        self.check()
        free, rows = max(0, shard.free - size), shard.rows + size
        shard = self._change(number, free=free, rows=rows, growth=shard.growth - new, unit=max(shard.unit, size))
        self.check()
        if shard.size > shard.quota:
            raise BrokenPromiseError(f"{shard} exceeds its quota")
        self._change(number, wal=shard.wal_target)
        return True

    def idle(self) -> None:
        """So much time passes that no quota holds any more."""
        for number in list(self.shards):
            self._change(number, quota=0, growth=0)

    def close(self, number: int, *, killed: bool = False) -> None:
        """Close a shard, or kill its agent: then its side files stay."""
        shard = self.shards[number]
        sides = {"wal": shard.wal, "shm": shard.shm} if killed else {"wal": 0, "shm": 0}
        self._change(number, is_open=False, quota=0, growth=0, **sides)

    # -- the merger ---------------------------------------------------------------------------------------------------

    def merge(self) -> int:
        """Merge once; return how many bytes of the shards were merged."""
        if not self.has_master:
            self.has_master = True
            self.check()
        self._shrink_wals()
        self._drop()
        before = self.pending
        queue = [number for number, shard in self.shards.items() if shard.rows]
        while queue:
            closed = [number for number in queue if not self.shards[number].shm]
            attached = closed[: policy.side_files_max(self.budget, self.usage())]
            for number in attached:
                self._change(number, shm=policy.SHM_BYTES)
            self.check()
            moved = self._copy(queue[-1])
            for number in attached:
                self._change(number, shm=0)
            if not moved:  # once more, with no other shard
                before_shm = self.shards[queue[-1]].shm
                self._change(queue[-1], shm=policy.SHM_BYTES)
                self.check()
                moved = self._copy(queue[-1])
                self._change(queue[-1], shm=before_shm)
            if not self.shards[queue[-1]].rows:
                queue.pop()
            if not moved and not self._drop(for_merge=True):
                break
        for number, shard in list(self.shards.items()):
            if not shard.rows and not shard.is_open:
                self._remove(number)
        self._shrink_wals()
        # quotas that are in the way expire within half a second
        if policy.left_for_writers(self.budget, self.usage()) < policy.wanted_left(self.budget):
            self.idle()
        self._drop()
        return before - self.pending

    def _shrink_wals(self) -> None:
        if policy.left_for_writers(self.budget, self.usage(sizes_only=True)) < policy.wanted_left(self.budget):
            for number in list(self.shards):
                self._change(number, wal=0)

    def _copy(self, number: int) -> bool:
        """Copy a chunk of a shard, and truncate the shard; return False if there is no space for that."""
        in_wal, in_file = self.growth()
        shard = self.shards[number]
        while True:
            usage = self.usage()
            space = policy.left_for_merger(self.budget, usage)
            most = policy.chunk_bytes(self.budget, usage, 0, *self.known)
            if not most:
                self.known = (1.6, 1.6)  # what was assumed after refusals is no reason to refuse for good
                return False
            chunk = min(-(-most // shard.unit) * shard.unit, shard.rows)
            if chunk <= shard.unit:  # no more is promised for a single transaction
                in_wal, in_file = min(in_wal, policy.MASTER_GROWTH), min(in_file, policy.MASTER_GROWTH)
            wal = min(policy.COMMIT_BYTES + int(chunk * in_wal), space)
            file = int(chunk * in_file)
            if policy.COMMIT_BYTES + chunk * in_wal + file <= space and file <= space - policy.delete_bytes(
                self.budget
            ):
                break
            # rolled back: SQLite refused the page, or the WAL reached its bound
            self.wal = wal
            self.check()
            self.wal = 0
            self.known = (self.known[0] * 2, self.known[1] * 2)
        self.wal = wal
        self.check()
        self.rows += file
        self.check()
        self.wal = 0
        found = [max(1.0, new, (old + new) / 2) for old, new in zip(self.known, (in_wal, in_file), strict=True)]
        self.known = found[0], found[1]
        # the truncation writes to the shard's WAL, and then the file becomes shorter
        room = policy.left_for_merger(self.budget, self.usage())
        self._change(number, rows=shard.rows - chunk, free=shard.free + chunk, wal=shard.wal + min(room, PAGE))
        self.check()
        self._change(number, free=0, wal=shard.wal)
        return True

    def _drop(self, *, for_merge: bool = False) -> bool:
        if self.budget.on_full != "drop-oldest" or not self.has_master:
            return False
        usage = self.usage(sizes_only=not for_merge)
        wanted = policy.bytes_to_drop(self.budget, usage, self.rows, for_merge=for_merge)
        if not wanted:
            return False
        space = policy.left_for_merger(self.budget, self.usage())
        if space < policy.delete_bytes(self.budget):
            raise BrokenPromiseError(f"{space} bytes are left for deleting rows")
        self.wal = policy.delete_bytes(self.budget)
        self.check()
        self.wal = 0
        self.rows -= wanted
        self.dropped += wanted
        left = policy.left_for_writers(self.budget, self.usage(sizes_only=True))
        if not for_merge and left < policy.needed_left(usage):
            raise BrokenPromiseError(f"{wanted} bytes were dropped in vain: {left} are left")
        return True

    # -- promises -----------------------------------------------------------------------------------------------------

    def check_that_it_goes_on(self) -> None:
        """Whatever happened before: two merges merge something, and then a writer may write."""
        for _ in range(2):
            merged_before, dropped_before = self.pending, self.dropped
            self.merge()
            is_stuck = self.pending and self.pending == merged_before and self.dropped == dropped_before
            if is_stuck and not self.rows and not self.current_rows:
                raise BrokenPromiseError(f"a merge makes no progress: {self}")
        if self.budget.on_full == "error" or self.current_rows:
            return
        if self.pending:
            raise BrokenPromiseError(f"{self.pending} bytes stay in shards")
        fixed = sum(policy.shard_bytes(each.file, each.wal, 0) for each in self.shards.values())
        if fixed + policy.least_budget(1) > self.budget.max_bytes * 7 // 8:
            return  # the files of open shards fill the store: a minimum budget says so
        if self.budget.max_bytes < 1.25 * policy.least_budget(self._live + 1):
            return  # the least budget leaves no space for rows
        live = next((number for number, each in self.shards.items() if each.is_open), 10_000)
        if not self.open(live) or not self.write(live, 1_000):
            raise BrokenPromiseError(f"no write after two merges: {self}")


def play(seed: int, steps: int = 12) -> Store:
    """Play a random history; raise BrokenPromiseError if a promise is broken."""
    chance = random.Random(seed)
    agents = int(10 ** chance.uniform(0, 2.8))
    max_bytes = int(10 ** chance.uniform(6, 9))
    wildest = chance.choice([1.2, 2.0, 4.0])

    def growth() -> tuple[float, float]:
        return chance.uniform(0.8, 2 * wildest), chance.uniform(0.5, wildest)

    store = Store(Budget(max_bytes, chance.choice(policy.ON_FULL)), growth)
    style = chance.choice(["open", "cron", "mixed"])
    row = int(10 ** chance.uniform(1.5, 5))
    for _ in range(steps):
        chosen = chance.sample(range(agents), min(agents, chance.choice([1, 5, 20, 600])))
        size = max(row, chance.choice([1, policy.large_transaction(store.budget), max_bytes // len(chosen) // 4]))
        for number in chosen:
            if not store.open(number):
                continue
            for _ in range(chance.randrange(1, 8)):
                if not store.write(number, size):
                    break
            if style == "cron" or (style == "mixed" and chance.random() < 0.3):
                store.close(number, killed=chance.random() < 0.1)
        if chance.random() < 0.3:
            store.idle()
        if chance.random() < 0.5:
            store.merge()
    store.check_that_it_goes_on()
    return store
