"""What a merge may take of a store's budget, and how it makes room where rows may be dropped.

With a budget a merge goes in turns, once the store is no longer rather empty: it copies a chunk for which there is
room, commits, empties the master's log, and has the shards give back what was copied, before it copies more. Rows that
are dropped are the oldest of the master's, of the tables with the lowest priority, by the very steps of a prune: they
are noted by address, with the reason "budget". Before that the store's own rules are followed, if it has any: what is
to go anyway goes first. Rows of shards that the master does not hold are nobody's to drop, nor are those of tables with
a key: they are not the past but how things stand, and there is no older one that could go instead. And whoever fills
the store makes the room: agents that have few rows lose none, as long as others have some that can go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeshard import format, sqlite
from edgeshard.budget import policy, usage
from edgeshard.budget.policy import Budget, Usage
from edgeshard.errors import DiskBudgetError
from edgeshard.files import fingerprint
from edgeshard.format import blocks
from edgeshard.master import catalog, database, write_stats
from edgeshard.records import keys
from edgeshard.retention.store_rules import Retention
from edgeshard.sqlite import Connection

if TYPE_CHECKING:
    from edgeshard.retention.scheduler import RetentionResult


logger = logging.getLogger("edgeshard.merge")

#: Of a chunk of at least so many bytes it is learnt how much it takes in the master; and none is smaller than that,
#: where there is room for a chunk at all: of rows that take many times their size there, in indexes.
_LEAST_MEASURED = _LEAST_WANTED = policy.MIN_CHUNK_BYTES // 4

#: No limit of SQLite's lies above this.
_PAGES_MOST: Final = 0xFFFFFFFE


class MergeQuota:
    """The room of one merger's passes.

    Attributes:
        known: the budget; None: there is none, and all of this allows everything.
        dropped: rows that this pass dropped.
        kept: what this pass did for the store's own rules.
        is_wanting: whether the last chunk found no room, although rows wait.
    """

    def __init__(
        self, root: Path, path: Path, prune: Retention, meter: write_stats.Meter, stopping: Callable[[], bool]
    ) -> None:
        self._root = root
        self._path = path
        self._prune = prune
        self._prune_at = 0.0
        self._meter = meter
        self._stopping = stopping
        self.known: Budget | None = None
        self.dropped = 0
        self.kept: list[RetentionResult] = []
        self.is_wanting = False
        self._usage = Usage()
        self._limit = 0
        self._growth = self._logged = policy.FIRST_GROWTH
        self._in_use = self._pages_logged = 0

    # -- a pass -------------------------------------------------------------------------------------------------------

    def begin(self, connection: Connection) -> None:
        """Read the budget anew, and drop rows where that is due."""
        before, self.known = self.known, usage.load_budget(self._root)
        self.dropped, self.kept, self.is_wanting = 0, [], False
        if self.known is None:
            if before is not None:
                database.set_log_limits(connection)
            return
        self._measure()
        database.set_log_limits(connection, self._log_bytes())
        if policy.is_drop_due(self._limit, self._usage):
            self.make_room(connection)

    @property
    def is_tight(self) -> bool:
        """Whether shards give back at once what was copied."""
        return self.known is not None and policy.is_truncation_urgent(self._limit, self._usage)

    def left_bytes(self) -> int | None:
        """What the truncation of a shard may add now; None: there is no limit. No drop is at work beside it."""
        self._measure()
        if self.known is None:
            return None
        return max(0, policy.merge_quota(self._limit, self._usage) + policy.drop_reserve(self._limit))

    def _measure(self) -> None:
        if self.known is not None:
            self._usage = usage.measure(self._root)
            self._limit = policy.current_limit(self.known, self._usage)

    def _log_bytes(self) -> int:
        return policy.master_wal_bytes(self._limit)

    # -- a chunk ------------------------------------------------------------------------------------------------------

    def chunk_bytes(self, connection: Connection) -> int:
        """How much the next transaction may copy; 0 where there is no room for anything."""
        if self.known is None:
            return blocks.CHUNK_BYTES
        self._measure()
        page_bytes, free = int(connection.pragma("page_size")), int(connection.pragma("freelist_count"))
        pages = int(connection.pragma("page_count"))
        self._in_use, self._pages_logged = (pages - free) * page_bytes, sqlite.wal_pages_written(connection)
        # what a log that somebody reads keeps from its file is yet to come there
        log = fingerprint.size(f"{self._path}-wal")
        room = policy.merge_quota(self._limit, self._usage) - log
        if room < policy.MIN_CHUNK_GROWTH * policy.MIN_CHUNK_BYTES:
            return 0
        most = policy.max_merge_quota(self._limit, self._usage) - log
        connection.pragma("max_page_count", pages + most // 2 // page_bytes)
        wanted = policy.chunk_bytes(room, free * page_bytes, self._logged, self._growth)
        return max(_LEAST_WANTED, min(blocks.CHUNK_BYTES, wanted))

    def copied(self, connection: Connection, count: int) -> None:
        """A chunk of so many bytes is committed, or not, where that is 0: the log gives its room back."""
        if self.known is None:
            return
        connection.pragma("max_page_count", _PAGES_MOST)
        if self.is_tight or fingerprint.size(f"{self._path}-wal") > self._log_bytes():
            sqlite.shrink_wal(connection)
        if count >= _LEAST_MEASURED:
            page_bytes = int(connection.pragma("page_size"))
            pages = int(connection.pragma("page_count")) - int(connection.pragma("freelist_count"))
            self._growth = _slowly(self._growth, (pages * page_bytes - self._in_use) / count)
            pages = sqlite.wal_pages_written(connection) - self._pages_logged
            self._logged = _slowly(self._logged, pages * page_bytes / count)

    # -- where there is none ------------------------------------------------------------------------------------------

    def make_room(self, connection: Connection) -> bool:
        """Drop the oldest rows of the least important tables, where that is allowed; whether there is room now."""
        if self.known is None or self.known.on_full != "drop-oldest":
            return False
        self._measure()
        before = self._usage.used
        with self._meter.elsewhere():
            self._follow_own_rules()
            self._drop_oldest(connection)
        has_made_some = self._usage.used < before
        self.is_wanting = self.is_wanting and not has_made_some
        return has_made_some

    def _follow_own_rules(self) -> None:
        """Where that was in vain the next time is long after, as beside a merger that watches."""
        if not self._prune or time.monotonic() < self._prune_at:
            return
        from edgeshard.retention import (
            due,
            scheduler,  # a store without a budget need not wait for it
        )

        began = time.monotonic()
        kept = scheduler.prune_once(self._path, self._prune, should_stop=self._stopping)
        self.kept.append(kept)
        if kept.report is None or not kept.report.rows:
            now = time.monotonic()
            self._prune_at = now + (now - began) / due.FRUITLESS_FRACTION
        self._measure()

    def _drop_oldest(self, connection: Connection) -> None:
        """Of agents that have much, and of the others only where that is not enough."""
        quiet = policy.agents_with_few_rows(_rows_by_agent(connection))
        for spared in dict.fromkeys([quiet, ()]):
            for tables in _levels(connection):
                wanted = policy.bytes_to_drop(self._limit, self._usage)
                if not wanted:
                    return
                self._drop(tables, spared, wanted)
                self._measure()

    def _drop(self, tables: tuple[str, ...] | None, spared: tuple[str, ...], count: int) -> None:
        from edgeshard.retention import (
            prune,
            rules,  # a store without a budget need not wait for it
        )

        target = max(1, self._usage.master - count)
        asked = rules.Rules(max_bytes=target, tables=tables, size_reason=rules.BUDGET, protected_agents=spared)
        report = prune.prune(self._path, asked, should_stop=self._stopping)
        if report.rows:
            which = "all tables" if tables is None else f"tables {', '.join(tables)}"
            text = "dropped the %d oldest rows of %s from %s, which its budget has no room for"
            logger.warning(text, report.rows, which, self._path)
        self.dropped += report.rows

    def error(self, rows: int) -> DiskBudgetError:
        """The error of rows that wait without room for them.

        Args:
            rows: how many were merged before.
        """
        if self.known is None:
            raise AssertionError("there is no budget")
        self._measure()
        usage = self._usage
        text = (
            f"rows wait in the shards, where they stay, and there is no room to merge them ({rows} were merged): "
            f"{policy.describe_usage(self._limit, self.known, usage)}. Prune, push and prune, or raise the budget"
        )
        if self.known.on_full == "drop-oldest":
            text += "; what could be dropped was dropped, and rows of tables with a key never are"
        shards = usage.shards + usage.wals
        return DiskBudgetError("merge into", self._path, text, usage.used, self._limit, shards, usage.master)


def _rows_by_agent(connection: Connection) -> dict[str, int]:
    sql = (
        "SELECT agent_id, sum(last - first + 1) FROM edgeshard_blocks JOIN edgeshard_streams USING (stream_no) "
        "GROUP BY agent_id"
    )
    return dict(sqlite.fetch(connection, sql))


def _levels(connection: Connection) -> list[tuple[str, ...] | None]:
    """The tables that rows are dropped from together, the least important first; None where all are alike."""
    has_some = database.has(connection, format.PRIORITIES)
    known = catalog.priorities_of(connection, "main") if has_some else {}
    keyed = catalog.load_keys(connection)
    kept = {table.lower() for name, key in keyed.items() for table, _ in keys.changed_tables(name, key)}
    owners = {keys.history_name(name).lower(): name.lower() for name in keyed}
    found: dict[int, list[str]] = {}
    for name in catalog.record_tables(connection):
        folded = name.lower()
        if folded not in kept:
            found.setdefault(known.get(owners.get(folded, folded), 0), []).append(name)
    return [None] if len(found) == 1 and not kept else [tuple(names) for _, names in sorted(found.items())]


def _slowly(known: float, found: float) -> float:
    """How much larger rows become, as it was found last: more is believed at once, and less by and by."""
    found *= policy.GROWTH_MARGIN
    return max(1.0, found, (known + found) / 2)
