"""How a store's disk budget is divided between writers and merger, as pure values and functions over them.

`edgeshard.shard.quota.Quota` (a writer) and `edgeshard.merge.quota.MergeQuota` (the merger) ask these functions.

The *limit* is the disk budget (``max_bytes``), or less if the file system has less free space than that. A merged row
is on the disk up to four times for a moment: in its shard, in the shard's WAL, in the master's WAL, and in the master.
So the limit is divided::

    |<--------------------------------------- limit --------------------------------------->|
    +----------------------------+------------------+------------------+-----------------------+
    | used: shards, master, WALs | growth from WALs | left for writers | merge reserve         |
    +----------------------------+------------------+------------------+-----------------------+
                                                                       | overshoot|drops|chunk |

* *growth from WALs*: what is in the shards' WALs is also going to be added to their files.
* *left for writers*: shared among all writers. A writer cannot ask the others before each write, so it takes a *quota*:
  it may add so many bytes until it measures the store again. Quotas are small after a quiet time, are at most half of
  an even share, and expire before the store can grow by `OVERSHOOT_SHARE`. So all quotas together exceed what is left
  for writers only by little.
* *merge reserve*: never given to writers, or a merge could not drain what they wrote. Its three parts have fixed sizes,
  so that none relies on another being unused:

  1. *overshoot*: what writers may add beyond what was left for them, between two measurements. Never part of a quota.
  2. *drops*: the WAL of a prune that drops rows because the store is full (`drop_reserve`). Not given to a merge.
  3. *chunk*: one chunk of a merge, in the master's WAL and then in its file; enough for the smallest chunk.

A merge copies a chunk only if it leaves the first two parts free (`merge_quota`). It also uses what is left for
writers, but at most the half that is in no writer's quota. The truncation of a shard writes within the same quota: it
begins once the chunk is in the master's file and the master's WAL is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import attrs

OnFull = Literal["error", "drop-oldest"]

ON_FULL: Final[tuple[OnFull, ...]] = get_args(OnFull)

#: The smallest budget, in bytes.
MIN_BUDGET_BYTES: Final = 1_000_000

#: The merge reserve as a fraction of the limit. If the limit is small, the reserve is up to this many bytes, but no
#: more than the second fraction.
MERGE_RESERVE_SHARE, MERGE_RESERVE_SHARE_MAX, MERGE_RESERVE_BYTES = 0.12, 0.25, 1_000_000

#: The WALs of all shards together, and of one shard, as fractions of the limit; and the bounds of one WAL, in bytes.
WALS_SHARE, ONE_WAL_SHARE, MIN_WAL_BYTES, MAX_WAL_BYTES = 0.10, 0.05, 48 << 10, 4 << 20

#: The size that a shard's WAL may have at first, as a fraction of the limit.
FIRST_WAL_SHARE: Final = 0.001

#: Warn when less than the first fraction of the limit is left for writers; warn again only after more than the second
#: was left.
WARN_SHARE, WARN_AGAIN_SHARE = 0.08, 0.18

#: Above this used fraction of the limit, shards are truncated after each chunk of a merge.
URGENT_SHARE: Final = 0.4

#: With "drop-oldest": drop rows once less than this fraction of the limit is left for writers, until the second is.
DROP_SHARE, DROP_UNTIL_SHARE = 0.10, 0.18

#: A writer's first quota after a quiet time, and its smallest one, in bytes.
FIRST_QUOTA_BYTES, MIN_QUOTA_BYTES = 64 << 10, 4 << 10

#: How long a quota lasts, in seconds: the longest time, the shortest if little is left for writers ...
QUOTA_MAX_S, QUOTA_NEAR_LIMIT_S = 1.0, 0.1

#: ... and as long as the store takes to grow by this fraction of its limit; but never shorter than this.
OVERSHOOT_SHARE, QUOTA_MIN_S = 0.02, 0.02

#: The smallest chunk of a merge, in bytes; the assumed growth of rows from shard to master before it is measured, and
#: the factor by which more is assumed than was measured.
MIN_CHUNK_BYTES, FIRST_GROWTH, GROWTH_MARGIN = 64 << 10, 1.6, 1.2

#: How many times its size the smallest chunk needs, in WAL and file together, at the first growth.
MIN_CHUNK_GROWTH: Final = 2 * FIRST_GROWTH

#: How large the master's WAL may become in a merge, as a fraction of the limit and in bytes ...
MASTER_WAL_SHARE, MASTER_WAL_MIN_BYTES, MASTER_WAL_MAX_BYTES = 0.04, 256 << 10, 32 << 20

#: ... and in a prune. The drop reserve is that many of these: the WAL, one more transaction of that size, and remains.
PRUNE_WAL_SHARE, PRUNE_WAL_MIN_BYTES, PRUNE_WALS = 0.02, 64 << 10, 3

#: An agent has few rows if it has less than this fraction of an even share of all rows.
FEW_ROWS_SHARE: Final = 0.5

#: What the limit leaves free on the file system for others: a fraction of the budget, at most this many bytes.
_FREE_SHARE, _FREE_MAX_BYTES = 0.05, 64 << 20


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
    """The size of a store's files, in bytes.

    Attributes:
        shards: the shards without their WALs.
        wals: the WALs of the shards.
        master: the master and its WAL.
        free: free space of the file system.
        open: the number of shards that have a WAL: an agent has them open, or died.
        active: the number of these that were written to just now.
    """

    shards: int = 0
    wals: int = 0
    master: int = 0
    free: int = 1 << 62
    open: int = 0
    active: int = 0

    @property
    def used(self) -> int:
        """The size of all files of the store."""
        return self.shards + self.wals + self.master


@attrs.frozen
class WriterQuota:
    """What one writer may add until it measures the store again.

    Attributes:
        left_for_writers: how many bytes all writers together may add.
        row_bytes: how many bytes this writer may add outside a transaction.
        transaction_bytes: how many it may add inside a transaction, which would be rolled back whole.
        wal_bytes: the size its WAL should have.
        renew_after_s: when to measure again, in seconds.
    """

    left_for_writers: int
    row_bytes: int
    transaction_bytes: int
    wal_bytes: int
    renew_after_s: float


# -- the parts of the limit -------------------------------------------------------------------------------------------


def current_limit(budget: Budget, usage: Usage) -> int:
    """Return what the store may use now: its budget, or less if the file system has too little free space."""
    kept_free = min(int(budget.max_bytes * _FREE_SHARE), _FREE_MAX_BYTES)
    return max(0, min(budget.max_bytes, usage.used + usage.free - kept_free))


def left_for_writers(limit: int, usage: Usage) -> int:
    """Return how many bytes all writers may add to their files; negative if they have exceeded that already."""
    return limit - merge_reserve(limit) - usage.used - _growth_from_wals(limit, usage)


def merge_reserve(limit: int) -> int:
    """Return how many bytes are kept for merging.

    They suffice for the smallest chunk even if writers added a little more than was left for them.
    """
    needed = drop_reserve(limit) + 2 * _overshoot(limit) + MIN_CHUNK_GROWTH * MIN_CHUNK_BYTES
    return int(max(limit * MERGE_RESERVE_SHARE, min(limit * MERGE_RESERVE_SHARE_MAX, MERGE_RESERVE_BYTES), needed))


def drop_reserve(limit: int) -> int:
    """Return how large the master's WAL may become while rows are dropped."""
    return PRUNE_WALS * prune_wal_bytes(limit)


def _overshoot(limit: int) -> int:
    return int(OVERSHOOT_SHARE * limit)


def _growth_from_wals(limit: int, usage: Usage) -> int:
    """Return what the shards' WALs hold, or soon will. A long read keeps them longer than wanted."""
    return max(usage.wals, _wanted_wals(limit, usage))


def _wanted_wals(limit: int, usage: Usage) -> int:
    return shard_wal_bytes(limit, usage.open) * usage.open


# -- writers ----------------------------------------------------------------------------------------------------------


def shard_wal_bytes(limit: int, open_shards: int) -> int:
    """Return how large the WAL of one of this many open shards should become."""
    wanted = min(limit * WALS_SHARE / max(1, open_shards), limit * ONE_WAL_SHARE)
    return max(MIN_WAL_BYTES, min(MAX_WAL_BYTES, int(wanted)))


def writer_quota(limit: int, usage: Usage, added_bytes: int, wal_bytes: int, growth_rate: float = 0.0) -> WriterQuota:
    """Return what a writer may add.

    Args:
        limit: what the store may use.
        usage: what it uses.
        added_bytes: what this writer added since it last measured.
        wal_bytes: how large its WAL could become until now. It may become twice as large: the first of many writers
            does not know how many there will be.
        growth_rate: how fast the store grew since then, in bytes per second.
    """
    left = max(0, left_for_writers(limit, usage))
    even_share = left // 2 // max(1, usage.active)
    least = MIN_QUOTA_BYTES if left >= MIN_QUOTA_BYTES else 0
    row_bytes = max(least, min(even_share, max(FIRST_QUOTA_BYTES, 2 * added_bytes)))
    renew_after_s = max(QUOTA_NEAR_LIMIT_S, min(QUOTA_MAX_S, 2 * left / max(1, limit)))
    renew_after_s = max(QUOTA_MIN_S, min(renew_after_s, OVERSHOOT_SHARE * limit / max(1.0, growth_rate)))
    wal_most = max(MIN_WAL_BYTES, int(limit * FIRST_WAL_SHARE), 2 * wal_bytes)
    return WriterQuota(
        left_for_writers=left,
        row_bytes=row_bytes,
        transaction_bytes=max(row_bytes, even_share),
        wal_bytes=min(shard_wal_bytes(limit, usage.open), wal_most),
        renew_after_s=renew_after_s,
    )


def is_nearly_full(limit: int, usage: Usage, *, was_warned: bool) -> bool:
    """Return whether writers will soon be refused; after a warning, until clearly more is left for them."""
    return left_for_writers(limit, usage) < limit * (WARN_AGAIN_SHARE if was_warned else WARN_SHARE)


# -- the merger -------------------------------------------------------------------------------------------------------


def merge_quota(limit: int, usage: Usage) -> int:
    """Return by how many bytes a merge may enlarge the store while writers use up their quotas; may be negative.

    The drop reserve stays free: rows can still be dropped after a merge that used all of this.
    """
    return max_merge_quota(limit, usage) - max(0, left_for_writers(limit, usage)) // 2


def max_merge_quota(limit: int, usage: Usage) -> int:
    """Return by how many bytes a writer's transaction may enlarge the store in a merge; may be negative.

    This is more than `merge_quota`, because a transaction is not divided and must not wait forever. It may include what
    writers have in their quotas.
    """
    return left_for_writers(limit, usage) + merge_reserve(limit) - drop_reserve(limit) - _overshoot(limit)


def chunk_bytes(quota: int, free: int, wal_growth: float, file_growth: float) -> int:
    """Return how many bytes one transaction of a merge may copy: it needs space in the WAL, and then in the file.

    Args:
        quota: `merge_quota`.
        free: free space inside the master's file.
        wal_growth: how many times their size in a shard rows take in the master's WAL.
        file_growth: how many times they take in the master's file.
    """
    return max(0, int(min(quota / wal_growth, (quota + free) / (wal_growth + file_growth))))


def master_wal_bytes(limit: int) -> int:
    """Return how large the master's WAL becomes before a merge checkpoints it."""
    return max(MASTER_WAL_MIN_BYTES, min(MASTER_WAL_MAX_BYTES, int(limit * MASTER_WAL_SHARE)))


def prune_wal_bytes(limit: int) -> int:
    """Return how large the master's WAL becomes before a prune checkpoints it.

    It is less than for a merge, because a prune may run on a full store.
    """
    return max(PRUNE_WAL_MIN_BYTES, int(limit * PRUNE_WAL_SHARE))


def is_truncation_urgent(limit: int, usage: Usage) -> bool:
    """Return whether a merge should truncate the shards after each chunk."""
    return usage.used > URGENT_SHARE * limit


# -- dropping rows ----------------------------------------------------------------------------------------------------


def is_drop_due(limit: int, usage: Usage) -> bool:
    """Return whether to drop rows now, before nothing at all is left for writers."""
    return left_for_writers(limit, _with_wanted_wals(limit, usage)) < DROP_SHARE * limit


def bytes_to_drop(limit: int, usage: Usage) -> int:
    """Return by how many bytes the master should shrink, if rows may be dropped."""
    return max(0, int(DROP_UNTIL_SHARE * limit) - left_for_writers(limit, _with_wanted_wals(limit, usage)))


def _with_wanted_wals(limit: int, usage: Usage) -> Usage:
    """Assume that no WAL is longer than it should be: no row is dropped because of a long read."""
    return attrs.evolve(usage, wals=min(usage.wals, _wanted_wals(limit, usage)))


def agents_with_few_rows(rows: Mapping[str, int]) -> tuple[str, ...]:
    """Return the agents that lose no rows as long as others have some to lose: those that fill the store lose first.

    Args:
        rows: how many rows each agent has in the master.
    """
    even_share = sum(rows.values()) / max(1, len(rows))
    return tuple(sorted(agent for agent, count in rows.items() if count < FEW_ROWS_SHARE * even_share))


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
        raise ValueError(f"max_bytes must be at least {MIN_BUDGET_BYTES} bytes, got {max_bytes!r}")
    for known in ON_FULL:
        if known == on_full:
            return Budget(max_bytes, known)
    raise ValueError(f"on_full must be one of {', '.join(map(repr, ON_FULL))}, got {on_full!r}")


def describe_usage(limit: int, budget: Budget, usage: Usage) -> str:
    """Return a sentence for a person: the limit, and what uses how much."""
    text = (
        f"the store uses {_megabytes(usage.used)} (shards {_megabytes(usage.shards)}, their WALs "
        f"{_megabytes(usage.wals)}, master {_megabytes(usage.master)}) of {_megabytes(limit)}, of which "
        f"{_megabytes(merge_reserve(limit))} are reserved for merging"
    )
    if limit < budget.max_bytes:
        free, max_bytes = _megabytes(usage.free), _megabytes(budget.max_bytes)
        text += f"; the budget is {max_bytes}, but the file system has only {free} free"
    return text


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
