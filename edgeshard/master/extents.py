"""Own edgeshard_ranges, edgeshard_blocks and edgeshard_transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeshard import sqlite
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range
from edgeshard.records.codecs import to_json
from edgeshard.sqlite import Connection


def transaction_at(connection: Connection, row_id: int) -> Range | None:
    """The ids of the transaction that a row belongs to, where it is one of several rows."""
    sql = "SELECT first_id, last_id FROM edgeshard_transactions WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
    found = sqlite.fetch(connection, sql, (row_id,))
    return Range(*found[0]) if found and found[0][1] >= row_id else None


def transaction_boundary(connection: Connection, row_id: int) -> int:
    """Return `row_id` if a transaction begins there or none is divided by it; else the first id of that transaction."""
    across = transaction_at(connection, row_id - 1)
    return across.first if across is not None and across.last >= row_id else row_id


def transactions_from(connection: Connection, ids: Range) -> list[Range]:
    """Return the ids of each transaction of several rows that begins among these ids, in order."""
    sql = "SELECT first_id, last_id FROM main.edgeshard_transactions WHERE first_id BETWEEN ? AND ? ORDER BY first_id"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (ids.first, ids.last))]


def replace_transaction(connection: Connection, ids: Range, remaining: Range | None) -> None:
    """Record which part of a transaction remains after rows of it were pruned; None if one row or less."""
    connection.execute("DELETE FROM main.edgeshard_transactions WHERE first_id = ?", (ids.first,))
    if remaining is not None:
        connection.execute("INSERT INTO main.edgeshard_transactions VALUES (?, ?)", (remaining.first, remaining.last))


def row_count(connection: Connection) -> int:
    """Return how many seqs lie in the database's blocks."""
    return int(sqlite.scalar(connection, "SELECT sum(last - first + 1) FROM main.edgeshard_blocks") or 0)


def row_count_below(connection: Connection, row_id: int) -> int:
    """Return how many of them have an id below `row_id`."""
    sql = "SELECT sum(min(last, first + ?1 - 1 - first_id) - first + 1) FROM main.edgeshard_blocks WHERE first_id < ?1"
    return int(sqlite.scalar(connection, sql, (row_id,)) or 0)


def blocks_with(connection: Connection, stream_no: int, seqs: Range, ids: Range) -> list[Block]:
    """Return the blocks of a stream that have some of these seqs and some of these ids, in order of seq."""
    sql = (
        "SELECT first, last, first_id FROM main.edgeshard_blocks WHERE stream_no = ?1 AND first <= ?3 AND first >= "
        "coalesce((SELECT max(first) FROM main.edgeshard_blocks WHERE stream_no = ?1 AND first <= ?2), 0) "
        "ORDER BY first"
    )
    found = [Block(*row) for row in sqlite.fetch(connection, sql, (stream_no, seqs.first, seqs.last))]
    return [block for block in found if block.first_id <= ids.last and block.last_id >= ids.first]


def replace_block(connection: Connection, stream_no: int, block: Block, parts: Iterable[Block]) -> None:
    """Put these parts of a block in its place, because the rows of the rest were pruned."""
    connection.execute("DELETE FROM main.edgeshard_blocks WHERE stream_no = ? AND first = ?", (stream_no, block.first))
    connection.executemany(
        "INSERT INTO main.edgeshard_blocks VALUES (?, ?, ?, ?)",
        [(stream_no, part.first, part.last, part.first_id) for part in parts],
    )


def streams_since(connection: Connection, row_id: int) -> set[int]:
    """Return the numbers of the streams that have an id from `row_id` on in a block."""
    sql = "SELECT DISTINCT stream_no FROM main.edgeshard_blocks WHERE first_id + last - first >= ?"
    return {number for (number,) in sqlite.fetch(connection, sql, (row_id,))}


def first_id_of_others(connection: Connection, agents: Sequence[str], row_id: int) -> int | None:
    """Return the lowest id from `row_id` on that is not of one of these agents, or None if there is none."""
    sql = (
        "SELECT min(max(first_id, ?1)) FROM main.edgeshard_blocks JOIN main.edgeshard_streams USING (stream_no) "
        "WHERE first_id + last - first >= ?1 AND agent_id NOT IN (SELECT value FROM json_each(?2))"
    )
    found: int | None = sqlite.scalar(connection, sql, (row_id, to_json(list(agents))))
    return found
