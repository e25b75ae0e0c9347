"""Run a user's SQL on the master, read-only, and read the rows of a class from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from edgeshard import sqlite
from edgeshard.errors import DamagedError, QueryError
from edgeshard.master import catalog, database, projection
from edgeshard.records import codecs, columns, declare
from edgeshard.shard.lookup import References, attached_references
from edgeshard.sqlite import Bindings, Connection, Statement, quote
from edgeshard.sqlite.rows import row_class

_R = TypeVar("_R")

#: Rows that `read` takes from the master at a time, each time in a snapshot of its own.
PORTION_ROWS: Final = 1_000

_NOT_TEXT: Final = (
    "a text in it is not valid UTF-8, so it was not written through edgeshard. Read it with CAST(column AS BLOB)"
)


def select(path: Path, sql: str, params: Any, reference: References | None = None) -> list[Any]:
    """Run one SELECT and return all its rows; see `Store.query`."""
    with _connection(path) as connection, attached_references(connection, reference):
        names, rows = sqlite.select(connection, sql, codecs.bindable(params))
    return list(map(row_class(names), rows))


def describe(path: Path, sql: str) -> Statement:
    """Describe one statement without running it; see `Store.describe_query`."""
    with _connection(path) as connection:
        statement = sqlite.describe(connection, sql)
    if not statement.is_one:
        raise QueryError("query", path, "it is not one SQL statement; give exactly one")
    return statement


def rows(path: Path, sql: str, params: Bindings) -> Iterator[tuple[Any, ...]]:
    """Yield the names of a statement's columns, then its rows as SQLite finds them; see `Store.query_rows`."""
    with _connection(path) as connection, sqlite.read_snapshot(connection):
        yield sqlite.describe(connection, sql).columns
        yield from connection.execute(sql, params)


def table(path: Path, sql: str, params: Bindings, *, colour: bool, width: int, unicode: bool) -> str:
    """Draw all rows of a statement as a table; see `Store.query_table`."""
    with _connection(path) as connection, sqlite.read_snapshot(connection):
        return sqlite.draw_table(connection, sql, params, colour=colour, width=width, unicode=unicode)


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[Connection]:
    """Open the master for a user's SQL, and turn mistakes in it into a QueryError.

    Run only SQL in the block: an OSError from anything else would be reported as the master's.

    Raises:
        QueryError: SQLite refused the statement.
        StorageError: the master cannot be read.
    """
    connection = database.open_master(path, writable=False)
    try:
        with sqlite.translate_errors("query", str(path)):
            try:
                yield connection
            except UnicodeDecodeError as error:
                raise QueryError("query", path, _NOT_TEXT) from error
            except sqlite.QUERY_MISTAKES as error:
                raise QueryError("query", path, _explain(connection, error)) from error
    finally:
        connection.close()


def _explain(connection: Connection, error: Exception) -> str:
    if sqlite.is_write(error):
        return f"{error}. A query only reads; write rows to a shard, and merge"
    if isinstance(error, KeyError):
        return f"parameter {error} has no value; pass one in params"
    listed = ", ".join(catalog.record_tables(connection))
    return f"{error}. The master has the tables {listed}; a table appears with the first merge of its rows"


# -- rows of a class --------------------------------------------------------------------------------------------------


def read(path: Path, cls: type[_R]) -> Iterator[_R]:
    """Yield all rows of a class's table, in portions; see `Store.read`."""
    declared = declare.table_of(cls)
    decode = codecs.decoder(cls, declared)
    last_id = 0
    while True:
        projected, found = _portion(path, declared, last_id)
        if projected is None or not found:
            return
        for row in found:
            yield decode(projected.narrowed(row))
        last_id = found[-1][0]


def _portion(
    path: Path, declared: columns.Table, last_id: int
) -> tuple[projection.Projection | None, list[tuple[Any, ...]]]:
    """Return the rows after an id, and how to read them, or None if the master has no such table."""
    database.ensure_master(path)
    connection = database.open_master(path, writable=False)
    try:
        with sqlite.translate_errors("read", str(path)), sqlite.read_snapshot(connection):
            projected = projection.project(connection, declared, str(path))
            if projected is None:
                return None, []
            sql = f"SELECT _id, {projected.columns} FROM {quote(declared.name)} WHERE _id > ? ORDER BY _id LIMIT ?"
            try:
                return projected, sqlite.fetch(connection, sql, (last_id, PORTION_ROWS))
            except UnicodeDecodeError as error:
                raise DamagedError("read", path, _NOT_TEXT) from error
    finally:
        connection.close()
