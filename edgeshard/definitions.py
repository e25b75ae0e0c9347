"""Which statements make record tables, in shards and in masters, and which of them a shard still needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edgeshard import database, format, priorities
from edgeshard.database import Connection, quote
from edgeshard.errors import SchemaConflictError
from edgeshard.tables import Table, to_json

Statement = tuple[str, tuple[str | int, ...]]


def missing(connection: Connection, table: Table, path: str) -> Iterator[Statement]:
    """The statements that make the table, or add the columns that an older version of the agent did not have.

    Raises:
        SchemaConflictError: a column is there with another type.
    """
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
    new = [(column.name, column.kind) for column in table.columns if column.name.lower() not in known]
    yield from columns_of(name, format.SHARD_COLUMNS, new, new=not known)
    for index in table.indexes:
        text = to_json([column.lower() for column in index])
        yield "INSERT OR IGNORE INTO edgeshard_indexes VALUES (?, ?)", (name, text)
    yield from priorities.missing(connection, name, table.priority)


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
