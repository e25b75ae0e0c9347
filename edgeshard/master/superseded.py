"""Own edgeshard_superseded: how many rows of each stream newer versions of their key replaced."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.format import SUPERSEDED
from edgeshard.sqlite import Connection


def superseded_counts(connection: Connection) -> dict[int, int]:
    """Of each stream number, how many seqs in its blocks have no row any more, for a newer one replaced it."""
    return dict(sqlite.fetch(connection, f"SELECT stream_no, rows FROM main.{SUPERSEDED}"))


def add(connection: Connection, stream_no: int, rows: int) -> None:
    """Record that `rows` more seqs of the stream's blocks have no row, because newer versions superseded them."""
    if rows:
        connection.execute(
            f"INSERT INTO main.{SUPERSEDED} VALUES (?1, ?2) ON CONFLICT(stream_no) DO UPDATE SET rows = rows + ?2",
            (stream_no, rows),
        )
