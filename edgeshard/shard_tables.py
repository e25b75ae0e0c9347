"""The tables of a shard, as its agent's classes need them: which statements make what is missing."""

from __future__ import annotations

from collections.abc import Iterator

from edgeshard import database, format
from edgeshard.database import Connection, quote
from edgeshard.errors import SchemaConflictError
from edgeshard.tables import Table, to_json

Statement = tuple[str, tuple[str, ...]]


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
    yield from _columns(name, table, known)
    for index in table.indexes:
        text = to_json([column.lower() for column in index])
        yield "INSERT OR IGNORE INTO edgeshard_indexes VALUES (?, ?)", (name, text)


def _columns(name: str, table: Table, known: dict[str, str]) -> Iterator[Statement]:
    new = [column for column in table.columns if column.name.lower() not in known]
    declared = [f"{quote(column.name)} {format.STORED_AS[column.kind]}" for column in new]
    if known:
        for item in declared:
            yield f"ALTER TABLE {quote(name)} ADD COLUMN {item}", ()
    else:
        yield f"CREATE TABLE {quote(name)}(_id INTEGER PRIMARY KEY, {', '.join(declared)}) STRICT", ()
    for column in new:
        yield "INSERT INTO edgeshard_columns VALUES (?, ?, ?)", (name, column.name, column.kind)
