"""Which tables are kept longest where a budget has rows dropped: a number for each, higher is kept longer.

Agents say it with their classes, and may contradict one another: the highest wins, in whatever order they are merged. A
table of which nothing is noted has 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgeshard import database, format
from edgeshard.database import Connection, quote

TABLE = format.PRIORITIES
_NOTE = f"INSERT INTO main.{TABLE} VALUES (?1, ?2) ON CONFLICT(table_name) DO UPDATE SET priority = ?2"


def missing(connection: Connection, table: str, priority: int) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The statements that note a table's priority in a shard, unless that knows of it."""
    if not priority:
        return
    exists = database.has_table(connection, TABLE)
    if not exists:
        yield format.ADDED_TEXTS[TABLE], ()
    if priority > (of_all(connection, "main").get(table.lower(), 0) if exists else 0):
        yield _NOTE, (table.lower(), priority)


def of_all(connection: Connection, schema: str) -> dict[str, int]:
    """The priority of each table that has one, by its name in lower case, as a database of ours says."""
    rows = database.fetch(connection, f"SELECT table_name, priority FROM {quote(schema)}.{TABLE}")
    return {str(name): int(priority) for name, priority in rows}


def note(connection: Connection, found: Mapping[str, int]) -> None:
    """Note in the main database what a source says, where that is more."""
    known = of_all(connection, "main") if found else {}
    for name, priority in found.items():
        if priority > known.get(name, 0):
            connection.execute(_NOTE, (name, priority))
