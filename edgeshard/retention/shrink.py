"""Give free pages of a master back to the disk, some at a time.

Deleted rows leave free pages in the file, and later merges fill these first: under a steady load with a prune now and
then, the file keeps its size. VACUUM would give them all back at once, but merges would have to wait for as long as it
takes to copy the whole database. In a master that was made with auto_vacuum=INCREMENTAL, SQLite knows what points to
each page, so the last pages can be moved into the gaps, and the file cut, in short transactions.
"""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.files import fingerprint
from edgeshard.sqlite import Connection

#: How many pages the first transaction moves, and the fewest and the most that one does.
FIRST_PAGES, MIN_PAGES, MAX_PAGES = 100, 10, 5_000


def page_bytes(connection: Connection) -> int:
    """Return the size of a page."""
    return int(connection.pragma("page_size"))


def free_bytes(connection: Connection) -> int:
    """Return the free space inside the file."""
    return int(connection.pragma("freelist_count")) * page_bytes(connection)


def used_bytes(connection: Connection) -> int:
    """Return the size of the pages in use."""
    return int(connection.pragma("page_count")) * page_bytes(connection) - free_bytes(connection)


def wal_bytes(path: str) -> int:
    """Return the size of a database's WAL."""
    return fingerprint.size(f"{path}-wal")


def release(connection: Connection, pages: int) -> int:
    """Give this many free pages back, in the caller's transaction. The next checkpoint cuts the file.

    Returns:
        By how many pages the database became smaller.
    """
    before = int(connection.pragma("page_count"))
    sqlite.release_pages(connection, pages)
    return before - int(connection.pragma("page_count"))
