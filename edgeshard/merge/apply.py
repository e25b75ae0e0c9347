"""Copy what the target lacks of one attached source, in the caller's transaction: rows, blocks and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from edgeshard import sqlite, units
from edgeshard.errors import DamagedError
from edgeshard.format import blocks
from edgeshard.format.blocks import Block, pieces
from edgeshard.format.ranges import Range, intersect, prefix, size, subtract, union
from edgeshard.master import (
    catalog,
    extents,
    identity,
    proven,
    pruned_ranges,
    retirement,
    streams,
    superseded,
    truncations,
    written_off,
)
from edgeshard.merge import conflicts, schema_merge
from edgeshard.merge.blocked import BlockedRows
from edgeshard.merge.target import Target
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sources import bounds, diff
from edgeshard.sources import retired as retired_streams
from edgeshard.sources import streams as source_streams
from edgeshard.sources.source import Blocked, Source, SourceStream, SourceTable
from edgeshard.sqlite import Connection, quote

#: The most pieces between blocked rows that one transaction copies of a stream.
_PIECES_MAX = 5_000

#: No row is blocked.
_NO_ROWS: Blocked = {}


class TargetLacksRowsError(DamagedError):
    """The target lacks rows that its blocks name: it is damaged, or another program deleted them."""


class SourceLacksRowsError(DamagedError):
    """A source lacks rows that its tables say it has: it is damaged, or another program deleted them."""


@attrs.frozen
class OwnShard:
    """One of the store's own shards, whose rows will be deleted once the target holds them.

    A row is deleted from it only if it is proven: it was copied from this very file or compared with it, value by
    value. Two databases may have different rows under the same addresses, because a machine was cloned while it wrote,
    or because one of them is forged. So no other database's claim counts.

    Attributes:
        name: the name of its file, under which the target records what is proven.
        checked: for each stream id, the rows that this merger has just copied from it, or compared with it. All others
            that the target has are compared, even if they are proven: a copy may have been put in the file's place.
    """

    name: str
    checked: Mapping[bytes, list[Range]] = attrs.Factory(dict)


@attrs.frozen
class Copied:
    """What `copy` did.

    Attributes:
        rows: how many rows it copied.
        copied_bytes: about how large these rows were.
        present: how many rows a shard has, copied or not.
        used_bytes: the size of the source's pages in use.
        finished: whether the target now holds all that the source has, except for blocked rows.
        durable: for each stream of a shard that has rows to delete, the seq up to which they may be deleted once the
            transaction is committed.
        checked: for each stream of a shard, which of its rows are proven; see `OwnShard`.
        unproven: for each stream of a shard that has some, the rows that the target held and pruned without ever
            having compared them with the shard's.
        blocked: the rows that do not fit the target's tables, and so were neither copied nor compared.
        seen: for each stream of a shard that has rows, the last seq that it has.
        streams: the streams about which the source might know more than the target.
    """

    rows: int
    copied_bytes: int
    present: int
    used_bytes: int
    finished: bool
    durable: dict[bytes, int]
    checked: dict[bytes, list[Range]]
    unproven: dict[bytes, list[Range]]
    blocked: Blocked
    seen: dict[bytes, int]
    streams: Sequence[SourceStream]


def copy(
    target: Target,
    origin: Source,
    max_bytes: int,
    own: OwnShard | None = None,
    unwanted: Mapping[bytes, Sequence[Range]] | None = None,
    known_blocked: Blocked = _NO_ROWS,
) -> Copied:
    """Copy about `max_bytes` of missing rows, in whole transactions of the writer.

    A source that turns out to be damaged while rows are inserted rolls back the whole transaction; see
    `bounds.bounded`.

    Args:
        target: the database that is merged into.
        origin: the source.
        max_bytes: about how much to copy.
        own: only if the source is a shard whose rows will be deleted.
        unwanted: for each stream id, rows that are not copied although the target does not hold them.
        known_blocked: the rows that were found to be blocked before: see `edgeshard.merge.blocked`.

    Raises:
        DamagedError, FormatError: the source contradicts itself, or the target.
    """
    with bounds.bounded(target.connection, origin.schema):
        return _copy(target, origin, max_bytes, own, unwanted, known_blocked)


def _copy(
    target: Target,
    origin: Source,
    max_bytes: int,
    own: OwnShard | None,
    unwanted: Mapping[bytes, Sequence[Range]] | None,
    known_blocked: Blocked,
) -> Copied:
    connection = target.connection
    listed = source_streams.streams_with_news(connection, origin, unwanted)
    # a bundle gets its retired streams at once
    retired = [] if unwanted is not None else retired_streams.with_news(connection, origin)
    for stream in [*listed, *retired]:
        retirement.restore(connection, stream.stream_id, stream.agent_id, stream.began_at)
    used_bytes = sqlite.used_bytes(connection, origin.schema)
    rows_there = source_streams.row_count(connection, origin, listed) if any(each.blocks for each in listed) else 0
    row_bytes = bounds.row_bytes(connection, origin.schema, rows_there, used_bytes)
    max_rows = max(1, max_bytes // row_bytes)
    if own is not None and not schema_merge.has_all(target, origin) and _is_done_with(target, origin, listed):
        blocked = BlockedRows(origin, {})
    else:
        blocked = BlockedRows(*schema_merge.ensure_tables(target, origin))
        blocked.recall(known_blocked, listed)
        catalog.raise_priorities(connection, origin.priorities)
    origin = blocked.origin
    rows, finished = 0, len(retired) < retired_streams.STREAMS_MAX
    durable: dict[bytes, int] = {}
    checked: dict[bytes, list[Range]] = {}
    unproven: dict[bytes, list[Range]] = {}
    for stream in [*listed, *retired]:
        copied, is_whole, with_proof, without_proof = _copy_stream(
            target, blocked, stream, max_rows - rows, own, unwanted
        )
        rows += copied
        finished = finished and is_whole
        if own is None:
            continue
        checked[stream.stream_id] = with_proof
        if without_proof:
            unproven[stream.stream_id] = without_proof
        last = _durable_seq(connection, origin, stream, with_proof)
        if stream.in_file and last is not None:
            durable[stream.stream_id] = last
    present = sum(len(block) for stream in listed for block in stream.blocks)
    seen = {stream.stream_id: stream.blocks[-1].last for stream in listed if stream.blocks}
    return Copied(
        rows, rows * row_bytes, present, used_bytes, finished, durable, checked, unproven, blocked.found, seen, listed
    )


def _is_done_with(target: Target, shard: Source, listed: Iterable[SourceStream]) -> bool:
    """Return whether the target has held all rows that a shard ever had, and pruned those that are still in it.

    Such a shard decides nothing: if a table of it was dropped, it would come back as it was.
    """
    connection = target.connection
    for stream in listed:
        known = streams.find(connection, stream.stream_id)
        held = diff.held_around(connection, known[0], stream.ranges) if known is not None else []
        if diff.missing_blocks(stream, held) or (known and extents.blocks_around(connection, known[0], stream.ranges)):
            return False
    return source_streams.are_truncated_rows_held(connection, shard)


def _durable_seq(connection: Connection, origin: Source, stream: SourceStream, checked: list[Range]) -> int | None:
    """Return the seq up to which every row in the shard may be deleted, or None if there is none to delete.

    The target may hold later rows of the stream, from a newer copy of this shard. They do not count: if
    the machine was cloned, the agent goes on to write different rows under the same addresses to this copy.

    A transaction is deleted as a whole or not at all: a copy of the shard would bring the rest of it alone to others.
    """
    if not stream.blocks:
        return stream.last_seq  # a truncation was killed before all of its rows were deleted
    block = stream.blocks[0]
    last = prefix(checked, block.first)
    if block.first <= last < block.last:
        row_id = block.first_id + last - block.first
        whole = source_streams.transaction_at(connection, origin, row_id)
        if whole is not None and whole.last > row_id:
            last -= row_id - whole.first + 1
    return last if last >= block.first else None


# -- one stream -------------------------------------------------------------------------------------------------------


def _copy_stream(
    target: Target,
    blocked: BlockedRows,
    stream: SourceStream,
    max_rows: int,
    own: OwnShard | None,
    unwanted: Mapping[bytes, Sequence[Range]] | None,
) -> tuple[int, bool, list[Range], list[Range]]:
    """Copy at most about `max_rows` of what the target lacks of a stream, and record all that is known about it.

    Blocked rows are left out, and what follows them is copied.

    Returns:
        How many rows were copied, whether that is all, and which of the rows of an own shard that the target now holds
        are proven, and which are not.
    """
    connection, origin = target.connection, blocked.origin
    stream_no = _ensure_stream(target, origin, stream)
    held = diff.held_around(connection, stream_no, stream.ranges)
    unproven = [] if own is None else _compare(target, blocked, own, stream_no, stream, held)
    superseded_rows = source_streams.superseded_count(connection, origin, stream)
    copied: list[Range] = []
    rows, is_whole = 0, True
    open_ids = range(0)  # ids still to come of the writer's transaction in which the previous piece ended
    missing = diff.missing_blocks(stream, union([*held, *blocked.of_stream(stream.stream_id)]), unwanted)
    for piece in missing:
        rest = open_ids.stop - piece.first_id if piece.first_id in open_ids else 0
        part = _cut(connection, origin, piece, max(max_rows - rows, rest))
        for fitting in [] if part is None else blocked.examine(connection, stream.stream_id, part):
            # rows between the two pieces were pruned
            continues = fitting.first_id in open_ids
            _copy_block(target, origin, stream_no, fitting, superseded_rows, continues=continues)
            open_ids = range(0) if origin.is_shard else _rest_of_transaction(connection, origin, fitting.last_id)
            copied.append(Range(fitting.first, fitting.last))
            rows += len(fitting)
            if blocked.found and len(copied) == _PIECES_MAX:
                part = None  # the next transaction continues
                break
        if part != piece:
            is_whole = False
            break
    held = extents.add_ranges(connection, stream_no, held, copied)
    if copied and target.is_indexed:
        written_off.forget(connection, stream_no, copied)
    new_seqs = streams.raise_last_seq(connection, stream_no, _known_last_seq(stream, held, is_whole=is_whole))
    if target.is_indexed:  # the receiver of a bundle finds out itself what it lacks
        streams.add_missing(connection, stream_no, new_seqs - size(copied))
    _record_absent(target, stream_no, stream, held)
    if own is None:
        return rows, is_whole, [], []
    checked = subtract(intersect(stream.ranges, held), [*unproven, *blocked.of_stream(stream.stream_id)])
    proven.record(connection, own.name, stream_no, checked)
    return rows, is_whole, checked, unproven


def _ensure_stream(target: Target, origin: Source, stream: SourceStream) -> int:
    """Return the target's number for the stream, which is added if it is new."""
    known = streams.find_with_origin(target.connection, stream.stream_id)
    if known is None:
        return streams.add(target.connection, stream.stream_id, stream.agent_id, stream.began_at)
    stream_no, agent_id, began_at = known
    if stream.began_at and not began_at:
        streams.set_began_at(target.connection, stream_no, stream.began_at)
    if not agent_id:
        streams.set_agent(target.connection, stream_no, stream.agent_id)
    elif stream.agent_id and agent_id != stream.agent_id:
        cause = (
            f"it says that stream {stream.stream_id.hex()} belongs to agent {stream.agent_id!r}, but the master says "
            f"that it belongs to {agent_id!r}"
        )
        raise DamagedError("merge", origin.path, cause)
    return stream_no


def _known_last_seq(stream: SourceStream, held: Sequence[Range], *, is_whole: bool) -> int:
    """Return the last seq that the target should record as existing.

    Rows that are still in the source, because this transaction may copy no more, are pending and not missing: the next
    transaction brings them.
    """
    if is_whole:
        return max(stream.last_seq, held[-1].last if held else 0)
    absent = [*(part for part, _ in stream.truncations), *(item.seqs for item in stream.pruned)]
    return max((part.last for part in [*held, *absent]), default=0)


def _record_absent(target: Target, stream_no: int, stream: SourceStream, held: Sequence[Range]) -> None:
    """Record why the source lacks rows that the target does not hold either: truncated for another, or pruned.

    Args:
        target: the database that is merged into.
        stream_no: the target's number for the stream.
        stream: the stream.
        held: some of its seqs that the target has ever held.
    """
    for seqs, database_id in stream.truncations:
        if subtract([seqs], held) and not diff.is_held(target.connection, stream_no, seqs):
            truncations.record(target.connection, stream_no, seqs, database_id)
    if stream.pruned:
        held_of_pruned = diff.held_around(target.connection, stream_no, [item.seqs for item in stream.pruned])
        pruned_ranges.record_from_source(target.connection, stream_no, stream.pruned, held_of_pruned)


def _rest_of_transaction(connection: Connection, origin: Source, last_id: int) -> range:
    """Return the ids after `last_id` that belong to the same transaction of the writer.

    In the order of seqs, the next piece may be anywhere: if the source got its rows from another database, rows that
    came later may have lower seqs.
    """
    return range(last_id + 1, (source_streams.transaction_end(connection, origin, last_id) or 0) + 1)


def _cut(connection: Connection, origin: Source, piece: Block, max_rows: int) -> Block | None:
    """Return the part of a piece that is copied now, or None if no more rows may be copied now."""
    if max_rows <= 0:
        return None
    if len(piece) <= max_rows:
        return piece
    return blocks.cut_chunk(
        piece, max_rows, source_streams.transaction_end(connection, origin, piece.first_id + max_rows - 1)
    )


# -- rows that are held already ---------------------------------------------------------------------------------------


def _compare(
    target: Target, blocked: BlockedRows, own: OwnShard, stream_no: int, stream: SourceStream, held: list[Range]
) -> list[Range]:
    """Compare the rows of a shard with those that the target has under the same addresses.

    Changes of keyed tables that the target lacks because another database superseded them are copied from this shard,
    so that the target decides for itself. Rows that the target got before their table contradicted its own cannot be
    compared now, so they are blocked.

    Returns:
        The rows that cannot be compared, because the target pruned what it had, and that are not proven.

    Raises:
        DamagedError: some rows differ.
        TargetLacksRowsError: the target lacks some.
    """
    connection, origin = target.connection, blocked.origin
    done = [*own.checked.get(stream.stream_id, ()), *blocked.of_stream(stream.stream_id)]
    unchecked = subtract(intersect(stream.ranges, held), done)
    if not unchecked:
        return []
    known = proven.ranges(connection, own.name, stream_no)
    blocks_here = extents.blocks_around(connection, stream_no, unchecked)
    if blocked.conflicts:
        to_compare = intersect(unchecked, [Range(block.first, block.last) for block in blocks_here])
        for piece in pieces(to_compare, stream.blocks):
            blocked.examine(connection, stream.stream_id, piece)
        unchecked = subtract(unchecked, blocked.of_stream(stream.stream_id))
    unproven = subtract(unchecked, [*known, *(Range(block.first, block.last) for block in blocks_here)])
    for seqs, are_proven in ((intersect(unchecked, known), True), (subtract(unchecked, known), False)):
        for part in pieces(seqs, blocks_here):
            equal = _count_equal_rows(target, origin, stream_no, stream, part)
            if equal == len(part):
                continue
            without_row = _without_row(target, part)
            superseded_rows = sum(map(len, without_row))
            if are_proven:
                most = _count_superseded(target, origin, stream, part)
            else:
                most = superseded.counts_of(connection, [stream_no]).get(stream_no, 0)
                unproven += without_row
            if equal + superseded_rows != len(part):
                raise _difference(origin, stream, part, len(part) - superseded_rows - equal)
            if superseded_rows > most:
                cause = f"the master lacks rows of stream {stream.stream_id.hex()} that it should have; verify it"
                raise TargetLacksRowsError("merge", origin.path, cause)
    unproven = union(unproven)
    changes = [
        run
        for part in pieces(unproven, blocks_here)
        for run in _copy_superseded(target, blocked, stream_no, stream, part)
    ]
    return subtract(unproven, [*changes, *blocked.of_stream(stream.stream_id)])


def _copy_superseded(
    target: Target, blocked: BlockedRows, stream_no: int, stream: SourceStream, part: Block
) -> list[Range]:
    """Copy a shard's changes of keyed tables to ids that have no row in the target; return their seqs.

    Not if somebody had rows deleted from the target: a change that one of these superseded would take its place.
    """
    connection, origin, copied = target.connection, blocked.origin, []
    if pruned_ranges.has_deletions_by_request(connection):
        return []
    first_id, _ = _ids_in_source(stream, part)
    for here in blocked.examine(connection, stream.stream_id, Block(part.first, part.last, first_id)):
        shift = part.first_id - first_id
        bindings = (shift, stream_no, here.first - here.first_id, here.first_id, here.last_id)
        ids = Range(here.first_id, here.last_id)
        changes = 0
        for table in origin.tables:
            if table.is_timestamped and conflicts.count_changes(target, origin, table, here):
                connection.execute(_copy_statement(origin.schema, table), bindings)
                changes += connection.changes()
                runs = source_streams.ids_of_rows(connection, origin, table, ids)
                copied += [Range(run.first - ids.first + here.first, run.last - ids.first + here.first) for run in runs]
        if changes:
            superseded.subtract(connection, stream_no, changes)
            target.ids_to_settle_again.append(Range(ids.first + shift, ids.last + shift))
    return union(copied)


def _difference(origin: Source, stream: SourceStream, part: Block, rows: int) -> DamagedError:
    differ = "differs" if abs(rows) == 1 else "differ"
    cause = (
        f"among seqs {part.first} to {part.last} of stream {stream.stream_id.hex()}, {units.count(abs(rows), 'row')} "
        f"{differ} from those that the master holds under the same addresses. The shard is damaged, or the "
        "machine was cloned while it wrote, or one of the two databases is forged. No row of it is deleted; it "
        "can be merged into a store of its own"
    )
    return DamagedError("merge", origin.path, cause)


def _count_equal_rows(target: Target, origin: Source, stream_no: int, stream: SourceStream, part: Block) -> int:
    """Count the rows of a shard that are equal to the target's, among some in one of the target's blocks."""
    bindings = (*_ids_in_source(stream, part), part.first_id, stream_no)
    return sum(
        sqlite.scalar(target.connection, _count_equal(origin.schema, table, name), bindings)
        for table in origin.tables
        for name in _tables_with_versions(target, table)
    )


def _ids_in_source(stream: SourceStream, part: Block) -> tuple[int, int]:
    """Return the first and the last id that a shard gives to rows, which are in one of its blocks."""
    (here,) = pieces([Range(part.first, part.last)], stream.blocks)
    return here.first_id, here.last_id


def _tables_with_versions(target: Target, table: SourceTable) -> list[str]:
    """Return the target's tables that may hold the rows of a source's table: itself, and its history."""
    name = target.spelt(table.name)
    key = target.keys.get(name)
    return [name, keys.history_name(name)] if key is not None and key.history else [name]


def _count_equal(schema: str, table: SourceTable, name: str) -> str:
    # the target's column comes first, so that its collation is used, and none of the source's
    equal = sqlite.all_of(["m._stream = ?4", *(f"m.{quote(column)} IS {value}" for column, value in table.into)])
    return (
        f"SELECT count(*) FROM {quote(schema)}.{quote(table.name)} s NOT INDEXED CROSS JOIN main.{quote(name)} m "
        f"ON m._id = s._id - ?1 + ?3 WHERE s._id BETWEEN ?1 AND ?2 AND {equal}"
    )


def _count_superseded(target: Target, origin: Source, stream: SourceStream, part: Block) -> int:
    """Count the rows of a shard's keyed tables that the target has no more, among those that it copied from there."""
    found = 0
    for table in origin.tables:
        if table.is_timestamped:
            absent = " AND ".join(
                f"NOT EXISTS (SELECT 1 FROM main.{quote(name)} m WHERE m._id = s._id - ?1 + ?3)"
                for name in _tables_with_versions(target, table)
            )
            there = f"{quote(origin.schema)}.{quote(table.name)}"
            sql = f"SELECT count(*) FROM {there} s NOT INDEXED WHERE s._id BETWEEN ?1 AND ?2 AND {absent}"
            found += sqlite.scalar(target.connection, sql, (*_ids_in_source(stream, part), part.first_id))
    return found


def _without_row(target: Target, part: Block) -> list[Range]:
    """Return the seqs of a part of the target's blocks that have no row in any of its tables."""
    ids = Range(part.first_id, part.last_id)
    with_row = [run for name in target.spelling.values() for run in extents.ids_with_row(target.connection, name, ids)]
    shift = part.first - part.first_id
    return [Range(run.first + shift, run.last + shift) for run in subtract([ids], with_row)]


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
        SourceLacksRowsError: the source does not have the rows that its tables say it has.
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
        thinning = conflicts.thinning_key(target, origin, table)  # then fewer rows than are present need be copied
        connection.execute(_copy_statement(origin.schema, table, thinning), bindings)
        inserted = connection.changes()
        copied += inserted
        found += inserted if present is None else present
        filled += [table] if inserted else []
    if found == len(block) and len(filled) > 1:
        found = _count_ids(connection, origin.schema, filled, block)
    if not len(block) - superseded_rows <= found <= len(block):
        advice = (
            "Store.salvage (`edgeshard salvage`) on a copy of it gets the rows that can be read"
            if origin.is_shard
            else "if somebody deleted rows from it by hand, Store.merge and Store.verify in its own store record that"
        )
        expected = units.count(len(block), "row")
        cause = f"it should have {expected} for seqs {block.first} to {block.last} of a stream, but has {found}"
        raise SourceLacksRowsError("merge", origin.path, f"{cause}; {advice}")
    superseded.add(connection, stream_no, len(block) - copied)
    ids = Range(block.first_id, block.last_id)
    transactions = source_streams.transactions_between(connection, origin, ids)
    extents.add_transactions(
        connection, (Range(each.first + shift, min(each.last, ids.last) + shift) for each in transactions)
    )
    if continues:
        end_id = min(source_streams.transaction_end(connection, origin, block.first_id) or 0, block.last_id) + shift
        extents.extend_transaction(connection, target.next_id - 1, end_id)
    extents.add_block(connection, stream_no, Block(block.first, block.last, target.next_id))
    target.next_id += len(block)
    identity.set_next_id(connection, target.next_id)


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
