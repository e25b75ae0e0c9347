"""Measure what fills a database, in bytes."""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from edgeshard.sqlite import rows


def has_statistics() -> bool:
    """Return whether this SQLite can say which pages belong to which table: it was compiled with dbstat."""
    return "ENABLE_DBSTAT_VTAB" in apsw.compile_options


def tree_bytes(connection: apsw.Connection, names: Iterable[str]) -> int:
    """Return how many bytes the pages of these tables and indexes take in the main database, free space included.

    The pages of these are read, and no others. Requires `has_statistics`.
    """
    sql = "SELECT pgsize FROM dbstat WHERE schema = 'main' AND aggregate = 1 AND name = ?"
    return sum(rows.scalar(connection, sql, (name,)) or 0 for name in names)


def index_names(connection: apsw.Connection) -> dict[str, list[str]]:
    """Map the name of each table of the main database that has indexes to their names."""
    found: dict[str, list[str]] = {}
    sql = "SELECT tbl_name, name FROM main.sqlite_schema WHERE type = 'index'"
    for table, name in rows.fetch(connection, sql):
        found.setdefault(table, []).append(name)
    return found
