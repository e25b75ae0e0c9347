"""Own _edgeshard_proven: which rows this master copied from a shard's own file, or compared with it.

A row may be deleted from a shard only if it is proven. As long as the master has the row, it can be compared at any
time; once the row was pruned or superseded, only this record can tell that the deleted row was the shard's own, and not
one that another database claimed to have under the same address. So it is written in the transaction that copies or
compares the rows, and kept as long as the stream is: a copy of the shard may be put back at any time. A file's rows
come in order, so there is one entry for each stream. Of a stream of which all rows were pruned, the name of the file
alone is kept: see `edgeshard.master.retired`.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeshard import sqlite
from edgeshard.format.ranges import Range, union
from edgeshard.sqlite import Connection


def ranges(connection: Connection, shard: str, stream_no: int) -> list[Range]:
    """Return which seqs of a stream were copied from a shard's file, or compared with it.

    Args:
        connection: the master.
        shard: the name of the file in the folder of shards.
        stream_no: the stream's number in the master.
    """
    sql = "SELECT first, last FROM main._edgeshard_proven WHERE shard = ? AND stream_no = ? ORDER BY first"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (shard, stream_no))]


def record(connection: Connection, shard: str, stream_no: int, seqs: Iterable[Range]) -> None:
    """Record that these seqs were copied from a shard's file, or compared with it, in the caller's transaction."""
    before = ranges(connection, shard, stream_no)
    now = union([*before, *seqs])
    if now == before:
        return
    for first in {part.first for part in before}.difference(part.first for part in now):
        sql = "DELETE FROM main._edgeshard_proven WHERE shard = ? AND stream_no = ? AND first = ?"
        connection.execute(sql, (shard, stream_no, first))
    for part in set(now).difference(before):
        connection.execute(
            "INSERT INTO main._edgeshard_proven(shard, stream_no, first, last) VALUES (?, ?, ?, ?) "
            "ON CONFLICT(stream_no, shard, first) DO UPDATE SET last = excluded.last",
            (shard, stream_no, part.first, part.last),
        )


def shards(connection: Connection, stream_no: int) -> dict[str, list[Range]]:
    """Map the names of shard files to the seqs of a stream that are proven of them."""
    sql = "SELECT shard, first, last FROM main._edgeshard_proven WHERE stream_no = ? ORDER BY shard, first"
    found: dict[str, list[Range]] = {}
    for shard, first, last in sqlite.fetch(connection, sql, (stream_no,)):
        found.setdefault(shard, []).append(Range(first, last))
    return found


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget what is proven of a stream, in the transaction in which it retires."""
    connection.execute("DELETE FROM main._edgeshard_proven WHERE stream_no = ?", (stream_no,))
