"""What the rules of one prune share: the connection, the scope, the progress, and the pace of the transactions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.retention import plan, rules, shrink
from edgeshard.retention.deletable import DeletableSeqs
from edgeshard.retention.plan import PruneBatch
from edgeshard.retention.progress import PruneProgress
from edgeshard.retention.rules import Rules
from edgeshard.retention.scope import Scope
from edgeshard.sqlite import Connection

#: How long a prune rests between two transactions at least, in seconds: whoever waits for the lock asks for it every
#: 2 ms (see `sqlite.set_busy_timeout`).
PAUSE_S = 0.005

#: How many pages a row adds to a short WAL, before that is measured: its own, and one of each of some indexes.
_PAGES_PER_ROW: Final = 4


@attrs.define
class PruneRun:
    """One prune at work.

    Attributes:
        connection: the master.
        path: its path.
        rules: what is asked for.
        scope: which tables that concerns.
        deletable: which seqs may be deleted.
        progress: what was done so far.
        should_stop: asked after each transaction.
        dry_run: whether nothing is changed.
        row_bytes: the average size of a row in the master, in bytes.
        wal_pages: how long the WAL should become, in pages; None: no limit but the usual one.
        window_rows: how many rows the next transaction looks at.
        stopped: whether `should_stop` ever said yes.
    """

    connection: Connection
    path: str
    rules: Rules
    scope: Scope
    deletable: DeletableSeqs
    progress: PruneProgress
    should_stop: Callable[[], bool]
    dry_run: bool
    row_bytes: float
    wal_pages: int | None = None
    window_rows: int = attrs.Factory(lambda: plan.FIRST_ROWS)
    stopped: bool = False

    def __attrs_post_init__(self) -> None:
        if self.wal_pages is not None:
            self.window_rows = max(plan.MIN_ROWS_SHORT_WAL, self.wal_pages // _PAGES_PER_ROW)

    def is_stopping(self) -> bool:
        """Return whether the prune was asked to stop; once it was, it stops."""
        self.stopped = self.stopped or self.should_stop()
        return self.stopped

    def may_grow_wal(self) -> bool:
        """Return whether the WAL may become longer.

        If the budget asked for this prune, the WAL has a reserve of its own there. A WAL that somebody reads for long
        cannot restart, and must not use up more.
        """
        if self.wal_pages is None or self.rules.size_reason != rules.BUDGET:
            return True
        most = self.wal_pages * shrink.page_bytes(self.connection) * (policy.PRUNE_WALS - 1)
        if shrink.wal_bytes(self.path) > most:
            sqlite.shrink_wal(self.connection)
        return shrink.wal_bytes(self.path) <= most

    def adapt_window(self, batch: PruneBatch | None, took_s: float, logged_pages: int) -> None:
        """Choose how many rows the next transaction looks at, by the time and the WAL that the last one took."""
        self.window_rows = plan.next_size(self.window_rows, took_s, plan.MIN_ROWS, plan.MAX_ROWS)
        if self.wal_pages is not None and batch is not None and batch.rows:
            most = plan.rows_for_wal(batch.rows, logged_pages, self.wal_pages)
            self.window_rows = min(self.window_rows, most)


def pause(took_s: float) -> None:
    """Rest after a transaction, so that a merger gets the lock."""
    time.sleep(max(PAUSE_S, took_s / 2))
