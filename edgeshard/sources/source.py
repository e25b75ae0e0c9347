"""What a database holds: streams, blocks and tables of an attached source, each checked before it is believed.

A source may be hostile (another user's agent, a stick that was found). We read ordinary tables only, by columns that we
name ourselves, and never by an index of its own making. No expression of its own is evaluated, in a view, a trigger, a
generated column, an index or a CHECK. What is looked at before anything is copied takes a bounded number of steps, and
what is remembered of it a bounded amount of memory for each byte of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, FormatError
from edgeshard.files import paths
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import PrunedRange, Range, subtract, union
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import Connection, quote

#: Notes that one stream's rows were given up, each to another database, or with rows between them that were not.
_TRUNCATIONS_MAX = 10_000

#: Notes that rows of one stream were pruned, each of a run of rows.
_PRUNINGS_MAX = 10_000

#: Characters of the time at which a stream began: it is copied into the master, whatever it is.
_TIME_MAX = 10_000

#: Characters of the reason for which rows were pruned, and of the time.
_REASON_MAX = 100

_ID_MAX = (1 << 63) - (1 << 33)

#: What PRAGMA index_xinfo calls a column that is none.
_AN_EXPRESSION = -2

#: Whether the target's stream m lacks something of the seqs that r says.
_NOT_HELD = (
    "coalesce((SELECT h.last FROM main.edgeshard_ranges h WHERE h.stream_no = m.stream_no AND h.first <= r.first "
    "ORDER BY h.first DESC LIMIT 1), 0) < r.last"
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


@attrs.frozen
class SourceTable:
    """A record table of a source.

    Attributes:
        name: its name.
        columns: its columns in order, each with its kind.
        indexes: the columns of each index that a master should have.
        key: what makes it a keyed table; None: it is none.
        renames: the columns that have another name by now, (old, new).
        into: each column of a target that gets a value, and the expression of it over the table as s; where nobody
            says otherwise, its own columns.
        checks: conditions over s that no row may meet that is copied, each with why.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    indexes: tuple[tuple[str, ...], ...]
    key: Key | None = None
    renames: tuple[Arrow, ...] = ()
    into: tuple[tuple[str, str], ...] = attrs.field()
    checks: tuple[tuple[str, str], ...] = ()

    @into.default
    def _its_own(self) -> tuple[tuple[str, str], ...]:
        return tuple((column, f"s.{quote(column)}") for column, _ in self.columns)

    @property
    def is_timestamped(self) -> bool:
        """Whether its rows say when they were written."""
        return (format.TIMESTAMP, format.OWN_COLUMNS[format.TIMESTAMP]) in self.columns


@attrs.frozen
class SourceStream:
    """A stream as a source knows it.

    Attributes:
        stream_no: the source's own number for it.
        stream_id: its 16 random bytes.
        agent_id: whose it is.
        began_at: ISO 8601, by the writer's clock.
        blocks: what the source has of it now.
        truncations: what the source gave up, and to which database.
        pruned: what the source, or one that it was merged from, deleted by rule.
        last_seq: the highest seq that the source knows to exist.
        in_file: whether a shard's file has rows of it, truncated or not.
    """

    stream_no: int
    stream_id: bytes
    agent_id: str
    began_at: str
    blocks: tuple[Block, ...]
    truncations: tuple[tuple[Range, bytes], ...]
    last_seq: int
    in_file: bool
    pruned: tuple[PrunedRange, ...] = ()


@attrs.frozen
class Source:
    """An attached database that was found to be one of ours."""

    schema: str
    path: str
    role: str
    database_id: bytes
    agent_id: str | None
    tables: tuple[SourceTable, ...]
    has_prunings: bool = False
    has_replaced: bool = False
    priorities: Mapping[str, int] = attrs.Factory(dict)

    @property
    def is_shard(self) -> bool:
        """Whether a writer wrote it."""
        return self.role == format.SHARD


def open_source(connection: Connection, schema: str, path: str) -> Source:
    """Check that the attached database is one of ours, and learn its tables.

    Raises:
        FormatError: it is not, or it has tables that we do not read.
    """
    with sqlite.limit_steps_in_block(connection, sqlite.reading_steps(connection, schema)):
        return _open_source(connection, schema, path)


def _open_source(connection: Connection, schema: str, path: str) -> Source:
    sqlite.check_identity(connection, schema, format.IDENTITY, path)
    ordinary = _ordinary_tables(connection, schema)
    for name in format.NEEDED:
        if name not in ordinary or not _is_as_we_make_it(connection, schema, name, ordinary[name]):
            raise FormatError("read database", path, f"{name} is not the ordinary table in it that it should be")
    if _has_index_with_expressions(connection, schema):
        # SQLite evaluates them when it deletes rows
        raise FormatError("read database", path, "it has an index over an expression, or over a part of the rows")
    described = sqlite.fetch_typed(
        connection,
        path,
        (str, bytes, None),
        f"SELECT role, database_id, agent_id FROM {quote(schema)}.edgeshard_database LIMIT 2",
    )
    if (
        len(described) != 1
        or described[0][0] not in (format.SHARD, format.MASTER, format.BUNDLE)
        or len(described[0][1]) != 16
        or len(described[0][2] or "") > paths.AGENT_NAME_MAX
    ):
        raise FormatError("read database", path, "edgeshard_database does not say what it is")
    names = sqlite.fetch_typed(
        connection,
        path,
        (str,),
        f"SELECT DISTINCT table_name FROM {quote(schema)}.edgeshard_columns LIMIT ?",
        (format.TABLES_MAX + 1,),
    )
    if len(names) > format.TABLES_MAX:
        raise FormatError("read database", path, f"it has more than {format.TABLES_MAX} tables")
    tables = [_table(connection, schema, path, name, name in ordinary) for (name,) in names]
    role, database_id, agent_id = described[0]

    def has(table: str) -> bool:  # older ones have none
        text = ordinary.get(table)
        return text is not None and _is_as_we_make_it(connection, schema, table, text)

    if has(format.RENAMES):  # few have any
        tables = [_with_renames(connection, schema, path, table) for table in tables]
    if has(format.KEYS):
        tables = _keyed(connection, schema, path, tables)
    has_replaced = role != format.SHARD and has(format.SUPERSEDED)
    known = _priorities(connection, schema, path, tables) if has(format.PRIORITIES) else {}
    return Source(
        schema, path, role, database_id, agent_id, tuple(tables), has(format.PRUNED_RANGES), has_replaced, known
    )


def _keyed(connection: Connection, schema: str, path: str, tables: list[SourceTable]) -> list[SourceTable]:
    """The tables, of which those that have a key say so.

    Raises:
        FormatError: one has a key that cannot be.
    """
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, str, str, int),
        f"SELECT table_name, columns, conflict, has_history FROM {quote(schema)}.{format.KEYS} LIMIT ?",
        (format.TABLES_MAX + 1,),
    )
    known = {name.lower(): (columns, conflict, history) for name, columns, conflict, history in rows}
    found = []
    for table in tables:
        columns = {column.lower() for column, _ in table.columns}
        if (said := known.pop(table.name.lower(), None)) is not None:
            text, conflict, history = said
            key = _index(text, columns)
            ranked = keys.ranked_by(conflict)
            if key is None or not keys.is_rule(conflict) or (ranked and ranked.lower() not in columns):
                raise FormatError("read database", path, f"table {table.name!r} has a key that cannot be")
            if not table.is_timestamped:
                raise FormatError("read database", path, f"table {table.name!r} has a key and no timestamps")
            table = attrs.evolve(table, key=Key(key, conflict, bool(history)))
        found.append(table)
    if len(rows) > format.TABLES_MAX or known:
        raise FormatError("read database", path, "edgeshard_keys names a table that is not in it")
    _ensure_companions(path, {table.name.lower(): table for table in found})
    return found


def _priorities(connection: Connection, schema: str, path: str, tables: Sequence[SourceTable]) -> dict[str, int]:
    """The priorities of these tables; what else is said there, or cannot be, is passed over."""
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, int),
        f"SELECT table_name, priority FROM {quote(schema)}.{format.PRIORITIES} LIMIT ?",
        (format.TABLES_MAX,),
    )
    names = {table.name.lower() for table in tables}
    return {name: priority for name, priority in rows if name in names and 0 < priority <= format.PRIORITY_MAX}


def _ensure_companions(path: str, tables: Mapping[str, SourceTable]) -> None:
    """Refuse a source in which the deletions, or the history, of a keyed table do not have its columns.

    A plain table by such a name, or a keyed one, is no such table: whether the target can have it is not asked here.

    Raises:
        FormatError: it is one.
    """
    for owner in tables.values():
        for name, columns, renames in _companions(owner):
            companion = tables.get(name.lower())
            if companion is None or not companion.is_timestamped or companion.key is not None:
                continue
            if (_declared(companion), _folded(companion.renames)) != (columns, renames):
                cause = f"table {companion.name!r} has other columns than table {owner.name!r}, to which it belongs"
                raise FormatError("read database", path, cause)


def _companions(owner: SourceTable) -> Iterator[tuple[str, set[tuple[str, str]], set[Arrow]]]:
    """The names of the tables that belong to a keyed one, with the columns and renames that they must have."""
    columns = _declared(owner)
    if owner.key is not None and owner.key.deletes:
        yield keys.deleted_name(owner.name), {item for item in columns if item[0] in owner.key.folded[0]}, set()
    if owner.key is not None and owner.key.history:
        yield keys.history_name(owner.name), columns, _folded(owner.renames)


def _declared(table: SourceTable) -> set[tuple[str, str]]:
    """The columns of a table that classes declare, in lower case, each with its kind."""
    return {(column.lower(), kind) for column, kind in table.columns if column not in format.OWN_COLUMNS}


def _folded(arrows: Iterable[Arrow]) -> set[Arrow]:
    return {(old.lower(), new.lower()) for old, new in arrows}


def _ordinary_tables(connection: Connection, schema: str) -> dict[str, str]:
    """The text of each table that is neither a view nor virtual: those have no page.

    Not PRAGMA table_list, which prepares each view, and lets each virtual table run its own code.
    """
    listed = f"SELECT name, sql FROM {quote(schema)}.sqlite_schema WHERE type = 'table' AND rootpage > 0"
    return dict(sqlite.fetch(connection, listed))


def _is_as_we_make_it(connection: Connection, schema: str, name: str, text: str) -> bool:
    """Whether a table of the format's own has our columns, and no other that SQLite would compute."""
    if text == {**format.TEXTS, **format.ADDED_TEXTS}[name]:
        return True
    # whoever made it by a text of his own, such as an old version's, made the same columns
    described = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.table_xinfo({quote(name)})")
    columns = [(row[1], row[2], row[5], row[6]) for row in described]
    return columns == list(_our_columns()[name])


@lru_cache(maxsize=1)
def _our_columns() -> dict[str, tuple[tuple[Any, ...], ...]]:
    """The name, type, place in the primary key and hiddenness of each column of the format's own tables."""
    connection = sqlite.open_in_memory(format.MASTER_TABLES)
    try:
        names = (*format.NEEDED, *format.ADDED_TEXTS)
        described = {name: sqlite.fetch(connection, f"PRAGMA table_xinfo({quote(name)})") for name in names}
        return {name: tuple((row[1], row[2], row[5], row[6]) for row in rows) for name, rows in described.items()}
    finally:
        connection.close()


def _has_index_with_expressions(connection: Connection, schema: str) -> bool:
    listed = f"SELECT name, tbl_name FROM {quote(schema)}.sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    for name, table in sqlite.fetch(connection, listed):
        columns = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.index_xinfo({quote(name)})")
        if any(row[1] == _AN_EXPRESSION for row in columns):
            return True
        indexes = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.index_list({quote(table)})")
        if any(row[1] == name and row[4] for row in indexes):
            return True
    return False


def _table(connection: Connection, schema: str, path: str, name: str, is_ordinary: bool) -> SourceTable:
    def refuse(what: str) -> FormatError:
        return FormatError("read database", path, f"table {name!r:.120}: {what}")

    if not _NAME.fullmatch(name) or name.lower().startswith((format.PREFIX, "sqlite_")):
        raise refuse("a record table cannot have this name")
    if not is_ordinary:
        raise refuse("it is not an ordinary table")
    most = format.COLUMNS_MAX + len(format.OWN_COLUMNS)
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, str),
        f"SELECT column_name, type FROM {quote(schema)}.edgeshard_columns WHERE table_name = ? LIMIT ?",
        (name, most + 1),
    )
    actual = _actual_columns(connection, schema, name, refuse)
    if len(rows) > most:
        raise refuse(f"it has more than {format.COLUMNS_MAX} columns")
    for column, kind in rows:
        if not _is_column(column, kind):
            raise refuse(f"column {column!r:.120} of kind {kind!r:.40} is none we know")
        if actual.get(column) != (format.STORED_AS[kind], 0, 0):
            raise refuse(f"column {column!r} is not stored as {format.STORED_AS[kind]}")
    texts = sqlite.fetch_typed(
        connection,
        path,
        (str,),
        f"SELECT columns FROM {quote(schema)}.edgeshard_indexes WHERE table_name = ? LIMIT ?",
        (name, format.INDEXES_MAX + 1),
    )
    if len(texts) > format.INDEXES_MAX:
        raise refuse(f"it has more than {format.INDEXES_MAX} indexes")
    indexes = tuple(_index(text, {column.lower() for column, _ in rows}) for (text,) in texts)
    if None in indexes:
        raise refuse("an index of it is not a JSON list of its columns")
    columns = tuple((column, kind) for column, kind in rows)
    return SourceTable(name, columns, tuple(index for index in indexes if index is not None))


def _is_column(name: str, kind: str) -> bool:
    if name in format.OWN_COLUMNS or kind in format.OWN_COLUMNS.values():
        return format.OWN_COLUMNS.get(name) == kind
    return _NAME.fullmatch(name) is not None and kind in format.STORED_AS


def _with_renames(connection: Connection, schema: str, path: str, table: SourceTable) -> SourceTable:
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, str),
        f"SELECT old_name, new_name FROM {quote(schema)}.{format.RENAMES} NOT INDEXED "
        "WHERE table_name = ? COLLATE NOCASE LIMIT ?",
        (table.name, format.COLUMNS_MAX + 1),
    )
    names = [name for row in rows for name in row]
    if rows and table.name.lower() == "agent_data":
        raise FormatError("read database", path, "it renames columns of agent_data, which always has the same")
    if len(rows) > format.COLUMNS_MAX or not all(map(_NAME.fullmatch, names)):
        raise FormatError("read database", path, f"table {table.name!r:.120}: its renames are none that we know")
    return attrs.evolve(table, renames=tuple(sorted(rows)))


def _actual_columns(
    connection: Connection, schema: str, name: str, refuse: Callable[[str], FormatError]
) -> dict[str, tuple[str, int, int]]:
    """The declared type, place in the primary key, and hiddenness of each column; the key must be the rowid."""
    described = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.table_xinfo({quote(name)})")
    actual = {row[1]: (row[2], row[5], row[6]) for row in described}
    if any(row[6] for row in described):
        raise refuse("it has a column that SQLite computes")
    if actual.get("_id") != ("INTEGER", 1, 0) or any(row[5] for row in described if row[1] != "_id"):
        raise refuse("_id is not its INTEGER PRIMARY KEY")
    if any(row[3] == "pk" for row in sqlite.fetch(connection, f"PRAGMA {quote(schema)}.index_list({quote(name)})")):
        raise refuse("_id is not its rowid")  # INTEGER PRIMARY KEY DESC is not, nor in a table WITHOUT ROWID
    return actual


def _index(text: str, columns: set[str]) -> tuple[str, ...] | None:
    try:
        index = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fits = (
        isinstance(index, list)
        and index
        and all(isinstance(column, str) and column.lower() in columns for column in index)
    )
    return tuple(index) if fits and len(set(index)) == len(index) else None


def stream_ids(connection: Connection, origin: Source) -> set[bytes]:
    """Return the ids of the source's streams."""
    sql = f"SELECT stream_id FROM {quote(origin.schema)}.edgeshard_streams"
    with sqlite.limit_steps_in_block(connection, sqlite.reading_steps(connection, origin.schema)):
        return {stream_id for (stream_id,) in sqlite.fetch_typed(connection, origin.path, (bytes,), sql)}


def streams_with_news(connection: Connection, source: Source) -> list[SourceStream]:
    """The streams of which the source may know more than the connection's own database does."""
    with sqlite.limit_steps_in_block(connection, sqlite.reading_steps(connection, source.schema)):
        return list(_streams_with_news(connection, source))


def _streams_with_news(connection: Connection, source: Source) -> Iterator[SourceStream]:
    schema = quote(source.schema)
    held = shard_blocks(connection, source) if source.is_shard else {}
    known = (
        f"SELECT s.stream_no FROM {schema}.edgeshard_streams s "
        "LEFT JOIN main.edgeshard_streams m ON m.stream_id = s.stream_id "
    )
    if source.is_shard:
        query = known + (
            f"JOIN {schema}.edgeshard_truncations t ON t.stream_no = s.stream_no "
            "GROUP BY s.stream_no HAVING m.last_seq IS NULL OR max(t.last) > m.last_seq"
        )
    else:
        # looked up for each of the source's ranges: this takes as long as the source is large, and not the target
        query = (
            f"{known} WHERE m.last_seq IS NULL OR m.last_seq < s.last_seq "
            f"UNION {known} JOIN {schema}.edgeshard_ranges r ON r.stream_no = s.stream_no WHERE {_NOT_HELD} "
            f"UNION {known} JOIN {schema}.edgeshard_truncations r ON r.stream_no = s.stream_no WHERE {_NOT_HELD} "
            "AND NOT EXISTS (SELECT 1 FROM main.edgeshard_truncations t "
            "WHERE t.stream_no = m.stream_no AND t.last >= r.last)"
            + (
                # a bundle has no range of what was pruned
                f" UNION {known} JOIN {schema}.edgeshard_pruned_ranges r ON r.stream_no = s.stream_no WHERE {_NOT_HELD}"
                if source.has_prunings
                else ""
            )
        )
    numbers = {number for (number,) in sqlite.fetch_typed(connection, source.path, (int,), query)} | set(held)
    for number in sorted(numbers):
        yield _stream(connection, source, number, held.get(number))


def _stream(connection: Connection, source: Source, number: int, block: Block | None) -> SourceStream:
    schema = quote(source.schema)
    listed = sqlite.fetch_typed(
        connection,
        source.path,
        (bytes, str, str, int),
        f"SELECT stream_id, agent_id, began_at, last_seq FROM {schema}.edgeshard_streams WHERE stream_no = ?",
        (number,),
    )
    if not listed:
        cause = f"it has rows of stream number {number}, which it does not list"
        raise DamagedError("read database", source.path, cause)
    stream_id, agent_id, began_at, last_seq = listed[0]
    if (
        len(stream_id) != 16
        or len(agent_id) > paths.AGENT_NAME_MAX
        or len(began_at) > _TIME_MAX
        or (source.is_shard and agent_id != source.agent_id)
    ):
        raise DamagedError("read database", source.path, f"stream number {number} is not one that its agent can have")
    truncations = tuple(
        (Range(first, last), where)
        for first, last, where in sqlite.fetch_typed(
            connection,
            source.path,
            (int, int, bytes),
            f"SELECT first, last, database_id FROM {schema}.edgeshard_truncations WHERE stream_no = ? LIMIT ?",
            (number, _TRUNCATIONS_MAX + 1),
        )
    )
    if len(truncations) > _TRUNCATIONS_MAX:
        raise DamagedError("read database", source.path, f"stream number {number} was given up too often")
    if source.is_shard:
        gone = max((item.last for item, _ in truncations), default=0)
        blocks = _beyond(block, gone)
        last_seq = max(gone, *(item.last for item in blocks), 0)
    else:
        blocks = tuple(
            Block(*item)
            for item in sqlite.fetch_typed(
                connection,
                source.path,
                (int, int, int),
                f"SELECT first, last, first_id FROM {schema}.edgeshard_blocks WHERE stream_no = ?",
                (number,),
            )
        )
    whole = [Range(item.first, item.last) for item in blocks]
    if (
        not all(1 <= item.first <= item.last <= format.SEQ_MAX for item in whole)
        or sum(map(len, whole)) != sum(map(len, union(whole)))
        or not all(1 <= item.first_id <= _ID_MAX for item in blocks)
        or not 0 <= last_seq <= format.SEQ_MAX
    ):
        raise DamagedError("read database", source.path, f"stream number {number} has seqs that cannot be")
    pruned = tuple(_prunings(connection, source, number)) if source.has_prunings and not source.is_shard else ()
    return SourceStream(number, stream_id, agent_id, began_at, blocks, truncations, last_seq, block is not None, pruned)


def _prunings(connection: Connection, source: Source, number: int) -> Iterator[PrunedRange]:
    """Why the source lacks rows of a stream; of more lines than are read here, the rest stays unexplained."""
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int, int, bytes, str, str),
        f"SELECT first, last, database_id, reason, pruned_at FROM {quote(source.schema)}.edgeshard_pruned_ranges "
        "WHERE stream_no = ? ORDER BY database_id, first LIMIT ?",
        (number, _PRUNINGS_MAX),
    )
    before = (b"", 0)
    for first, last, database_id, reason, pruned_at in rows:
        is_sound = 1 <= first <= last <= format.SEQ_MAX and len(database_id) == 16 and (database_id, first) > before
        if not is_sound or len(reason) > _REASON_MAX or len(pruned_at) > _REASON_MAX:
            raise DamagedError("read database", source.path, f"stream number {number} has prunings that cannot be")
        before = (database_id, last)
        yield PrunedRange(Range(first, last), database_id, reason, pruned_at)


def _beyond(block: Block | None, gone: int) -> tuple[Block, ...]:
    if block is None or block.last <= gone:
        return ()
    return (block.cut(gone + 1, block.last),)


def shard_blocks(connection: Connection, source: Source) -> dict[int, Block]:
    """For each stream number of which rows are in a shard, seqs 1 to the highest, whether truncated or not."""
    highest: dict[int, int] = {}
    for table in source.tables:
        upto = format.row_id(format.STREAM_NO_MAX, format.SEQ_MAX)
        sql = (
            f"SELECT _id FROM {quote(source.schema)}.{quote(table.name)} NOT INDEXED "
            "WHERE _id <= ? ORDER BY _id DESC LIMIT 1"
        )
        while (last := sqlite.scalar(connection, sql, (upto,))) is not None:
            if not isinstance(last, int):
                raise DamagedError("read database", source.path, f"table {table.name} has an _id that is no integer")
            number, seq = format.stream_no_of(last), format.seq_of(last)
            if number < 1 or seq < 1 or last > upto:
                raise DamagedError("read database", source.path, f"table {table.name} has a row with _id {last}")
            highest[number] = max(seq, highest.get(number, 0))
            upto = format.row_id(number, 0) - 1
    return {number: Block(1, seq, format.row_id(number, 1)) for number, seq in highest.items()}


def has_given_up_only_what_is_held(connection: Connection, source: Source) -> bool:
    """Whether the connection's own database holds, or has held, all that a shard gave up to any database."""
    schema = quote(source.schema)
    lacking = sqlite.scalar(
        connection,
        f"SELECT 1 FROM {schema}.edgeshard_truncations t JOIN {schema}.edgeshard_streams s USING(stream_no) "
        "LEFT JOIN main.edgeshard_streams m ON m.stream_id = s.stream_id LEFT JOIN main.edgeshard_ranges r "
        "ON r.stream_no = m.stream_no AND r.first <= t.first AND r.last >= t.last WHERE r.first IS NULL LIMIT 1",
    )
    return lacking is None


def transaction_end(connection: Connection, source: Source, row_id: int) -> int | None:
    """The last id of the writer's transaction that the row belongs to, where that was noted."""
    noted = sqlite.fetch_typed(
        connection,
        source.path,
        (int,),
        f"SELECT last_id FROM {quote(source.schema)}.edgeshard_transactions "
        "WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1",
        (row_id,),
    )
    return noted[0][0] if noted and noted[0][0] >= row_id else None


def used_bytes(connection: Connection, source: Source) -> int:
    """What the pages take that are in use."""
    pages: int = connection.pragma("page_count", schema=source.schema)
    pages -= connection.pragma("freelist_count", schema=source.schema)
    return pages * int(connection.pragma("page_size", schema=source.schema))


def row_count(connection: Connection, source: Source, streams: list[SourceStream]) -> int:
    """How many rows the source has, of these streams where it is a shard: no other has rows that count."""
    if source.is_shard:
        return sum(len(block) for stream in streams for block in stream.blocks)
    listed = f"SELECT sum(last - first + 1) FROM {quote(source.schema)}.edgeshard_blocks"
    return int(sqlite.scalar(connection, listed) or 0)


def replaced(connection: Connection, source: Source, stream_no: int) -> int:
    """How many seqs of a stream's blocks have no row in the source any more, for a newer one replaced it."""
    if not source.has_replaced:
        return 0
    rows = sqlite.fetch_typed(
        connection,
        source.path,
        (int,),
        f"SELECT rows FROM {quote(source.schema)}.{format.SUPERSEDED} WHERE stream_no = ?",
        (stream_no,),
    )
    return rows[0][0] if rows else 0


def gone_ranges(stream: SourceStream, held: list[Range]) -> list[tuple[Range, bytes]]:
    """What the source gave up to another database and the target does not hold."""
    return [(part, where) for item, where in stream.truncations for part in subtract([item], held)]
