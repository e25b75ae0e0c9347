"""One writer's share of its store's disk budget: `Quota` measures the store, and asks budget/policy what it may add.

A write costs nothing extra. SQLite itself refuses a page beyond the writer's quota (``max_page_count``), and its commit
hook reports how long the WAL is. About once a second, and whenever something was refused, the writer measures the whole
store and renews its quota (`edgeshard.budget.policy.writer_quota`). A row that was refused because the quota was used
up is then tried once more: nothing of it had reached the disk, so it is the same row at the same address.

A `Handle` calls its quota:

* when the shard is opened (`start`)
* at each upkeep (`renew`, `ensure_wal_may_grow`)
* when a transaction has begun (`allow_transaction`)
* when SQLite refused a write (`renew`, `allows_writes`, `allow_one_row`, `is_wal_untouched`, `refusal`)

No method keeps the connection: its hook refers to the quota, and a cycle would keep a dropped handle open.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage, WriterQuota
from edgeshard.budget.usage import load_budget, measure
from edgeshard.errors import DiskBudgetError
from edgeshard.master import write_stats
from edgeshard.master.write_stats import WriterMeter
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard")

#: The least time between two measurements, however often a write is refused, in seconds.
_LEAST_INTERVAL_S: Final = 0.01

#: How long a writer waits for a reader of its WAL to end, if there is no space for a longer WAL, in seconds.
_WAL_WAIT_S: Final = 0.25

#: What a new shard takes at once, with its side files, in bytes.
_NEW_SHARD_BYTES: Final = 128 << 10

_NEXT_STEPS: Final = {
    "error": "Nothing of this was written; merge, prune or push and prune, or raise the budget, and write it again",
    "drop-oldest": "Nothing of this was written; a merge drops the oldest rows of the master to make space, but never "
    "rows of a table with a key: write it again",
}


@attrs.frozen
class Measurement:
    """What a store takes at one moment, and what a writer may therefore add.

    Attributes:
        budget: the store's budget.
        usage: what the store takes.
        limit: what it may take, in bytes.
        share: what the writer that measured may add.
    """

    budget: Budget
    usage: Usage
    limit: int
    share: WriterQuota


def _measure(root: Path, fallback: Budget, share_of: Callable[[int, Usage], WriterQuota]) -> Measurement:
    """Measure a store.

    Args:
        root: its folder.
        fallback: its budget, if none is recorded in the folder any more.
        share_of: the writer's share, given the limit and the usage.

    Raises:
        AccessError, StorageIOError: the folder cannot be read.
        ConfigurationError: what is recorded is not a budget.
    """
    budget, usage = load_budget(root) or fallback, measure(root)
    limit = policy.current_limit(budget, usage)
    return Measurement(budget, usage, limit, share_of(limit, usage))


def _first_share(limit: int, usage: Usage) -> WriterQuota:
    return policy.writer_quota(limit, usage, 0, 0)


def _refusal(action: str, path: str | os.PathLike[str], found: Measurement) -> DiskBudgetError:
    usage = found.usage
    text = (
        f"{policy.describe_usage(found.limit, found.budget, usage)}; one write may add "
        f"{found.share.transaction_bytes} bytes. {_NEXT_STEPS[found.budget.on_full]}"
    )
    return DiskBudgetError(action, path, text, usage.used, found.limit, usage.shards + usage.wals, usage.master)


def ensure_space_for_shard(root: Path, budget: Budget, path: Path) -> None:
    """Refuse to make a new shard if there is no space for one.

    Args:
        root: the store's folder.
        budget: its budget, if none is recorded there any more.
        path: the new shard, for the error.

    Raises:
        DiskBudgetError: there is no space.
        As `Quota`.
    """
    found = _measure(root, budget, _first_share)
    if found.share.left_for_writers < _NEW_SHARD_BYTES:
        raise _refusal("make shard", path, found)


class Quota:
    """How much one open shard may add to its store; measures the store at once.

    Args:
        root: the store's folder.
        budget: its budget, if none is recorded there any more.
        path: the shard, for errors.

    Attributes:
        renew_at: when to call `renew` next, by the monotonic clock.

    Raises:
        AccessError, StorageIOError: the store cannot be measured.
        ConfigurationError: what is recorded is not a budget.
    """

    def __init__(self, root: Path, budget: Budget, path: str | os.PathLike[str]) -> None:
        self._root = root
        self._path = path
        self._measured = _measure(root, budget, _first_share)
        self._measured_at = monotonic()
        self.renew_at = 0.0
        self._is_nearly_full = False  # and was warned about
        self._pages = 0  # of the file, at the last measurement
        self._page_bytes = 1
        self._wal_pages = 0  # in the WAL now
        self._wal_target = 0  # how many the WAL should have
        self._wal_tolerated = 0  # from how many on the writer does its upkeep before it writes more
        self._pages_logged = 0  # how many the connection had written to the WAL by the last commit
        self._meter: WriterMeter | None = None
        self._check_soon: Callable[[], Callable[[], None] | None] = lambda: None

    def start(
        self, connection: Connection, meter: WriterMeter, check_soon: weakref.WeakMethod[Callable[[], None]]
    ) -> None:
        """Take over the shard's connection: until the first upkeep the file may not grow.

        Args:
            connection: the shard's.
            meter: counts the bytes that a checkpoint of the WAL writes.
            check_soon: has the handle do its upkeep before the next write; a weak reference, see above.
        """
        self._meter, self._check_soon = meter, check_soon
        self._page_bytes = int(connection.pragma("page_size"))
        self._pages = int(connection.pragma("page_count"))
        self._allow(connection, self._pages, 0)
        self._limit_wal(connection)
        connection.set_wal_hook(self._after_commit)  # replaces wal_autocheckpoint

    # -- what the file may take ---------------------------------------------------------------------------------------

    @property
    def allows_writes(self) -> bool:
        """Whether the writer may add anything."""
        return self._measured.share.row_bytes > 0

    def renew(self, connection: Connection, *, in_transaction: bool) -> None:
        """Measure the store, and renew the quota; allow more in a transaction, which would be undone as a whole."""
        now = monotonic()
        # a program that tries again and again must not keep the merger from making space
        if self.allows_writes or now >= self._measured_at + _LEAST_INTERVAL_S:
            self._measure_again(connection, now)
        share = self._measured.share
        self._allow(connection, self._pages, share.transaction_bytes if in_transaction else share.row_bytes)
        self.renew_at = self._measured_at + share.renew_after_s

    def _measure_again(self, connection: Connection, now: float) -> None:
        before, elapsed_s, self._measured_at = self._measured, now - self._measured_at, now
        pages = int(connection.pragma("page_count"))
        added_bytes, self._pages = max(0, pages - self._pages) * self._page_bytes, pages

        def share_of(limit: int, usage: Usage) -> WriterQuota:
            rate = max(0, usage.used - before.usage.used) / max(elapsed_s, _LEAST_INTERVAL_S)
            return policy.writer_quota(limit, usage, added_bytes, before.share.wal_bytes, rate)

        self._measured = _measure(self._root, before.budget, share_of)
        if self._measured.share.wal_bytes != before.share.wal_bytes:
            self._limit_wal(connection)
        self._warn_once()

    def _warn_once(self) -> None:
        found, was_warned = self._measured, self._is_nearly_full
        self._is_nearly_full = policy.is_nearly_full(found.limit, found.usage, was_warned=was_warned)
        if self._is_nearly_full and not was_warned:
            logger.warning(
                "%s is nearly full: %s", self._root, policy.describe_usage(found.limit, found.budget, found.usage)
            )

    def allow_transaction(self, connection: Connection) -> None:
        """Allow more for a transaction that has just begun: if the quota ran out, the whole block would be undone."""
        self._allow(connection, int(connection.pragma("page_count")), self._measured.share.transaction_bytes)

    def allow_one_row(self, connection: Connection) -> None:
        """Allow more for one row, which may be larger than what many rows may add."""
        self._allow(connection, self._pages, self._measured.share.transaction_bytes)

    def allow_rows(self, connection: Connection) -> None:
        """Go back to the normal quota."""
        self._allow(connection, self._pages, self._measured.share.row_bytes)

    def _allow(self, connection: Connection, pages: int, added_bytes: int) -> None:
        connection.pragma("max_page_count", max(1, pages + added_bytes // self._page_bytes))

    # -- the WAL ------------------------------------------------------------------------------------------------------

    def _after_commit(self, connection: Connection, _: str, pages: int) -> int:
        """Checkpoint the WAL once it has its target size; SQLite calls this after each commit."""
        self._wal_pages, self._pages_logged = pages, sqlite.wal_pages_written(connection)
        if pages >= self._wal_target:
            # if a merger does it, the merger counts the bytes
            with write_stats.counted() as count, contextlib.suppress(*sqlite.BUSY):  # a merger is doing it already
                sqlite.checkpoint_in_hook(connection)
            if self._meter is not None:
                self._meter.add(count.bytes)
            if pages >= self._wal_tolerated:
                self._request_upkeep()
        return 0

    def _request_upkeep(self) -> None:
        check_soon = self._check_soon()
        if check_soon is not None:
            check_soon()

    def _limit_wal(self, connection: Connection) -> None:
        self._wal_target = self._measured.share.wal_bytes // self._page_bytes
        self._wal_tolerated = max(self._wal_target, self._wal_pages) + self._wal_target // 4
        connection.pragma("journal_size_limit", self._measured.share.wal_bytes)

    def ensure_wal_may_grow(self, connection: Connection, *, in_transaction: bool) -> None:
        """Refuse to write to a WAL that cannot be restarted, and for which there is no more space.

        Raises:
            DiskBudgetError: that is the case.
        """
        if self._wal_pages < self._wal_tolerated:
            return
        if self._measured.share.left_for_writers > 2 * self._measured.share.wal_bytes:
            self._wal_tolerated = self._wal_pages + self._wal_target // 4
            return
        if not in_transaction and self._restart_wal(connection):
            self._wal_tolerated, self._wal_pages = self._wal_target + self._wal_target // 4, 0
            return
        self._request_upkeep()
        raise self.refusal()

    def _restart_wal(self, connection: Connection) -> bool:
        """Have the next commit begin the WAL from its start; return False if a reader needs it for long."""
        sqlite.set_busy_timeout(connection, _WAL_WAIT_S)
        try:
            sqlite.restart_wal(connection)
        except sqlite.BUSY:
            return False
        finally:
            sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)
        return True

    def is_wal_untouched(self, connection: Connection) -> bool:
        """Return whether nothing was written to the WAL since the last commit."""
        return sqlite.wal_pages_written(connection) == self._pages_logged

    # -- refusals -----------------------------------------------------------------------------------------------------

    @property
    def is_disk_full(self) -> bool:
        """Whether the file system itself has no space, because of files outside the store."""
        return self._measured.usage.free < policy.MIN_QUOTA_BYTES

    def refusal(self) -> DiskBudgetError:
        """Return the error of a write for which there is no space."""
        return _refusal("write to shard", self._path, self._measured)
