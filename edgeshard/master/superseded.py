"""Own _edgeshard_superseded: how many rows of each stream were superseded by newer versions of their key."""

from __future__ import annotations

from collections.abc import Iterable

from edgeshard import sqlite
from edgeshard.records.json_values import to_json
from edgeshard.sqlite import Connection


def superseded_counts(connection: Connection) -> dict[int, int]:
    """Map each stream number to the number of seqs in its blocks whose row was superseded and is no longer here."""
    return dict(sqlite.fetch(connection, "SELECT stream_no, rows FROM main._edgeshard_superseded"))


def counts_of(connection: Connection, stream_nos: Iterable[int]) -> dict[int, int]:
    """Return the same, of these streams only."""
    sql = "SELECT stream_no, rows FROM main._edgeshard_superseded WHERE stream_no IN (SELECT value FROM json_each(?))"
    return dict(sqlite.fetch(connection, sql, (to_json(list(stream_nos)),)))


def add(connection: Connection, stream_no: int, rows: int) -> None:
    """Record that `rows` more seqs of the stream's blocks have no row, because newer versions superseded them."""
    if rows:
        connection.execute(
            "INSERT INTO main._edgeshard_superseded VALUES (?1, ?2) "
            "ON CONFLICT(stream_no) DO UPDATE SET rows = rows + ?2",
            (stream_no, rows),
        )


def subtract(connection: Connection, stream_no: int, rows: int) -> None:
    """Record that `rows` of the stream's superseded seqs are in no block any more, because they were pruned."""
    connection.execute("UPDATE main._edgeshard_superseded SET rows = rows - ? WHERE stream_no = ?", (rows, stream_no))


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget how many rows of a stream were superseded, in the transaction in which it retires: 0."""
    connection.execute("DELETE FROM main._edgeshard_superseded WHERE stream_no = ?", (stream_no,))
