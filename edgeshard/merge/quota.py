"""The merger's share of a store's disk budget: what it may copy, and how it drops rows if the budget allows that.

`MergeQuota` measures the store, asks budget/policy what that allows, and acts on it. The policy has a picture.

Without a budget none of this limits anything. With one, each step takes the reserve and half of what is left for
writers: to copy a chunk, to truncate a shard, or to drop rows. Once the store has used a good part of the budget, a
merge takes turns: it copies a chunk that fits, commits, empties the master's WAL, and truncates the shards, before it
copies more. How much rows grow is measured; a chunk that outgrows its step is rolled back, and the next one is smaller.

If little is left for writers at the end of a pass, free pages of the master are given back to the disk, as many as
writers lack. That deletes nothing, and is done whatever the budget allows to drop.

If rows may be dropped ("drop-oldest"), these are the oldest of the master, from the tables with the lowest priority.
They are deleted by the same steps as in a prune, and recorded by address with the reason "budget". Before that, the
store's own prune rules are followed, if it has any: what they delete would be pruned anyway.

* Never drop pending rows, or current rows of keyed tables: they are state, not history, and there is no older state
  that could be dropped instead.
* The agents that fill the store lose rows first: agents with few rows lose none as long as others have some to lose.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from edgeshard import sqlite, units
from edgeshard.budget import policy, quotas, reserve, usage
from edgeshard.budget.policy import Budget, Usage
from edgeshard.budget.quotas import QuotaRecord
from edgeshard.errors import DiskBudgetError, StorageError
from edgeshard.files import fingerprint, locks, paths
from edgeshard.format import blocks
from edgeshard.log_fields import fields
from edgeshard.master import database, streams, write_stats
from edgeshard.merge import drop_order
from edgeshard.merge.merge_pass import MergePass
from edgeshard.merge.row_growth import RowGrowth
from edgeshard.retention.store_rules import Retention
from edgeshard.sqlite import Connection

if TYPE_CHECKING:
    from edgeshard.retention.scheduler import RetentionResult

logger = logging.getLogger("edgeshard.merge")

#: Rows are dropped, if they may be, rather than copying less than this at a time, in bytes.
_SMALL_CHUNK_BYTES: Final = 16 << 10

#: A chunk of less than this, in bytes, is not divided any further: it has one row, or one transaction.
_CHUNK_BYTES_MIN: Final = 64

#: A master's cache within a budget, as a part of a step: the WAL may exceed its limit by as much.
_CACHE_PART, _CACHE_BYTES_MAX = 4, 1_000 << 10

#: How often to look whether quotas have expired, in seconds.
_EXPIRY_POLL_S: Final = 0.02

#: The largest max_page_count of SQLite, which is no limit in practice.
_PAGES_MAX: Final = 0xFFFFFFFE


class QuotaExhaustedError(Exception):
    """There is no quota for the next chunk, although rows are pending."""


class MergeQuota:
    """The quota of one merger's passes.

    Args:
        root: the store's folder.
        path: the master.
        prune: the store's own rules.
        meter: counts the bytes that the merger writes.
        should_stop: called while rows are dropped; returns whether to stop.

    Attributes:
        budget: the store's budget, read at the beginning of each pass; None if it has none.
        dropped: how many rows this pass dropped.
        forgotten_streams: how many retired streams were forgotten with that.
        retention_results: what this pass pruned by the store's own rules.
        is_exhausted: whether there was no quota for the last chunk, although rows are pending.
        is_full: whether there was no quota for any chunk then; otherwise it was a transaction that did not fit, and
            what other shards have may fit.
    """

    def __init__(
        self, root: Path, path: Path, prune: Retention, meter: write_stats.Meter, should_stop: Callable[[], bool]
    ) -> None:
        self._root = root
        self._path = path
        self._prune = prune
        self._prune_again_at = 0.0
        self._meter = meter
        self._should_stop = should_stop
        self.budget: Budget | None = None
        self.dropped = 0
        self.forgotten_streams = 0
        self.retention_results: list[RetentionResult] = []
        self.is_exhausted = self.is_full = False
        self._usage = Usage()
        self._step_bytes = 0
        self._is_wal_short = False
        self._has_copied = True  # anything since rows were dropped
        self._is_small = False  # the next chunk, and dropping rows might make it larger
        self._has_waited = False  # for quotas, in this pass
        self._growth = RowGrowth()
        self._record: QuotaRecord | None = None

    # -- a pass -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read the budget, and make sure of a step, before the master is made or opened.

        Raises:
            DiskBudgetError: there is no master yet, and no space for one.
            StorageError: the store cannot be measured.
        """
        self.budget = usage.load_budget(self._root)
        self.dropped, self.forgotten_streams, self.retention_results = 0, 0, []
        self.is_exhausted = self.is_full = False
        self._has_copied, self._has_waited = True, False
        if self.budget is None:
            self.end()
            return
        if self._record is None:
            self._record = QuotaRecord(self._root, quotas.MERGER)
        quotas.forget_dead(self._record, partial(_owners_alive, self._root))
        step_bytes = self._take_step()
        if not self._usage.master and step_bytes < policy.EMPTY_MASTER_BYTES + policy.COMMIT_BYTES:
            raise self.error(0)

    def opened(self, connection: Connection) -> None:
        """Keep the master's WAL short. Rows are dropped later, if need be: truncating shards may make enough space."""
        if self.budget is None:
            if self._is_wal_short:
                database.set_wal_limits(connection)
                self._is_wal_short = False
            return
        if self._is_wal_too_long():  # a merger that died has left it: it takes the space that this one needs
            sqlite.shrink_wal(connection)
            self._take_step()
        database.set_wal_limits(connection, self._step_bytes // 4)
        self._is_wal_short = True
        self._shrink_wals()

    def end(self) -> None:
        """Give the step back, and make the reserve whole again.

        Raises:
            StorageError: that failed.
        """
        record, self._record = self._record, None
        if record is None:
            return
        try:
            if self.budget is not None:
                with record.locked():
                    reserve.make_whole(self._root, self.budget, usage.measure(self._root, without=quotas.MERGER))
        finally:
            record.close()

    def abandon(self) -> None:
        """Give the step back, after an error; if that fails as well, it counts only until ``merge.lock`` is free."""
        record, self._record = self._record, None
        if record is not None:
            with contextlib.suppress(StorageError):
                record.close()

    @property
    def is_near_limit(self) -> bool:
        """Whether so much of the budget is used that shards are truncated after each chunk."""
        return self.budget is not None and policy.is_truncation_urgent(self.budget, self._usage)

    @property
    def group_size(self) -> int | None:
        """How many sources may be attached at once; None: as many as SQLite can attach."""
        return None if self.budget is None else policy.side_files_max(self.budget, self._usage)

    def truncation_bytes(self) -> int | None:
        """Return what the truncation of a shard may write now, or None if there is no limit."""
        return None if self.budget is None else self._take_step()

    def _take_step(self) -> int:
        """Measure the store, and take as much as the merger may use; return by how much it may enlarge the store."""
        budget, record = self.budget, self._record
        if budget is None or record is None:
            raise AssertionError("there is no budget")
        with record.locked():
            self._usage = usage.measure(self._root, without=quotas.MERGER)
            step_bytes = policy.left_for_merger(budget, self._usage)
            record.hold(self._usage.master + max(step_bytes, policy.set_aside(budget, self._usage)))
            reserve.make_way(self._root, budget, self._usage, step_bytes)
        self._step_bytes = step_bytes
        return step_bytes

    # -- a chunk ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def chunk(self, connection: Connection, merge_pass: MergePass, has_pending: Callable[[], bool]) -> Iterator[None]:
        """Limit the transaction in the block to the quota, and measure afterwards what it took.

        A transaction that outgrows it is rolled back; the next one is smaller.

        Args:
            connection: the master.
            merge_pass: its `chunk_bytes` is set.
            has_pending: returns whether any row is pending; called if there is no quota at all.

        Raises:
            QuotaExhaustedError: rows are pending, and there is no quota for any of them, or not enough for a writer's
                transaction, which is never divided.
        """
        if self.budget is None:
            merge_pass.chunk_bytes = blocks.CHUNK_BYTES
            yield
            return
        chunk_bytes = self._chunk_bytes(connection, self.budget)
        self._is_small = 0 < chunk_bytes < _SMALL_CHUNK_BYTES and self._would_dropping_help(connection)
        self.is_full = not chunk_bytes
        if (self.is_full or self._is_small) and has_pending():
            self.is_exhausted = True
            raise QuotaExhaustedError
        copied_before, merge_pass.chunk_bytes = merge_pass.copied_bytes, max(1, chunk_bytes)
        try:
            with self._within_step(connection):
                yield
        except sqlite.DatabaseFailure as error:
            if not sqlite.is_full(error):
                raise
            self._growth.refuse()
            sqlite.shrink_wal(connection)  # of what was rolled back
            if merge_pass.chunk_bytes < _CHUNK_BYTES_MIN or not self._chunk_bytes(connection, self.budget):
                self.is_exhausted = True
                self._growth.reset()
                raise QuotaExhaustedError from error
        else:
            copied_bytes = merge_pass.copied_bytes - copied_before
            self._growth.measure(connection, copied_bytes)
            self._has_copied = self._has_copied or copied_bytes > 0
        finally:
            if self._is_wal_too_long():
                sqlite.shrink_wal(connection)

    def _is_wal_too_long(self) -> bool:
        wal_bytes = fingerprint.size(paths.wal(self._path))
        return wal_bytes > 0 and (self.is_near_limit or wal_bytes > self._step_bytes // 4)

    def _would_dropping_help(self, connection: Connection) -> bool:
        """Return whether to drop rows rather than to copy a small chunk; not twice without copying anything."""
        if self.budget is None or self.budget.on_full != "drop-oldest" or not self._has_copied:
            return False
        return self._bytes_to_drop(connection, for_merge=True) > 0

    def _chunk_bytes(self, connection: Connection, budget: Budget) -> int:
        """Return how much the next transaction may copy, or 0 if there is no quota for anything."""
        self._take_step()
        self._growth.begin(connection)
        # pages that a reader keeps in the WAL will still be added to the file
        found = attrs.evolve(self._usage, other=self._usage.other + fingerprint.size(paths.wal(self._path)))
        free = int(connection.pragma("freelist_count")) * int(connection.pragma("page_size"))
        fitting = policy.chunk_bytes(budget, found, free, self._growth.in_wal, self._growth.in_file)
        return min(blocks.CHUNK_BYTES, fitting)

    @contextlib.contextmanager
    def _within_step(self, connection: Connection) -> Iterator[None]:
        """Have SQLite refuse what enlarges the master's file or its WAL by more than the step."""
        if self.budget is None:
            raise AssertionError("there is no budget")
        step_bytes = max(0, self._step_bytes - fingerprint.size(paths.wal(self._path)))
        page_bytes, pages = int(connection.pragma("page_size")), int(connection.pragma("page_count"))
        part = self._growth.in_file / (self._growth.in_file + self._growth.in_wal)
        file_bytes = min(step_bytes - policy.delete_bytes(self.budget), int((step_bytes - policy.COMMIT_BYTES) * part))
        cache_bytes = min(_CACHE_BYTES_MAX, step_bytes // _CACHE_PART)
        connection.pragma("cache_size", -(cache_bytes >> 10))
        connection.pragma("max_page_count", pages + max(0, file_bytes) // page_bytes)
        try:
            with sqlite.limit_wal_in_block(connection, step_bytes - max(0, file_bytes) - cache_bytes):
                yield
        finally:
            connection.pragma("max_page_count", _PAGES_MAX)

    # -- dropping rows ------------------------------------------------------------------------------------------------

    def drop_rows(self, connection: Connection, *, for_merge: bool = False) -> bool:
        """Drop the oldest rows of the least important tables, if the budget allows that and it makes enough space.

        Args:
            connection: the master.
            for_merge: whether the merger has no space for a chunk.

        Returns:
            Whether the store is smaller now.
        """
        if self.budget is None or self.budget.on_full != "drop-oldest":
            return False
        before = self._bytes_used(for_merge=for_merge)
        self._has_copied = False
        if not self._bytes_to_drop(connection, for_merge=for_merge):
            return False
        self._take_step()
        with self._meter.elsewhere():
            self._follow_own_rules()
            self._drop_oldest(connection, for_merge=for_merge)
        has_dropped_some = self._bytes_used(for_merge=for_merge) < before
        self.is_exhausted = self.is_exhausted and not has_dropped_some
        return has_dropped_some

    def await_quotas(self) -> bool:
        """Wait, once in a pass, for quotas that nobody uses, if there is no space for a chunk.

        A quota counts whole until it is renewed or expires, although this merge has truncated the shard meanwhile.
        """
        budget = self.budget
        if budget is None or self._has_waited:
            return False
        self._has_waited, before, deadline = True, self._step_bytes, time.monotonic() + 2 * policy.LEASE_S
        found = usage.measure(self._root, without=quotas.MERGER, sizes_only=True)
        expected = policy.left_for_merger(budget, found)
        if expected <= before:
            return False  # no quota is in the way
        while not self._should_stop():
            found = usage.measure(self._root, without=quotas.MERGER)
            if policy.left_for_merger(budget, found) >= expected or time.monotonic() > deadline:
                break
            time.sleep(_EXPIRY_POLL_S)
        self.is_exhausted = policy.left_for_merger(budget, found) <= before
        return not self.is_exhausted

    def make_space_for_chunk(self, connection: Connection) -> bool:
        """Give free pages back or drop rows if there is no space for a chunk; return whether to try again."""
        # before rows are dropped, free pages are given back in any case
        if self.budget is not None and self.budget.on_full != "drop-oldest" and self._give_pages_back(connection):
            self.is_exhausted = False
            return True
        has_dropped_some = self.drop_rows(connection, for_merge=True)
        if self._is_small and not has_dropped_some:
            self.is_exhausted = False  # nothing can be dropped, so a small chunk it is
        return not self.is_exhausted

    def make_space_for_writers(self, connection: Connection) -> None:
        """Give free pages back, or drop rows, at the end of a pass if little is left for writers.

        Then wait for quotas that nobody uses.
        """
        budget = self.budget
        if budget is None or self._should_stop():
            return
        found = self._shrink_wals()
        has_given_some = _is_little_left(budget, found) and self._give_pages_back(connection)
        if budget.on_full == "drop-oldest":
            self.drop_rows(connection)
        if found.wanted and self._record is not None:
            with self._record.locked():
                self._record.want(0)
        if budget.on_full != "drop-oldest" and not has_given_some:
            return
        found = usage.measure(self._root, without=quotas.MERGER, sizes_only=True)
        needed, deadline = policy.needed_left(found), time.monotonic() + 2 * policy.LEASE_S
        if policy.left_for_writers(budget, found) < needed:
            return
        while time.monotonic() < deadline:
            found = usage.measure(self._root, without=quotas.MERGER)
            if policy.left_for_writers(budget, found) >= needed:
                return
            time.sleep(_EXPIRY_POLL_S)

    def _give_pages_back(self, connection: Connection) -> bool:
        """Give free pages of the master back if little is left for writers; return whether any were.

        Nothing is deleted for that, so it does not depend on `Budget.on_full`.
        """
        budget = self.budget
        if budget is None or not int(connection.pragma("freelist_count")):
            return False
        if not _is_little_left(budget, usage.measure(self._root, without=quotas.MERGER, sizes_only=True)):
            return False
        from edgeshard.retention import shrink  # slow to import, and needed only within a budget

        self._take_step()
        return shrink.make_space_for_writers(connection, self._path, budget, self._should_stop)

    def _shrink_wals(self) -> Usage:
        """Empty the WALs of all shards if little is left for writers: an idle agent keeps a long one.

        Returns:
            What the store took before.
        """
        budget, folder = self.budget, os.path.realpath(paths.shards(self._root))
        found = usage.measure(self._root, without=quotas.MERGER, sizes_only=True)
        if budget is None or not _is_little_left(budget, found):
            return found
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder):
                path = os.path.join(folder, name.removesuffix(paths.WAL))
                if name.endswith(paths.wal(paths.SHARD)) and fingerprint.size(paths.wal(path)) > policy.MIN_WAL_BYTES:
                    _shrink_wal(path)
        return found

    def _bytes_used(self, *, for_merge: bool) -> int:
        self._usage = usage.measure(self._root, without=quotas.MERGER, sizes_only=not for_merge)
        return self._usage.used

    def _bytes_to_drop(self, connection: Connection, *, for_merge: bool) -> int:
        if self.budget is None:
            return 0
        if not policy.bytes_to_drop(self.budget, self._usage, self._usage.master, for_merge=for_merge):
            return 0
        return policy.bytes_to_drop(
            self.budget, self._usage, drop_order.droppable_bytes(connection), for_merge=for_merge
        )

    def _follow_own_rules(self) -> None:
        """Prune by the store's own rules. After a prune that deleted nothing, wait long before the next one."""
        if not self._prune or time.monotonic() < self._prune_again_at:
            return
        from edgeshard.retention import due, scheduler  # slow to import, and needed only within a budget

        began = time.monotonic()
        result = scheduler.prune_once(self._path, self._prune, should_stop=self._should_stop)
        self.retention_results.append(result)
        if result.report is None or not result.report.rows:
            now = time.monotonic()
            self._prune_again_at = now + (now - began) / due.FRUITLESS_FRACTION

    def _drop_oldest(self, connection: Connection, *, for_merge: bool) -> None:
        """Drop rows of agents that have many, and those of the others only if that is not enough."""
        before = self._bytes_used(for_merge=for_merge)
        wanted = self._bytes_to_drop(connection, for_merge=for_merge)
        few_rows = policy.agents_with_few_rows(streams.rows_by_agent(connection))
        for spared in dict.fromkeys([few_rows, ()]):
            for tables in drop_order.tables_by_priority(connection):
                left = wanted - (before - self._bytes_used(for_merge=for_merge))
                if left <= 0:
                    return
                self._drop(tables, spared, left)

    def _drop(self, tables: tuple[str, ...] | None, spared: tuple[str, ...], count_bytes: int) -> None:
        from edgeshard.retention import prune, rules  # slow to import, and needed only within a budget

        # a prune measures the file and its WAL
        target = max(1, self._usage.master - fingerprint.size(f"{self._path}{paths.SHM}") - count_bytes)
        wanted = rules.Rules(max_bytes=target, tables=tables, size_reason=rules.BUDGET, protected_agents=spared)
        report = prune.prune(self._path, wanted, should_stop=self._should_stop)
        if report.rows:
            which = "all tables" if tables is None else f"tables {', '.join(tables)}"
            text = "dropped %s of %s from %s, the oldest first, to stay within the disk budget"
            extra = fields(store=self._root, rows=report.rows, state="dropped")
            logger.warning(text, units.count(report.rows, "row"), which, self._path, extra=extra)
        self.dropped += report.rows
        self.forgotten_streams += report.forgotten_streams

    def why_writers_are_refused(self) -> str:
        """Return what uses the budget if it is full, or "" if it is not, or the store has none."""
        if self.budget is None:
            return ""
        found = usage.measure(self._root)
        return policy.describe_usage(self.budget, found) if policy.is_full(self.budget, found) else ""

    def error(self, merged_rows: int, quarantined: int = 0) -> DiskBudgetError:
        """Return the error to raise if rows are pending and there is no quota to merge them.

        Args:
            merged_rows: how many rows were merged before.
            quarantined: how many shards are quarantined, and keep what they have.
        """
        if self.budget is None:
            raise AssertionError("there is no budget")
        found = self._usage = usage.measure(self._root, without=quotas.MERGER)
        text = (
            f"no space for pending rows, which stay in their shards ({merged_rows:,} were merged): "
            f"{policy.describe_usage(self.budget, found)}. Prune, push and prune, or raise the budget"
        )
        if self.budget.on_full == "drop-oldest":
            text += "; all rows that may be dropped were dropped, and current rows of keyed tables never are"
        if quarantined:
            why = "Store.status (`edgeshard status`) says why"
            text += f". What {units.count(quarantined, 'quarantined shard')} had stays there: {why}"
        limit = policy.current_limit(self.budget, found)
        return DiskBudgetError("merge into", self._path, text, found.used, limit, found.shards, found.master)


def _is_little_left(budget: Budget, found: Usage) -> bool:
    return policy.left_for_writers(budget, found) < policy.wanted_left(budget, found.wanted)


def _shrink_wal(path: str) -> None:
    """Empty a shard's WAL unless it is in use right now; what is wrong with the shard is found when it is merged."""
    try:
        connection = sqlite.connect_in_place(path, busy_timeout_s=0.0)
        if connection is not None:
            try:
                sqlite.shrink_wal(connection)
            finally:
                connection.close()
    except (*sqlite.DATA_ERRORS, OSError) as error:
        logger.debug("the WAL of %s stays as it is: %s", path, error)


def _owners_alive(root: Path) -> dict[int, bool]:
    """Return which owners of quotas live, by their lock files; those without a lock file are not in it."""
    found, folder = quotas.load(root), paths.shards(root)
    alive = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            key = quotas.owner_key(name.removesuffix(paths.LOCK))
            if name.endswith(paths.LOCK) and key in found:
                alive[key] = locks.is_locked(folder / name)
    return alive
