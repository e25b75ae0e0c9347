"""One writer's quota of its store's disk budget: `Quota` takes it, keeps within it, and gives it back.

A write costs nothing extra. SQLite itself refuses a page beyond the quota (``max_page_count``), and its commit hook
reports how long the WAL is. A quota holds for a quarter of a second: then, and whenever something was refused, the
writer renews it, which usually means to write its record again; if it needs more, it measures the whole store
(`edgeshard.budget.policy.writer_quota`). A row that was refused because the quota was used up is then tried once more:
nothing of it had reached the disk, so it is the same row at the same address.

A `Handle` calls its quota:

* before the shard is made or opened (the constructor), and then once (`start`)
* at each upkeep (`renew`, `ensure_wal_may_grow`)
* when a transaction begins and ends (`hold`, `let_go`), and before each of its rows (`guard`, `make_space`)
* when SQLite refused a row outside a transaction (`make_space`)
* when a write failed for good (`renew`, `is_wal_untouched`, `refusal`)

No method keeps the connection: its hook refers to the quota, and a cycle would keep a dropped handle open.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final

import attrs

from edgeshard import sqlite, units
from edgeshard.budget import policy, reserve
from edgeshard.budget.policy import Budget, Usage, WriterQuota
from edgeshard.budget.quotas import QuotaRecord
from edgeshard.budget.usage import load_budget, measure
from edgeshard.errors import DiskBudgetError, StorageError
from edgeshard.files import fingerprint, paths
from edgeshard.log_fields import fields
from edgeshard.master import write_stats
from edgeshard.master.write_stats import WriterMeter
from edgeshard.shard.inserts import RecordWriter
from edgeshard.shard.row_sizes import RowSizes
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard")

#: The least time between two measurements of a writer that is refused again and again: in seconds, and how many times
#: what one takes, waiting for others included. So many refused writers leave time for those that have a quota.
_LEAST_INTERVAL_S, _INTERVAL_PART = 0.01, 10

#: How long a writer waits for a reader of its WAL to end, if there is no space for a longer WAL, in seconds.
_WAL_WAIT_S: Final = 0.25

#: The store is measured at least this often while its owner writes, so that it learns of a new budget, in seconds.
_MEASURE_S: Final = 1.0

#: How long the opening of a shard waits for quotas that others do not use any more, in seconds, and how often it looks.
_OPEN_WAIT_S, _OPEN_POLL_S = 6 * policy.LEASE_S, 0.05

#: How many pages a row may add besides its own: inner pages of the table that are split, and a page of pointers.
_TREE_PAGES: Final = 4

#: How much of its size in the quota the WAL has when it is checkpointed, and when the writer waits for it.
_CHECKPOINT_PART, _WAIT_PART = 0.625, 0.75

_NEXT_STEPS: Final = {
    "error": "Nothing of this was written; merge, prune or push and prune, or raise the budget, and write it again",
    "drop-oldest": "Nothing of this was written; a merge drops the oldest rows of the master to make space, but never "
    "rows of a table with a key: write it again",
}

_CLOSED: Final = WriterQuota(0, policy.MIN_WAL_BYTES, 0)


class Quota:
    """How large one open shard may become; takes a first quota at once.

    Args:
        root: the store's folder.
        budget: its budget, if none is recorded there any more.
        path: the shard; it need not exist yet.

    Attributes:
        renew_at: when to call `renew` next, by the monotonic clock.

    Raises:
        AccessError, StorageIOError: the store cannot be measured.
        ConfigurationError: what is recorded is not a budget.
        DiskBudgetError: the budget has no space for another open shard.
    """

    def __init__(self, root: Path, budget: Budget, path: Path) -> None:
        self._root = root
        self._budget = budget
        self._path = str(path)
        self._stem = path.stem
        self._usage = Usage()
        self._limits = _CLOSED
        self._growth_wanted = policy.FIRST_GROWTH_BYTES
        self._taken_at = self._measured_at = 0.0
        self._interval_s = _LEAST_INTERVAL_S
        self.renew_at = 0.0
        self._is_nearly_full = False  # and was warned about
        self._pages_max = 0  # of the file
        self._page_bytes = 1
        self._free_bytes = 0  # how much certainly fits into the file, in a transaction
        self._first_pages = -1  # of the file when the transaction began; -1: there is none
        self._shard_bytes = self._master_bytes = 0  # what its rows take, by estimate
        self._is_weighted = False  # whether the file is limited to less than its quota, because of the master
        self._row_sizes: dict[str, RowSizes] = {}
        self._wal_pages = 0  # in the WAL now
        self._wal_tolerated = 0  # from how many on the writer does its upkeep before it writes more
        self._wal_target = 0  # how many it should have
        self._pages_written = 0  # how many the connection had written to the WAL by the last commit
        self._meter: WriterMeter | None = None
        self._check_soon: Callable[[], Callable[[], None] | None] = lambda: None
        self._record = QuotaRecord(root, self._stem)
        try:
            deadline = monotonic() + _OPEN_WAIT_S
            with self._translating_errors():
                while not self._may_take() or not self._take(fingerprint.size(self._path), policy.FIRST_GROWTH_BYTES):
                    # what is in the way may be quotas that expire
                    if monotonic() > deadline or not self._fits_without_quotas():
                        # a program may try again at once, and many such programs would leave no time to the others
                        time.sleep(min(policy.LEASE_S, self._interval_s))
                        raise self._refusal_to_open()
                    time.sleep(_OPEN_POLL_S)
        except BaseException:
            self._record.close()
            raise

    def start(
        self, connection: Connection, meter: WriterMeter, check_soon: weakref.WeakMethod[Callable[[], None]]
    ) -> None:
        """Take over the shard's connection.

        Args:
            connection: the shard's.
            meter: counts the bytes that a checkpoint of the WAL writes.
            check_soon: has the handle do its upkeep before the next write; a weak reference, see above.
        """
        self._meter, self._check_soon = meter, check_soon
        self._page_bytes = int(connection.pragma("page_size"))
        self._limit_file(connection)
        self._limit_wal(connection)
        connection.set_wal_hook(self._after_commit)  # replaces wal_autocheckpoint

    def request_new(self) -> None:
        """Have the next upkeep take a new quota: the file has changed otherwise than by writes."""
        self._taken_at = self._measured_at = 0.0
        self._request_upkeep()

    def close(self) -> None:
        """Give the quota back, once the shard is closed."""
        self._record.close()

    def leave_to_parent(self) -> None:
        """Leave the quota to the process that forked this one."""
        self._record.leave_to_parent()

    def _translating_errors(self) -> contextlib.AbstractContextManager[None]:
        return sqlite.translate_errors("take quota for", self._path)

    # -- taking it ----------------------------------------------------------------------------------------------------

    @property
    def allows_writes(self) -> bool:
        """Whether the writer may add anything."""
        return self._limits.total_bytes > 0

    def _take(self, file_bytes: int, wanted_bytes: int, needed_bytes: int = 0, weight: float = 1.0) -> bool:
        """Measure the store, and take a quota for a file that grows by so much; return whether it may grow at all.

        If it may not, the quota that the shard has stays as it is in a transaction, and ends otherwise. The
        sizes are those with which a transaction of this weight counts.
        """
        began = monotonic()
        with self._record.locked():
            self._measure(began)
            wal_bytes = fingerprint.size(paths.wal(self._path))
            quota = policy.writer_quota(self._budget, self._usage, file_bytes, wal_bytes, wanted_bytes, needed_bytes)
            self._taken_at = self._measured_at
            if quota.total_bytes or self._first_pages < 0:
                self._limits = quota
            if self._first_pages < 0:
                self._record.take(self._limits.total_bytes)
            else:
                self._record.hold(self._limits.total_bytes)
            if quota.growth_bytes > max(policy.large_transaction(self._budget), self._usage.largest):
                self._record.note_transaction(quota.growth_bytes, weight)
            if self.allows_writes:
                taken = self._usage.promised + self._limits.total_bytes
                reserve.make_whole(self._root, self._budget, attrs.evolve(self._usage, promised=taken))
        self.renew_at = self._taken_at + policy.LEASE_S
        self._warn_once()
        return quota.total_bytes > 0

    def _may_take(self) -> bool:
        """Return whether it makes sense to ask for a quota: many who are refused must not keep the lock from others."""
        self._measure(monotonic())
        return self._fits(self._usage)

    def _measure(self, began: float) -> None:
        """Read the budget, and measure what others take, which began at that time if it was waited for."""
        self._budget = load_budget(self._root) or self._budget
        self._usage = measure(self._root, without=self._stem)
        self._measured_at = monotonic()
        self._interval_s = max(_LEAST_INTERVAL_S, _INTERVAL_PART * (self._measured_at - began))

    def _fits_without_quotas(self) -> bool:
        return self._fits(measure(self._root, without=self._stem, sizes_only=True))

    def _fits(self, usage: Usage) -> bool:
        return policy.writer_quota(self._budget, usage, fingerprint.size(self._path)).total_bytes > 0

    def _warn_once(self) -> None:
        was_warned, own = self._is_nearly_full, fingerprint.size(self._path)
        taken = max(self._limits.total_bytes, policy.shard_bytes(own, 0, 0)) - own
        usage = attrs.evolve(self._usage, shards=self._usage.shards + own, promised=self._usage.promised + taken)
        self._is_nearly_full = policy.is_nearly_full(self._budget, usage, was_warned=was_warned)
        if self._is_nearly_full and not was_warned:
            logger.warning(
                "%s is nearly full: %s",
                self._root,
                policy.describe_usage(self._budget, usage),
                extra=fields(store=self._root, state="budget nearly full"),
            )

    def renew(self, connection: Connection) -> None:
        """Keep the quota, or take another one, which may be larger or smaller.

        Raises:
            StorageError: the store cannot be measured, or the quota not be recorded.
        """
        with self._translating_errors():
            self._renew(connection)

    def _renew(self, connection: Connection) -> None:
        now = monotonic()
        file_bytes = int(connection.pragma("page_count")) * self._page_bytes
        used = file_bytes - self._pages_max * self._page_bytes + self._limits.growth_bytes
        if self._first_pages >= 0:
            self.renew_at = now + policy.LEASE_S  # it is held, and make_space asks for more
            return
        until = min(self._taken_at + 1.5 * policy.LEASE_S, self._measured_at + _MEASURE_S)
        if self.allows_writes and now < until and used < self._limits.growth_bytes // 2:
            self._keep(connection, file_bytes, used, now)
            return
        # a program that tries again and again must not keep the merger from making space
        if not self.allows_writes and now < self._measured_at + self._interval_s:
            return
        if not self.allows_writes and not self._may_take():
            return
        self._growth_wanted = max(policy.FIRST_GROWTH_BYTES, 2 * used)
        if self._take(file_bytes, self._growth_wanted):
            self._limit_file(connection)
            self._limit_wal(connection)

    def _keep(self, connection: Connection, file_bytes: int, used_bytes: int, now: float) -> None:
        """Renew the quota; make it smaller if a merge has truncated the shard, or a large transaction has ended."""
        wal_bytes = max(self._limits.wal_bytes, fingerprint.size(paths.wal(self._path)))
        growth = min(self._limits.growth_bytes - max(0, used_bytes), max(policy.FIRST_GROWTH_BYTES, 2 * used_bytes))
        total = policy.shard_bytes(file_bytes, wal_bytes, growth)
        if total < self._limits.total_bytes:
            self._limits = WriterQuota(growth, self._limits.wal_bytes, total)
            self._limit_file(connection)
        self._record.take(self._limits.total_bytes)
        self._taken_at, self.renew_at = now, now + policy.LEASE_S

    def _limit_file(self, connection: Connection, pages_max: int | None = None) -> None:
        if pages_max is None:
            pages_max = int(connection.pragma("page_count")) + self._limits.growth_bytes // self._page_bytes
        self._pages_max = pages_max
        connection.pragma("max_page_count", max(1, self._pages_max))

    # -- transactions and large rows ----------------------------------------------------------------------------------

    def guard(self, writer: RecordWriter) -> RecordWriter:
        """Return a writer that makes space for each row in a transaction: a row that is refused would undo all of it.

        Outside a transaction a row that is refused is tried again.
        """
        plain, encode, sql = writer.insert, writer.encode, writer.sql

        def insert(execute: Callable[..., Any], row_id: int, record: Any) -> None:
            if self._first_pages < 0:
                plain(execute, row_id, record)
            else:
                row = encode(row_id, record)
                self.make_space(execute.__self__.connection, writer, [row])  # type: ignore[attr-defined]
                execute(sql, row)

        return attrs.evolve(writer, insert=insert)

    def hold(self, connection: Connection) -> None:
        """Keep the quota until the transaction that has just begun ends, however long that takes."""
        self._first_pages = int(connection.pragma("page_count"))
        self._free_bytes = self._shard_bytes = self._master_bytes = 0
        self._record.hold(self._limits.total_bytes)

    def let_go(self) -> None:
        """End what `hold` began. If that cannot be recorded, the quota is held until it is renewed, before a write."""
        self._first_pages = -1
        self._taken_at = monotonic()
        self.renew_at = self._taken_at + policy.LEASE_S
        must_take = self._is_weighted  # the limit of the file as well
        self._is_weighted = False
        try:
            self._record.take(self._limits.total_bytes)
        except StorageError as error:  # rows may be committed, so this is no reason to fail
            logger.debug("%s", error)
            must_take = True
        if must_take:
            self.request_new()

    def make_space(self, connection: Connection, writer: RecordWriter, rows: list[tuple[Any, ...]]) -> None:
        """Take a larger quota if the next rows may not fit. If there is none, SQLite refuses what does not fit.

        Args:
            connection: the shard's.
            writer: the writer of the rows.
            rows: the bindings of its statement.

        Raises:
            StorageError: the store cannot be measured, or the quota not be recorded.
        """
        sizes = self._row_sizes.get(writer.sql)
        if sizes is None:
            sizes = self._row_sizes[writer.sql] = RowSizes.of(writer.table)
        try:
            size, in_master = sizes.measure(rows)
        except ValueError:
            return  # not what SQLite stores either
        if self._first_pages < 0:
            self._shard_bytes = self._master_bytes = 0
        self._shard_bytes += size
        self._master_bytes += in_master
        # SQLite leaves a part of a page free: that is at most as much as there is in it, and at most a page for a row
        bytes_ = _TREE_PAGES * self._page_bytes + min(2 * size, size + size // 50 + len(rows) * self._page_bytes)
        if in_master > size * policy.MASTER_GROWTH:
            bytes_ = int(bytes_ * policy.weight(size, in_master))
        if bytes_ > self._free_bytes or self._first_pages < 0:
            with self._translating_errors():
                self._make_space(connection, bytes_)
        self._free_bytes -= bytes_

    def _make_space(self, connection: Connection, bytes_: int) -> None:
        pages = int(connection.pragma("page_count"))
        # the quota is for the whole transaction: all of its pages will be in the WAL, and then in the file
        first_pages = pages if self._first_pages < 0 else self._first_pages
        weight = policy.weight(self._shard_bytes, self._master_bytes)
        grown = int((pages - first_pages) * self._page_bytes * weight)
        growth_bytes = (self._pages_max - first_pages) * self._page_bytes
        self._free_bytes = growth_bytes - grown
        if bytes_ <= self._free_bytes:
            return
        most = policy.largest_transaction(self._budget, self._usage)
        needed, wanted = grown + max(bytes_, policy.MIN_GROWTH_BYTES), grown + max(grown, policy.FIRST_GROWTH_BYTES)
        if self._take(first_pages * self._page_bytes, min(most, wanted), min(most, needed), weight):
            growth_bytes = self._limits.growth_bytes
            self._limit_file(connection, max(pages, first_pages + growth_bytes // self._page_bytes))
            self._limit_wal(connection)
            self._free_bytes = growth_bytes - grown
        if bytes_ > self._free_bytes:
            self._ask_for_space(needed)
            if weight > 1:  # what still fits into the file may not fit into the master
                self._is_weighted = True
                pages_max = first_pages + int(growth_bytes / weight) // self._page_bytes
                connection.pragma("max_page_count", max(pages, pages_max))

    def _ask_for_space(self, transaction_bytes: int) -> None:
        """Have the next merge make space for a transaction that is refused now, if it can."""
        wanted = policy.wanted_transaction(self._budget, self._usage, transaction_bytes)
        if wanted > self._usage.wanted:
            with self._record.locked():
                self._record.want(wanted)

    # -- the WAL ------------------------------------------------------------------------------------------------------

    def _after_commit(self, connection: Connection, _: str, pages: int) -> int:
        """Checkpoint the WAL once it has its target size; SQLite calls this after each commit."""
        self._wal_pages, self._pages_written = pages, sqlite.wal_pages_written(connection)
        if pages >= self._wal_target:
            # a merger may be doing it already, and counts the bytes then; and any other error would be taken for one of
            # the commit: upkeep meets it again, before the next row
            with write_stats.counted() as count, contextlib.suppress(sqlite.DatabaseFailure):
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
        pages = self._limits.wal_bytes / (self._page_bytes + 24)
        self._wal_target = int(pages * _CHECKPOINT_PART)
        self._wal_tolerated = int(pages * _WAIT_PART)
        connection.pragma("journal_size_limit", self._limits.wal_bytes)

    def ensure_wal_may_grow(self, connection: Connection) -> None:
        """Refuse to write without a quota, or to a WAL that cannot be restarted and for which there is no more space.

        Raises:
            DiskBudgetError: that is the case.
            StorageError: it cannot be determined.
        """
        with self._translating_errors():
            self._ensure_wal_may_grow(connection)

    def _ensure_wal_may_grow(self, connection: Connection) -> None:
        if self._first_pages >= 0:
            return  # SQLite refuses what does not fit
        if not self.allows_writes:
            self._request_upkeep()
            raise self.refusal()
        if self._wal_pages < self._wal_tolerated:
            return
        if self._restart_wal(connection):
            self._wal_pages = 0
            return
        # somebody reads for long: the WAL goes on growing if there is space for that, a piece at a time
        file_bytes, wal_bytes = int(connection.pragma("page_count")) * self._page_bytes, self._limits.wal_bytes
        if policy.left_for_writers(self._budget, self._usage) > 4 * wal_bytes and self._take(
            file_bytes, self._growth_wanted
        ):
            self._limit_file(connection)
            self._wal_tolerated = self._wal_pages + wal_bytes // 4 // self._page_bytes
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
        return sqlite.wal_pages_written(connection) == self._pages_written

    # -- refusals -----------------------------------------------------------------------------------------------------

    @property
    def is_disk_full(self) -> bool:
        """Whether the file system itself has no space, because of files outside the store."""
        return self._usage.free < policy.MIN_GROWTH_BYTES

    def refusal(self) -> DiskBudgetError:
        """Return the error of a write for which there is no space."""
        most = policy.largest_transaction(self._budget, self._usage)
        return self._error(
            "write to shard", f"one write may add at most {units.size(most)}. {_NEXT_STEPS[self._budget.on_full]}"
        )

    def _refusal_to_open(self) -> DiskBudgetError:
        shards = self._usage.open + 1
        needed = (
            f"another open shard takes {units.size(policy.LEAST_SHARD_BYTES)} and more; a budget for "
            f"{units.count(shards, 'open shard')} is at least {units.size_at_least(policy.least_budget(shards))}, "
            "besides what rows take"
        )
        return self._error("open shard", f"{needed}. {_NEXT_STEPS[self._budget.on_full]}")

    def _error(self, action: str, cause: str) -> DiskBudgetError:
        own = fingerprint.size(self._path) + sum(map(fingerprint.size, paths.side_files(self._path)))
        usage = attrs.evolve(self._usage, shards=self._usage.shards + own)
        limit = policy.current_limit(self._budget, usage)
        text = f"{policy.describe_usage(self._budget, usage)}; {cause}"
        return DiskBudgetError(action, self._path, text, usage.used, limit, usage.shards, usage.master)
