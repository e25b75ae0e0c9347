"""Copy what is missing from an attached source into the target: rows, blocks, ranges, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, SchemaConflictError
from edgeshard.format import blocks
from edgeshard.format.blocks import Block, pieces
from edgeshard.format.ranges import Range, intersect, prefix, size, subtract, union
from edgeshard.master import catalog, pruned_ranges
from edgeshard.merge import conflicts, schema_merge
from edgeshard.records import keys, renames
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sources import diff
from edgeshard.sources import streams as source_streams
from edgeshard.sources.source import Source, SourceStream, SourceTable
from edgeshard.sqlite import Connection, quote


@attrs.define
class Target:
    """The database that a merge writes, inside one of its transactions.

    Attributes:
        connection: a connection whose main database it is.
        columns: the kind of each column of each table, names in lower case: SQL folds case.
        spelling: the tables' names as they are spelt, by the same in lower case.
        next_id: the id that the next row gets.
        renames: the renames of each table's columns, by its name in lower case.
        is_indexed: whether it has the indexes that it notes; a bundle leaves them to whoever merges it, and of a keyed
            table which versions are kept.
        keys: the keyed tables.
    """

    connection: Connection
    columns: dict[str, dict[str, str]]
    spelling: dict[str, str]
    next_id: int
    renames: dict[str, list[Arrow]] = attrs.Factory(dict)
    is_indexed: bool = True
    keys: dict[str, Key] = attrs.Factory(dict)

    @classmethod
    def load(cls, connection: Connection) -> Target:
        """Read what the transaction builds on."""
        next_id = sqlite.scalar(connection, "SELECT next_id FROM main.edgeshard_database")
        columns: dict[str, dict[str, str]] = {}
        spelling: dict[str, str] = {}
        for table, column, kind in sqlite.fetch(
            connection, "SELECT table_name, column_name, type FROM main.edgeshard_columns"
        ):
            columns.setdefault(table.lower(), {})[column.lower()] = kind
            spelling[table.lower()] = table
        return cls(
            connection, columns, spelling, next_id, catalog.load_renames(connection), keys=catalog.load_keys(connection)
        )


@attrs.frozen
class Copied:
    """What `copy` did.

    Attributes:
        rows: how many it copied.
        copied_bytes: about how large they were.
        present: how many rows the source has, copied or not.
        used_bytes: what its pages in use take.
        finished: whether the target now holds all that the source has.
        durable: of which streams rows are in a shard's file, and the seq up to which the target, once the transaction
            is committed, holds whatever the shard has not given up before.
        checked: which of the rows of each stream that the source has now were copied from it, or found equal.
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
    room_bytes: int,
    checked: Mapping[bytes, list[Range]] | None = None,
    unwanted: Mapping[bytes, Sequence[Range]] | None = None,
) -> Copied:
    """Copy missing rows, about `room_bytes` of them, whole transactions only.

    Args:
        target: where to.
        origin: where from.
        room_bytes: about how much.
        checked: of a source whose rows will be deleted: those of each stream, by its id, that were copied from it or
            found in the target as they are in it. All others that the target holds are compared before they count as
            durable: two databases may have different rows by the same addresses, because a machine was cloned while
            it wrote, or because one of them lies.
        unwanted: rows of each stream, by its id, that are not copied, though the target does not hold them.

    Raises:
        DamagedError, FormatError: the source contradicts itself, or the target.
        SchemaConflictError: a column's kind contradicts the target's.
    """
    connection = target.connection
    streams = source_streams.streams_with_news(connection, origin)
    used_bytes = sqlite.used_bytes(connection, origin.schema)
    row_bytes = max(1, used_bytes // max(1, source_streams.row_count(connection, origin, streams)))
    room = max(1, room_bytes // row_bytes)
    origin = _ensure_tables(target, origin)
    catalog.raise_priorities(connection, origin.priorities)
    rows, finished, durable, known = 0, True, {}, {}
    for stream in streams:
        number = _ensure_stream(target, origin, stream)
        held = diff.held_ranges(connection, number)
        if checked is not None:
            _ensure_equal(connection, origin, number, stream, held, checked.get(stream.stream_id, []))
        copied: list[Range] = []
        replaced = source_streams.superseded_count(connection, origin, stream.stream_no)
        is_whole = True
        open_ids = range(0)  # what is left, after the piece before, of the transaction in which that ended
        for piece in diff.missing_blocks(stream, held, unwanted):
            goes_on = piece.first_id in open_ids  # some of its rows were pruned
            rest = open_ids.stop - piece.first_id if goes_on else 0
            part = _take(connection, origin, piece, max(room - rows, rest))
            if part is not None:
                _copy_piece(target, origin, number, part, replaced, goes_on=goes_on)
                open_ids = range(0) if origin.is_shard else _open_ids(connection, origin, part.last_id)
                copied.append(Range(part.first, part.last))
                rows += len(part)
            if part != piece:
                finished = is_whole = False
                break
        held = _add_ranges(connection, number, held, copied)
        _note_last(connection, number, _known_last(stream, held, is_whole=is_whole))
        known[stream.stream_id] = intersect(stream.ranges, held)
        _note_gone(target, number, stream, held)
        if stream.in_file:
            durable[stream.stream_id] = _durable(stream, held)
    present = sum(len(block) for stream in streams for block in stream.blocks)
    return Copied(rows, rows * row_bytes, present, used_bytes, finished, durable, known)


def _durable(stream: SourceStream, held: list[Range]) -> int:
    """Up to which seq the rows that a shard has are held, and no further than it has some.

    The target may hold more of the stream: from the shard of which this one is an older copy. What its agent goes on to
    write here, if it was cloned with the machine, are other rows by the same addresses.
    """
    held_to = prefix(held, stream.blocks[0].first) if stream.blocks else stream.last_seq
    return min(held_to, stream.last_seq)


def _open_ids(connection: Connection, origin: Source, last_id: int) -> range:
    """The ids after one of the writer's transaction that it belongs to.

    The next piece in the order of seqs may be anywhere: rows that came here later have lower seqs where they came from
    another database.
    """
    return range(last_id + 1, (source_streams.transaction_end(connection, origin, last_id) or 0) + 1)


def _take(connection: Connection, origin: Source, piece: Block, room: int) -> Block | None:
    if room <= 0:
        return None
    if len(piece) <= room:
        return piece
    return blocks.cut_chunk(piece, room, source_streams.transaction_end(connection, origin, piece.first_id + room - 1))


# -- streams ----------------------------------------------------------------------------------------------------------


def _ensure_stream(target: Target, origin: Source, stream: SourceStream) -> int:
    """The target's number for the stream, which now is known there."""
    connection = target.connection
    known = sqlite.fetch(
        connection, "SELECT stream_no, agent_id FROM main.edgeshard_streams WHERE stream_id = ?", (stream.stream_id,)
    )
    if not known:
        connection.execute(
            "INSERT INTO main.edgeshard_streams(agent_id, stream_id, began_at) VALUES (?, ?, ?)",
            (stream.agent_id, stream.stream_id, stream.began_at),
        )
        return connection.last_insert_rowid()
    ((number, agent_id),) = known
    if agent_id != stream.agent_id:
        cause = f"it gives stream {stream.stream_id.hex()} to agent {stream.agent_id!r}, the master to {agent_id!r}"
        raise DamagedError("merge", origin.path, cause)
    return int(number)


def _known_last(stream: SourceStream, held: Sequence[Range], *, is_whole: bool) -> int:
    """The last seq of which the target should say that it exists.

    What waits in the source, since this transaction has no room for it, is no gap: the next one brings it.
    """
    if is_whole:
        return stream.last_seq
    gone = [*(part for part, _ in stream.truncations), *(item.seqs for item in stream.pruned)]
    return max((part.last for part in [*held, *gone]), default=0)


def _note_last(connection: Connection, number: int, last: int) -> None:
    sql = "UPDATE main.edgeshard_streams SET last_seq = ?2 WHERE stream_no = ?1 AND last_seq < ?2"
    connection.execute(sql, (number, last))


def _note_gone(target: Target, number: int, stream: SourceStream, held: list[Range]) -> None:
    """Remember where those rows went, or why they are gone, that neither the source nor the target has."""
    for part, where in source_streams.truncated_but_not_held(stream, held):
        target.connection.execute(
            # an older copy of the source knows of fewer
            "INSERT INTO main.edgeshard_truncations VALUES (?, ?, ?, ?) ON CONFLICT(stream_no, first) "
            "DO UPDATE SET last = excluded.last, database_id = excluded.database_id WHERE excluded.last > last",
            (number, part.first, part.last, where),
        )
    pruned_ranges.record_from_source(target.connection, number, stream.pruned, held)


def _ensure_equal(
    connection: Connection, origin: Source, number: int, stream: SourceStream, held: list[Range], known: list[Range]
) -> None:
    """Refuse a source that has other rows than the target by the same addresses.

    Raises:
        DamagedError: it has.
    """
    doubtful = subtract(intersect(stream.ranges, held), known)
    if not doubtful:
        return
    blocks = [
        Block(*row)
        for row in sqlite.fetch(
            connection, "SELECT first, last, first_id FROM main.edgeshard_blocks WHERE stream_no = ?", (number,)
        )
    ]
    # rows that the target held once, and no longer has, are in no block of it
    for part in pieces(doubtful, blocks):
        (here,) = pieces([Range(part.first, part.last)], stream.blocks)
        with sqlite.limit_steps_in_block(connection, sqlite.reading_steps(connection, origin.schema)):
            same = sum(
                sqlite.scalar(connection, _count_equal(origin.schema, table), (*_bounds(here), part.first_id, number))
                for table in origin.tables
            )
        if same != len(part):
            cause = (
                f"of seqs {part.first} to {part.last} of stream {stream.stream_id.hex()} {len(part) - same} rows are "
                "not as the master holds them. It is damaged, or a machine was cloned while it wrote, or one of two "
                "databases has false rows; nothing of it is deleted. It can be merged into a store of its own"
            )
            raise DamagedError("merge", origin.path, cause)


# -- rows -------------------------------------------------------------------------------------------------------------


def _copy_piece(
    target: Target, origin: Source, number: int, piece: Block, replaced: int, *, goes_on: bool = False
) -> None:
    """Append a piece's rows and its block. The seqs must all be there: a block has no holes but what was replaced.

    Args:
        target: where to.
        origin: where from.
        number: the target's for the stream.
        piece: which rows.
        replaced: how many of the stream's rows the source may lack, since newer ones replaced them.
        goes_on: whether the transaction goes on in which the piece ended that was appended before.
    """
    connection = target.connection
    shift = target.next_id - piece.first_id
    found, copied = _copy_rows(target, origin, number, piece)
    if not len(piece) - replaced <= found <= len(piece):
        raise DamagedError(
            "merge",
            origin.path,
            f"of seqs {piece.first} to {piece.last} of a stream it has {found} rows, not {len(piece)}; salvage what "
            "can be read from a copy of it",
        )
    conflicts.note_replaced(connection, number, len(piece) - copied)
    connection.execute(
        "INSERT INTO main.edgeshard_transactions SELECT first_id + ?1, min(last_id, ?3) + ?1 "
        f"FROM {quote(origin.schema)}.edgeshard_transactions NOT INDEXED "
        "WHERE first_id BETWEEN ?2 AND ?3 AND +first_id >= ?2 ORDER BY first_id",
        (shift, piece.first_id, piece.last_id),
    )
    if goes_on:
        end_id = min(source_streams.transaction_end(connection, origin, piece.first_id) or 0, piece.last_id) + shift
        sql = "UPDATE main.edgeshard_transactions SET last_id = ? WHERE last_id = ?"
        connection.execute(sql, (end_id, target.next_id - 1))
    _add_block(connection, number, Block(piece.first, piece.last, target.next_id))
    target.next_id += len(piece)
    connection.execute("UPDATE main.edgeshard_database SET next_id = ?", (target.next_id,))


def _copy_rows(target: Target, origin: Source, number: int, piece: Block) -> tuple[int, int]:
    """Append a piece's rows; how many seqs of it have one in the source, and how many rows were copied.

    It is fewer where a shard has several versions of a key: the others need not be copied.
    """
    connection = target.connection
    bindings = (
        target.next_id - piece.first_id,
        number,
        piece.first - piece.first_id,
        piece.first_id,
        piece.last_id,
    )
    found = copied = 0
    filled: list[SourceTable] = []
    for table in origin.tables:
        there = conflicts.count(target, origin, table, piece) if table.is_timestamped else None
        if there != 0:
            schema_merge.ensure_fit(connection, origin, table, piece)
            thinning = conflicts.thinning_key(target, origin, table)
            connection.execute(_copy_statement(origin.schema, table, thinning), bindings)
            changed = connection.changes()
            copied += changed
            found += changed if there is None else there
            filled += [table] if changed else []
    if found == len(piece) and len(filled) > 1:
        found = _count_ids(connection, origin.schema, filled, piece.first_id, piece.last_id)
    return found, copied


def _count_ids(connection: Connection, schema: str, filled: list[SourceTable], first_id: int, last_id: int) -> int:
    """How many different ids rows of these tables have: in a damaged source two may have the same, and one none."""
    ids = [
        f"SELECT _id FROM {quote(schema)}.{quote(table.name)} NOT INDEXED WHERE _id BETWEEN ?1 AND ?2 AND +_id >= ?1"
        for table in filled
    ]
    # in order, so that SQLite goes through all tables at the same time, and collects nothing
    sql = f"SELECT count(*) FROM ({' UNION '.join(ids)} ORDER BY 1)"
    return int(sqlite.scalar(connection, sql, (first_id, last_id)))


def _copy_statement(schema: str, table: SourceTable, thinning: Key | None = None) -> str:
    names = "".join(f", {quote(column)}" for column, _ in table.into)
    values = "".join(f", {value}" for _, value in table.into)
    there = f"{quote(schema)}.{quote(table.name)}"
    return (
        # plainly, never OR IGNORE: the ranges say what is missing, and a mistake in them must be loud
        f"INSERT INTO main.{quote(table.name)}(_id, _stream, _seq{names}) "
        f"SELECT _id + ?1, ?2, _id + ?3{values} FROM {there} s NOT INDEXED "
        # said twice: SQLite looks for the first row, and then believes that ids grow; in a damaged tree they do not
        "WHERE _id BETWEEN ?4 AND ?5 AND +_id >= ?4"
        f"{f' AND _id IN ({conflicts.kept_ids(there, thinning)})' if thinning else ''} ORDER BY _id"
    )


def _bounds(block: Block) -> tuple[int, int]:
    return block.first_id, block.last_id


def _count_equal(schema: str, table: SourceTable) -> str:
    # the target's column comes first, so that no collation of the source's compares
    equal = "".join(f" AND m.{quote(column)} IS {value}" for column, value in table.into)
    # what newer ones replaced is not there to be compared
    join, or_gone = ("LEFT", "m._id IS NULL OR ") if table.is_timestamped else ("CROSS", "")
    here, there = quote(table.name), f"{quote(schema)}.{quote(table.name)}"
    return (
        f"SELECT count(*) FROM {there} s NOT INDEXED {join} JOIN main.{here} m "
        f"ON m._id = s._id - ?1 + ?3 WHERE s._id BETWEEN ?1 AND ?2 AND ({or_gone}m._stream = ?4{equal})"
    )


def _add_block(connection: Connection, number: int, block: Block) -> None:
    """Note where the rows are, in the block before where they follow it in seq and in id."""
    before = [
        Block(*row)
        for row in sqlite.fetch(
            connection,
            "SELECT first, last, first_id FROM main.edgeshard_blocks "
            "WHERE stream_no = ? AND first < ? ORDER BY first DESC LIMIT 1",
            (number, block.first),
        )
    ]
    if before and (before[0].last + 1, before[0].last_id + 1) == (block.first, block.first_id):
        connection.execute(
            "UPDATE main.edgeshard_blocks SET last = ? WHERE stream_no = ? AND first = ?",
            (block.last, number, before[0].first),
        )
    else:
        connection.execute(
            "INSERT INTO main.edgeshard_blocks VALUES (?, ?, ?, ?)", (number, block.first, block.last, block.first_id)
        )


def _add_ranges(connection: Connection, number: int, held: list[Range], copied: list[Range]) -> list[Range]:
    """Note what a stream's copied rows are; all that is held now."""
    now = union([*held, *copied])
    if size(held) + size(copied) != size(now):
        raise AssertionError(f"stream {number}: of {copied} some are held already")  # a bug of ours must be loud
    before = set(held)
    for gone in before.difference(now):
        connection.execute("DELETE FROM main.edgeshard_ranges WHERE stream_no = ? AND first = ?", (number, gone.first))
    for new in set(now) - before:
        connection.execute("INSERT INTO main.edgeshard_ranges VALUES (?, ?, ?)", (number, new.first, new.last))
    return now


# -- tables -----------------------------------------------------------------------------------------------------------


def check(target: Target, origin: Source, table: SourceTable) -> None:
    """Refuse a source's table that cannot become one with the target's; nothing is written.

    Raises:
        SchemaConflictError: the two contradict one another.
    """
    conflicts.check(target, origin, table)
    if not _is_plain(target, table):
        _planned(target, origin, table)


def _planned(target: Target, origin: Source, table: SourceTable) -> schema_merge.Plan:
    folded = table.name.lower()
    fixed = keys.fixed(table.key, target.keys.get(target.spelling.get(folded, "")))
    return schema_merge.planned(target.columns.get(folded), target.renames.get(folded, ()), table, origin.path, fixed)


def _ensure_tables(target: Target, origin: Source) -> Source:
    """Give the target the source's tables and columns; the source, with how its columns go into the target's."""
    for table in origin.tables:
        check(target, origin, table)  # what cannot be is said before a large table is rewritten for it
    return attrs.evolve(origin, tables=tuple(_ensure_table(target, origin, table) for table in origin.tables))


def _ensure_table(target: Target, origin: Source, table: SourceTable) -> SourceTable:
    """Give the target the source's table and columns; a master is what its sources are together.

    Returns:
        The source's table, with how its columns go into the target's.
    """
    name = _name(target, table)
    table = _ensure_columns(target, origin, table)
    ends = renames.ends(target.renames.get(name.lower(), ()))
    for index in table.indexes:
        _ensure_index(target, name, tuple(dict.fromkeys(ends.get(each.lower(), each.lower()) for each in index)))
    _ensure_key(target, origin, name, table)
    return table


def _ensure_key(target: Target, origin: Source, name: str, table: SourceTable) -> None:
    """Make the target's table a keyed one, where the source's is, with all that belongs to it."""
    is_new = conflicts.ensure_key(target, origin, name, table)
    for companion in conflicts.companions(target, name):
        _ensure_columns(target, origin, companion)
    if table.key is not None:
        key = tuple(column.lower() for column in table.key.columns)
        for each, _ in keys.changed_tables(name, table.key):
            _ensure_index(target, target.spelling[each.lower()], key)
    if is_new:
        conflicts.settle_table(target, name)


def _name(target: Target, table: SourceTable) -> str:
    """How the target spells, or will spell, a table's name."""
    return target.spelling.setdefault(table.name.lower(), table.name)


def _is_plain(target: Target, table: SourceTable) -> bool:
    """Whether a source's columns are the target's, and nothing was renamed: almost always."""
    known = target.columns.get(table.name.lower())
    if table.renames or known is None or table.name.lower() in target.renames:
        return False
    return all(known.get(column.lower()) == kind for column, kind in table.columns)


def _ensure_columns(target: Target, origin: Source, table: SourceTable) -> SourceTable:
    """Give the target a table's columns; the table, with how its columns go into the target's."""
    if _is_plain(target, table):
        return table
    folded, name = table.name.lower(), _name(target, table)
    plan = _planned(target, origin, table)
    _ensure_room(target, origin, name, plan.new)
    is_new, known = folded not in target.columns, target.columns.setdefault(folded, {})
    schema_merge.apply(target.connection, name, known, plan, origin.path, indexed=target.is_indexed)
    if plan.new or is_new:
        for statement in catalog.define_columns(name, format.MASTER_COLUMNS, plan.new, is_new=is_new):
            target.connection.execute(*statement)
        known.update({column.lower(): kind for column, kind in plan.new})
    if plan.arrows:
        target.renames.setdefault(folded, []).extend(plan.arrows)
    return schema_merge.fitted(target.connection, table, plan)


def _ensure_room(target: Target, origin: Source, name: str, missing: Sequence[tuple[str, str]]) -> None:
    """Keep the master one that can be opened quickly, and be merged elsewhere.

    Raises:
        SchemaConflictError: it would have too many tables, or columns.
    """
    tables = len(target.columns.keys() | {name.lower()} | {table.name.lower() for table in origin.tables})
    columns = sum(map(len, target.columns.values())) + len(missing)
    if tables > format.TABLES_MAX or columns > format.COLUMNS_IN_ALL_MAX:
        cause = (
            f"with its tables the master would have {tables}, and {columns} columns in all; "
            f"at most {format.TABLES_MAX} and {format.COLUMNS_IN_ALL_MAX} are possible"
        )
        raise SchemaConflictError("merge", origin.path, cause)


def _ensure_index(target: Target, table: str, columns: tuple[str, ...]) -> None:
    schema_merge.ensure_index(target.connection, table, columns, indexed=target.is_indexed)
