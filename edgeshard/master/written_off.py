"""Own _edgeshard_written_off: rows whose loss a user accepted, by address.

These rows are missing, or somebody deleted them with another program. The record is about reports alone: it decides
nothing about what is copied or deleted. Missing rows that arrive later all the same are merged, and their record goes.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from edgeshard import sqlite
from edgeshard.format.ranges import Range, clip, subtract
from edgeshard.master import streams
from edgeshard.sqlite import Connection


def record(connection: Connection, stream_no: int, seqs: Iterable[Range], why: str) -> int:
    """Record that the loss of these rows is accepted, unless it is recorded; return how many rows that are."""
    new = subtract(seqs, ranges(connection, stream_no))
    at = datetime.datetime.now(datetime.UTC).isoformat()
    connection.executemany(
        "INSERT INTO main._edgeshard_written_off VALUES (?, ?, ?, ?, ?)",
        [(stream_no, part.first, part.last, why, at) for part in new],
    )
    return sum(map(len, new))


def forget(connection: Connection, stream_no: int, arrived: Iterable[Range]) -> None:
    """Delete the record of rows that have arrived, in the transaction that brings them."""
    sql = "SELECT first, last, why, accepted_at FROM main._edgeshard_written_off WHERE stream_no = ?"
    listed = sqlite.fetch(connection, sql, (stream_no,))
    seqs = list(arrived) if listed else []
    for first, last, why, at in listed:
        here = Range(first, last)
        if clip(seqs, here):
            sql = "DELETE FROM main._edgeshard_written_off WHERE stream_no = ? AND first = ?"
            connection.execute(sql, (stream_no, first))
            connection.executemany(
                "INSERT INTO main._edgeshard_written_off VALUES (?, ?, ?, ?, ?)",
                [(stream_no, part.first, part.last, why, at) for part in subtract([here], seqs)],
            )


def load(connection: Connection) -> list[tuple[str, bytes, Range, str, str]]:
    """Return (agent, stream id, seqs, why, when) of each accepted loss, by agent, stream and seq."""
    rows = sqlite.fetch(
        connection,
        f"SELECT agent_id, stream_id, first, last, why, accepted_at FROM main._edgeshard_written_off {streams.JOIN} "
        "ORDER BY agent_id, stream_id, first",
    )
    return [(agent, stream_id, Range(first, last), why, at) for agent, stream_id, first, last, why, at in rows]


def stream_numbers(connection: Connection) -> list[int]:
    """Return the numbers of the streams with such rows."""
    if not sqlite.has_table(connection, "_edgeshard_written_off"):  # a bundle, which is never merged into
        return []
    rows = sqlite.fetch(connection, "SELECT DISTINCT stream_no FROM main._edgeshard_written_off")
    return [number for (number,) in rows]


def ranges(connection: Connection, stream_no: int) -> list[Range]:
    """Return these rows of a stream, in order."""
    sql = "SELECT first, last FROM main._edgeshard_written_off WHERE stream_no = ? ORDER BY first"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (stream_no,))]


def all_ranges(connection: Connection) -> dict[int, list[Range]]:
    """Map stream numbers to these rows, in order."""
    found: dict[int, list[Range]] = {}
    sql = "SELECT stream_no, first, last FROM main._edgeshard_written_off ORDER BY stream_no, first"
    for number, first, last in sqlite.fetch(connection, sql):
        found.setdefault(number, []).append(Range(first, last))
    return found


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget which losses of a stream were accepted, in the transaction in which it retires: no row of it is lost."""
    connection.execute("DELETE FROM main._edgeshard_written_off WHERE stream_no = ?", (stream_no,))
