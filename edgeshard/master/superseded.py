"""Own edgeshard_superseded: how many rows of each stream newer versions of their key replaced."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.format import SUPERSEDED
from edgeshard.sqlite import Connection


def superseded_counts(connection: Connection) -> dict[int, int]:
    """Of each stream number, how many seqs in its blocks have no row any more, for a newer one replaced it."""
    if not sqlite.has_table(connection, SUPERSEDED):
        return {}
    return dict(sqlite.fetch(connection, f"SELECT stream_no, rows FROM main.{SUPERSEDED}"))


def subtract(connection: Connection, stream_no: int, rows: int) -> None:
    """Record that `rows` of the stream's superseded seqs are in no block any more, because they were pruned."""
    connection.execute(f"UPDATE main.{SUPERSEDED} SET rows = rows - ? WHERE stream_no = ?", (rows, stream_no))
