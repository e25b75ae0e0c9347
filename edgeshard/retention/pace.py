"""Pace the transactions of a prune: mergers get in between, and within a disk budget the WAL stays short."""

from __future__ import annotations

import time
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.retention import plan, sizes
from edgeshard.retention.plan import PruneBatch
from edgeshard.sqlite import Connection

#: The shortest rest between two transactions of a prune, in seconds: a process that waits for the lock tries it every
#: 2 ms (see `sqlite.set_busy_timeout`).
PAUSE_S = 0.005

#: Within a disk budget, how many WALs of the size at which it is checkpointed fit into the part of the reserve that is
#: for deleting rows: the WAL, one more transaction of that size, and remains.
PRUNE_WALS: Final = 3

#: How many pages a row adds to a short WAL, before that is measured: its own, and one of each of some indexes.
_PAGES_PER_ROW: Final = 4


@attrs.define
class Pace:
    """How much the next transaction does.

    Attributes:
        connection: the master.
        path: its path.
        wal_pages: how long the WAL may become, in pages; None: only the usual limit.
        is_for_budget: whether the prune is for the disk budget, so that the WAL must stay within its part of the
            reserve.
        window_rows: how many rows the next transaction examines.
        streams: how many streams the next transaction retires.
    """

    connection: Connection
    path: str
    wal_pages: int | None
    is_for_budget: bool
    window_rows: int = attrs.Factory(lambda: plan.FIRST_ROWS)
    streams: int = plan.FIRST_STREAMS

    def __attrs_post_init__(self) -> None:
        if self.wal_pages is not None:
            self.window_rows = max(plan.MIN_ROWS_SHORT_WAL, self.wal_pages // _PAGES_PER_ROW)
            self.streams = min(self.streams, self.window_rows)

    def adapt(self, batch: PruneBatch | None, took_s: float, pages_written: int) -> None:
        """Choose how many rows the next transaction examines, by the time and the WAL that the last one took."""
        self.window_rows = plan.next_size(self.window_rows, took_s, plan.MIN_ROWS, plan.MAX_ROWS)
        if self.wal_pages is not None and batch is not None and batch.rows:
            self.window_rows = min(self.window_rows, plan.rows_for_wal(batch.rows, pages_written, self.wal_pages))

    def adapt_streams(self, examined: int, retired: int, took_s: float, pages_written: int) -> None:
        """Choose how many streams the next transaction retires, by the time and the WAL that the last one took."""
        self.streams = plan.next_size(max(1, examined), took_s, plan.MIN_ROWS_SHORT_WAL, plan.MAX_STREAMS)
        if self.wal_pages is not None and retired:
            self.streams = min(self.streams, plan.rows_for_wal(retired, pages_written, self.wal_pages))

    def may_grow_wal(self) -> bool:
        """Return whether deleting more rows may make the WAL longer.

        A WAL that a long read uses cannot restart. Once it has filled its part of the reserve, a prune for the disk
        budget ends.
        """
        return not self.is_for_budget or self.is_wal_short()

    def is_wal_short(self) -> bool:
        """Return whether the WAL has not filled its part of the reserve, after emptying it if it has."""
        if self.wal_pages is None:
            return True
        most = self.wal_pages * sizes.page_bytes(self.connection) * (PRUNE_WALS - 1)
        if sizes.wal_bytes(self.path) > most:
            sqlite.shrink_wal(self.connection)
        return sizes.wal_bytes(self.path) <= most


def pause(took_s: float) -> None:
    """Rest after a transaction that took this long, so that a merger gets the lock."""
    time.sleep(max(PAUSE_S, took_s / 2))
