"""Give free pages of a master back to the disk, some at a time.

Deleted rows leave free pages in the file, and later merges fill these first: under a steady load with a prune now and
then, the file keeps its size. VACUUM would give them all back at once, but merges would have to wait for as long as it
takes to copy the whole database. In a master that was made with auto_vacuum=INCREMENTAL, SQLite knows what points to
each page, so the last pages can be moved into the gaps, and the file cut, in short transactions.
"""

from __future__ import annotations

import time

from edgeshard import sqlite
from edgeshard.retention import plan, sizes
from edgeshard.retention.pace import pause
from edgeshard.retention.run import PruneRun
from edgeshard.sqlite import Connection

#: How many pages the first transaction moves, and the fewest and the most that any does.
FIRST_PAGES, MIN_PAGES, MAX_PAGES = 100, 10, 5_000


def give_pages_back(run: PruneRun, *, everything: bool) -> None:
    """Give pages back until none is free, or the file is as small as the rules ask for.

    Args:
        run: the prune, of a master whose file can become smaller.
        everything: give all free pages back; without this, only as many as `Rules.max_bytes` requires.
    """
    connection, size, released = run.connection, FIRST_PAGES, 1
    wanted = 0 if everything else _wanted_pages(run)
    most = MAX_PAGES if run.pace.wal_pages is None else max(1, run.pace.wal_pages // 2)
    while released and not run.is_stopping() and run.pace.may_grow_wal():
        with run.transaction():
            began = time.monotonic()
            free = int(connection.pragma("freelist_count"))
            pages = min(size, most, free, int(connection.pragma("page_count")) - wanted)
            released = release(connection, pages) if pages > 0 else 0
        took_s = time.monotonic() - began
        if released:
            size = plan.next_size(size, took_s, MIN_PAGES, MAX_PAGES)
        pause(took_s)


def _wanted_pages(run: PruneRun) -> int:
    """Return how many pages the file may have."""
    if run.rules.max_bytes is None:
        return int(run.connection.pragma("page_count"))
    return max(0, run.rules.max_bytes - sizes.wal_bytes(run.path)) // sizes.page_bytes(run.connection)


def release(connection: Connection, pages: int) -> int:
    """Give this many free pages back, in the caller's transaction. The next checkpoint cuts the file.

    Returns:
        By how many pages the database became smaller.
    """
    before = int(connection.pragma("page_count"))
    sqlite.release_pages(connection, pages)
    return before - int(connection.pragma("page_count"))
