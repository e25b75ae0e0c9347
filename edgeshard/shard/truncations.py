"""Own a shard's edgeshard_truncations: which rows of each stream a master holds, so that they no longer count here.

A merge records a truncation before it deletes the rows. From that commit on they do not count, whether they are still
in the file or not.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeshard import sqlite
from edgeshard.sqlite import Connection


def last_truncated(connection: Connection, stream_no: int) -> int:
    """Return the highest truncated seq of a stream, or 0 if none is truncated."""
    sql = "SELECT max(last) FROM main.edgeshard_truncations WHERE stream_no = ?"
    return int(sqlite.scalar(connection, sql, (stream_no,)) or 0)


def record(connection: Connection, durable: Mapping[bytes, int], master_id: bytes) -> dict[int, int]:
    """Record that a master holds all rows up to some seq of each stream, in the caller's transaction.

    Args:
        connection: the shard's.
        durable: the last seq that the master holds durably, by stream id.
        master_id: the master's database id.

    Returns:
        The highest truncated seq of each of these streams, by stream number.
    """
    truncated: dict[int, int] = {}
    for stream_id, last in durable.items():
        ((stream_no, before, first, holder),) = sqlite.fetch(
            connection,
            "SELECT s.stream_no, max(t.last), t.first, t.database_id FROM main.edgeshard_streams s "
            "LEFT JOIN main.edgeshard_truncations t ON t.stream_no = s.stream_no WHERE s.stream_id = ?",
            (stream_id,),
        )
        if stream_no is None:
            continue  # another file took the shard's place since it was read
        before = before or 0
        if last > before and holder == master_id:
            sql = "UPDATE main.edgeshard_truncations SET last = ?3 WHERE stream_no = ?1 AND first = ?2"
            connection.execute(sql, (stream_no, first, last))
        elif last > before:
            sql = "INSERT INTO main.edgeshard_truncations VALUES (?, ?, ?, ?)"
            connection.execute(sql, (stream_no, before + 1, last, master_id))
        truncated[stream_no] = max(before, last)
    return truncated
