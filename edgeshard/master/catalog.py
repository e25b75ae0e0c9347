"""Which tables are kept longest where a budget has rows dropped: a number for each, higher is kept longer.

Agents say it with their classes, and may contradict one another: the highest wins, in whatever order they are merged. A
table of which nothing is noted has 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.format import KEYS, PRIORITIES, RENAMES
from edgeshard.records import keys, promote, renames, types
from edgeshard.records.codecs import to_json
from edgeshard.records.columns import Column, Table
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import Connection, quote


def record_tables(connection: Connection) -> list[str]:
    """The names of the record tables."""
    return [name for (name,) in connection.execute("SELECT DISTINCT table_name FROM edgeshard_columns ORDER BY 1")]


def tables_with_column(connection: Connection, column: str) -> list[str]:
    """Return the names of the record tables that have a column of exactly this name."""
    sql = "SELECT table_name FROM main.edgeshard_columns WHERE column_name = ?"
    return [name for (name,) in sqlite.fetch(connection, sql, (column,))]


_NOTE_PRIORITY = f"INSERT INTO main.{PRIORITIES} VALUES (?1, ?2) ON CONFLICT(table_name) DO UPDATE SET priority = ?2"


def priority_statements(
    connection: Connection, table: str, priority: int
) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The statements that note a table's priority in a shard, unless that knows of it."""
    if not priority:
        return
    exists = sqlite.has_table(connection, PRIORITIES)
    if not exists:
        yield format.ADDED_TEXTS[PRIORITIES], ()
    if priority > (priorities_of(connection, "main").get(table.lower(), 0) if exists else 0):
        yield _NOTE_PRIORITY, (table.lower(), priority)


def priorities_of(connection: Connection, schema: str) -> dict[str, int]:
    """The priority of each table that has one, by its name in lower case, as a database of ours says."""
    rows = sqlite.fetch(connection, f"SELECT table_name, priority FROM {quote(schema)}.{PRIORITIES}")
    return {str(name): int(priority) for name, priority in rows}


def raise_priorities(connection: Connection, found: Mapping[str, int]) -> None:
    """Note in the main database what a source says, where that is more."""
    known = priorities_of(connection, "main") if found else {}
    for name, priority in found.items():
        if priority > known.get(name, 0):
            connection.execute(_NOTE_PRIORITY, (name, priority))


Statement = tuple[str, tuple[str | int, ...]]

_ADVICE: Final = "Give the field, or the table, another name"

_KEEPS_ITS_TYPE: Final = (
    "The table's key, or its conflict rule, has it: there it keeps its type. Give the table another name"
)


def missing(connection: Connection, table: Table, path: str) -> Iterator[Statement]:
    """The statements that make the table, or add or widen the columns of an older version of the agent.

    Raises:
        SchemaConflictError: a column is there with another type, or was renamed.
    """
    if table.deletes_from is not None:
        yield from missing(connection, table.deletes_from, path)
    name, known = _known(connection, table.name)
    fixed = _fixed(connection, name, table)
    yield from _renames(connection, name, table, fixed, path)
    for column in table.columns:
        kind = known.get(column.name.lower(), column.type)
        wider = types.widest(kind, column.type)
        if wider is None or (kind != column.type and column.name.lower() in fixed):
            cause = f"column {table.name}.{column.name} is {kind} there and {column.type} in this class"
            advice = _ADVICE if wider is None else _KEEPS_ITS_TYPE
            raise SchemaConflictError("write to shard", path, f"{cause}. {advice}")
        if wider != kind:
            yield from _widened(connection, name, column.name, kind, wider, path)
    if table.deletes_from is None:
        _ensure_nobodys(connection, name, table.key, path)
    if table.key is not None:
        yield from _keyed(connection, name, table.key, path)
    own = (
        [(format.TIMESTAMP, format.OWN_COLUMNS[format.TIMESTAMP])]
        if table.is_timestamped and format.TIMESTAMP not in known
        else []
    )
    new = own + [(column.name, column.type) for column in table.columns if column.name.lower() not in known]
    yield from columns_of(name, format.SHARD_COLUMNS, new, new=not known)
    for index in table.indexes:
        text = to_json([column.lower() for column in index])
        yield "INSERT OR IGNORE INTO edgeshard_indexes VALUES (?, ?)", (name, text)
    yield from priority_statements(connection, name, table.priority)


def fitting(connection: Connection, table: Table) -> Table:
    """The table with the kinds that its columns have in the shard, where newer agents made them wider."""
    _, known = _known(connection, table.name)
    columns = tuple(_fitting(column, known.get(column.name.lower(), column.type)) for column in table.columns)
    return table if columns == table.columns else attrs.evolve(table, columns=columns)


def _fitting(column: Column, kind: str) -> Column:
    if kind == column.type:
        return column
    encode = column.encode if types.is_same_value(column.type, kind) else partial(_wider, column, kind)
    return attrs.evolve(column, type=kind, encode=encode)


def _wider(column: Column, kind: str, value: Any) -> Any:
    if value is None:
        raise ValueError("it is None, and not Optional")
    return types.widened(value if column.encode is None else column.encode(value), column.type, kind)


def _known(connection: Connection, table: str) -> tuple[str, dict[str, str]]:
    """A table's name as it is spelt, and the kinds of its columns by their names in lower case."""
    rows = sqlite.fetch(
        connection,
        "SELECT table_name, column_name, type FROM edgeshard_columns WHERE table_name = ? COLLATE NOCASE",
        (table,),
    )
    name = rows[0][0] if rows else table  # SQL folds case; the first spelling stays
    return name, {column.lower(): kind for _, column, kind in rows}


def _widened(connection: Connection, table: str, column: str, kind: str, wider: str, path: str) -> Iterator[Statement]:
    if promote.has_unfit(connection, table, column, kind, wider):
        cause = (
            f"column {table}.{column} has integers beyond 2^53 there, which a float would round. Merge first: then the "
            "shard is empty. Or make the field Decimal, which holds both"
        )
        raise SchemaConflictError("write to shard", path, cause)
    yield from promote.statements(connection, table, column, kind, wider)


def _fixed(connection: Connection, name: str, table: Table) -> frozenset[str]:
    """The columns of a table that no class may rename or widen, in lower case."""
    owner = table if table.deletes_from is None else table.deletes_from
    known = {each.lower(): key for each, key in load_keys(connection).items()}
    return keys.fixed(owner.key, known.get(name.lower()))


def _renames(connection: Connection, name: str, table: Table, fixed: frozenset[str], path: str) -> Iterator[Statement]:
    """What notes the renames of a class, where they are new."""
    known = renames_of(connection).get(name.lower(), [])
    new = [(old.lower(), to) for old, to in table.renames if (old.lower(), to) not in known]
    try:
        ends = renames.ends([*known, *new])
    except renames.UnclearError as error:
        raise SchemaConflictError("write to shard", path, f"table {table.name}: {error}") from error
    fields = {column.name.lower() for column in table.columns}
    for old, end in ends.items():
        if old in fixed or end in fixed:
            cause = (
                f"{table.name}.{end} was called {old}, and the table's key, or its conflict rule, has one of them, "
                "which must keep its name. Give the table another name"
            )
            raise SchemaConflictError("write to shard", path, cause)
        if old in fields and end in fields:
            cause = f"{table.name}.{old} is what {end} was called before. {_ADVICE}"
            raise SchemaConflictError("write to shard", path, cause)
    if new and not sqlite.has_table(connection, RENAMES):
        yield format.ADDED_TEXTS[RENAMES], ()
    for old, to in new:
        yield f"INSERT INTO main.{RENAMES} VALUES (?, ?, ?)", (name, old, to)


def renames_of(connection: Connection) -> dict[str, list[Arrow]]:
    """The renames that the main database knows, by the name of the table in lower case; of older ones it knows none."""
    found: dict[str, list[Arrow]] = {}
    if sqlite.has_table(connection, RENAMES):
        for table, old, new in sqlite.fetch(connection, f"SELECT table_name, old_name, new_name FROM main.{RENAMES}"):
            found.setdefault(table.lower(), []).append((old, new))
    return found


def _keyed(connection: Connection, name: str, key: keys.Key, path: str) -> Iterator[Statement]:
    """The statements that note a table's key in a shard.

    Raises:
        SchemaConflictError: the table has another one there.
    """
    if not sqlite.has_table(connection, format.KEYS):
        yield format.ADDED_TEXTS[format.KEYS], ()
    known = {table.lower(): each for table, each in load_keys(connection).items()}
    before = known.get(name.lower())
    if before is None:
        yield from note_key(name, key)
    elif before.folded != key.folded:
        cause = (
            f"table {name} has the key ({', '.join(before.columns)}) with conflict {before.conflict!r} there, and in "
            f"this class ({', '.join(key.columns)}) with {key.conflict!r}; give the class another table name"
        )
        raise SchemaConflictError("write to shard", path, cause)
    elif key.history and not before.history:
        yield f"UPDATE {format.KEYS} SET has_history = 1 WHERE table_name = ? COLLATE NOCASE", (name,)


def note_key(name: str, key: keys.Key) -> Iterator[Statement]:
    """The statement that notes a table's key."""
    sql = f"INSERT INTO main.{format.KEYS}(table_name, columns, conflict, has_history) VALUES (?, ?, ?, ?)"
    yield sql, (name, to_json(list(key.columns)), key.conflict, int(key.history))


def _ensure_nobodys(connection: Connection, name: str, key: keys.Key | None, path: str) -> None:
    """Refuse a table by the name of one that belongs to a keyed table, and a key to which a keyed table would belong.

    Raises:
        SchemaConflictError: it is one of these.
    """
    keyed = load_keys(connection)
    if key is not None:
        keyed[name] = key
    owners = keys.companions(keyed)
    for each in (name, *keyed):
        if (owner := owners.get(each.lower())) is not None:
            cause = f"table {each} is where deletions or earlier versions of table {owner} go"
            raise SchemaConflictError("write to shard", path, f"{cause}; give the class another name")


def columns_of(name: str, key: str, columns: Iterable[tuple[str, str]], *, new: bool) -> Iterator[Statement]:
    """The statements that make a record table, or add columns to it, in a shard or a master.

    Args:
        name: the table.
        key: the columns that it begins with there.
        columns: the name and the kind of each column to be made.
        new: whether the table itself is to be made.
    """
    columns = list(columns)
    declared = [f"{quote(column)} {format.STORED_AS[kind]}" for column, kind in columns]
    if new:
        yield f"CREATE TABLE main.{quote(name)}({', '.join([key, *declared])}) STRICT", ()
    else:
        for item in declared:
            yield f"ALTER TABLE main.{quote(name)} ADD COLUMN {item}", ()
    for column, kind in columns:
        yield "INSERT INTO main.edgeshard_columns VALUES (?, ?, ?)", (name, column, kind)


def load_keys(connection: Connection) -> dict[str, Key]:
    """The keyed tables of a database, by name; one that an earlier version made, or that has none, may know none."""
    if not sqlite.has_table(connection, KEYS):
        return {}
    rows = sqlite.fetch(connection, f"SELECT table_name, columns, conflict, has_history FROM main.{KEYS}")
    return {name: Key(tuple(json.loads(columns)), conflict, bool(kept)) for name, columns, conflict, kept in rows}
