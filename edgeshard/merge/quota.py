"""The merger's share of a store's disk budget: what it may copy, and how it drops rows if the budget allows that.

`MergeQuota` measures the store, asks budget/policy what that allows, and acts on it.

Without a budget none of this limits anything. With one, once the store has used a good part of it, a merge takes turns:
it copies a chunk that fits, commits, empties the master's WAL, and truncates the shards, before it copies more.

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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeshard import sqlite
from edgeshard.budget import policy, usage
from edgeshard.budget.policy import Budget, Usage
from edgeshard.errors import DiskBudgetError
from edgeshard.files import fingerprint, paths
from edgeshard.format import blocks
from edgeshard.master import catalog, database, streams, write_stats
from edgeshard.merge.merge_pass import MergePass
from edgeshard.records import keys
from edgeshard.retention.store_rules import Retention
from edgeshard.sqlite import Connection

if TYPE_CHECKING:
    from edgeshard.retention.scheduler import RetentionResult

logger = logging.getLogger("edgeshard.merge")

#: The growth of rows is measured over chunks of at least this many bytes. Nor is a chunk smaller than this if there is
#: quota for a chunk at all: rows may take many times their size in the master, in indexes.
_MEASURED_BYTES_MIN = _CHUNK_BYTES_MIN = policy.MIN_CHUNK_BYTES // 4

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
        self.is_exhausted = False
        self._usage = Usage()
        self._limit = 0
        self._growth = _Growth()

    # -- a pass -------------------------------------------------------------------------------------------------------

    def begin(self, connection: Connection) -> None:
        """Read the budget, and drop rows if that is due."""
        before, self.budget = self.budget, usage.load_budget(self._root)
        self.forgotten_streams = 0
        self.dropped, self.retention_results, self.is_exhausted = 0, [], False
        if self.budget is None:
            if before is not None:
                database.set_wal_limits(connection)
            return
        self._measure()
        database.set_wal_limits(connection, self._wal_bytes())
        if policy.is_drop_due(self._limit, self._usage):
            self.drop_rows(connection)

    @property
    def is_near_limit(self) -> bool:
        """Whether so much of the budget is used that shards are truncated after each chunk."""
        return self.budget is not None and policy.is_truncation_urgent(self._limit, self._usage)

    def truncation_bytes(self) -> int | None:
        """Return what the truncation of a shard may write now, or None if there is no limit.

        It may use the quota that is reserved for dropping rows, because none are dropped at the same time.
        """
        self._measure()
        if self.budget is None:
            return None
        return max(0, policy.merge_quota(self._limit, self._usage) + policy.drop_reserve(self._limit))

    def _measure(self) -> None:
        if self.budget is not None:
            self._usage = usage.measure(self._root)
            self._limit = policy.current_limit(self.budget, self._usage)

    def _wal_bytes(self) -> int:
        return policy.master_wal_bytes(self._limit)

    # -- a chunk ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def chunk(self, connection: Connection, merge_pass: MergePass, has_pending: Callable[[], bool]) -> Iterator[None]:
        """Limit the transaction in the block to the quota, and measure afterwards what it took.

        Args:
            connection: the master.
            merge_pass: its `chunk_bytes` is set.
            has_pending: returns whether any row is pending; called if there is no quota at all.

        Raises:
            QuotaExhaustedError: rows are pending, and there is no quota for any of them, or not enough for a writer's
                transaction, which is never divided.
        """
        copied_before = merge_pass.copied_bytes
        chunk_bytes = self._chunk_bytes(connection)
        try:
            if not chunk_bytes and has_pending():
                self.is_exhausted = True
                raise QuotaExhaustedError
            merge_pass.chunk_bytes = chunk_bytes or blocks.CHUNK_BYTES
            yield
        except sqlite.DatabaseFailure as error:
            if self.budget is None or not sqlite.is_full(error):
                raise
            self.is_exhausted = True
            raise QuotaExhaustedError from error
        finally:
            self._finish_chunk(connection, merge_pass.copied_bytes - copied_before)

    def _chunk_bytes(self, connection: Connection) -> int:
        """Return how much the next transaction may copy, or 0 if there is no quota for anything."""
        if self.budget is None:
            return blocks.CHUNK_BYTES
        self._measure()
        self._growth.begin(connection)
        page_bytes, free = int(connection.pragma("page_size")), int(connection.pragma("freelist_count"))
        # pages that a reader keeps in the WAL will still be added to the file
        wal_bytes = fingerprint.size(paths.wal(self._path))
        quota_bytes = policy.merge_quota(self._limit, self._usage) - wal_bytes
        if quota_bytes < policy.MIN_CHUNK_GROWTH * policy.MIN_CHUNK_BYTES:
            return 0
        most = policy.max_merge_quota(self._limit, self._usage) - wal_bytes
        connection.pragma("max_page_count", int(connection.pragma("page_count")) + most // 2 // page_bytes)
        fitting = policy.chunk_bytes(quota_bytes, free * page_bytes, self._growth.in_wal, self._growth.in_file)
        return max(_CHUNK_BYTES_MIN, min(blocks.CHUNK_BYTES, fitting))

    def _finish_chunk(self, connection: Connection, copied_bytes: int) -> None:
        """Shrink the WAL and measure the growth, after a chunk was committed, or failed (then it has 0 bytes)."""
        if self.budget is None:
            return
        connection.pragma("max_page_count", _PAGES_MAX)
        if self.is_near_limit or fingerprint.size(paths.wal(self._path)) > self._wal_bytes():
            sqlite.shrink_wal(connection)
        if copied_bytes >= _MEASURED_BYTES_MIN:
            self._growth.measure(connection, copied_bytes)

    # -- dropping rows ------------------------------------------------------------------------------------------------

    def drop_rows(self, connection: Connection) -> bool:
        """Drop the oldest rows of the least important tables if the budget allows that.

        Returns:
            Whether the store is smaller now.
        """
        if self.budget is None or self.budget.on_full != "drop-oldest":
            return False
        self._measure()
        before = self._usage.used
        with self._meter.elsewhere():
            self._follow_own_rules()
            self._drop_oldest(connection)
        has_dropped_some = self._usage.used < before
        self.is_exhausted = self.is_exhausted and not has_dropped_some
        return has_dropped_some

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
        self._measure()

    def _drop_oldest(self, connection: Connection) -> None:
        """Drop rows of agents that have many, and those of the others only if that is not enough."""
        few_rows = policy.agents_with_few_rows(streams.rows_by_agent(connection))
        for spared in dict.fromkeys([few_rows, ()]):
            for tables in _tables_by_priority(connection):
                wanted = policy.bytes_to_drop(self._limit, self._usage)
                if not wanted:
                    return
                self._drop(tables, spared, wanted)
                self._measure()

    def _drop(self, tables: tuple[str, ...] | None, spared: tuple[str, ...], count_bytes: int) -> None:
        from edgeshard.retention import prune, rules  # slow to import, and needed only within a budget

        target = max(1, self._usage.master - count_bytes)
        wanted = rules.Rules(max_bytes=target, tables=tables, size_reason=rules.BUDGET, protected_agents=spared)
        report = prune.prune(self._path, wanted, should_stop=self._should_stop)
        if report.rows:
            which = "all tables" if tables is None else f"tables {', '.join(tables)}"
            text = "dropped the %d oldest rows of %s from %s, to stay within the disk budget"
            logger.warning(text, report.rows, which, self._path)
        self.dropped += report.rows
        self.forgotten_streams += report.forgotten_streams

    def error(self, merged_rows: int, quarantined: int = 0) -> DiskBudgetError:
        """Return the error to raise if rows are pending and there is no quota to merge them.

        Args:
            merged_rows: how many rows were merged before.
            quarantined: how many shards are quarantined, and keep what they have.
        """
        if self.budget is None:
            raise AssertionError("there is no budget")
        self._measure()
        usage = self._usage
        text = (
            f"no space for pending rows, which stay in their shards ({merged_rows} were merged): "
            f"{policy.describe_usage(self._limit, self.budget, usage)}. Prune, push and prune, or raise the budget"
        )
        if self.budget.on_full == "drop-oldest":
            text += "; all rows that may be dropped were dropped, and current rows of keyed tables never are"
        if quarantined:
            text += f". {quarantined} quarantined shards keep all that they have: `edgeshard status` says why"
        shards = usage.shards + usage.wals
        return DiskBudgetError("merge into", self._path, text, usage.used, self._limit, shards, usage.master)


class _Growth:
    """How much larger rows become when they are merged.

    Attributes:
        in_file: how much larger rows are in the master's file than in a shard.
        in_wal: the same in the master's WAL.
    """

    def __init__(self) -> None:
        self.in_file = self.in_wal = policy.FIRST_GROWTH
        self._used_bytes = self._wal_pages = 0

    def begin(self, connection: Connection) -> None:
        """Measure the master before a chunk."""
        self._used_bytes, self._wal_pages = sqlite.used_bytes(connection), sqlite.wal_pages_written(connection)

    def measure(self, connection: Connection, copied_bytes: int) -> None:
        """Measure the master after a chunk of this many bytes."""
        wal_bytes = (sqlite.wal_pages_written(connection) - self._wal_pages) * int(connection.pragma("page_size"))
        self.in_file = _smoothed(self.in_file, (sqlite.used_bytes(connection) - self._used_bytes) / copied_bytes)
        self.in_wal = _smoothed(self.in_wal, wal_bytes / copied_bytes)


def _smoothed(known: float, found: float) -> float:
    """Smooth the estimate of row growth: raise it immediately, lower it gradually."""
    found *= policy.GROWTH_MARGIN
    return max(1.0, found, (known + found) / 2)


def _tables_by_priority(connection: Connection) -> list[tuple[str, ...] | None]:
    """Return the tables from which rows are dropped together, least important first; [None] for all tables alike."""
    known = catalog.load_priorities(connection)
    keyed = catalog.load_keys(connection)
    current = {table.lower() for table in keys.current_tables(keyed)}
    owners = {keys.history_name(name).lower(): name.lower() for name in keyed}
    by_priority: dict[int, list[str]] = {}
    for name in catalog.record_tables(connection):
        folded = name.lower()
        if folded not in current:
            by_priority.setdefault(known.get(owners.get(folded, folded), 0), []).append(name)
    return (
        [None] if len(by_priority) == 1 and not current else [tuple(names) for _, names in sorted(by_priority.items())]
    )
