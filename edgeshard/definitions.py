"""Which statements make record tables, in shards and in masters, and which of them a shard still needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

import attrs

from edgeshard import database, format, keys, kinds, priorities, renames, widening
from edgeshard.database import Connection, quote
from edgeshard.errors import SchemaConflictError
from edgeshard.renames import Arrow
from edgeshard.tables import Column, Table, to_json

Statement = tuple[str, tuple[str | int, ...]]

RENAMES: Final = "edgeshard_renames"

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
        kind = known.get(column.name.lower(), column.kind)
        wider = kinds.widest(kind, column.kind)
        if wider is None or (kind != column.kind and column.name.lower() in fixed):
            cause = f"column {table.name}.{column.name} is {kind} there and {column.kind} in this class"
            advice = _ADVICE if wider is None else _KEEPS_ITS_TYPE
            raise SchemaConflictError("write to shard", path, f"{cause}. {advice}")
        if wider != kind:
            yield from _widened(connection, name, column.name, kind, wider, path)
    if table.deletes_from is None:
        _ensure_nobodys(connection, name, table.key, path)
    if table.key is not None:
        yield from _keyed(connection, name, table.key, path)
    own = [(format.STAMP, format.OWN_COLUMNS[format.STAMP])] if table.is_stamped and format.STAMP not in known else []
    new = own + [(column.name, column.kind) for column in table.columns if column.name.lower() not in known]
    yield from columns_of(name, format.SHARD_COLUMNS, new, new=not known)
    for index in table.indexes:
        text = to_json([column.lower() for column in index])
        yield "INSERT OR IGNORE INTO edgeshard_indexes VALUES (?, ?)", (name, text)
    yield from priorities.missing(connection, name, table.priority)


def fitting(connection: Connection, table: Table) -> Table:
    """The table with the kinds that its columns have in the shard, where newer agents made them wider."""
    _, known = _known(connection, table.name)
    columns = tuple(_fitting(column, known.get(column.name.lower(), column.kind)) for column in table.columns)
    return table if columns == table.columns else attrs.evolve(table, columns=columns)


def _fitting(column: Column, kind: str) -> Column:
    if kind == column.kind:
        return column
    encode = column.encode if kinds.is_same_value(column.kind, kind) else partial(_wider, column, kind)
    return attrs.evolve(column, kind=kind, encode=encode)


def _wider(column: Column, kind: str, value: Any) -> Any:
    if value is None:
        raise ValueError("it is None, and not Optional")
    return kinds.widened(value if column.encode is None else column.encode(value), column.kind, kind)


def _known(connection: Connection, table: str) -> tuple[str, dict[str, str]]:
    """A table's name as it is spelt, and the kinds of its columns by their names in lower case."""
    rows = database.fetch(
        connection,
        "SELECT table_name, column_name, kind FROM edgeshard_columns WHERE table_name = ? COLLATE NOCASE",
        (table,),
    )
    name = rows[0][0] if rows else table  # SQL folds case; the first spelling stays
    return name, {column.lower(): kind for _, column, kind in rows}


def _widened(connection: Connection, table: str, column: str, kind: str, wider: str, path: str) -> Iterator[Statement]:
    if widening.has_unfit(connection, table, column, kind, wider):
        cause = (
            f"column {table}.{column} has integers beyond 2^53 there, which a float would round. Merge first: then the "
            "shard is empty. Or make the field Decimal, which holds both"
        )
        raise SchemaConflictError("write to shard", path, cause)
    yield from widening.statements(connection, table, column, kind, wider)


def _fixed(connection: Connection, name: str, table: Table) -> frozenset[str]:
    """The columns of a table that no class may rename or widen, in lower case."""
    owner = table if table.deletes_from is None else table.deletes_from
    known = {each.lower(): key for each, key in keys.load(connection).items()}
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
    if new and not database.has_table(connection, RENAMES):
        yield format.ADDED_TEXTS[RENAMES], ()
    for old, to in new:
        yield f"INSERT INTO main.{RENAMES} VALUES (?, ?, ?)", (name, old, to)


def renames_of(connection: Connection) -> dict[str, list[Arrow]]:
    """The renames that the main database knows, by the name of the table in lower case; of older ones it knows none."""
    found: dict[str, list[Arrow]] = {}
    if database.has_table(connection, RENAMES):
        for table, old, new in database.fetch(connection, f"SELECT table_name, old_name, new_name FROM main.{RENAMES}"):
            found.setdefault(table.lower(), []).append((old, new))
    return found


def _keyed(connection: Connection, name: str, key: keys.Key, path: str) -> Iterator[Statement]:
    """The statements that note a table's key in a shard.

    Raises:
        SchemaConflictError: the table has another one there.
    """
    if not database.has_table(connection, keys.TABLE):
        yield format.ADDED_TEXTS[keys.TABLE], ()
    known = {table.lower(): each for table, each in keys.load(connection).items()}
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
        yield f"UPDATE {keys.TABLE} SET has_history = 1 WHERE table_name = ? COLLATE NOCASE", (name,)


def note_key(name: str, key: keys.Key) -> Iterator[Statement]:
    """The statement that notes a table's key."""
    sql = f"INSERT INTO main.{keys.TABLE}(table_name, columns, conflict, has_history) VALUES (?, ?, ?, ?)"
    yield sql, (name, to_json(list(key.columns)), key.conflict, int(key.history))


def _ensure_nobodys(connection: Connection, name: str, key: keys.Key | None, path: str) -> None:
    """Refuse a table by the name of one that belongs to a keyed table, and a key to which a keyed table would belong.

    Raises:
        SchemaConflictError: it is one of these.
    """
    keyed = keys.load(connection)
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
