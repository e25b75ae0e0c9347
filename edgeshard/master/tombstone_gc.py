"""Own _edgeshard_tombstone_gc: for each keyed table, the timestamp of the newest tombstone that was ever deleted."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.sqlite import Connection


def newest_pruned(connection: Connection) -> dict[str, int]:
    """Map each keyed table that had tombstones pruned to the newest timestamp among them."""
    return dict(sqlite.fetch(connection, "SELECT table_name, last_timestamp FROM main._edgeshard_tombstone_gc"))


def forget(connection: Connection, table: str) -> None:
    """Forget a table that is dropped, in the same transaction."""
    connection.execute("DELETE FROM main._edgeshard_tombstone_gc WHERE table_name = ?", (table,))


def record(connection: Connection, table: str, timestamp: int) -> None:
    """Record the timestamp of a tombstone of a keyed table, in the transaction that prunes it."""
    connection.execute(
        "INSERT INTO main._edgeshard_tombstone_gc VALUES (?, ?) ON CONFLICT(table_name) "
        "DO UPDATE SET last_timestamp = excluded.last_timestamp WHERE excluded.last_timestamp > last_timestamp",
        (table, timestamp),
    )
