"""Copy what the target lacks of one attached source, in the caller's transaction: rows, blocks and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from edgeshard import sqlite
from edgeshard.errors import DamagedError, SchemaConflictError
from edgeshard.format import blocks
from edgeshard.format.blocks import Block, pieces
from edgeshard.format.ranges import Range, intersect, prefix, subtract
from edgeshard.master import catalog, extents, identity, pruned_ranges, streams, superseded, truncations
from edgeshard.merge import conflicts, schema_merge
from edgeshard.merge.target import Target
from edgeshard.records.keys import Key
from edgeshard.sources import bounds, diff
from edgeshard.sources import streams as source_streams
from edgeshard.sources.source import Source, SourceStream, SourceTable
from edgeshard.sqlite import Connection, quote


@attrs.frozen
class Copied:
    """What `copy` did.

    Attributes:
        rows: how many rows it copied.
        copied_bytes: about how large these rows were.
        present: how many rows the source has, copied or not.
        used_bytes: the size of the source's pages in use.
        finished: whether the target now holds all that the source has.
        durable: for each stream with rows in a shard's file, the seq up to which the target holds every row of the
            shard that is not truncated, once the transaction is committed.
        checked: for each stream, which of the source's rows were copied from it or found equal.
    """

    rows: int
    copied_bytes: int
    present: int
    used_bytes: int
    finished: bool
    durable: dict[bytes, int]
    checked: dict[bytes, list[Range]]


def copy(
    target: Target,
    origin: Source,
    max_bytes: int,
    checked: Mapping[bytes, list[Range]] | None = None,
    unwanted: Mapping[bytes, Sequence[Range]] | None = None,
) -> Copied:
    """Copy about `max_bytes` of missing rows, in whole transactions of the writer.

    A source that turns out to be damaged while rows are inserted rolls back the whole transaction; see
    `bounds.bounded`.

    Args:
        target: the database that is merged into.
        origin: the source.
        max_bytes: about how much to copy.
        checked: only if the source's rows will be deleted: for each stream id, the rows that were copied from it or
            found equal in the target. All other rows that the target holds are compared before they count as durable.
            Two databases may have different rows under the same addresses, because a machine was cloned while it
            wrote, or because one of them is forged.
        unwanted: for each stream id, rows that are not copied although the target does not hold them.

    Raises:
        DamagedError, FormatError: the source contradicts itself, or the target.
        SchemaConflictError: the source's tables contradict the target's.
    """
    with bounds.bounded(target.connection, origin.schema):
        return _copy(target, origin, max_bytes, checked, unwanted)


def _copy(
    target: Target,
    origin: Source,
    max_bytes: int,
    checked: Mapping[bytes, list[Range]] | None,
    unwanted: Mapping[bytes, Sequence[Range]] | None,
) -> Copied:
    connection = target.connection
    listed = source_streams.streams_with_news(connection, origin)
    used_bytes = sqlite.used_bytes(connection, origin.schema)
    row_bytes = max(1, used_bytes // max(1, source_streams.row_count(connection, origin, listed)))
    max_rows = max(1, max_bytes // row_bytes)
    origin = schema_merge.ensure_tables(target, origin)
    catalog.raise_priorities(connection, origin.priorities)
    rows, finished, durable, now_checked = 0, True, {}, {}
    for stream in listed:
        known = None if checked is None else checked.get(stream.stream_id, [])
        copied_rows, is_whole, held = _copy_stream(target, origin, stream, max_rows - rows, known, unwanted)
        rows += copied_rows
        finished = finished and is_whole
        now_checked[stream.stream_id] = intersect(stream.ranges, held)
        if stream.in_file:
            durable[stream.stream_id] = _durable_seq(stream, held)
    present = sum(len(block) for stream in listed for block in stream.blocks)
    return Copied(rows, rows * row_bytes, present, used_bytes, finished, durable, now_checked)


def _durable_seq(stream: SourceStream, held: list[Range]) -> int:
    """Return the highest seq up to which every row in the shard is also in the target.

    The target may hold later rows of the stream, from a newer copy of this shard. They do not count: if
    the machine was cloned, the agent goes on to write different rows under the same addresses to this copy.
    """
    held_to = prefix(held, stream.blocks[0].first) if stream.blocks else stream.last_seq
    return min(held_to, stream.last_seq)


# -- one stream -------------------------------------------------------------------------------------------------------


def _copy_stream(
    target: Target,
    origin: Source,
    stream: SourceStream,
    max_rows: int,
    checked: list[Range] | None,
    unwanted: Mapping[bytes, Sequence[Range]] | None,
) -> tuple[int, bool, list[Range]]:
    """Copy at most about `max_rows` of what the target lacks of a stream, and record all that is known about it.

    Returns:
        How many rows were copied, whether that is all, and which seqs the target now holds.
    """
    connection = target.connection
    stream_no = _ensure_stream(target, origin, stream)
    held = extents.ranges(connection, stream_no)
    if checked is not None:
        _ensure_equal(connection, origin, stream_no, stream, held, checked)
    superseded_rows = source_streams.superseded_count(connection, origin, stream.stream_no)
    copied: list[Range] = []
    rows, is_whole = 0, True
    open_ids = range(0)  # ids still to come of the writer's transaction in which the previous piece ended
    for piece in diff.missing_blocks(stream, held, unwanted):
        continues = piece.first_id in open_ids  # rows between the two pieces were pruned
        rest = open_ids.stop - piece.first_id if continues else 0
        part = _cut(connection, origin, piece, max(max_rows - rows, rest))
        if part is not None:
            _copy_block(target, origin, stream_no, part, superseded_rows, continues=continues)
            open_ids = range(0) if origin.is_shard else _rest_of_transaction(connection, origin, part.last_id)
            copied.append(Range(part.first, part.last))
            rows += len(part)
        if part != piece:
            is_whole = False
            break
    held = extents.add_ranges(connection, stream_no, held, copied)
    streams.raise_last_seq(connection, stream_no, _known_last_seq(stream, held, is_whole=is_whole))
    _record_absent(target, stream_no, stream, held)
    return rows, is_whole, held


def _ensure_stream(target: Target, origin: Source, stream: SourceStream) -> int:
    """Return the target's number for the stream, which is added if it is new."""
    known = streams.find(target.connection, stream.stream_id)
    if known is None:
        return streams.add(target.connection, stream.stream_id, stream.agent_id, stream.began_at)
    stream_no, agent_id = known
    if agent_id != stream.agent_id:
        cause = (
            f"it says that stream {stream.stream_id.hex()} belongs to agent {stream.agent_id!r}, but the master says "
            f"that it belongs to {agent_id!r}"
        )
        raise DamagedError("merge", origin.path, cause)
    return stream_no


def _known_last_seq(stream: SourceStream, held: Sequence[Range], *, is_whole: bool) -> int:
    """Return the last seq that the target should record as existing.

    Rows that are still in the source, because this transaction has no more quota, are pending and not missing: the next
    transaction brings them.
    """
    if is_whole:
        return stream.last_seq
    absent = [*(part for part, _ in stream.truncations), *(item.seqs for item in stream.pruned)]
    return max((part.last for part in [*held, *absent]), default=0)


def _record_absent(target: Target, stream_no: int, stream: SourceStream, held: list[Range]) -> None:
    """Record why the source lacks rows that the target does not hold either: truncated for another, or pruned."""
    for seqs, database_id in source_streams.truncated_but_not_held(stream, held):
        truncations.record(target.connection, stream_no, seqs, database_id)
    pruned_ranges.record_from_source(target.connection, stream_no, stream.pruned, held)


def _rest_of_transaction(connection: Connection, origin: Source, last_id: int) -> range:
    """Return the ids after `last_id` that belong to the same transaction of the writer.

    In the order of seqs, the next piece may be anywhere: if the source got its rows from another database, rows that
    came later may have lower seqs.
    """
    return range(last_id + 1, (source_streams.transaction_end(connection, origin, last_id) or 0) + 1)


def _cut(connection: Connection, origin: Source, piece: Block, max_rows: int) -> Block | None:
    """Return the part of a piece that is copied now, or None if there is no more quota."""
    if max_rows <= 0:
        return None
    if len(piece) <= max_rows:
        return piece
    return blocks.cut_chunk(
        piece, max_rows, source_streams.transaction_end(connection, origin, piece.first_id + max_rows - 1)
    )


# -- rows that are held already ---------------------------------------------------------------------------------------


def _ensure_equal(
    connection: Connection,
    origin: Source,
    stream_no: int,
    stream: SourceStream,
    held: list[Range],
    checked: list[Range],
) -> None:
    """Refuse a source whose rows differ from the target's under the same addresses.

    Raises:
        DamagedError: some rows differ.
    """
    unchecked = subtract(intersect(stream.ranges, held), checked)
    if not unchecked:
        return
    # rows that the target held once and no longer has are in no block of it
    for part in pieces(unchecked, extents.blocks(connection, stream_no)):
        (here,) = pieces([Range(part.first, part.last)], stream.blocks)
        bindings = (here.first_id, here.last_id, part.first_id, stream_no)
        equal = sum(sqlite.scalar(connection, _count_equal(origin.schema, table), bindings) for table in origin.tables)
        if equal != len(part):
            cause = (
                f"among seqs {part.first} to {part.last} of stream {stream.stream_id.hex()}, {len(part) - equal} rows "
                "differ from those that the master holds under the same addresses. The shard is damaged, or the "
                "machine was cloned while it wrote, or one of the two databases is forged. No row of it is deleted; it "
                "can be merged into a store of its own"
            )
            raise DamagedError("merge", origin.path, cause)


def _count_equal(schema: str, table: SourceTable) -> str:
    # the target's column comes first, so that its collation is used, and none of the source's
    equal = sqlite.all_of(["m._stream = ?4", *(f"m.{quote(column)} IS {value}" for column, value in table.into)])
    # the target lacks superseded rows, so there is nothing to compare them with
    join, or_superseded = ("LEFT", "m._id IS NULL OR ") if table.is_timestamped else ("CROSS", "")
    here, there = quote(table.name), f"{quote(schema)}.{quote(table.name)}"
    return (
        f"SELECT count(*) FROM {there} s NOT INDEXED {join} JOIN main.{here} m "
        f"ON m._id = s._id - ?1 + ?3 WHERE s._id BETWEEN ?1 AND ?2 AND ({or_superseded}{equal})"
    )


# -- rows that are missing --------------------------------------------------------------------------------------------


def _copy_block(
    target: Target, origin: Source, stream_no: int, block: Block, superseded_rows: int, *, continues: bool = False
) -> None:
    """Append a block's rows, and record where they are. A block has no holes except for superseded rows.

    Args:
        target: the database that is merged into.
        origin: the source.
        stream_no: the target's number for the stream.
        block: the rows to copy, as the source numbers them.
        superseded_rows: how many of the stream's rows the source may lack because newer versions superseded them.
        continues: whether the writer's transaction in which the previous block ended continues in this one.

    Raises:
        DamagedError: the source does not have the rows that its tables say it has.
        SchemaConflictError: a row does not fit the target's columns.
    """
    connection = target.connection
    shift = target.next_id - block.first_id
    bindings = (shift, stream_no, block.first - block.first_id, block.first_id, block.last_id)
    found = copied = 0
    filled: list[SourceTable] = []
    for table in origin.tables:
        present = conflicts.count_changes(target, origin, table, block) if table.is_timestamped else None
        if present == 0:
            continue
        _ensure_fit(connection, origin, table, block)
        thinning = conflicts.thinning_key(target, origin, table)  # then fewer rows than are present need be copied
        connection.execute(_copy_statement(origin.schema, table, thinning), bindings)
        inserted = connection.changes()
        copied += inserted
        found += inserted if present is None else present
        filled += [table] if inserted else []
    if found == len(block) and len(filled) > 1:
        found = _count_ids(connection, origin.schema, filled, block)
    if not len(block) - superseded_rows <= found <= len(block):
        raise DamagedError(
            "merge",
            origin.path,
            f"it should have {len(block)} rows for seqs {block.first} to {block.last} of a stream, but has {found}; "
            "run `edgeshard salvage` on a copy of it to get the rows that can be read",
        )
    superseded.add(connection, stream_no, len(block) - copied)
    extents.copy_transactions(connection, origin.schema, block.first_id, block.last_id, shift)
    if continues:
        end_id = min(source_streams.transaction_end(connection, origin, block.first_id) or 0, block.last_id) + shift
        extents.extend_transaction(connection, target.next_id - 1, end_id)
    extents.add_block(connection, stream_no, Block(block.first, block.last, target.next_id))
    target.next_id += len(block)
    identity.set_next_id(connection, target.next_id)


def _ensure_fit(connection: Connection, origin: Source, table: SourceTable, block: Block) -> None:
    """Refuse rows that the target could not hold without loss.

    Raises:
        SchemaConflictError: a row does not fit.
    """
    for condition, cause in table.checks:
        sql = (
            f"SELECT 1 FROM {quote(origin.schema)}.{quote(table.name)} s NOT INDEXED "
            f"WHERE _id BETWEEN ? AND ? AND ({condition}) LIMIT 1"
        )
        if sqlite.scalar(connection, sql, (block.first_id, block.last_id)) is not None:
            raise SchemaConflictError("merge", origin.path, cause)


def _copy_statement(schema: str, table: SourceTable, thinning: Key | None = None) -> str:
    names = "".join(f", {quote(column)}" for column, _ in table.into)
    values = "".join(f", {value}" for _, value in table.into)
    there = f"{quote(schema)}.{quote(table.name)}"
    return (
        # never OR IGNORE: the ranges say what is missing, and a mistake in them must be loud
        f"INSERT INTO main.{quote(table.name)}(_id, _stream, _seq{names}) "
        f"SELECT _id + ?1, ?2, _id + ?3{values} FROM {there} s NOT INDEXED "
        # the lower bound is given twice: SQLite looks for the first row, and then relies on the order of ids, which a
        # damaged tree does not keep
        "WHERE _id BETWEEN ?4 AND ?5 AND +_id >= ?4"
        f"{f' AND _id IN ({conflicts.kept_ids(there, thinning)})' if thinning else ''} ORDER BY _id"
    )


def _count_ids(connection: Connection, schema: str, tables: Sequence[SourceTable], block: Block) -> int:
    """Count the distinct ids in these tables: in a damaged source, two rows may share one, and another have no row."""
    ids = [
        # "+": in a damaged tree ids are not in order, and a UNION that relies on their order misses equal ones
        f"SELECT +_id FROM {quote(schema)}.{quote(table.name)} NOT INDEXED WHERE _id BETWEEN ?1 AND ?2 AND +_id >= ?1"
        for table in tables
    ]
    sql = f"SELECT count(*) FROM ({' UNION '.join(ids)})"
    return int(sqlite.scalar(connection, sql, (block.first_id, block.last_id)))
