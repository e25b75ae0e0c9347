"""Own _edgeshard_ranges, _blocks and _transactions: which seqs are held, under which ids, and which form a transaction.

A range says which seqs of a stream a master has ever held. A block says which ids their rows have, as long as they are
here. A transaction says which ids belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from edgeshard import sqlite
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, size, union
from edgeshard.master.arrivals import ARRIVALS
from edgeshard.sqlite import Connection, quote

#: The table of transactions, and its primary key: row ids, as in record tables.
TRANSACTIONS: Final = ("_edgeshard_transactions", "first_id")

#: The table of ranges, to be joined with the streams.
RANGES: Final = "main._edgeshard_ranges"

#: Records a transaction of several rows; binds its first and last row id.
INSERT_TRANSACTION: Final = "INSERT INTO main._edgeshard_transactions VALUES (?, ?)"


#: Selects the blocks of a stream from the one that begins at or before a seq to the last one that begins by another.
_BLOCKS_BETWEEN: Final = (
    "SELECT first, last, first_id FROM main._edgeshard_blocks WHERE stream_no = ?1 AND first <= ?3 AND first >= "
    "coalesce((SELECT max(first) FROM main._edgeshard_blocks WHERE stream_no = ?1 AND first <= ?2), 0) ORDER BY first"
)


#: Cuts the blocks at the entries of arrivals, and adds the parts up per stream and period. Only the blocks that reach
#: the first entry since a time are cut; each takes three look-ups.
_ROWS_BY_ARRIVAL: Final = f"""
SELECT b.stream_no, a.at - a.at % iif(a.at >= :fine_since, :fine, :coarse) AS began_at, sum(
    min(b.first_id + b.last - b.first, coalesce(
        (SELECT n.first_id - 1 FROM {ARRIVALS} n WHERE n.first_id > a.first_id ORDER BY n.first_id LIMIT 1),
        b.first_id + b.last - b.first))
    - max(b.first_id, a.first_id) + 1)
FROM main._edgeshard_blocks b CROSS JOIN {ARRIVALS} a
WHERE b.first_id + b.last - b.first >= (SELECT min(first_id) FROM {ARRIVALS} WHERE at >= :since)
    AND a.first_id <= b.first_id + b.last - b.first
    AND a.first_id >= coalesce(
        (SELECT p.first_id FROM {ARRIVALS} p WHERE p.first_id <= b.first_id ORDER BY p.first_id DESC LIMIT 1), 0)
    AND a.at >= :since
GROUP BY 1, 2
"""


def transaction_at(connection: Connection, row_id: int) -> Range | None:
    """Return the ids of the transaction that a row belongs to, or None if the row is a transaction by itself."""
    sql = "SELECT first_id, last_id FROM _edgeshard_transactions WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
    found = sqlite.fetch(connection, sql, (row_id,))
    return Range(*found[0]) if found and found[0][1] >= row_id else None


def ranges(connection: Connection, stream_no: int) -> list[Range]:
    """Return the seqs of a stream that the database has ever held."""
    sql = "SELECT first, last FROM main._edgeshard_ranges WHERE stream_no = ?"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (stream_no,))]


def range_rows(connection: Connection) -> dict[int, int]:
    """Map each stream number to the number of seqs in its ranges."""
    sql = "SELECT stream_no, sum(last - first + 1) FROM main._edgeshard_ranges GROUP BY stream_no"
    return dict(sqlite.fetch(connection, sql))


def holes(connection: Connection, stream_no: int, last_seq: int) -> Iterator[Range]:
    """Yield the seqs of a stream from 1 to `last_seq` that the database never held, in order.

    Take as many as you need: the ranges are read one by one.
    """
    held_to = 0
    sql = "SELECT first, last FROM main._edgeshard_ranges WHERE stream_no = ? AND first <= ? ORDER BY first"
    for first, last in connection.execute(sql, (stream_no, last_seq)):
        if first > held_to + 1:
            yield Range(held_to + 1, first - 1)
        held_to = max(held_to, last)
    if held_to < last_seq:
        yield Range(held_to + 1, last_seq)


def covered_by_range(alias: str) -> str:
    """Return the SQL condition that one range covers the seqs first to last of the row `alias` of another table."""
    return f"{range_end(alias)} >= {alias}.last"


def range_end(alias: str) -> str:
    """Return SQL for the end of the last range that begins at or before the first seq of `alias`, or 0."""
    return (
        f"coalesce((SELECT r.last FROM main._edgeshard_ranges r WHERE r.stream_no = {alias}.stream_no "
        f"AND r.first <= {alias}.first ORDER BY r.first DESC LIMIT 1), 0)"
    )


def ids_with_row(connection: Connection, table: str, ids: Range) -> list[Range]:
    """Return which of these ids a record table has rows of, in order."""
    sql = sqlite.select_id_runs(f"main.{quote(table)} NOT INDEXED WHERE _id BETWEEN ? AND ?")
    return [Range(*run) for run in sqlite.fetch(connection, sql, (ids.first, ids.last))]


def pruned_streams(connection: Connection) -> list[int]:
    """Return the numbers of the streams that have rows in the database's ranges, but no longer in its blocks."""
    rows = sqlite.fetch(
        connection,
        "SELECT r.stream_no FROM (SELECT stream_no, sum(last - first + 1) AS rows FROM main._edgeshard_ranges "
        "GROUP BY stream_no) r LEFT JOIN (SELECT stream_no, sum(last - first + 1) AS rows FROM main._edgeshard_blocks "
        "GROUP BY stream_no) b ON b.stream_no = r.stream_no WHERE r.rows > coalesce(b.rows, 0)",
    )
    return [stream_no for (stream_no,) in rows]


_UPSERT_RANGE: Final = (
    "INSERT INTO main._edgeshard_ranges VALUES (?, ?, ?) "
    "ON CONFLICT(stream_no, first) DO UPDATE SET last = excluded.last"
)


def add_ranges(connection: Connection, stream_no: int, held: list[Range], copied: list[Range]) -> list[Range]:
    """Record that the database now holds the copied seqs of a stream, and return them united with `held`.

    Args:
        connection: the database, in the transaction that brings the rows.
        stream_no: the stream's number there.
        held: the ranges it holds already, at least those that overlap or touch the copied seqs.
        copied: the seqs whose rows were just copied.

    Raises:
        AssertionError: some of them were held already. That is a bug of ours, which must be loud.
    """
    now = union([*held, *copied])
    if size(held) + size(copied) != size(now):
        raise AssertionError(f"stream {stream_no}: some of {copied} are held already")
    for first in {part.first for part in held} - {part.first for part in now}:
        connection.execute("DELETE FROM main._edgeshard_ranges WHERE stream_no = ? AND first = ?", (stream_no, first))
    for part in set(now).difference(held):
        connection.execute(_UPSERT_RANGE, (stream_no, part.first, part.last))
    return now


def blocks(connection: Connection, stream_no: int) -> list[Block]:
    """Return the blocks of a stream, in order of seq."""
    rows = sqlite.fetch(
        connection,
        "SELECT first, last, first_id FROM main._edgeshard_blocks WHERE stream_no = ? ORDER BY first",
        (stream_no,),
    )
    return [Block(*row) for row in rows]


def blocks_around(connection: Connection, stream_no: int, parts: Iterable[Range]) -> list[Block]:
    """Return the blocks of a stream that have some of these seqs, in order of seq; the others are not read."""
    found: dict[int, Block] = {}
    for part in parts:
        rows = sqlite.fetch(connection, _BLOCKS_BETWEEN, (stream_no, part.first, part.last))
        found.update((row[0], Block(*row)) for row in rows if row[1] >= part.first)
    return [found[first] for first in sorted(found)]


def blocks_by_stream(connection: Connection) -> dict[int, tuple[Block, ...]]:
    """Map the number of each stream to its blocks, in order of seq."""
    found: dict[int, list[Block]] = {}
    sql = "SELECT stream_no, first, last, first_id FROM main._edgeshard_blocks ORDER BY stream_no, first"
    for stream_no, first, last, first_id in sqlite.fetch(connection, sql):
        found.setdefault(stream_no, []).append(Block(first, last, first_id))
    return {stream_no: tuple(blocks) for stream_no, blocks in found.items()}


def block_rows(connection: Connection) -> dict[int, int]:
    """Map each stream number to the number of seqs in its blocks."""
    sql = "SELECT stream_no, sum(last - first + 1) FROM main._edgeshard_blocks GROUP BY stream_no"
    return dict(sqlite.fetch(connection, sql))


def block_end(alias: str) -> str:
    """Return SQL for the end of the last block that begins at or before the last seq of `alias`, or 0."""
    return (
        f"coalesce((SELECT b.last FROM main._edgeshard_blocks b WHERE b.stream_no = {alias}.stream_no "
        f"AND b.first <= {alias}.last ORDER BY b.first DESC LIMIT 1), 0)"
    )


def add_block(connection: Connection, stream_no: int, block: Block) -> None:
    """Record where copied rows are. Extend the block before them where they follow it in seq and in id."""
    rows = sqlite.fetch(
        connection,
        "SELECT first, last, first_id FROM main._edgeshard_blocks "
        "WHERE stream_no = ? AND first < ? ORDER BY first DESC LIMIT 1",
        (stream_no, block.first),
    )
    before = Block(*rows[0]) if rows else None
    if before is not None and (before.last + 1, before.last_id + 1) == (block.first, block.first_id):
        connection.execute(
            "UPDATE main._edgeshard_blocks SET last = ? WHERE stream_no = ? AND first = ?",
            (block.last, stream_no, before.first),
        )
    else:
        connection.execute(
            "INSERT INTO main._edgeshard_blocks VALUES (?, ?, ?, ?)",
            (stream_no, block.first, block.last, block.first_id),
        )


def add_transactions(connection: Connection, transactions: Iterable[Range]) -> None:
    """Record transactions of several rows by their ids, in the transaction that brings the rows."""
    connection.executemany(INSERT_TRANSACTION, ((each.first, each.last) for each in transactions))


def extend_transaction(connection: Connection, last_id: int, new_last_id: int) -> None:
    """Let the transaction that ends with the row `last_id` end with `new_last_id` instead."""
    begins = "(SELECT max(first_id) FROM main._edgeshard_transactions WHERE first_id <= ?1)"  # the ends have no index
    sql = f"UPDATE main._edgeshard_transactions SET last_id = ?2 WHERE first_id = {begins} AND last_id = ?1"
    connection.execute(sql, (last_id, new_last_id))


def rows_by_arrival(
    connection: Connection, since_s: int, coarse_s: int, fine_since_s: int, fine_s: int
) -> Iterator[tuple[int, int, int]]:
    """Yield how many rows of each stream arrived in each period, as (stream number, when it began, rows).

    Rows that were pruned since then are not counted, and periods without rows are left out. This reads each block
    once, and no row.

    Args:
        connection: the master.
        since_s: where the first period begins, in trusted seconds since 1970.
        coarse_s: how long a period is; each begins at a multiple of this.
        fine_since_s: from when on periods are shorter, a multiple of `coarse_s`.
        fine_s: how long these are.
    """
    times = {"since": since_s, "coarse": coarse_s, "fine_since": fine_since_s, "fine": fine_s}
    yield from connection.execute(_ROWS_BY_ARRIVAL, times)


def highest_id(connection: Connection) -> int:
    """Return the highest row id in a block, or 0 if there are no blocks."""
    return int(
        sqlite.scalar(connection, "SELECT coalesce(max(first_id + last - first), 0) FROM main._edgeshard_blocks")
    )


def insert_run(connection: Connection, stream_no: int, seqs: Range, first_id: int) -> None:
    """Add a range, and the block in which its rows lie."""
    run = (stream_no, seqs.first, seqs.last)
    connection.execute("INSERT INTO main._edgeshard_ranges VALUES (?, ?, ?)", run)
    connection.execute("INSERT INTO main._edgeshard_blocks VALUES (?, ?, ?, ?)", (*run, first_id))


def insert_transaction(connection: Connection, ids: Range) -> None:
    """Record the ids of a transaction, unless they are recorded."""
    sql = "INSERT OR IGNORE INTO main._edgeshard_transactions VALUES (?, ?)"
    connection.execute(sql, (ids.first, ids.last))


# -- checks -----------------------------------------------------------------------------------------------------------


def stray_ranges(connection: Connection, last_seqs: Mapping[int, int]) -> Iterator[tuple[int, int, int]]:
    """Find ranges outside their stream, as (stream number, first, last).

    Args:
        connection: the master.
        last_seqs: the highest seq known to exist, by the number of each stream.
    """
    for number, first, last in connection.execute("SELECT stream_no, first, last FROM main._edgeshard_ranges"):
        if not 1 <= first <= last <= last_seqs.get(number, 0):
            yield number, first, last


def overlapping_ranges(connection: Connection) -> Iterator[tuple[int, int]]:
    """Find seqs that two ranges hold, as (stream number, seq)."""
    return _overlaps(connection, "_edgeshard_ranges")


def blocks_outside_ranges(connection: Connection) -> Iterator[tuple[int, int, int]]:
    """Find blocks that no range covers, as (stream number, first, last)."""
    yield from connection.execute(
        f"SELECT stream_no, first, last FROM main._edgeshard_blocks b WHERE NOT {covered_by_range('b')}"
    )


def overlapping_blocks(connection: Connection) -> Iterator[tuple[int, int]]:
    """Find seqs that two blocks hold, as (stream number, seq)."""
    return _overlaps(connection, "_edgeshard_blocks")


def _overlaps(connection: Connection, table: str) -> Iterator[tuple[int, int]]:
    yield from connection.execute(
        "SELECT stream_no, first FROM (SELECT stream_no, first, "
        f"lag(last) OVER (PARTITION BY stream_no ORDER BY first) AS before FROM {table}) WHERE before >= first"
    )


def doubled_ids(connection: Connection) -> Iterator[int]:
    """Find row ids that two blocks hold."""
    for (first_id,) in connection.execute(
        "SELECT first_id FROM (SELECT first_id, lag(first_id + last - first) OVER (ORDER BY first_id) AS before "
        "FROM _edgeshard_blocks) WHERE before >= first_id"
    ):
        yield first_id


def stray_rows(connection: Connection, table: str, ids: Range | None = None) -> int:
    """Count the rows of a record table that no block holds, or that have another id than their block gives them.

    Args:
        connection: the master.
        table: the table.
        ids: where to look; None: everywhere.
    """
    among, bounds = ("", ()) if ids is None else ("t._id BETWEEN ? AND ? AND ", (ids.first, ids.last))
    sql = f"SELECT count(*) FROM {quote(table)} t WHERE {among}NOT {is_in_place('t')}"
    return int(sqlite.scalar(connection, sql, bounds))


def is_in_place(alias: str) -> str:
    """Return the SQL condition that a row of a record table has the id that a block gives to its address."""
    return (
        f"coalesce((SELECT {alias}._seq <= b.last AND {alias}._id = b.first_id + {alias}._seq - b.first "
        f"FROM main._edgeshard_blocks b WHERE b.stream_no = {alias}._stream AND b.first <= {alias}._seq "
        "ORDER BY b.first DESC LIMIT 1), 0)"
    )


# -- what a prune reads and changes -----------------------------------------------------------------------------------


def transaction_boundary(connection: Connection, row_id: int) -> int:
    """Return the first id of the transaction that a cut before `row_id` divides, or `row_id` if it divides none."""
    across = transaction_at(connection, row_id - 1)
    return across.first if across is not None and across.last >= row_id else row_id


def transactions_from(connection: Connection, ids: Range) -> list[Range]:
    """Return the ids of each transaction of several rows that begins among these ids, in order."""
    sql = "SELECT first_id, last_id FROM main._edgeshard_transactions WHERE first_id BETWEEN ? AND ? ORDER BY first_id"
    return [Range(*row) for row in sqlite.fetch(connection, sql, (ids.first, ids.last))]


def replace_transaction(connection: Connection, ids: Range, remaining: Range | None) -> None:
    """Record which part of a transaction remains after rows of it were pruned; None if one row or less."""
    connection.execute("DELETE FROM main._edgeshard_transactions WHERE first_id = ?", (ids.first,))
    if remaining is not None:
        connection.execute(INSERT_TRANSACTION, (remaining.first, remaining.last))


def row_count(connection: Connection) -> int:
    """Return how many seqs lie in the database's blocks."""
    return int(sqlite.scalar(connection, "SELECT sum(last - first + 1) FROM main._edgeshard_blocks") or 0)


def row_count_below(connection: Connection, row_id: int) -> int:
    """Return how many seqs in the database's blocks have an id below `row_id`."""
    sql = "SELECT sum(min(last, first + ?1 - 1 - first_id) - first + 1) FROM main._edgeshard_blocks WHERE first_id < ?1"
    return int(sqlite.scalar(connection, sql, (row_id,)) or 0)


def blocks_with(connection: Connection, stream_no: int, seqs: Range, ids: Range) -> list[Block]:
    """Return the blocks of a stream that have some of these seqs and some of these ids, in order of seq."""
    found = blocks_around(connection, stream_no, [seqs])
    return [block for block in found if block.first_id <= ids.last and block.last_id >= ids.first]


def replace_block(connection: Connection, stream_no: int, block: Block, parts: Iterable[Block]) -> None:
    """Put these parts of a block in its place, because the rows of the rest were pruned."""
    connection.execute("DELETE FROM main._edgeshard_blocks WHERE stream_no = ? AND first = ?", (stream_no, block.first))
    connection.executemany(
        "INSERT INTO main._edgeshard_blocks VALUES (?, ?, ?, ?)",
        [(stream_no, part.first, part.last, part.first_id) for part in parts],
    )


def is_held_without_rows(connection: Connection, stream_no: int, last_seq: int) -> bool:
    """Return whether the database has held each seq of a stream from 1 to `last_seq`, and has none of their rows."""
    sql = (
        "SELECT (SELECT count(*) FROM main._edgeshard_ranges WHERE stream_no = ?1), "
        "(SELECT last FROM main._edgeshard_ranges WHERE stream_no = ?1 AND first = 1), "
        "EXISTS (SELECT 1 FROM main._edgeshard_blocks WHERE stream_no = ?1)"
    )
    return sqlite.fetch(connection, sql, (stream_no,)) == [(1, last_seq, 0)]


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Forget the ranges of a stream, in the transaction in which it retires."""
    connection.execute("DELETE FROM main._edgeshard_ranges WHERE stream_no = ?", (stream_no,))


def streams_since(connection: Connection, row_id: int) -> set[int]:
    """Return the numbers of the streams that have an id from `row_id` on in a block."""
    sql = "SELECT DISTINCT stream_no FROM main._edgeshard_blocks WHERE first_id + last - first >= ?"
    return {number for (number,) in sqlite.fetch(connection, sql, (row_id,))}
