"""Own _edgeshard_tombstone_gc: for each keyed table, the timestamp of the newest tombstone that was ever deleted."""

from __future__ import annotations

import attrs

from edgeshard import sqlite
from edgeshard.sqlite import Connection


@attrs.frozen
class Collected:
    """What was deleted of the tombstones of a keyed table.

    Attributes:
        last_timestamp: the newest timestamp among them.
        grace_s: the grace period of the prune that deleted that one, in seconds.
    """

    last_timestamp: int
    grace_s: float


def load(connection: Connection) -> dict[str, Collected]:
    """Map each keyed table that had tombstones pruned to what was deleted of them."""
    rows = sqlite.fetch(connection, "SELECT table_name, last_timestamp, grace_s FROM main._edgeshard_tombstone_gc")
    return {name: Collected(timestamp, grace_s) for name, timestamp, grace_s in rows}


def newest_pruned(connection: Connection) -> dict[str, int]:
    """Map each keyed table that had tombstones pruned to the newest timestamp among them."""
    return dict(sqlite.fetch(connection, "SELECT table_name, last_timestamp FROM main._edgeshard_tombstone_gc"))


def forget(connection: Connection, table: str) -> None:
    """Forget a table that is dropped, in the same transaction."""
    connection.execute("DELETE FROM main._edgeshard_tombstone_gc WHERE table_name = ?", (table,))


def record(connection: Connection, table: str, timestamp: int, grace_s: float) -> None:
    """Record the timestamp of a tombstone of a keyed table, in the transaction that prunes it; see `Collected`."""
    connection.execute(
        "INSERT INTO main._edgeshard_tombstone_gc VALUES (?, ?, ?) ON CONFLICT(table_name) DO UPDATE "
        "SET last_timestamp = excluded.last_timestamp, grace_s = excluded.grace_s "
        "WHERE excluded.last_timestamp > last_timestamp",
        (table, timestamp, grace_s),
    )
