"""Read the streams of a source: which rows it has, which it truncated, and which were pruned."""

from __future__ import annotations

import datetime
import itertools
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError
from edgeshard.files import paths
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import PrunedRange, Range, size, subtract, union
from edgeshard.sources import bounds
from edgeshard.sources.source import Source, SourceStream, SourceTable
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "read database"

ID_BYTES: Final = 16

#: The most truncations of one stream. Adjacent ones for the same database are one entry, so there are only few.
_TRUNCATIONS_MAX: Final = 10_000

#: What a stream without truncations has in their place.
_NO_TRUNCATION: Final = (None, None, None)

#: How many streams of a shard are read at once.
_STREAMS_AT_ONCE: Final = 1_000

#: The most pruned ranges of one stream that are read at a time. Adjacent ones with the same reason are one entry.
_PRUNED_RANGES_MAX: Final = 10_000

#: The most characters of the reason for which rows were pruned.
REASON_CHARS_MAX: Final = 100

#: The highest id that a block can begin with. This leaves ids for the seqs of a stream after it.
_FIRST_ID_MAX: Final = (1 << 63) - (1 << 33)

#: SQL: up to where the main database holds its stream ``m`` without a break from the seq {0} on, or something below.
HELD_TO: Final = (
    "coalesce((SELECT h.last FROM main._edgeshard_ranges h WHERE h.stream_no = m.stream_no AND h.first <= {0} "
    "ORDER BY h.first DESC LIMIT 1), t.last_seq, 0)"
)

#: SQL: joins the main database's stream ``m``, or its retired stream ``t``, to a table {0} with the stream's id.
JOIN_KNOWN: Final = (
    "LEFT JOIN main._edgeshard_streams m ON m.stream_id = {0}.stream_id "
    "LEFT JOIN main._edgeshard_retired t ON t.stream_id = {0}.stream_id "
)

#: SQL: up to where the main database knows, from the seq {0} on, that the database {1} pruned its stream ``m``.
NOTED_TO: Final = (
    "coalesce((SELECT n.last FROM main._edgeshard_pruned_ranges n WHERE n.is_own = 0 AND n.database_id = {1} "
    "AND n.stream_no = m.stream_no AND n.first <= {0} ORDER BY n.first DESC LIMIT 1), 0)"
)

#: SQL: whether the main database lacks any seq of the source's range ``r`` of its stream ``m``.
_NOT_HELD: Final = f"{HELD_TO.format('r.first')} < r.last"

#: SQL: the part of ``r`` that the main database may lack ends here: all after it is held, up to the end of ``r``.
_LACKED_TO: Final = (
    f"iif({HELD_TO.format('r.last')} >= r.last, (SELECT h.first - 1 FROM main._edgeshard_ranges h "
    "WHERE h.stream_no = m.stream_no AND h.first <= r.last ORDER BY h.first DESC LIMIT 1), r.last)"
)

#: SQL: whether the pruned range ``r`` of the source tells the main database something, or cannot be right.
_IS_UNKNOWN_NOTE: Final = (
    f"((r.last >= r.first) IS NOT TRUE OR {_NOT_HELD} AND {NOTED_TO.format('r.first', 'r.database_id')} < r.last)"
)


# -- which streams ----------------------------------------------------------------------------------------------------


def streams_with_news(
    connection: Connection, source: Source, unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> list[SourceStream]:
    """Return the streams about which the source may know more than the main database, by number.

    Of the blocks of a master or bundle, only those are read that have seqs which the main database lacks: a stream has
    about as many blocks as the source had merges, and reading all of them would cost more with every merge.

    Args:
        connection: the connection whose main database is the target.
        source: the attached database.
        unwanted: seqs of each stream, by its id, whose blocks need not be read.

    Raises:
        DamagedError: the source contradicts itself, or holds values that cannot be right.
    """
    with bounds.bounded(connection, source.schema):
        if source.is_shard:
            return _shard_streams_with_news(connection, source)
        found = sqlite.fetch_typed(connection, source.path, (int,), _master_news(source))
        numbers = {number for (number,) in found}
        if unwanted is not None:
            numbers &= _wanted_streams(connection, source, unwanted)
        pruners = _pruners(connection, source) if numbers else ""
        return [_read_stream(connection, source, number, unwanted or {}, pruners) for number in sorted(numbers)]


def _wanted_streams(connection: Connection, source: Source, unwanted: Mapping[bytes, Sequence[Range]]) -> set[int]:
    """Return the streams of a master or bundle that have wanted rows, or of which rows were truncated or pruned."""
    schema = quote(source.schema)
    absent = "SELECT stream_no FROM {0}._edgeshard_truncations UNION SELECT stream_no FROM {0}._edgeshard_pruned_ranges"
    found = sqlite.fetch_typed(connection, source.path, (int,), absent.format(schema))
    wanted = {number for (number,) in found}
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, bytes, int, int),
        f"SELECT stream_no, stream_id, first, last FROM {schema}._edgeshard_ranges "
        f"JOIN {schema}._edgeshard_streams USING (stream_no) ORDER BY stream_no, first",
    )
    for (number, stream_id), items in itertools.groupby(rows, key=lambda row: row[:2]):
        held = unwanted.get(stream_id, ())
        if number not in wanted and (not held or subtract([Range(*item[2:]) for item in items], held)):
            wanted.add(number)
    return wanted


def _known_streams(source: Source) -> str:
    return f"SELECT s.stream_no FROM {quote(source.schema)}._edgeshard_streams s {JOIN_KNOWN.format('s')}"


def _master_news(source: Source) -> str:
    """Select the streams of a master or bundle with rows (also truncated or pruned ones) that the main database lacks.

    The main database is searched for each range of the source, so this takes time in proportion to the size of the
    source, not of the target.
    """
    schema, known = quote(source.schema), _known_streams(source)
    # no block, nothing to copy: what the source pruned before its first merge would else be looked at in each merge
    last_block_end = (
        f"coalesce((SELECT b.last FROM {schema}._edgeshard_blocks b WHERE b.stream_no = r.stream_no "
        f"AND b.first <= {_LACKED_TO} ORDER BY b.first DESC LIMIT 1), 0)"
    )
    return (
        f"{known} WHERE coalesce(m.last_seq, t.last_seq, -1) < s.last_seq "
        f"UNION {known} JOIN {schema}._edgeshard_ranges r ON r.stream_no = s.stream_no WHERE {_NOT_HELD} "
        f"AND {last_block_end} >= r.first "
        f"UNION {known} JOIN {schema}._edgeshard_truncations r ON r.stream_no = s.stream_no WHERE {_NOT_HELD} "
        "AND NOT EXISTS (SELECT 1 FROM main._edgeshard_truncations n "
        "WHERE n.stream_no = m.stream_no AND n.last >= r.last) "
        # the ranges of a bundle do not include what was pruned
        f"UNION {known} JOIN {schema}._edgeshard_pruned_ranges r ON r.stream_no = s.stream_no WHERE {_IS_UNKNOWN_NOTE}"
    )


def stream_ids(connection: Connection, source: Source) -> set[bytes]:
    """Return the ids of all streams that the source lists."""
    sql = f"SELECT stream_id FROM {quote(source.schema)}._edgeshard_streams"
    with bounds.bounded(connection, source.schema):
        return {stream_id for (stream_id,) in sqlite.fetch_typed(connection, source.path, (bytes,), sql)}


# -- the streams of a shard -------------------------------------------------------------------------------------------


def _shard_streams_with_news(connection: Connection, shard: Source) -> list[SourceStream]:
    """Return the streams of a shard that have rows, or truncated rows that the main database does not know of."""
    blocks = shard_blocks(connection, shard)
    numbers = set(blocks)
    if _stream_count(connection, shard) != len(numbers):  # most shards have one stream, and it has rows
        numbers.update(_truncated_beyond(connection, shard))
    return _read_shard_streams(connection, shard, blocks, numbers)


def _truncated_beyond(connection: Connection, shard: Source) -> list[int]:
    """Return the numbers of the streams with truncated rows that the main database does not know, or that are wrong."""
    sql = _known_streams(shard) + (
        f"JOIN {quote(shard.schema)}._edgeshard_truncations r ON r.stream_no = s.stream_no "
        "GROUP BY s.stream_no HAVING max(r.last) > coalesce(m.last_seq, t.last_seq, 0) "
        "OR total((r.last >= r.first) IS NOT TRUE)"
    )
    return [number for (number,) in sqlite.fetch_typed(connection, shard.path, (int,), sql)]


def _stream_count(connection: Connection, shard: Source) -> int:
    return int(sqlite.scalar(connection, f"SELECT count(*) FROM {quote(shard.schema)}._edgeshard_streams"))


def all_streams(
    connection: Connection, shard: Source, with_news: Sequence[SourceStream] = ()
) -> Sequence[SourceStream]:
    """Return all streams of a shard that have rows, truncated ones included, by number.

    Args:
        connection: the connection to which the shard is attached.
        shard: the shard.
        with_news: those that `streams_with_news` found in the same transaction: often that is all of them.
    """
    with bounds.bounded(connection, shard.schema):
        if with_news and _stream_count(connection, shard) == len(with_news):
            return with_news
        blocks = shard_blocks(connection, shard)
        sql = f"SELECT stream_no FROM {quote(shard.schema)}._edgeshard_streams"
        numbers = {number for (number,) in sqlite.fetch_typed(connection, shard.path, (int,), sql)}
        listed = _read_shard_streams(connection, shard, blocks, numbers | blocks.keys())
    return [stream for stream in listed if stream.last_seq]


def _read_shard_streams(
    connection: Connection, shard: Source, blocks: Mapping[int, Block], numbers: Iterable[int]
) -> list[SourceStream]:
    """Return some streams of a shard, by number; a few statements read all of them.

    Args:
        connection: the connection to which the shard is attached.
        shard: the shard.
        blocks: what `shard_blocks` returned.
        numbers: which streams.
    """
    wanted, schema = sorted(numbers), quote(shard.schema)
    found: list[SourceStream] = []
    for start in range(0, len(wanted), _STREAMS_AT_ONCE):
        part = wanted[start : start + _STREAMS_AT_ONCE]
        rows = connection.execute(
            "SELECT s.stream_no, s.stream_id, s.agent_id, s.began_at, t.first, t.last, t.database_id "
            f"FROM {schema}._edgeshard_streams s LEFT JOIN {schema}._edgeshard_truncations t USING (stream_no) "
            f"WHERE s.stream_no IN ({', '.join(map(str, part))}) ORDER BY s.stream_no"
        )
        for number, of_stream in itertools.groupby(rows, key=operator.itemgetter(0)):
            lines = list(itertools.islice(of_stream, _TRUNCATIONS_MAX + 1))
            found.append(_parse_shard_stream(shard, lines, blocks.get(number)))
    unlisted = set(wanted) - {stream.stream_no for stream in found}
    if unlisted:
        raise _unlisted_error(shard, min(unlisted))
    return found


def _parse_shard_stream(shard: Source, lines: Sequence[tuple[Any, ...]], block: Block | None) -> SourceStream:
    """Return a stream of a shard.

    Args:
        shard: the shard.
        lines: its number, id and agent, and when it began; with each of its truncations, or with None in their place.
        block: its block in the file.
    """
    sqlite.ensure_types(shard.path, (int, bytes, str, str, None, None, None), lines)
    stream_no = lines[0][0]
    stream_id, agent_id, began_at = _checked_identity(shard, *lines[0][:4])
    truncations = _checked_truncations(shard, stream_no, [line[4:] for line in lines if line[4:] != _NO_TRUNCATION])
    truncated_to = max((item.last for item, _ in truncations), default=0)
    left = _not_truncated(block, truncated_to)
    last_seq = max(truncated_to, *(item.last for item in left), 0)
    _check_seqs(shard, stream_no, left, last_seq)
    return SourceStream(
        stream_no, stream_id, agent_id, began_at, left, truncations, last_seq, in_file=block is not None
    )


def _not_truncated(block: Block | None, truncated_to: int) -> tuple[Block, ...]:
    """Return what is left of a shard's block, as no or one block."""
    if block is None or block.last <= truncated_to:
        return ()
    return (block.cut(truncated_to + 1, block.last),)


# -- one stream of a master or bundle ---------------------------------------------------------------------------------


def _read_stream(
    connection: Connection, source: Source, stream_no: int, unwanted: Mapping[bytes, Sequence[Range]], pruners: str
) -> SourceStream:
    stream_id, agent_id, began_at, last_seq = _read_identity(connection, source, stream_no)
    truncations = _read_truncations(connection, source, stream_no)
    blocks = _read_new_blocks(connection, source, stream_no, stream_id, unwanted.get(stream_id, ()))
    _check_seqs(source, stream_no, blocks, last_seq)
    pruned = _read_pruned(connection, source, stream_no, pruners)
    return SourceStream(
        stream_no, stream_id, agent_id, began_at, blocks, truncations, last_seq, in_file=False, pruned=pruned
    )


def _read_identity(connection: Connection, source: Source, stream_no: int) -> tuple[bytes, str, str, int]:
    """Return the stream's id, its agent, when it began ("" if that is not a time), and its highest known seq."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (bytes, str, str, int),
        f"SELECT stream_id, agent_id, began_at, last_seq FROM {quote(source.schema)}._edgeshard_streams "
        "WHERE stream_no = ?",
        (stream_no,),
    )
    if not rows:
        raise _unlisted_error(source, stream_no)
    return *_checked_identity(source, stream_no, *rows[0][:3]), rows[0][3]


def _unlisted_error(source: Source, stream_no: int) -> DamagedError:
    cause = f"it has rows of stream number {stream_no}, which it does not list"
    return DamagedError(_ACTION, source.path, cause)


def _checked_identity(
    source: Source, stream_no: int, stream_id: bytes, agent_id: str, began_at: str
) -> tuple[bytes, str, str]:
    """Return the stream's id, its agent, and when it began ("" if that is not a time)."""
    if (
        not 1 <= stream_no <= format.STREAM_NO_MAX
        or len(stream_id) != ID_BYTES
        or len(agent_id) > paths.AGENT_NAME_MAX
        or (source.is_shard and agent_id != source.agent_id)
    ):
        cause = f"stream number {stream_no} has an invalid number, id or agent, or belongs to another agent"
        raise DamagedError(_ACTION, source.path, cause)
    return stream_id, agent_id, began_at if _is_time(began_at) else ""


def _read_truncations(connection: Connection, source: Source, stream_no: int) -> tuple[tuple[Range, bytes], ...]:
    """Return the truncated seqs, each with the id of the database that holds them."""
    sql = (
        f"SELECT first, last, database_id FROM {quote(source.schema)}._edgeshard_truncations "
        "WHERE stream_no = ? LIMIT ?"
    )
    return _checked_truncations(source, stream_no, sqlite.fetch(connection, sql, (stream_no, _TRUNCATIONS_MAX + 1)))


def _checked_truncations(
    source: Source, stream_no: int, rows: Sequence[tuple[Any, ...]]
) -> tuple[tuple[Range, bytes], ...]:
    sqlite.ensure_types(source.path, (int, int, bytes), rows)
    if len(rows) > _TRUNCATIONS_MAX:
        raise DamagedError(_ACTION, source.path, f"stream number {stream_no} has too many truncations")
    for first, last, database_id in rows:
        if not _are_seqs(first, last) or len(database_id) != ID_BYTES:
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


def _read_new_blocks(
    connection: Connection, source: Source, stream_no: int, stream_id: bytes, unwanted: Sequence[Range]
) -> tuple[Block, ...]:
    """Return the blocks of a stream in a master or bundle that have seqs which the main database lacks."""
    rows = sqlite.fetch_typed(connection, source.path, (int, int), _ranges_not_held(source), (stream_no,))
    parts = [Range(first, last) for first, last in rows]
    _check_ranges(source, stream_no, parts)
    if unwanted:
        parts = subtract(parts, unwanted)
    known = sqlite.scalar(connection, "SELECT stream_no FROM main._edgeshard_streams WHERE stream_id = ?", (stream_id,))
    blocks_there = f"{quote(source.schema)}._edgeshard_blocks WHERE stream_no = ?1"
    wanted = json.dumps([(part.first, part.last) for part in parts])
    rows = sqlite.fetch_typed(
        connection, source.path, (int, int, int), _blocks_in_holes(source), (stream_no, known, wanted)
    )
    # a block that begins at no seq is in no hole; blocks are sorted, so such a one is the first or the last
    ends = " UNION ALL ".join(
        f"SELECT * FROM (SELECT first, last FROM {blocks_there} ORDER BY first {order} LIMIT 1)"
        for order in ("ASC", "DESC")
    )
    for first, last in sqlite.fetch_typed(connection, source.path, (int, int), ends, (stream_no,)):
        _check_ranges(source, stream_no, [Range(first, last)])
    blocks = {first: Block(first, last, first_id) for first, last, first_id in rows}
    return tuple(blocks[first] for first in sorted(blocks))


def _ranges_not_held(source: Source) -> str:
    return (
        f"SELECT r.first, r.last FROM {quote(source.schema)}._edgeshard_streams s "
        f"JOIN {quote(source.schema)}._edgeshard_ranges r ON r.stream_no = s.stream_no "
        f"{JOIN_KNOWN.format('s')} WHERE s.stream_no = ? "
        f"AND (r.first < 1 OR (r.last >= r.first) IS NOT TRUE OR {_NOT_HELD})"
    )


def _blocks_in_holes(source: Source) -> str:
    """Select the blocks of the stream ?1 with a seq in one of the parts ?3 that the main database's stream ?2 lacks.

    The source may have pruned most of these seqs. So we search for the holes between what the main database holds, and
    for a block in each hole: reading all blocks would cost more with every merge.
    """
    parts = "SELECT key AS part, value ->> 0 AS first, value ->> 1 AS last FROM json_each(?3)"
    at_or_before = (
        "coalesce((SELECT max(first) FROM main._edgeshard_ranges WHERE stream_no = ?2 AND first <= p.first), 0)"
    )
    held = (
        "SELECT part, p.first AS low, p.last AS high, 0 AS first, 0 AS last FROM parts p UNION ALL "
        "SELECT part, p.first, p.last, h.first, h.last FROM parts p CROSS JOIN main._edgeshard_ranges h "
        f"ON h.stream_no = ?2 AND h.first <= p.last AND h.first >= {at_or_before}"
    )
    next_held = "lead(first, 1, high + 1) OVER (PARTITION BY part ORDER BY first)"
    blocks = f"{quote(source.schema)}._edgeshard_blocks"
    block_at_or_before = f"coalesce((SELECT max(first) FROM {blocks} WHERE stream_no = ?1 AND first <= low), 0)"
    return (
        f"WITH parts AS ({parts}), held AS ({held}), "
        f"holes AS (SELECT max(low, last + 1) AS low, min(high, {next_held} - 1) AS high FROM held) "
        f"SELECT b.first, b.last, b.first_id FROM holes CROSS JOIN {blocks} b ON b.stream_no = ?1 "
        f"AND b.first >= {block_at_or_before} AND b.first <= high AND b.last >= low WHERE low <= high"
    )


def _check_seqs(source: Source, stream_no: int, blocks: Iterable[Block], last_seq: int) -> None:
    """Refuse a stream whose seqs or ids are out of range, or whose blocks overlap.

    Raises:
        DamagedError: that is the case.
    """
    _check_ranges(source, stream_no, [Range(item.first, item.last) for item in blocks])
    if not all(1 <= item.first_id <= _FIRST_ID_MAX for item in blocks) or not 0 <= last_seq <= format.SEQ_MAX:
        raise DamagedError(_ACTION, source.path, f"stream number {stream_no} has ids or seqs out of range")


def _check_ranges(source: Source, stream_no: int, ranges: Sequence[Range]) -> None:
    if not all(_are_seqs(item.first, item.last) for item in ranges) or size(ranges) != size(union(ranges)):
        cause = f"stream number {stream_no} has ranges or blocks that overlap, or seqs out of range"
        raise DamagedError(_ACTION, source.path, cause)


def _pruners(connection: Connection, source: Source) -> str:
    """Return the databases that pruned rows, as JSON for `_read_pruned`, which looks up their ranges by key."""
    sql = f"SELECT DISTINCT is_own, database_id FROM {quote(source.schema)}._edgeshard_pruned_ranges"
    found = sqlite.fetch_typed(connection, source.path, (int, bytes), sql)
    return json.dumps([(is_own, database_id.hex()) for is_own, database_id in found])


def _read_pruned(connection: Connection, source: Source, stream_no: int, pruners: str) -> tuple[PrunedRange, ...]:
    """Return what was pruned of a stream, and is new to the main database. The next merge reads what is left.

    Args:
        connection: the connection to which the source is attached.
        source: a master or bundle.
        stream_no: the source's number for the stream.
        pruners: what `_pruners` returned. Without these, SQLite would read all ranges of all streams.
    """
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int, bytes, str, str),
        "SELECT r.first, r.last, r.database_id, r.reason, r.pruned_at "
        f"FROM {quote(source.schema)}._edgeshard_streams s CROSS JOIN json_each(?) p "
        f"CROSS JOIN {quote(source.schema)}._edgeshard_pruned_ranges r ON r.is_own = p.value ->> 0 "
        "AND r.database_id = unhex(p.value ->> 1) AND r.stream_no = s.stream_no "
        f"{JOIN_KNOWN.format('s')} WHERE s.stream_no = ? AND {_IS_UNKNOWN_NOTE} "
        "ORDER BY r.database_id, r.first LIMIT ?",
        (pruners, stream_no, _PRUNED_RANGES_MAX),
    )
    found = []
    previous = start = (b"", 0)
    for first, last, database_id, reason, pruned_at in rows:
        is_in_order = _are_seqs(first, last) and (database_id, first) >= start
        is_explained = len(reason) <= REASON_CHARS_MAX and _is_time(pruned_at)
        if not is_in_order or not is_explained or len(database_id) != ID_BYTES:
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
    """Return how many rows the source has; of a shard, only those of `streams`, since no others count.

    Of a master or bundle, superseded rows count as well. There are fewer ranges than blocks, so they are counted.
    """
    if source.is_shard:
        return sum(len(block) for stream in streams for block in stream.blocks)
    schema, rows = quote(source.schema), "SELECT coalesce(sum(last - first + 1), 0) FROM"
    sql = f"SELECT ({rows} {schema}._edgeshard_ranges) - ({rows} {schema}._edgeshard_pruned_ranges WHERE is_own = 1)"
    return int(sqlite.scalar(connection, sql))


def superseded_count(connection: Connection, source: Source, stream: SourceStream) -> int:
    """Return how many seqs in the blocks of a stream have no row, because a newer version of its key superseded it.

    Raises:
        DamagedError: the count is negative, or greater than that of the stream's seqs.
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
    if not 0 <= count <= stream.last_seq:
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


def transaction_end(connection: Connection, source: Source, row_id: int) -> int | None:
    """Return the id of the last row in the writer's transaction that wrote a row, or None if it wrote only that row."""
    found = transaction_at(connection, source, row_id)
    return None if found is None else found.last


def transaction_at(connection: Connection, source: Source, row_id: int) -> Range | None:
    """Return the ids of the writer's transaction that wrote a row, or None if it wrote only that row."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int),
        f"SELECT first_id, last_id FROM {quote(source.schema)}._edgeshard_transactions "
        "WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1",
        (row_id,),
    )
    return Range(*rows[0]) if rows and rows[0][1] >= row_id else None


def transactions_between(connection: Connection, source: Source, ids: Range) -> Iterator[Range]:
    """Yield the ids of each of the writers' transactions that begins among these ids, in order.

    They are checked here and not in SQL: that takes a window function, and to prepare one costs more than all of a
    short source's transactions do.

    Raises:
        DamagedError: they overlap, or end before they begin.
    """
    before = ids.first - 1
    for first_id, last_id in connection.execute(
        f"SELECT first_id, last_id FROM {quote(source.schema)}._edgeshard_transactions NOT INDEXED "
        "WHERE first_id BETWEEN ? AND ? ORDER BY first_id",
        (ids.first, ids.last),
    ):
        if not isinstance(last_id, int) or not before < first_id <= last_id:
            raise DamagedError(_ACTION, source.path, "its transactions overlap, or end before they begin")
        before = last_id
        yield Range(first_id, last_id)


def ids_of_rows(
    connection: Connection, source: Source, table: SourceTable, ids: Range, condition: str = ""
) -> list[Range]:
    """Return which of these ids a table has rows of, in order.

    Args:
        connection: the connection to which the source is attached.
        source: the source.
        table: one of its tables.
        ids: where to look.
        condition: SQL over the table as ``s``: only of rows that meet it.
    """
    where = f"_id BETWEEN ?1 AND ?2 AND +_id >= ?1{f' AND ({condition})' if condition else ''}"
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int),
        sqlite.select_id_runs(f"{quote(source.schema)}.{quote(table.name)} s NOT INDEXED WHERE {where}"),
        (ids.first, ids.last),
    )
    return union(Range(*row) for row in rows)


# -- truncated rows ---------------------------------------------------------------------------------------------------


def truncated_beyond(connection: Connection, shard: Source) -> list[tuple[SourceStream, Range, bytes]]:
    """Return the truncations of a shard that reach beyond the last seq that the main database knows of the stream.

    Returns:
        The stream, the seqs, and the id of the database that holds them.
    """
    with bounds.bounded(connection, shard.schema):
        listed = _read_shard_streams(connection, shard, {}, _truncated_beyond(connection, shard))
    return [(stream, seqs, database_id) for stream in listed for seqs, database_id in stream.truncations]


def are_truncated_rows_held(connection: Connection, shard: Source) -> bool:
    """Return whether the main database holds, or has held, every row that a shard truncated for any database."""
    schema = quote(shard.schema)
    sql = (
        f"SELECT 1 FROM {schema}._edgeshard_truncations r JOIN {schema}._edgeshard_streams s USING(stream_no) "
        f"{JOIN_KNOWN.format('s')} WHERE {HELD_TO.format('r.first')} < r.last LIMIT 1"
    )
    with bounds.bounded(connection, shard.schema):
        return sqlite.scalar(connection, sql) is None
