"""Own edgeshard_ranges, edgeshard_blocks and edgeshard_transactions."""

from __future__ import annotations

from collections.abc import Iterator

from edgeshard import sqlite
from edgeshard.format.ranges import Range
from edgeshard.sqlite import Connection, quote


def transaction_at(connection: Connection, row_id: int) -> Range | None:
    """The ids of the transaction that a row belongs to, where it is one of several rows."""
    sql = "SELECT first_id, last_id FROM edgeshard_transactions WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
    found = sqlite.fetch(connection, sql, (row_id,))
    return Range(*found[0]) if found and found[0][1] >= row_id else None


def held_rows(connection: Connection) -> int:
    """Return how many rows the database has ever held."""
    return int(sqlite.scalar(connection, "SELECT coalesce(sum(last - first + 1), 0) FROM main.edgeshard_ranges"))


def block_rows(connection: Connection) -> dict[int, int]:
    """Map each stream number to the number of seqs in its blocks."""
    sql = "SELECT stream_no, sum(last - first + 1) FROM main.edgeshard_blocks GROUP BY stream_no"
    return dict(sqlite.fetch(connection, sql))


def highest_id(connection: Connection) -> int:
    """Return the highest row id in a block, or 0 if there are no blocks."""
    return int(sqlite.scalar(connection, "SELECT coalesce(max(first_id + last - first), 0) FROM main.edgeshard_blocks"))


def insert_run(connection: Connection, stream_no: int, seqs: Range, first_id: int) -> None:
    """Add a range, and the block in which its rows lie."""
    run = (stream_no, seqs.first, seqs.last)
    connection.execute("INSERT INTO main.edgeshard_ranges VALUES (?, ?, ?)", run)
    connection.execute("INSERT INTO main.edgeshard_blocks VALUES (?, ?, ?, ?)", (*run, first_id))


def insert_transaction(connection: Connection, ids: Range) -> None:
    """Note the ids of a transaction, unless they are noted."""
    sql = "INSERT OR IGNORE INTO main.edgeshard_transactions VALUES (?, ?)"
    connection.execute(sql, (ids.first, ids.last))


# -- what must hold of them -------------------------------------------------------------------------------------------


def stray_ranges(connection: Connection) -> Iterator[tuple[int, int, int]]:
    """Find ranges outside their stream, as (stream number, first, last)."""
    yield from connection.execute(
        "SELECT stream_no, r.first, r.last FROM edgeshard_ranges r LEFT JOIN edgeshard_streams s USING(stream_no) "
        "WHERE s.last_seq IS NULL OR r.first < 1 OR r.last < r.first OR r.last > s.last_seq"
    )


def overlapping_ranges(connection: Connection) -> Iterator[tuple[int, int]]:
    """Find seqs that two ranges hold, as (stream number, seq)."""
    yield from connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, "
        "lag(last) OVER (PARTITION BY stream_no ORDER BY first) AS before FROM edgeshard_ranges) WHERE before >= first"
    )


def blocks_outside_ranges(connection: Connection) -> Iterator[tuple[int, int, int]]:
    """Find blocks that no range covers, as (stream number, first, last)."""
    yield from connection.execute(
        "SELECT stream_no, first, last FROM edgeshard_blocks b WHERE NOT EXISTS (SELECT 1 FROM edgeshard_ranges r "
        "WHERE r.stream_no = b.stream_no AND r.first <= b.first AND r.last >= b.last)"
    )


def overlapping_blocks(connection: Connection) -> Iterator[tuple[int, int]]:
    """Find seqs that two blocks hold, as (stream number, seq)."""
    yield from connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, "
        "lag(last) OVER (PARTITION BY stream_no ORDER BY first) AS before FROM edgeshard_blocks) WHERE before >= first"
    )


def doubled_ids(connection: Connection) -> Iterator[int]:
    """Find row ids that two blocks hold."""
    for (first_id,) in connection.execute(
        "SELECT first_id FROM (SELECT first_id, lag(first_id + last - first) OVER (ORDER BY first_id) AS before "
        "FROM edgeshard_blocks) WHERE before >= first_id"
    ):
        yield first_id


def stray_rows(connection: Connection, table: str) -> int:
    """Count the rows of a record table that no block holds, or that have another id than their block gives them."""
    return int(
        sqlite.scalar(
            connection,
            f"SELECT count(*) FROM {quote(table)} t WHERE coalesce(("
            "SELECT t._seq <= b.last AND t._id = b.first_id + t._seq - b.first FROM edgeshard_blocks b "
            "WHERE b.stream_no = t._stream AND b.first <= t._seq ORDER BY b.first DESC LIMIT 1), 0) = 0",
        )
    )
