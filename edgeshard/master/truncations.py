"""Own _edgeshard_truncations of a master: rows that the shards it merged had truncated for another database."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.format.ranges import Range
from edgeshard.master import streams
from edgeshard.sqlite import Connection


def record(connection: Connection, stream_no: int, seqs: Range, database_id: bytes) -> None:
    """Record that a shard truncated these seqs because another database held them.

    Args:
        connection: the master, in the transaction of a merge.
        stream_no: the stream's number there.
        seqs: the truncated seqs, some of which the master does not hold.
        database_id: the database that held them.
    """
    connection.execute(
        # an older copy of the source knows of fewer truncated seqs
        "INSERT INTO main._edgeshard_truncations VALUES (?, ?, ?, ?) ON CONFLICT(stream_no, first) "
        "DO UPDATE SET last = excluded.last, database_id = excluded.database_id WHERE excluded.last > last",
        (stream_no, seqs.first, seqs.last, database_id),
    )


def of_stream(connection: Connection, stream_id: bytes) -> list[tuple[Range, bytes]]:
    """Return which seqs of a stream were truncated from shards, each with the id of the database that holds them."""
    rows = sqlite.fetch(
        connection,
        f"SELECT first, last, t.database_id FROM main._edgeshard_truncations t {streams.JOIN} "
        "WHERE stream_id = ? ORDER BY first",
        (stream_id,),
    )
    return [(Range(first, last), database_id) for first, last, database_id in rows]


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget where a stream's truncated rows were, in the transaction in which it retires: the master held them all."""
    connection.execute("DELETE FROM main._edgeshard_truncations WHERE stream_no = ?", (stream_no,))
