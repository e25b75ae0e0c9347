"""Play the history of a store with a disk budget over the pure policy: writers, a merger, and rows that grow as they like.

Each file is a number. What the real store enforces by SQLite (a page beyond a quota is refused, a step of a merge that
outgrows its part is rolled back) is a comparison here. Nothing else is assumed: not how large a row becomes in the
master, nor who opens, closes, is killed or stays idle in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage

#: What a page of the master takes.
PAGE = 4096


class BrokenPromiseError(AssertionError):
    """The budget was exceeded, or the store is stuck, or rows were dropped in vain."""


@attrs.define
class Shard:
    """One shard: what its database holds, what its side files take, and its quota while it is open."""

    rows: int = 0
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
        return max(self.quota, int(self.file * policy.MASTER_GROWTH) + self.wal + self.shm)


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
    dropped: int = 0
    largest: int = 0
    other: int = 500

    # -- the picture --------------------------------------------------------------------------------------------------

    @property
    def master(self) -> int:
        """The size of the master's files."""
        return policy.EMPTY_MASTER_BYTES + self.rows + self.current_rows + self.wal if self.has_master else 0

    @property
    def pending(self) -> int:
        """The bytes in shards."""
        return sum(shard.rows for shard in self.shards.values())

    def usage(self, *, without: Shard | None = None, sizes_only: bool = False) -> Usage:
        """What the store takes."""
        counted = [shard for shard in self.shards.values() if shard is not without]
        shards = sum(shard.size for shard in counted)
        committed = sum(
            int(shard.file * policy.MASTER_GROWTH) + shard.wal + shard.shm if sizes_only else shard.committed
            for shard in counted
        )
        live = sum(shard.is_open for shard in counted)
        return Usage(shards, committed - shards, self.master, 0, self.other, 0, open=live)

    def check(self) -> None:
        """All files fit into the budget at this moment."""
        used = self.usage().used
        self.largest = max(self.largest, used)
        if used > self.budget.max_bytes:
            raise BrokenPromiseError(f"{used} bytes of {self.budget}")

    # -- writers ------------------------------------------------------------------------------------------------------

    def open(self, number: int) -> bool:
        """Open a shard; return False if that is refused."""
        shard = self.shards.get(number) or Shard()
        if shard.is_open:
            return True
        if not self._renew(shard):
            return False
        self.shards[number] = shard
        shard.is_open, shard.shm = True, max(shard.shm, policy.SHM_BYTES)
        self.check()
        return True

    def _renew(self, shard: Shard, wanted: int = policy.FIRST_GROWTH_BYTES) -> bool:
        usage = self.usage(without=shard)
        found = policy.writer_quota(self.budget, usage, shard.file, shard.wal, wanted)
        shard.quota, shard.growth, shard.wal_target = found.total_bytes, found.growth_bytes, found.wal_bytes
        return found.growth_bytes > 0

    def write(self, number: int, size: int) -> bool:
        """Write one transaction; return False if it is refused."""
        shard = self.shards[number]
        new = max(0, size - shard.free)
        if size > policy.largest_transaction(self.budget, self.usage(without=shard)):
            return False
        if (shard.quota == 0 or new > shard.growth or shard.wal > shard.wal_target) and not (
            self._renew(shard, max(new, policy.FIRST_GROWTH_BYTES)) and new <= shard.growth
        ):
            return False
        # all of the transaction is in the WAL before it is in the file
        shard.wal = max(shard.wal, min(shard.wal_target, shard.wal + size) if new == 0 else new + shard.wal_target)
        self.check()
        shard.free, shard.rows, shard.growth = max(0, shard.free - size), shard.rows + size, shard.growth - new
        self.check()
        if shard.size > shard.quota > 0:
            raise BrokenPromiseError(f"shard {shard} exceeds its quota")
        shard.wal = min(shard.wal, shard.wal_target)  # restarted, and cut
        return True

    def idle(self) -> None:
        """So much time passes that no quota holds any more."""
        for shard in self.shards.values():
            shard.quota = shard.growth = 0

    def close(self, number: int, *, killed: bool = False) -> None:
        """Close a shard, or kill its agent: then its side files stay."""
        shard = self.shards[number]
        shard.is_open, shard.quota, shard.growth = False, 0, 0
        if not killed:
            shard.wal = shard.shm = 0

    # -- the merger ---------------------------------------------------------------------------------------------------

    def merge(self) -> int:
        """Merge once; return how many bytes of the shards were merged."""
        if not self.has_master:
            self.has_master = True
            self.check()
        self._drop()
        before = self.pending
        while self.pending:
            group = [each for each in self.shards.values() if each.rows]
            closed = [each for each in group if not each.shm]
            attached = closed[: policy.side_files_max(self.budget, self.usage())]
            for shard in attached:
                shard.shm = policy.SHM_BYTES
            self.check()
            source = next((each for each in group if each.is_open), None) or group[0]
            moved = self._copy(source)
            for shard in attached:
                shard.shm = 0
            if not moved and not self._drop(for_merge=True):
                break
        for number, shard in list(self.shards.items()):
            if not shard.rows and not shard.is_open:
                del self.shards[number]
        # quotas that are in the way expire within half a second
        if policy.left_for_writers(self.budget, self.usage()) < policy.wanted_left(self.budget):
            self.idle()
        self._drop()
        return before - self.pending

    def _copy(self, shard: Shard) -> bool:
        """Copy a chunk of a shard, and truncate the shard; return False if there is no space for that."""
        in_wal, in_file = self.growth()
        while True:
            usage = self.usage()
            space = policy.left_for_merger(self.budget, usage)
            most = policy.chunk_bytes(self.budget, usage, 0, *self.known)
            if not most:
                return False
            chunk = min(most, shard.rows)
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
        self.known = tuple(max(1.0, new, (old + new) / 2) for old, new in zip(self.known, (in_wal, in_file)))  # type: ignore[assignment]
        shard.rows, shard.free = shard.rows - chunk, shard.free + chunk
        room = policy.left_for_merger(self.budget, self.usage())
        wal = shard.wal
        shard.wal += min(room, PAGE)
        self.check()
        shard.free = 0
        shard.wal = wal
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
        if not for_merge and left < policy.LEAST_SHARD_BYTES:
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
        live = next((number for number, each in self.shards.items() if each.is_open), 10_000)
        if not self.open(live) or not self.write(live, 1_000):
            raise BrokenPromiseError(f"no write after two merges: {self}")


def play(seed: int, steps: int = 60) -> Store:
    """Play a random history; raise BrokenPromiseError if a promise is broken."""
    chance = random.Random(seed)
    agents = int(10 ** chance.uniform(0, 2.8))
    max_bytes = int(max(policy.MIN_BUDGET_BYTES, 10 ** chance.uniform(6, 9)))
    wildest = chance.choice([1.2, 2.0, 4.0])

    def growth() -> tuple[float, float]:
        return chance.uniform(0.8, 2 * wildest), chance.uniform(0.5, wildest)

    store = Store(Budget(max_bytes, chance.choice(policy.ON_FULL)), growth)
    if chance.random() < 0.2:
        store.current_rows = 0
    style = chance.choice(["open", "cron", "mixed", "fill"])
    row = int(10 ** chance.uniform(1.5, 5))
    for _ in range(steps):
        for number in chance.sample(range(agents), min(agents, chance.choice([1, 5, 20, 600]))):
            if not store.open(number):
                continue
            writes = 10_000 if style == "fill" and chance.random() < 0.5 else chance.randrange(1, 30)
            size = min(max(row, max_bytes // 200 if style == "fill" else 1), 4 << 20)
            for _ in range(writes):
                if not store.write(number, size):
                    break
            if style == "cron" or (style == "mixed" and chance.random() < 0.3):
                store.close(number, killed=chance.random() < 0.1)
        if chance.random() < 0.3:
            store.idle()
        if style != "fill" or chance.random() < 0.3:
            store.merge()
        if chance.random() < 0.1:
            attrs.evolve(store, shards={n: attrs.evolve(s) for n, s in store.shards.items()}).check_that_it_goes_on()
    store.check_that_it_goes_on()
    return store
