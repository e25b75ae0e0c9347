"""What a master takes, and how its free pages go back to the disk.

Deleted rows leave free pages in the file, and later merges fill these first: under a steady load with a prune now and
then the file stays as large as it is. VACUUM would give them back at once, and keep merges waiting for as long as
copying the whole database takes. A master that was made with auto_vacuum=INCREMENTAL knows where each page is pointed
to from, so that the last pages can be moved into the gaps, some at a time.
"""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.files import fingerprint, paths
from edgeshard.retention.plan import STEP_S
from edgeshard.sqlite import Connection

#: Pages moved in the first transaction, and the fewest and the most in one.
PAGES_FIRST, PAGES_LEAST, PAGES_MOST = 100, 10, 5_000


def page_bytes(connection: Connection) -> int:
    """The size of a page."""
    return int(connection.pragma("page_size"))


def free_bytes(connection: Connection) -> int:
    """What lies free in the file."""
    return int(connection.pragma("freelist_count")) * page_bytes(connection)


def log_bytes(path: str) -> int:
    """The size of the log."""
    return fingerprint.size(paths.wal(path))


def can_shrink(connection: Connection) -> bool:
    """Whether free pages can be given back some at a time: masters that are older than that cannot."""
    return sqlite.is_incremental(connection)


def next_pages(pages: int, took_s: float) -> int:
    """How many pages the next transaction moves, after one of `pages` took `took_s`."""
    return min(PAGES_MOST, max(PAGES_LEAST, int(pages * min(2.0, max(0.5, STEP_S / max(took_s, 1e-6))))))


def shrink_by(connection: Connection, pages: int) -> None:
    """Give so many pages back, in one transaction. The file is cut when the log is next copied into it."""
    sqlite.release_pages(connection, pages)
