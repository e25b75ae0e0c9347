"""Own edgeshard_tombstone_gc: the newest tombstone of each keyed table that was pruned."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.format import TOMBSTONE_GC
from edgeshard.sqlite import Connection


def collected(connection: Connection) -> dict[str, int]:
    """Of each keyed table of which deletions were pruned, the newest timestamp that one of them had."""
    return dict(sqlite.fetch(connection, f"SELECT table_name, last_timestamp FROM main.{TOMBSTONE_GC}"))


def note_collected(connection: Connection, name: str, timestamp: int) -> None:
    """Note that a deletion of a keyed table, timestamped so, is pruned, in the transaction that does it."""
    connection.execute(
        f"INSERT INTO main.{TOMBSTONE_GC} VALUES (?, ?) ON CONFLICT(table_name) "
        "DO UPDATE SET last_timestamp = excluded.last_timestamp WHERE excluded.last_timestamp > last_timestamp",
        (name, timestamp),
    )
