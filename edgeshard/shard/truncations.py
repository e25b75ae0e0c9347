"""Own _edgeshard_truncations of a shard: which rows were truncated, and which database holds them.

From the commit that records a truncation on, its rows do not count, whether they are still in the file or not. So they
can be deleted afterwards, in small transactions, without ever showing a part of a writer's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from edgeshard import format, sqlite
from edgeshard.master import extents, streams
from edgeshard.sqlite import Connection, quote


def last_truncated(connection: Connection, stream_no: int) -> int:
    """Return the highest truncated seq of a stream, or 0 if none is truncated."""
    sql = "SELECT max(last) FROM main._edgeshard_truncations WHERE stream_no = ?"
    return int(sqlite.scalar(connection, sql, (stream_no,)) or 0)


def not_truncated(row_id: str) -> str:
    """Return an SQL condition that is true if the row of a shard with this id is not truncated."""
    stream_no, seq = f"{row_id} >> {format.SEQ_BITS}", f"{row_id} & {format.SEQ_MAX}"
    truncated = f"SELECT 1 FROM main._edgeshard_truncations WHERE stream_no = {stream_no} AND last >= {seq}"
    return f"NOT EXISTS ({truncated})"


def record(connection: Connection, durable: Mapping[bytes, int], master_id: bytes) -> dict[int, int]:
    """Record that a master holds the rows of each stream up to a seq, in the caller's transaction.

    Args:
        connection: the shard.
        durable: the last seq of each stream that the master holds durably, by stream id.
        master_id: the master's database id.

    Returns:
        The last truncated seq of each of these streams that the shard has, by stream number.
    """
    truncated: dict[int, int] = {}
    for stream_id, last in durable.items():
        found = sqlite.fetch(
            connection,
            f"SELECT coalesce(t.last, 0), t.first, t.database_id, s.stream_no FROM {streams.TABLE} "
            "LEFT JOIN main._edgeshard_truncations t USING (stream_no) WHERE s.stream_id = ?",
            (stream_id,),
        )
        if not found:
            continue  # the shard was replaced by another since it was read
        before, first, database_id, number = max(found)
        if last > before and database_id == master_id:
            sql = "UPDATE _edgeshard_truncations SET last = ?3 WHERE stream_no = ?1 AND first = ?2"
            connection.execute(sql, (number, first, last))
        elif last > before:
            sql = "INSERT INTO _edgeshard_truncations VALUES (?, ?, ?, ?)"
            connection.execute(sql, (number, before + 1, last, master_id))
        truncated[number] = max(before, last)
    return truncated


def delete_all(connection: Connection, tables: Sequence[str], kept: Sequence[tuple[int, int]] = ()) -> int:
    """Delete all rows of a shard without WHERE, and put some back, in the caller's transaction.

    Without WHERE, SQLite frees whole pages: a million rows in milliseconds.

    Args:
        connection: the shard.
        tables: its record tables.
        kept: the first and the last id of each run of rows that is put back.

    Returns:
        How many rows were deleted, except for those that were put back.
    """
    deleted = 0
    for name, key in _with_keys(tables):
        if kept:
            connection.execute(
                # a join, because a condition with one term for each run would be too deep for many (see sqlite.all_of)
                "CREATE TEMP TABLE kept AS SELECT t.* FROM json_each(?) run "
                f"CROSS JOIN main.{quote(name)} t NOT INDEXED ON t.{key} BETWEEN run.value ->> 0 AND run.value ->> 1",
                (json.dumps(kept),),
            )
        connection.execute(f"DELETE FROM main.{quote(name)}")
        deleted += connection.changes() if key == "_id" else 0
        if kept:
            connection.execute(f"INSERT INTO main.{quote(name)} SELECT * FROM temp.kept")
            deleted -= connection.changes() if key == "_id" else 0
            connection.execute("DROP TABLE temp.kept")
    return deleted


def delete_piecewise(
    connection: Connection, tables: Sequence[str], stream_no: int, last_seq: int, rows: int
) -> Iterator[int]:
    """Delete a stream's rows up to a seq, in transactions of at most `rows` rows, so that the writer hardly waits.

    Yields:
        After each transaction, how many rows it deleted.
    """
    for name, key in _with_keys(tables):
        low, high = format.row_id(stream_no, 0), format.row_id(stream_no, last_seq)
        while True:
            end = sqlite.scalar(
                connection,
                f"SELECT max({key}) FROM (SELECT {key} FROM {quote(name)} NOT INDEXED "
                f"WHERE {key} BETWEEN ? AND ? ORDER BY {key} LIMIT {rows})",
                (low, high),
            )
            if end is None:
                break
            connection.execute(f"DELETE FROM {quote(name)} WHERE {key} BETWEEN ? AND ?", (low, end))
            yield connection.changes() if key == "_id" else 0
            low = end + 1


def _with_keys(tables: Sequence[str]) -> list[tuple[str, str]]:
    """Return the tables whose rows a truncation deletes, each with its primary key."""
    return [*((name, "_id") for name in tables), extents.TRANSACTIONS]
