"""Run a user's SQL on the master, and read the rows of a class from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgeshard import sqlite
from edgeshard.master import catalog, database, reading
from edgeshard.options import DecodeJson, OnError, Params, References
from edgeshard.records import queries
from edgeshard.records.queries import Call
from edgeshard.records.rows import Rows
from edgeshard.shard.lookup import attached_references
from edgeshard.sqlite import Bindings, Connection, Statement
from edgeshard.sqlite.statements import check_one, read_one

_R = TypeVar("_R")


def select(path: Path, sql: str, params: Params, reference: References | None = None, json: DecodeJson = False) -> Rows:
    """Run one SELECT and return all its rows; see `Store.query`."""
    call = _call(path, "query(sql, {})")
    with _connection(path) as connection, attached_references(connection, reference):
        return queries.select(connection, call, sql, params, json, catalog.json_columns)


def describe(path: Path, sql: str) -> Statement:
    """Describe one statement without running it; see `Store.describe_query`."""
    call = _call(path, "describe_query(sql)")
    queries.bind(call, sql, ())
    with _connection(path) as connection, queries.explaining_mistakes(connection, call, sql, ()):
        statement = sqlite.describe(connection, sql)
    if not statement.is_one:
        raise call.error("it is not one SQL statement; give exactly one")
    return statement


def rows(path: Path, sql: str, params: Params, json: DecodeJson = False) -> Iterator[tuple[Any, ...]]:
    """Yield the names of a statement's columns, then its rows as SQLite finds them; see `Store.query_rows`."""
    call = _call(path, "query_rows(sql, {})")
    return _rows(path, call, sql, queries.bind(call, sql, params), json)


def _rows(path: Path, call: Call, sql: str, bindings: Bindings, json: DecodeJson) -> Iterator[tuple[Any, ...]]:
    with (
        _connection(path) as connection,
        queries.explaining_mistakes(connection, call, sql, bindings),
        sqlite.read_snapshot(connection),
    ):
        known = catalog.json_columns(connection) if json else ()
        result = read_one(connection, sql, bindings, with_origins=bool(json))
        yield result.names
        yield from queries.decoded(call, result, result.names, json, known) if json else result.rows


def table(path: Path, sql: str, params: Params, *, colour: bool, width: int, unicode: bool) -> str:
    """Draw all rows of a statement as a table; see `Store.query_table`."""
    call = _call(path, "query_table(sql, {})")
    bindings = queries.bind(call, sql, params)
    with (
        _connection(path) as connection,
        queries.explaining_mistakes(connection, call, sql, bindings),
        sqlite.read_snapshot(connection),
    ):
        check_one(connection, sql, bindings)
        return sqlite.draw_table(connection, sql, bindings, colour=colour, width=width, unicode=unicode)


def _call(path: Path, form: str) -> Call:
    return Call("query", str(path), form, "A query only reads; write rows to a shard, and merge", _explain_tables)


def _explain_tables(connection: Connection) -> str:
    listed = ", ".join(catalog.record_tables(connection))
    return f"The master has the tables {listed}; a table appears with the first merge of its rows"


@contextlib.contextmanager
def _connection(path: Path) -> Iterator[Connection]:
    """Open the master for a user's SQL.

    Run only SQL in the block: an OSError from anything else would be reported as the master's.

    Raises:
        StorageError: the master cannot be read.
    """
    connection = database.open_to_read(path)
    try:
        with sqlite.translate_errors("query", str(path)):
            yield connection
    finally:
        connection.close()


def read(path: Path, cls: type[_R], on_error: OnError) -> Iterator[_R]:
    """Yield all rows of a class's table; see `Store.read`."""
    source = reading.Source(str(path), partial(database.open_to_read, path), address="_stream, _seq", condition="true")
    return reading.read(source, cls, on_error)
