"""Which statements make record tables, in shards and in masters, and which of them a shard still needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeshard import database, format, keys, priorities
from edgeshard.database import Connection, quote
from edgeshard.errors import SchemaConflictError
from edgeshard.tables import Table, to_json

Statement = tuple[str, tuple[str | int, ...]]


def missing(connection: Connection, table: Table, path: str) -> Iterator[Statement]:
    """The statements that make the table, or add the columns that an older version of the agent did not have.

    Raises:
        SchemaConflictError: a column is there with another type.
    """
    if table.deletes_from is not None:
        yield from missing(connection, table.deletes_from, path)
    rows = database.fetch(
        connection,
        "SELECT table_name, column_name, kind FROM edgeshard_columns WHERE table_name = ? COLLATE NOCASE",
        (table.name,),
    )
    known = {column.lower(): kind for _, column, kind in rows}
    name = rows[0][0] if rows else table.name  # SQL folds case; the first spelling stays
    for column in table.columns:
        kind = known.get(column.name.lower(), column.kind)
        if kind != column.kind:
            cause = f"column {table.name}.{column.name} is {kind} there and {column.kind} in this class"
            raise SchemaConflictError("write to shard", path, cause)
    if table.key is not None:
        yield from _keyed(connection, name, table.key, path)
    elif table.deletes_from is None:
        _ensure_nobodys(connection, name, path)
    own = [(format.STAMP, format.OWN_COLUMNS[format.STAMP])] if table.is_stamped and format.STAMP not in known else []
    new = own + [(column.name, column.kind) for column in table.columns if column.name.lower() not in known]
    yield from columns_of(name, format.SHARD_COLUMNS, new, new=not known)
    for index in table.indexes:
        text = to_json([column.lower() for column in index])
        yield "INSERT OR IGNORE INTO edgeshard_indexes VALUES (?, ?)", (name, text)
    yield from priorities.missing(connection, name, table.priority)


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


def _ensure_nobodys(connection: Connection, name: str, path: str) -> None:
    """Refuse a plain table by the name of one that belongs to a keyed table.

    Raises:
        SchemaConflictError: it is one.
    """
    owner = keys.companions(keys.load(connection)).get(name.lower())
    if owner is not None:
        cause = f"table {name} is where deletions or earlier versions of table {owner} go; give the class another name"
        raise SchemaConflictError("write to shard", path, cause)


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
