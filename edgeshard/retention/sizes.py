"""Measure a master: its file, its free pages, and its WAL."""

from __future__ import annotations

from edgeshard.files import fingerprint, paths
from edgeshard.sqlite import Connection


def page_bytes(connection: Connection) -> int:
    """Return the size of a page."""
    return int(connection.pragma("page_size"))


def file_bytes(connection: Connection) -> int:
    """Return the size of the file, once its WAL is checkpointed."""
    return int(connection.pragma("page_count")) * page_bytes(connection)


def free_bytes(connection: Connection) -> int:
    """Return the free space inside the file."""
    return int(connection.pragma("freelist_count")) * page_bytes(connection)


def wal_bytes(path: str) -> int:
    """Return the size of a database's WAL."""
    return fingerprint.size(paths.wal(path))
