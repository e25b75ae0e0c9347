"""Give free pages of a master back to the disk, some at a time.

Deleted rows leave free pages in the file, and later merges fill these first: under a steady load with a prune now and
then, the file keeps its size. VACUUM would give them all back at once, but merges would have to wait for as long as it
takes to copy the whole database. In a master that was made with auto_vacuum=INCREMENTAL, SQLite knows what points to
each page, so the last pages can be moved into the gaps, and the file cut, in short transactions.

Within a disk budget, free pages count as used: they are given back once writers need them, and no more than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from edgeshard import sqlite
from edgeshard.budget import policy, quotas, usage
from edgeshard.budget.policy import Budget
from edgeshard.files import fingerprint
from edgeshard.master import database
from edgeshard.retention import plan, sizes
from edgeshard.retention.pace import PRUNE_WALS, Pace, pause
from edgeshard.retention.run import PruneRun
from edgeshard.sqlite import Connection

#: How many pages the first transaction moves, and the fewest and the most that any does.
FIRST_PAGES, MIN_PAGES, MAX_PAGES = 100, 10, 5_000


def give_pages_back(run: PruneRun, budget: Budget | None, *, everything: bool) -> None:
    """Give pages back until none is free, or the file is as small as the rules and the disk budget ask for.

    Args:
        run: the prune, of a master whose file can become smaller.
        budget: the store's.
        everything: give all free pages back; without this, only as many as `Rules.max_bytes` requires, or as writers
            lack.
    """
    connection = run.connection
    wanted = 0 if everything else _wanted_pages(run)
    if budget is not None and not everything and not run.pace.is_for_budget:
        lacking = _lacking_pages(connection, run.path, budget)
        wanted = min(wanted, int(connection.pragma("page_count")) - lacking)
    _cut_file(connection, wanted, run.pace, run.transaction, run.is_stopping)


def make_space_for_writers(connection: Connection, path: Path, budget: Budget, should_stop: Callable[[], bool]) -> bool:
    """Give free pages back if little of a disk budget is left for writers, and as many as they lack.

    The caller holds ``merge.lock``, and has the half of the reserve that is for deleting rows. The WAL stays limited
    to a part of that afterwards.

    Returns:
        Whether any were given back.
    """
    if not sqlite.is_incremental(connection):
        return False
    lacking = _lacking_pages(connection, str(path), budget)
    if not lacking:
        return False
    before = int(connection.pragma("page_count"))
    pace = Pace(connection, str(path), limit_wal(connection, budget), is_for_budget=True)
    _cut_file(connection, before - lacking, pace, partial(sqlite.immediate, connection), should_stop)
    sqlite.shrink_wal(connection)
    return int(connection.pragma("page_count")) < before


def limit_wal(connection: Connection, budget: Budget) -> int:
    """Keep the WAL as short as the reserve requires while rows are deleted; return how many pages it may have."""
    # the WAL, one more transaction of that size, and what remains of another
    wal_bytes = policy.delete_bytes(budget) // PRUNE_WALS
    database.set_wal_limits(connection, wal_bytes)
    return max(1, wal_bytes // sizes.page_bytes(connection))


def _lacking_pages(connection: Connection, path: str, budget: Budget) -> int:
    """Return how many free pages to give back so that enough is left for writers."""
    found = sizes.free_bytes(connection)
    if not found:
        return 0
    for is_wal_empty in (False, True):
        if is_wal_empty:
            sqlite.shrink_wal(connection)  # that may be enough
        measured = usage.measure(Path(path).parent, without=quotas.MERGER, sizes_only=True)
        found = policy.bytes_to_give_back(budget, measured, sizes.free_bytes(connection))
        if not found:
            return 0
    # as long as somebody reads, the file cannot be cut, and still has the pages that were given back before
    found -= max(0, fingerprint.size(path) - sizes.file_bytes(connection))
    return max(0, -(-found // sizes.page_bytes(connection)))


def _cut_file(
    connection: Connection,
    wanted: int,
    pace: Pace,
    transaction: Callable[[], AbstractContextManager[None]],
    should_stop: Callable[[], bool],
) -> None:
    """Give free pages back, some in each transaction, until the file has as many as are wanted."""
    size, released = FIRST_PAGES, 1
    most = MAX_PAGES if pace.wal_pages is None else max(1, pace.wal_pages // 2)
    while released and not should_stop() and pace.is_wal_short():
        with transaction():
            began = time.monotonic()
            free = int(connection.pragma("freelist_count"))
            pages = min(size, most, free, int(connection.pragma("page_count")) - wanted)
            released = release(connection, pages) if pages > 0 else 0
        took_s = time.monotonic() - began
        if released:
            size = plan.next_size(size, took_s, MIN_PAGES, MAX_PAGES)
        pause(took_s)


def _wanted_pages(run: PruneRun) -> int:
    """Return how many pages the file may have by the rules."""
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
