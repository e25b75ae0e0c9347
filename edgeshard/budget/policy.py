"""The disk budget as one picture, and the few pure functions that follow from it.

    |<------------------------------------- max_bytes -------------------------------------->|
    +----------------------------+------------------------------+-----------------+----------+
    | files                      | quotas                       | left            | reserve  |
    +----------------------------+------------------------------+-----------------+----------+
      all files of the store       what open shards may still     for the writer    for the
                                   add to their files             that asks next    merger alone

* A *quota* is what an open shard's files may grow to: its database, its WAL and its -shm. It counts whole, whether it
  is used or not. A writer takes one from what is left, under a lock, before it writes; SQLite refuses a page beyond it.
  It holds for `LEASE_S`, and is renewed by writing. An idle shard counts with its files, and at least with
  `LEAST_SHARD_BYTES` as long as it is open: what is open goes on, and what does not fit is not opened.
* The *reserve* is the merger's quota. It is always there, for a master that has yet to be made as well, and its size
  depends on the budget alone. A chunk goes into the master's WAL, and then into its file; half of the reserve is still
  free after that, for deleting rows from a full master. As long as nothing is left for writers, each step of a merge
  fits into it.
* No merge divides a writer's transaction. So a *large transaction*, for which the reserve would not do, enlarges the
  reserve, as long as any shard may hold it (`transaction_reserve`).
* A row may take more space in the master than in its shard, so each byte in a shard's database counts `MASTER_GROWTH`
  times. Whatever takes more than that comes out of the reserve, and then nothing is left for writers. A transaction
  whose rows take more than that counts as if it were larger in its shard (`weight`).

Four things follow. `tests/property/test_budget_policy.py` plays them through, with rows that grow as they like:

1. The files never exceed the budget: each of them grows only within a quota, and all quotas fit together.
2. A merge makes progress: at least one half of the reserve is free after any chunk, so rows can still be deleted; and a
   chunk has all that is free, less that half.
3. With "drop-oldest" a merge ends with space for writers, if deleting rows of the master can make any.
4. Rows are dropped only if enough of them can be dropped for a writer to go on, and no more than that takes.

Free pages of the master count as used. If little is left for writers, a merge and a prune give back as many as they
lack (`bytes_to_give_back`), whatever `on_full` says: that deletes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import attrs

from edgeshard import units
from edgeshard.errors import quoted

OnFull = Literal["error", "drop-oldest"]

ON_FULL: Final[tuple[OnFull, ...]] = get_args(OnFull)

#: The smallest budget, in bytes, and the largest: a million TB, which fits into every number that is stored of it.
MIN_BUDGET_BYTES: Final = 1_000_000
MAX_BUDGET_BYTES: Final = 10**18

#: The reserve: a part of the budget, within these bounds in bytes.
RESERVE_PART, MIN_RESERVE_BYTES, MAX_RESERVE_BYTES = 8, 384 << 10, 32 << 20

#: What a master without rows takes, with its -shm: 163,840 and 32,768 bytes (measured), and two pages more.
EMPTY_MASTER_BYTES: Final = 200 << 10

#: A shard without rows (10,240 bytes, measured), and the -shm file of any database; it grows by 8 bytes per page.
EMPTY_SHARD_BYTES, SHM_BYTES, SHM_PART = 10 << 10, 32 << 10, 64

#: A shard's WAL: a part of the budget for all open shards together, and the bounds of one, in bytes.
WALS_PART, MIN_WAL_BYTES, MAX_WAL_BYTES = 10, 32 << 10, 4 << 20

#: How many times the size of a shard's database counts: its rows may take that much in the master. Some take more, such
#: as those of keyed tables with a history, and rows of a little over 2 kB, which have a page of 4 kB for themselves.
MASTER_GROWTH: Final = 1.25

#: How long a quota holds, in seconds. Its owner renews it after that time, and others count it for twice that time.
LEASE_S: Final = 0.25

#: By how much the database of a shard may grow until its quota is renewed: the least, and the first, in bytes.
MIN_GROWTH_BYTES, FIRST_GROWTH_BYTES = 8 << 10, 32 << 10

#: What a commit of the master writes to its WAL besides rows, in bytes.
COMMIT_BYTES: Final = 128 << 10

#: What a merge takes besides, for a transaction: that, and the -shm that SQLite makes next to a closed shard.
FIXED_BYTES: Final = COMMIT_BYTES + SHM_BYTES

#: A merge leaves at least this part of the budget for writers, if free pages of the master or, with "drop-oldest", rows
#: make that much space. If it must make space for that, it leaves half as much again.
LEFT_PART: Final = 8

#: What is left free on the file system for others: a part of the budget, and the most, in bytes.
FREE_PART, MAX_FREE_BYTES = 20, 64 << 20


@attrs.frozen
class Budget:
    """A store's disk budget.

    Attributes:
        max_bytes: the size of all files of the store together, in bytes.
        on_full: "error" refuses writes, and merges for which no space is left; "drop-oldest" deletes the oldest rows of
            the master to make space.
    """

    max_bytes: int
    on_full: OnFull = "error"


@attrs.frozen
class Usage:
    """What a store takes, in bytes.

    Attributes:
        shards: the shards and their side files.
        promised: what shards take beyond that: the rest of their quotas, and what their rows may take in the master.
        master: the master and its side files.
        merging: what a merger that works may let the master grow to; 0 if none works.
        other: the other files of the store, except for the reserve's.
        reserve: the file that holds the reserve.
        free: free space of the file system.
        open: the number of open shards.
        largest: the largest transaction that some shard may hold, if one may hold a large one.
        wanted: the transaction that a writer was refused since the last merge, if there may be space for it.
    """

    shards: int = 0
    promised: int = 0
    master: int = 0
    merging: int = 0
    other: int = 0
    reserve: int = 0
    free: int = 1 << 62
    open: int = 0
    largest: int = 0
    wanted: int = 0

    @property
    def used(self) -> int:
        """The size of all files of the store, except for the reserve's."""
        return self.shards + self.master + self.other


@attrs.frozen
class WriterQuota:
    """What one open shard may take.

    Attributes:
        growth_bytes: by how much its database may grow; 0 if it must not be written to.
        wal_bytes: the size its WAL should have.
        total_bytes: what its files may take together.
    """

    growth_bytes: int
    wal_bytes: int
    total_bytes: int


# -- the picture ------------------------------------------------------------------------------------------------------


def reserve_bytes(budget: Budget) -> int:
    """Return the size of the reserve."""
    return max(MIN_RESERVE_BYTES, min(MAX_RESERVE_BYTES, budget.max_bytes // RESERVE_PART))


def set_aside(budget: Budget, usage: Usage) -> int:
    """Return the size of the reserve, enlarged for large transactions, and of a master that has yet to be made."""
    for_transactions = transaction_reserve(budget, usage.largest)
    return reserve_bytes(budget) + for_transactions + max(0, EMPTY_MASTER_BYTES - usage.master)


def transaction_reserve(budget: Budget, transaction_bytes: int) -> int:
    """Return by how much a transaction enlarges the reserve: a merge puts it into the master's WAL, then its file."""
    return max(0, int(2 * MASTER_GROWTH * transaction_bytes) + FIXED_BYTES - reserve_bytes(budget))


def large_transaction(budget: Budget) -> int:
    """Return by how much a transaction may enlarge a shard without enlarging the reserve."""
    return int((reserve_bytes(budget) - FIXED_BYTES) / 2 / MASTER_GROWTH)


def weight(shard_bytes: int, master_bytes: int) -> float:
    """Return how many times its size in its shard a transaction counts that takes so much there, and in the master."""
    return max(1.0, master_bytes / MASTER_GROWTH / max(1, shard_bytes))


def current_limit(budget: Budget, usage: Usage) -> int:
    """Return what the store may use now: its budget, or less if the file system has too little free space."""
    kept_free = min(budget.max_bytes // FREE_PART, MAX_FREE_BYTES)
    return max(0, min(budget.max_bytes, usage.used + usage.reserve + usage.free - kept_free))


def left_for_writers(budget: Budget, usage: Usage) -> int:
    """Return how many bytes writers may still ask for; negative if the reserve is not whole."""
    merger = max(usage.master + set_aside(budget, usage), usage.merging)
    return current_limit(budget, usage) - merger - usage.shards - usage.promised - usage.other


def left_for_merger(budget: Budget, usage: Usage) -> int:
    """Return by how much a merge may enlarge the store: by the reserve, and half of what is left for writers."""
    # the file of the reserve makes way for it, if need be
    limit = min(budget.max_bytes, usage.used + usage.reserve + usage.free)
    free = limit - usage.used - usage.promised
    return max(0, free - max(0, free - set_aside(budget, usage)) // 2)


def shard_bytes(file_bytes: int, wal_bytes: int, growth_bytes: int) -> int:
    """Return what an open shard may take whose database grows by so much, perhaps in one transaction."""
    wal = wal_bytes + growth_bytes
    return int((file_bytes + growth_bytes) * MASTER_GROWTH) + wal + SHM_BYTES + wal // SHM_PART


def least_budget(open_shards: int) -> int:
    """Return the least budget with which so many agents can write at the same time to a store without rows.

    Below it, opening one shard more is refused, and what is open goes on.
    """
    rest = EMPTY_MASTER_BYTES + open_shards * LEAST_SHARD_BYTES
    least = max(rest + MIN_RESERVE_BYTES, min(rest + MAX_RESERVE_BYTES, -(-rest * RESERVE_PART // (RESERVE_PART - 1))))
    return max(MIN_BUDGET_BYTES, least)


#: What an open shard takes at least, rounded up to whole pages of a shard.
LEAST_SHARD_BYTES: Final = -(-shard_bytes(EMPTY_SHARD_BYTES, MIN_WAL_BYTES, MIN_GROWTH_BYTES) // 1024) * 1024


# -- writers ----------------------------------------------------------------------------------------------------------


def writer_quota(
    budget: Budget,
    usage: Usage,
    file_bytes: int,
    wal_bytes: int = 0,
    wanted_bytes: int = FIRST_GROWTH_BYTES,
    needed_bytes: int = 0,
) -> WriterQuota:
    """Return what an open shard may take.

    Args:
        budget: the store's.
        usage: what the store takes without this shard.
        file_bytes: the size of its database.
        wal_bytes: what its WAL takes now, which may be more than it should: a long read keeps it.
        wanted_bytes: by how much it should grow. Once little is left it gets less, so that others get some as well.
        needed_bytes: by how much it must grow for one transaction; it gets more than for one that is not large only if
            it needs that.
    """
    left = left_for_writers(budget, usage)
    share = min(budget.max_bytes // WALS_PART // (usage.open + 1), max(0, left) // 8)
    wal = max(MIN_WAL_BYTES, min(MAX_WAL_BYTES, share))
    fixed = shard_bytes(file_bytes, max(wal, wal_bytes), 0)
    most = _largest_growth(budget, usage, left - fixed, is_large=needed_bytes > large_transaction(budget))
    if most < MIN_GROWTH_BYTES:
        return WriterQuota(0, wal, 0)
    # a quarter of the rest: others get some as well, and a large transaction takes few steps
    fair = max(MIN_GROWTH_BYTES, needed_bytes + (most - needed_bytes) // 4)
    growth = min(most, max(needed_bytes, min(wanted_bytes, fair)))
    return WriterQuota(growth, wal, shard_bytes(file_bytes, max(wal, wal_bytes), growth))


def _largest_growth(budget: Budget, usage: Usage, left: int, *, is_large: bool) -> int:
    """Return by how much a database may grow if so many bytes are left for that."""
    # each byte is in the database, perhaps in the WAL as well, and in the -shm
    growth_cost = MASTER_GROWTH + 1 + 1 / SHM_PART
    is_for_free = max(large_transaction(budget), usage.largest)
    most = min(int(left / growth_cost) - 1, is_for_free)
    if is_large and most == is_for_free:
        left_for_reserve = left + transaction_reserve(budget, usage.largest) + reserve_bytes(budget) - FIXED_BYTES
        most = max(most, int(left_for_reserve / (growth_cost + 2 * MASTER_GROWTH)) - 1)
    return most


def largest_transaction(budget: Budget, usage: Usage) -> int:
    """Return by how much one transaction may enlarge a shard that has hardly any rows: what a merge can copy."""
    left = left_for_writers(budget, usage) - shard_bytes(EMPTY_SHARD_BYTES, MIN_WAL_BYTES, 0)
    return max(0, _largest_growth(budget, usage, left, is_large=True))


def wanted_transaction(budget: Budget, usage: Usage, refused_bytes: int) -> int:
    """Return for what a merge should make space after a transaction was refused that is at least this large; 0: none.

    Its writer does not know how large it would have become. A transaction that does not even fit once all rows are
    dropped is no reason to drop any, or to give free pages back.
    """
    most = largest_transaction(budget, attrs.evolve(usage, master=min(usage.master, EMPTY_MASTER_BYTES)))
    if refused_bytes > most:
        return 0
    return min(2 * refused_bytes, most)


def is_nearly_full(budget: Budget, usage: Usage, *, was_warned: bool) -> bool:
    """Return whether writers will soon be refused; after a warning, until clearly more is left for them."""
    return left_for_writers(budget, usage) < wanted_left(budget) * (2 if was_warned else 1)


def is_full(budget: Budget, usage: Usage) -> bool:
    """Return whether no further shard can be opened."""
    return left_for_writers(budget, usage) < LEAST_SHARD_BYTES


def is_refused(budget: Budget, usage: Usage, file_bytes: int) -> bool:
    """Return whether the writer of a shard that is there is refused to write; `usage` is without that shard."""
    return writer_quota(budget, usage, file_bytes).total_bytes == 0


# -- the merger -------------------------------------------------------------------------------------------------------


def chunk_bytes(budget: Budget, usage: Usage, free_pages: int, wal_growth: float, file_growth: float) -> int:
    """Return how many bytes one transaction of a merge may copy; 0 if there is no space for any.

    Args:
        budget: the store's.
        usage: what the store takes.
        free_pages: free space inside the master's file, in bytes.
        wal_growth: how many times their size in a shard rows take in the master's WAL.
        file_growth: how many times they take in the master's file.
    """
    step = left_for_merger(budget, usage)
    both = (step - COMMIT_BYTES + free_pages) / (wal_growth + file_growth)
    file = (step - delete_bytes(budget) + free_pages) / file_growth
    return max(0, int(min((step - COMMIT_BYTES) / wal_growth, both, file)))


def delete_bytes(budget: Budget) -> int:
    """Return the half of the reserve that is free after any chunk, so that rows can be deleted."""
    return reserve_bytes(budget) // 2


def is_truncation_urgent(budget: Budget, usage: Usage) -> bool:
    """Return whether a merge should truncate the shards after each chunk."""
    return left_for_merger(budget, usage) < 4 * reserve_bytes(budget)


def side_files_max(budget: Budget, usage: Usage) -> int:
    """Return how many closed shards a merge may read at once: SQLite makes a -shm file next to each."""
    return max(1, left_for_merger(budget, usage) // 4 // SHM_BYTES)


def needed_left(usage: Usage) -> int:
    """Return what must be left for some writer to go on: one that is open already has most of its least quota."""
    return LEAST_SHARD_BYTES // 2 if usage.open else LEAST_SHARD_BYTES


# -- making space for writers -----------------------------------------------------------------------------------------


def wanted_left(budget: Budget, transaction_bytes: int = 0) -> int:
    """Return what a merge leaves for writers if it can make any space, also for a transaction of that size."""
    least = max(budget.max_bytes // LEFT_PART, LEAST_SHARD_BYTES + MIN_GROWTH_BYTES)
    if not transaction_bytes:
        return least
    file_and_wal = shard_bytes(EMPTY_SHARD_BYTES, MIN_WAL_BYTES, transaction_bytes)
    return max(least, file_and_wal + transaction_reserve(budget, transaction_bytes))


def _more_left(budget: Budget) -> int:
    """Return what a merge that makes space leaves besides, so that the next one need not make space again."""
    return wanted_left(budget) // 2


def bytes_to_give_back(budget: Budget, usage: Usage, free_pages: int) -> int:
    """Return how many bytes of the master's free pages to give back to the disk; 0 if enough is left for writers.

    Free pages count as used, and only a merge can fill them. Giving them back deletes nothing, so it does not depend on
    `Budget.on_full`.

    Args:
        budget: the store's.
        usage: what the store takes.
        free_pages: free space inside the master's file, in bytes.
    """
    left = left_for_writers(budget, attrs.evolve(usage, merging=0))
    wanted = wanted_left(budget, usage.wanted)
    if left >= wanted:
        return 0
    return min(free_pages, wanted + _more_left(budget) - left)


def bytes_to_drop(budget: Budget, usage: Usage, droppable_bytes: int, *, for_merge: bool = False) -> int:
    """Return by how many bytes the master should shrink; 0 if it should not, or if that would be in vain.

    Args:
        budget: the store's.
        usage: what the store takes.
        droppable_bytes: what the rows of the master take that may be dropped.
        for_merge: whether the merger has no space for a chunk, whatever writers have.
    """
    left = left_for_writers(budget, attrs.evolve(usage, merging=0))
    wanted = wanted_left(budget, usage.wanted)
    if left >= wanted and not for_merge:
        return 0
    least = needed_left(usage) - left
    if for_merge:
        # rows of the shards will take the place of the dropped ones: any that are merged make space in their shard
        least = delete_bytes(budget) + COMMIT_BYTES - left_for_merger(budget, usage)
    if droppable_bytes < max(1, least):
        return 0
    more = _more_left(budget)
    return min(droppable_bytes, max(wanted + more - left, more))


def agents_with_few_rows(rows: Mapping[str, int]) -> tuple[str, ...]:
    """Return the agents that lose no rows as long as others have some to lose: those that fill the store lose first.

    They have less than half of an even share.

    Args:
        rows: how many rows each agent has in the master.
    """
    even_share = sum(rows.values()) / max(1, len(rows))
    return tuple(sorted(agent for agent, count in rows.items() if 2 * count < even_share))


# -- parsing and printing ---------------------------------------------------------------------------------------------


def parse_json(value: Any) -> Budget:
    """Return the budget that ``budget.json`` records.

    Raises:
        ValueError: it is not a budget.
    """
    if not isinstance(value, dict) or value.keys() != {"max_bytes", "on_full"}:
        raise ValueError("expected an object with max_bytes and on_full, and nothing else")
    return parse_budget(value["max_bytes"], value["on_full"])


def parse_budget(max_bytes: int, on_full: str) -> Budget:
    """Return the budget with these values.

    Raises:
        ValueError: one of them is invalid.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < MIN_BUDGET_BYTES:
        raise ValueError(f"max_bytes must be at least {units.size(MIN_BUDGET_BYTES)}, got {quoted(max_bytes)}")
    if max_bytes > MAX_BUDGET_BYTES:
        raise ValueError(f"max_bytes must be at most {units.size(MAX_BUDGET_BYTES)}, got {quoted(max_bytes)}")
    for known in ON_FULL:
        if known == on_full:
            return Budget(max_bytes, known)
    raise ValueError(f"on_full must be one of {', '.join(map(repr, ON_FULL))}, got {quoted(on_full)}")


def describe_usage(budget: Budget, usage: Usage) -> str:
    """Return a sentence for a person: the limit, and what uses how much."""
    limit = current_limit(budget, usage)
    text = (
        f"the store uses {units.size(usage.used)} (shards {units.size(usage.shards)}, master "
        f"{units.size(usage.master)}) of {units.size(limit)}; {units.size(usage.promised)} more are promised to "
        f"{units.count(usage.open, 'open shard')} and pending rows, and {units.size(reserve_bytes(budget))} are "
        "reserved for merging"
    )
    if limit < budget.max_bytes:
        free, max_bytes = units.size(usage.free), units.size(budget.max_bytes)
        text += f"; the budget is {max_bytes}, but the file system has only {free} free"
    return text
