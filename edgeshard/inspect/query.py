"""Run a user's SQL on the master, read-only, and read the rows of a class from it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import attrs

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, QueryError, UnreadableRowError
from edgeshard.master import catalog, database, projection, streams
from edgeshard.records import codecs, columns, declare
from edgeshard.shard.lookup import References, attached_references
from edgeshard.sqlite import Bindings, Connection, Statement, quote
from edgeshard.sqlite.rows import row_class

_R = TypeVar("_R")

#: What `read` does with a row that the class cannot have.
OnError = Literal["raise", "skip"]

ON_ERROR: Final = get_args(OnError)

logger = logging.getLogger("edgeshard.read")

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
    connection = database.open_to_read(path)
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


@attrs.frozen
class _NotText:
    """A row with a text that is not UTF-8, so that SQLite's values of it cannot be had."""

    row_id: int
    stream_no: int
    seq: int


@attrs.frozen
class _Portion:
    """Some rows of a class's table.

    Attributes:
        decode: makes an instance of the values of a row.
        rows: the id, the stream number and the seq of each row, and then its values.
    """

    decode: Callable[[Sequence[Any]], Any]
    rows: Sequence[tuple[Any, ...] | _NotText]


def read(path: Path, cls: type[_R], on_error: OnError) -> Iterator[_R]:
    """Yield all rows of a class's table, in portions; see `Store.read`."""
    if on_error not in ON_ERROR:
        raise ConfigurationError("read", path, f"on_error must be 'raise' or 'skip', got {on_error!r}")
    return _read(path, cls, declare.table_of(cls), on_error)


def _read(path: Path, cls: type[_R], declared: columns.Table, on_error: OnError) -> Iterator[_R]:
    last_id = 0
    while (portion := _portion(path, declared, last_id)) is not None:
        decode = portion.decode
        for row in portion.rows:
            try:
                if isinstance(row, _NotText):
                    last_id = row.row_id
                    raise codecs.FieldError(_NOT_TEXT)
                last_id = row[0]
                record = decode(row[3:])
            except (MemoryError, RecursionError):
                raise
            except Exception as error:  # also what the class itself raises
                unreadable = _unreadable(path, cls, declared.name, row, error)
                if on_error == "raise":
                    raise unreadable from error
                logger.warning("left out: %s", unreadable)
            else:
                yield record


def _portion(path: Path, declared: columns.Table, last_id: int) -> _Portion | None:
    """Return the rows after an id; None if there are none, or no such table."""
    connection = database.open_to_read(path)
    try:
        with sqlite.translate_errors("read", str(path)), sqlite.read_snapshot(connection):
            projected = projection.project(connection, declared, str(path))
            if projected is None:
                return None
            rows = _rows_after(connection, declared.name, projected.columns, last_id)
            return _Portion(codecs.decoder(declared, projected.narrowing), rows) if rows else None
    finally:
        connection.close()


def _rows_after(connection: Connection, table: str, columns: str, last_id: int) -> Sequence[tuple[Any, ...] | _NotText]:
    def select(columns: str, condition: str) -> str:
        return f"SELECT _id, _stream, _seq{columns} FROM {quote(table)} WHERE {condition}"

    after = "_id > ? ORDER BY _id LIMIT ?"
    try:
        return sqlite.fetch(connection, select(f", {columns}", after), (last_id, PORTION_ROWS))
    except UnicodeDecodeError:  # it does not say in which row
        one = select(f", {columns}", "_id = ?")
        addresses = sqlite.fetch(connection, select("", after), (last_id, PORTION_ROWS))
        return [_row_at(connection, one, address) for address in addresses]


def _row_at(connection: Connection, sql: str, address: tuple[int, int, int]) -> tuple[Any, ...] | _NotText:
    try:
        (row,) = sqlite.fetch(connection, sql, (address[0],))
    except UnicodeDecodeError:
        return _NotText(*address)
    return row


def _unreadable(
    path: Path, cls: type, table: str, row: tuple[Any, ...] | _NotText, error: Exception
) -> UnreadableRowError:
    """Return the error for a row that the class cannot have."""
    row_id, stream_no, seq = attrs.astuple(row) if isinstance(row, _NotText) else row[:3]
    connection = database.open_master(path, writable=False)
    try:
        with sqlite.translate_errors("read", str(path)):
            agent, stream_id = streams.origin(connection, stream_no)
    finally:
        connection.close()
    address = f"row {row_id} of {table} (agent {agent!r}, stream {stream_id.hex()}, seq {seq})"
    reason = str(error) if isinstance(error, codecs.FieldError) else f"{cls.__name__} refuses it: {error!r}"
    advice = f"To leave such rows out: on_error='skip'. To see it: query('SELECT * FROM {table} WHERE _id = {row_id}')"
    cause = f"{address}: {reason}. {advice}"
    return UnreadableRowError("read", path, cause, table, row_id, agent, stream_id.hex(), seq)
