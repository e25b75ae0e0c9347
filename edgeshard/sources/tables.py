"""Read the record tables of a source: their columns, indexes, keys, companions, renames and priorities.

The *companions* of a keyed table are the tables of its tombstones (``<table>_deleted``) and of its earlier versions
(``<table>_history``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import FormatError
from edgeshard.records import keys, limits
from edgeshard.records.keys import Key
from edgeshard.records.names import is_column_name, is_table_name
from edgeshard.records.renames import Arrow
from edgeshard.sources.source import SourceTable
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "read database"

# How much of each is read: one more than a table may have, which is then refused by `limits.excess`.

_COLUMNS_READ: Final = format.COLUMNS_MAX + len(format.OWN_COLUMNS) + 1

_INDEXES_READ: Final = format.INDEXES_MAX + 1 + 1  # a key has one of its own

_RENAMES_READ: Final = format.RENAMES_MAX + 1

#: The table that dicts go to. Its columns are always the same.
_AGENT_DATA: Final = "agent_data"


def read_tables(
    connection: Connection, schema: str, path: str, role: str, ordinary: Set[str], present: Set[str]
) -> tuple[SourceTable, ...]:
    """Return the record tables of an attached database.

    Args:
        connection: the connection to which it is attached.
        schema: the name by which it is attached.
        path: its file, for errors.
        role: what it is. A merger deletes rows of shards, so these may have no columns that SQLite computes.
        ordinary: the names of its ordinary tables.
        present: the names of the format's optional tables that it has.

    Raises:
        FormatError: it has a table that we do not read, or that exceeds a limit.
        DamagedError: its own tables hold values of the wrong type.
    """
    names = sqlite.fetch_typed(
        connection,
        path,
        (str,),
        f"SELECT DISTINCT table_name FROM {quote(schema)}._edgeshard_columns LIMIT ?",
        (format.TABLES_MAX + 1,),
    )
    if len(names) > format.TABLES_MAX:
        raise FormatError(_ACTION, path, f"it has more than {format.TABLES_MAX} tables")
    found = []
    for (name,) in names:
        _check_table_name(path, name, is_ordinary=name in ordinary)
        columns = _read_columns(connection, schema, path, name, is_shard=role == format.SHARD)
        indexes = _read_indexes(connection, schema, path, name, columns) if format.INDEXES in present else ()
        found.append(SourceTable(name, columns, indexes))
    if format.RENAMES in present:
        found = [_with_renames(connection, schema, path, table) for table in found]
    if format.KEYS in present:
        found = _with_keys(connection, schema, path, found)
    _check_own_columns(path, found)
    for table in found:
        if excess := limits.excess((name for name, _ in table.columns), table.indexes, table.key, table.renames):
            raise _refusal(path, table.name, f"it has {excess}")
    return tuple(found)


def read_priorities(
    connection: Connection, schema: str, path: str, tables: Sequence[SourceTable], present: Set[str]
) -> dict[str, int]:
    """Map the names of tables, in lower case, to their priorities.

    Entries for other tables, and priorities that are out of range, are ignored.
    """
    if format.PRIORITIES not in present:
        return {}
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, int),
        f"SELECT table_name, priority FROM {quote(schema)}.{format.PRIORITIES} LIMIT ?",
        (format.TABLES_MAX,),
    )
    names = {table.name.lower() for table in tables}
    return {name: priority for name, priority in rows if name in names and 0 < priority <= format.PRIORITY_MAX}


def _refusal(path: str, table: str, what: str) -> FormatError:
    return FormatError(_ACTION, path, f"table {table!r:.120}: {what}")


# -- names, columns and indexes ---------------------------------------------------------------------------------------


def _check_table_name(path: str, name: str, *, is_ordinary: bool) -> None:
    if not is_table_name(name):
        raise _refusal(path, name, "a record table cannot have this name")
    if not is_ordinary:
        raise _refusal(path, name, "it is not an ordinary table")


def _read_columns(
    connection: Connection, schema: str, path: str, table: str, *, is_shard: bool
) -> tuple[tuple[str, str], ...]:
    """Return the name and type of each column, in order, after checking that each is stored as its type requires."""
    recorded = sqlite.fetch_typed(
        connection,
        path,
        (int, str, str),
        f"SELECT position, column_name, type FROM {quote(schema)}._edgeshard_columns WHERE table_name = ? LIMIT ?",
        (table, _COLUMNS_READ),
    )
    columns = [(name, type_) for _, name, type_ in sorted(recorded)]
    described = _describe_columns(connection, schema, path, table, is_shard=is_shard)
    for name, type_ in columns:
        if not _is_known_column(name, type_):
            raise _refusal(path, table, f"column {name!r:.120} has an unknown name or type, {type_!r:.40}")
        if described.get(name) != (format.STORED_AS[type_], 0, 0):
            raise _refusal(path, table, f"column {name!r} is not stored as {format.STORED_AS[type_]}")
    return tuple((name, type_) for name, type_ in columns)


def _is_known_column(name: str, type_: str) -> bool:
    if name in format.OWN_COLUMNS or type_ in format.OWN_COLUMNS.values():
        return format.OWN_COLUMNS.get(name) == type_
    return is_column_name(name) and type_ in format.STORED_AS


def _describe_columns(
    connection: Connection, schema: str, path: str, table: str, *, is_shard: bool
) -> dict[str, tuple[str, int, int]]:
    """Map each column to its declared type, place in the primary key, and hidden flag. The key must be the rowid."""
    rows = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.table_xinfo({quote(table)})")
    columns = {row[1]: (row[2], row[5], row[6]) for row in rows}
    if is_shard and any(row[6] for row in rows):
        raise _refusal(path, table, "it has a column that SQLite computes")
    if columns.get("_id") != ("INTEGER", 1, 0) or any(row[5] for row in rows if row[1] != "_id"):
        raise _refusal(path, table, "_id is not its INTEGER PRIMARY KEY")
    indexes = sqlite.fetch(connection, f"PRAGMA {quote(schema)}.index_list({quote(table)})")
    if any(row[3] == "pk" for row in indexes):
        # neither INTEGER PRIMARY KEY DESC nor the key of a table WITHOUT ROWID is the rowid
        raise _refusal(path, table, "_id is not its rowid")
    return columns


def _read_indexes(
    connection: Connection, schema: str, path: str, table: str, columns: Sequence[tuple[str, str]]
) -> tuple[tuple[str, ...], ...]:
    """Return the columns of each index that a master should have."""
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str,),
        f"SELECT columns FROM {quote(schema)}.{format.INDEXES} WHERE table_name = ? LIMIT ?",
        (table, _INDEXES_READ),
    )
    names = {name.lower() for name, _ in columns}
    indexes = []
    for (text,) in rows:
        index = _parse_column_list(text, names)
        if index is None:
            raise _refusal(path, table, "an index of it is not a JSON list of its columns")
        indexes.append(index)
    return tuple(indexes)


def _parse_column_list(text: str, columns: Set[str]) -> tuple[str, ...] | None:
    """Return the names in a JSON list of different columns, or None if it is anything else.

    Args:
        text: the JSON.
        columns: the names of the columns, in lower case.
    """
    try:
        names: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(names, list) or not names:
        return None
    if not all(isinstance(name, str) and name.lower() in columns for name in names):
        return None
    return tuple(names) if len(set(names)) == len(names) else None


# -- renames ----------------------------------------------------------------------------------------------------------


def _with_renames(connection: Connection, schema: str, path: str, table: SourceTable) -> SourceTable:
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, str),
        f"SELECT old_name, new_name FROM {quote(schema)}.{format.RENAMES} NOT INDEXED "
        "WHERE table_name = ? COLLATE NOCASE LIMIT ?",
        (table.name, _RENAMES_READ),
    )
    if rows and table.name.lower() == _AGENT_DATA:
        raise FormatError(_ACTION, path, f"it renames columns of {_AGENT_DATA}, which always has the same columns")
    if not all(is_column_name(name) for row in rows for name in row):
        raise _refusal(path, table.name, "it renames to or from an invalid name")
    return attrs.evolve(table, renames=tuple(sorted(rows)))


# -- keys and companions ----------------------------------------------------------------------------------------------


def _with_keys(connection: Connection, schema: str, path: str, tables: Sequence[SourceTable]) -> list[SourceTable]:
    rows = sqlite.fetch_typed(
        connection,
        path,
        (str, str, str, int),
        f"SELECT table_name, columns, conflict, has_history FROM {quote(schema)}.{format.KEYS} LIMIT ?",
        (format.TABLES_MAX + 1,),
    )
    if any(history not in (0, 1) for *_, history in rows):
        raise FormatError(_ACTION, path, "_edgeshard_keys has a has_history that is neither 0 nor 1")
    declared = {name.lower(): (columns, conflict, bool(history)) for name, columns, conflict, history in rows}
    found = []
    for table in tables:
        entry = declared.pop(table.name.lower(), None)
        found.append(table if entry is None else attrs.evolve(table, key=_parse_key(path, table, *entry)))
    if len(rows) > format.TABLES_MAX or declared:
        raise FormatError(_ACTION, path, "_edgeshard_keys names a table that is not in it")
    return found


def _parse_key(path: str, table: SourceTable, text: str, conflict: str, history: bool) -> Key:
    columns = {column.lower() for column, _ in table.columns}
    names = _parse_column_list(text, columns)
    compared = keys.ranked_by(conflict)
    if table.name.lower() == _AGENT_DATA:
        raise FormatError(_ACTION, path, f"it declares a key for {_AGENT_DATA}, which never has one")
    if names is None or not keys.is_rule(conflict) or (compared and compared.lower() not in columns):
        raise FormatError(_ACTION, path, f"table {table.name!r} has an invalid key or conflict rule")
    key = Key(names, conflict, history)
    for companion in keys.companions({table.name: key}):
        if not is_column_name(companion):  # a master that made it could not be merged anywhere
            raise _refusal(path, table.name, f"it has a key, and {companion} is no name for a record table")
    return key


def _check_own_columns(path: str, tables: Sequence[SourceTable]) -> None:
    """Refuse a source in which a table has columns of the format that it should not have, or lacks them.

    A keyed table has timestamps. Any other table that has them is a companion, so it belongs to a keyed table of this
    source, and has the columns and the renames of that table. Otherwise the target could not tell what its rows are:
    its own keyed table of that name may have other columns.
    """
    companions = {name.lower(): companion for owner in tables for name, *companion in _expected_companions(owner)}
    for table in tables:
        own = {column for column, _ in table.columns} & format.OWN_COLUMNS.keys()
        if table.key is not None:
            if own != {format.TIMESTAMP}:
                raise FormatError(_ACTION, path, f"table {table.name!r} has a key, and no timestamps or also reasons")
        elif own:
            if table.name.lower() not in companions:
                cause = f"table {table.name!r} has timestamps or reasons, and belongs to no keyed table that is in it"
                raise FormatError(_ACTION, path, cause)
            owner, expected_own, columns, renames = companions[table.name.lower()]
            if (own, _declared_columns(table), _folded(table.renames)) != (expected_own, columns, renames):
                cause = f"table {table.name!r} has other columns than table {owner!r}, to which it belongs"
                raise FormatError(_ACTION, path, cause)


def _expected_companions(owner: SourceTable) -> Iterator[tuple[str, str, set[str], set[tuple[str, str]], set[Arrow]]]:
    """Yield each companion's name, its owner's, and the columns (our own, the declared) and renames it must have."""
    columns = _declared_columns(owner)
    if owner.key is not None and owner.key.deletes:
        keyed = {item for item in columns if item[0] in owner.key.folded[0]}
        yield keys.deleted_name(owner.name), owner.name, {format.TIMESTAMP}, keyed, set()
    if owner.key is not None and owner.key.history:
        own = {format.TIMESTAMP, format.REASON}
        yield keys.history_name(owner.name), owner.name, own, columns, _folded(owner.renames)


def _declared_columns(table: SourceTable) -> set[tuple[str, str]]:
    """Return the columns that a class declares, each as its name in lower case and its type."""
    return {(column.lower(), type_) for column, type_ in table.columns if column not in format.OWN_COLUMNS}


def _folded(arrows: Iterable[Arrow]) -> set[Arrow]:
    return {(old.lower(), new.lower()) for old, new in arrows}
