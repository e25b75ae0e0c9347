"""Read the streams of a source: which rows it has, which it truncated, and which were pruned."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Final

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError
from edgeshard.files import paths
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import PrunedRange, Range, size, subtract, union
from edgeshard.sources import bounds
from edgeshard.sources.source import Source, SourceStream, SourceTable
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "read database"

_ID_BYTES: Final = 16

#: The most truncations of one stream. Adjacent ones for the same database are one entry, so there are only few.
_TRUNCATIONS_MAX: Final = 10_000

#: The most pruned ranges of one stream that are read. Adjacent ones with the same reason are one entry.
_PRUNED_RANGES_MAX: Final = 10_000

#: The most characters of the reason for which rows were pruned.
_REASON_CHARS_MAX: Final = 100

#: The highest id that a block can begin with. This leaves ids for the seqs of a stream after it.
_FIRST_ID_MAX: Final = (1 << 63) - (1 << 33)

#: SQL: whether the main database lacks any seq of the source's range ``r`` of its stream ``m``.
_NOT_HELD: Final = (
    "coalesce((SELECT h.last FROM main.edgeshard_ranges h WHERE h.stream_no = m.stream_no AND h.first <= r.first "
    "ORDER BY h.first DESC LIMIT 1), 0) < r.last"
)


# -- which streams ----------------------------------------------------------------------------------------------------


def streams_with_news(connection: Connection, source: Source) -> list[SourceStream]:
    """Return the streams about which the source may know more than the main database, by number.

    Raises:
        DamagedError: the source contradicts itself, or holds values that cannot be right.
    """
    with bounds.bounded(connection, source.schema):
        blocks = shard_blocks(connection, source) if source.is_shard else {}
        sql = _shard_news(source) if source.is_shard else _master_news(source)
        numbers = {number for (number,) in sqlite.fetch_typed(connection, source.path, (int,), sql)} | set(blocks)
        return [_read_stream(connection, source, number, blocks.get(number)) for number in sorted(numbers)]


def _known_streams(source: Source) -> str:
    return (
        f"SELECT s.stream_no FROM {quote(source.schema)}.edgeshard_streams s "
        "LEFT JOIN main.edgeshard_streams m ON m.stream_id = s.stream_id "
    )


def _shard_news(source: Source) -> str:
    """Select the streams with rows that a shard truncated and the main database does not know."""
    return _known_streams(source) + (
        f"JOIN {quote(source.schema)}.edgeshard_truncations t ON t.stream_no = s.stream_no "
        "GROUP BY s.stream_no HAVING m.last_seq IS NULL OR max(t.last) > m.last_seq"
    )


def _master_news(source: Source) -> str:
    """Select the streams of a master or bundle with rows (also truncated or pruned ones) that the main database lacks.

    The main database is searched for each range of the source, so this takes time in proportion to the size of the
    source, not of the target.
    """
    schema, known = quote(source.schema), _known_streams(source)
    return (
        f"{known} WHERE m.last_seq IS NULL OR m.last_seq < s.last_seq "
        f"UNION {known} JOIN {schema}.edgeshard_ranges r ON r.stream_no = s.stream_no WHERE {_NOT_HELD} "
        f"UNION {known} JOIN {schema}.edgeshard_truncations r ON r.stream_no = s.stream_no WHERE {_NOT_HELD} "
        "AND NOT EXISTS (SELECT 1 FROM main.edgeshard_truncations t "
        "WHERE t.stream_no = m.stream_no AND t.last >= r.last) "
        # the ranges of a bundle do not include what was pruned
        f"UNION {known} JOIN {schema}.edgeshard_pruned_ranges r ON r.stream_no = s.stream_no WHERE {_NOT_HELD}"
    )


def stream_ids(connection: Connection, source: Source) -> set[bytes]:
    """Return the ids of all streams that the source lists."""
    sql = f"SELECT stream_id FROM {quote(source.schema)}.edgeshard_streams"
    with bounds.bounded(connection, source.schema):
        return {stream_id for (stream_id,) in sqlite.fetch_typed(connection, source.path, (bytes,), sql)}


# -- one stream -------------------------------------------------------------------------------------------------------


def _read_stream(connection: Connection, source: Source, stream_no: int, shard_block: Block | None) -> SourceStream:
    stream_id, agent_id, began_at, last_seq = _read_identity(connection, source, stream_no)
    truncations = _read_truncations(connection, source, stream_no)
    if source.is_shard:
        truncated_to = max((item.last for item, _ in truncations), default=0)
        blocks = _not_truncated(shard_block, truncated_to)
        last_seq = max(truncated_to, *(item.last for item in blocks), 0)
    else:
        blocks = _read_blocks(connection, source, stream_no)
    _check_seqs(source, stream_no, blocks, last_seq)
    pruned = () if source.is_shard else _read_pruned(connection, source, stream_no)
    return SourceStream(
        stream_no, stream_id, agent_id, began_at, blocks, truncations, last_seq, shard_block is not None, pruned
    )


def _read_identity(connection: Connection, source: Source, stream_no: int) -> tuple[bytes, str, str, int]:
    """Return the stream's id, its agent, when it began ("" if that is not a time), and its highest known seq."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (bytes, str, str, int),
        f"SELECT stream_id, agent_id, began_at, last_seq FROM {quote(source.schema)}.edgeshard_streams "
        "WHERE stream_no = ?",
        (stream_no,),
    )
    if not rows:
        cause = f"it has rows of stream number {stream_no}, which it does not list"
        raise DamagedError(_ACTION, source.path, cause)
    stream_id, agent_id, began_at, last_seq = rows[0]
    if (
        not 1 <= stream_no <= format.STREAM_NO_MAX
        or len(stream_id) != _ID_BYTES
        or len(agent_id) > paths.AGENT_NAME_MAX
        or (source.is_shard and agent_id != source.agent_id)
    ):
        cause = f"stream number {stream_no} has an invalid number, id or agent, or belongs to another agent"
        raise DamagedError(_ACTION, source.path, cause)
    return stream_id, agent_id, began_at if _is_time(began_at) else "", last_seq


def _read_truncations(connection: Connection, source: Source, stream_no: int) -> tuple[tuple[Range, bytes], ...]:
    """Return the truncated seqs, each with the id of the database that holds them."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int, bytes),
        f"SELECT first, last, database_id FROM {quote(source.schema)}.edgeshard_truncations "
        "WHERE stream_no = ? LIMIT ?",
        (stream_no, _TRUNCATIONS_MAX + 1),
    )
    if len(rows) > _TRUNCATIONS_MAX:
        raise DamagedError(_ACTION, source.path, f"stream number {stream_no} has too many truncations")
    for first, last, database_id in rows:
        if not _are_seqs(first, last) or len(database_id) != _ID_BYTES:
            raise DamagedError(_ACTION, source.path, f"stream number {stream_no} has invalid truncations")
    return tuple((Range(first, last), database_id) for first, last, database_id in rows)


def _are_seqs(first: int, last: int) -> bool:
    return 1 <= first <= last <= format.SEQ_MAX


def _is_time(text: str) -> bool:
    """Return whether a text is a time in ISO 8601 with a time zone, as every writer notes it."""
    try:
        return datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _not_truncated(block: Block | None, truncated_to: int) -> tuple[Block, ...]:
    """Return what is left of a shard's block, as no or one block."""
    if block is None or block.last <= truncated_to:
        return ()
    return (block.cut(truncated_to + 1, block.last),)


def _read_blocks(connection: Connection, source: Source, stream_no: int) -> tuple[Block, ...]:
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int, int),
        f"SELECT first, last, first_id FROM {quote(source.schema)}.edgeshard_blocks WHERE stream_no = ?",
        (stream_no,),
    )
    return tuple(Block(*row) for row in rows)


def _check_seqs(source: Source, stream_no: int, blocks: Iterable[Block], last_seq: int) -> None:
    """Refuse a stream whose seqs or ids are out of range, or whose blocks overlap.

    Raises:
        DamagedError: that is the case.
    """
    ranges = [Range(item.first, item.last) for item in blocks]
    if (
        not all(_are_seqs(item.first, item.last) for item in ranges)
        or sum(map(len, ranges)) != sum(map(len, union(ranges)))
        or not all(1 <= item.first_id <= _FIRST_ID_MAX for item in blocks)
        or not 0 <= last_seq <= format.SEQ_MAX
    ):
        cause = f"stream number {stream_no} has blocks that overlap, or seqs out of range"
        raise DamagedError(_ACTION, source.path, cause)


def _read_pruned(connection: Connection, source: Source, stream_no: int) -> tuple[PrunedRange, ...]:
    """Return what was pruned of a stream. If there are more entries than we read, the rest stays unexplained."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int, bytes, str, str),
        f"SELECT first, last, database_id, reason, pruned_at FROM {quote(source.schema)}.edgeshard_pruned_ranges "
        "WHERE stream_no = ? ORDER BY database_id, first LIMIT ?",
        (stream_no, _PRUNED_RANGES_MAX),
    )
    found = []
    previous = start = (b"", 0)
    for first, last, database_id, reason, pruned_at in rows:
        is_in_order = _are_seqs(first, last) and (database_id, first) >= start
        is_explained = len(reason) <= _REASON_CHARS_MAX and _is_time(pruned_at)
        if not is_in_order or not is_explained or len(database_id) != _ID_BYTES:
            raise DamagedError(_ACTION, source.path, f"stream number {stream_no} has invalid pruned ranges")
        start = (database_id, first)
        if previous[0] == database_id:  # a database may have pruned rows again, after an older copy of it was put back
            first = max(first, previous[1] + 1)
        if first <= last:
            found.append(PrunedRange(Range(first, last), database_id, reason, pruned_at))
            previous = (database_id, last)
    return tuple(found)


# -- rows -------------------------------------------------------------------------------------------------------------


def shard_blocks(connection: Connection, source: Source) -> dict[int, Block]:
    """Map each stream number in a shard to its block, seq 1 to the highest, including rows that were truncated.

    Raises:
        DamagedError: a row has an id that no writer gives.
    """
    highest: dict[int, int] = {}
    for table in source.tables:
        upto = format.row_id(format.STREAM_NO_MAX, format.SEQ_MAX)
        sql = (
            f"SELECT _id FROM {quote(source.schema)}.{quote(table.name)} NOT INDEXED "
            "WHERE _id <= ? ORDER BY _id DESC LIMIT 1"
        )
        while (last := sqlite.scalar(connection, sql, (upto,))) is not None:
            if not isinstance(last, int):
                raise DamagedError(_ACTION, source.path, f"table {table.name} has an _id that is not an integer")
            stream_no, seq = format.stream_no_of(last), format.seq_of(last)
            if stream_no < 1 or seq < 1 or last > upto:
                raise DamagedError(_ACTION, source.path, f"table {table.name} has a row with the invalid _id {last}")
            highest[stream_no] = max(seq, highest.get(stream_no, 0))
            upto = format.row_id(stream_no, 0) - 1
    return {stream_no: Block(1, seq, format.row_id(stream_no, 1)) for stream_no, seq in highest.items()}


def row_count(connection: Connection, source: Source, streams: Iterable[SourceStream]) -> int:
    """Return how many rows the source has; of a shard, only those of `streams`, since no others count."""
    if source.is_shard:
        return sum(len(block) for stream in streams for block in stream.blocks)
    sql = f"SELECT sum(last - first + 1) FROM {quote(source.schema)}.edgeshard_blocks"
    return int(sqlite.scalar(connection, sql) or 0)


def superseded_count(connection: Connection, source: Source, stream: SourceStream) -> int:
    """Return how many seqs in the blocks of a stream have no row, because a newer version of its key superseded it.

    Raises:
        DamagedError: the count is negative, or greater than that of the seqs.
    """
    if source.is_shard:  # its blocks have a row for each seq
        return 0
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int,),
        f"SELECT rows FROM {quote(source.schema)}.{format.SUPERSEDED} WHERE stream_no = ?",
        (stream.stream_no,),
    )
    count: int = rows[0][0] if rows else 0
    if not 0 <= count <= size(stream.ranges):
        cause = f"stream number {stream.stream_no} cannot have {count} superseded rows"
        raise DamagedError(_ACTION, source.path, cause)
    return count


def timestamps(
    connection: Connection, source: Source, table: SourceTable, block: Block
) -> tuple[int, int | None, int | None]:
    """Return how many rows of a block a timestamped table has, and the lowest and the highest of their timestamps.

    Raises:
        DamagedError: a timestamp is missing, or outside of what any clock shows.
    """
    ((rows, timestamped, lowest, highest),) = sqlite.fetch(
        connection,
        f"SELECT count(*), count({format.TIMESTAMP}), min({format.TIMESTAMP}), max({format.TIMESTAMP}) "
        f"FROM {quote(source.schema)}.{quote(table.name)} NOT INDEXED WHERE _id BETWEEN ?1 AND ?2 AND +_id >= ?1",
        (block.first_id, block.last_id),
    )
    if rows != timestamped:
        raise DamagedError(_ACTION, source.path, f"table {table.name} has changes without a timestamp")
    if rows and not (_is_timestamp(lowest) and _is_timestamp(highest)):
        cause = f"table {table.name} has changes with timestamps from {lowest!r:.40} to {highest!r:.40}, which no clock"
        raise DamagedError(_ACTION, source.path, f"{cause} shows")
    return timestamped, lowest, highest


def _is_timestamp(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= format.TIMESTAMP_MAX


def ensure_transactions(connection: Connection, source: Source, block: Block) -> None:
    """Refuse a source whose transactions among the rows of a block overlap, or end before they begin.

    Raises:
        DamagedError: that is the case.
    """
    wrong = sqlite.scalar(
        connection,
        "SELECT 1 FROM (SELECT first_id, last_id, lag(last_id, 1, 0) OVER (ORDER BY first_id) AS before "
        f"FROM {quote(source.schema)}.edgeshard_transactions NOT INDEXED WHERE first_id BETWEEN ?1 AND ?2) "
        "WHERE typeof(last_id) <> 'integer' OR last_id < first_id OR before >= first_id LIMIT 1",
        (block.first_id, block.last_id),
    )
    if wrong is not None:
        raise DamagedError(_ACTION, source.path, "its transactions overlap, or end before they begin")


def transaction_end(connection: Connection, source: Source, row_id: int) -> int | None:
    """Return the id of the last row in the writer's transaction that wrote a row, or None if it wrote only that row."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int,),
        f"SELECT last_id FROM {quote(source.schema)}.edgeshard_transactions "
        "WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1",
        (row_id,),
    )
    return rows[0][0] if rows and rows[0][0] >= row_id else None


# -- truncated rows ---------------------------------------------------------------------------------------------------


def are_truncated_rows_held(connection: Connection, shard: Source) -> bool:
    """Return whether the main database holds, or has held, every row that a shard truncated for any database."""
    schema = quote(shard.schema)
    sql = (
        f"SELECT 1 FROM {schema}.edgeshard_truncations t JOIN {schema}.edgeshard_streams s USING(stream_no) "
        "LEFT JOIN main.edgeshard_streams m ON m.stream_id = s.stream_id LEFT JOIN main.edgeshard_ranges r "
        "ON r.stream_no = m.stream_no AND r.first <= t.first AND r.last >= t.last WHERE r.first IS NULL LIMIT 1"
    )
    with bounds.bounded(connection, shard.schema):
        return sqlite.scalar(connection, sql) is None


def truncated_but_not_held(stream: SourceStream, held: Sequence[Range]) -> list[tuple[Range, bytes]]:
    """Return the seqs that the source truncated and the target does not hold, with the database that does."""
    return [(part, database_id) for item, database_id in stream.truncations for part in subtract([item], held)]
