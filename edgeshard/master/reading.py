"""Read the rows of a class, in portions, from a master or a shard.

Each portion comes from a connection and a snapshot of its own, so a slow reader blocks no merge, no truncation and no
checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import attrs

from edgeshard import sqlite
from edgeshard.display import short_repr
from edgeshard.errors import ConfigurationError, UnreadableRowError, quoted
from edgeshard.log_fields import fields
from edgeshard.master import projection, streams
from edgeshard.options import ON_ERROR, OnError
from edgeshard.records import codecs, columns, declare, queries
from edgeshard.sqlite import Connection, quote

_R = TypeVar("_R")

logger = logging.getLogger("edgeshard.read")

#: Rows that `read` takes at a time, each time in a snapshot of its own.
PORTION_ROWS: Final = 1_000


@attrs.frozen
class Source:
    """The database to read.

    Attributes:
        path: the database.
        open: opens it for reading.
        address: SQL for the stream number and the seq of a row.
        condition: SQL for which rows count.
    """

    path: str
    open: Callable[[], Connection]
    address: str
    condition: str


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


def read(source: Source, cls: type[_R], on_error: OnError) -> Iterator[_R]:
    """Yield all rows of a class's table, in the order of their ids; see `Store.read`.

    Raises:
        ConfigurationError: `cls` is no class, or `on_error` is not valid.
        TableError: the class cannot be a table.
        SchemaConflictError: a column has another type.
        UnreadableRowError: a row is not one of the class.
        StorageError: the database cannot be read.
    """
    if on_error not in ON_ERROR:
        raise ConfigurationError("read", source.path, f"on_error must be 'raise' or 'skip', got {quoted(on_error)}")
    _ensure_class(source, cls)
    return _read(source, cls, declare.table_of(cls), on_error)


def _ensure_class(source: Source, cls: Any) -> None:
    def error(cause: str) -> ConfigurationError:
        return ConfigurationError("read", source.path, f"read() takes the class of the rows, {cause}")

    if cls is dict:
        raise error("and those of dicts are of the class AgentData: read(edgeshard.AgentData)")
    if isinstance(cls, type) or hasattr(cls, "__origin__"):
        return
    if isinstance(cls, str):
        raise error(f"not a name: read(Reading). To read a table by its name: query({f'select * from {cls:.100}'!r})")
    if attrs.has(type(cls)):
        raise error(f"not an instance of it: read({type(cls).__name__})")
    raise error(f"such as read(Reading), not {short_repr(cls)}")


def _read(source: Source, cls: type[_R], declared: columns.Table, on_error: OnError) -> Iterator[_R]:
    last_id = 0
    while (portion := _portion(source, declared, last_id)) is not None:
        decode = portion.decode
        for row in portion.rows:
            try:
                if isinstance(row, _NotText):
                    last_id = row.row_id
                    raise codecs.FieldError(queries.NOT_TEXT)
                last_id = row[0]
                record = decode(row[3:])
            except (MemoryError, RecursionError):
                raise
            except Exception as error:  # also what the class itself raises
                unreadable = _unreadable(source, cls, declared.name, row, error)
                if on_error == "raise":
                    raise unreadable from error
                logger.warning(
                    "left out: %s",
                    unreadable,
                    extra=fields(agent=unreadable.agent, table=unreadable.table, error=unreadable),
                )
            else:
                yield record


def _portion(source: Source, declared: columns.Table, last_id: int) -> _Portion | None:
    """Return the rows after an id; None if there are none, or no such table."""
    connection = source.open()
    try:
        with sqlite.translate_errors("read", source.path), sqlite.read_snapshot(connection):
            projected = projection.project(connection, declared, source.path)
            if projected is None:
                return None
            rows = _rows_after(connection, source, declared.name, projected.columns, last_id)
            return _Portion(codecs.decoder(declared, projected.narrowing), rows) if rows else None
    finally:
        connection.close()


def _rows_after(
    connection: Connection, source: Source, table: str, columns: str, last_id: int
) -> Sequence[tuple[Any, ...] | _NotText]:
    def select(columns: str, condition: str) -> str:
        return f"SELECT _id, {source.address}{columns} FROM main.{quote(table)} WHERE {condition}"

    after = f"_id > ? AND {source.condition} ORDER BY _id LIMIT ?"
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
    source: Source, cls: type, table: str, row: tuple[Any, ...] | _NotText, error: Exception
) -> UnreadableRowError:
    """Return the error for a row that the class cannot have."""
    row_id, stream_no, seq = attrs.astuple(row) if isinstance(row, _NotText) else row[:3]
    connection = source.open()
    try:
        with sqlite.translate_errors("read", source.path):
            agent, stream_id = streams.origin(connection, stream_no)
    finally:
        connection.close()
    address = f"row {row_id} of {table} (agent {agent!r}, stream {stream_id.hex()}, seq {seq})"
    reason = str(error) if isinstance(error, codecs.FieldError) else f"{cls.__name__} refuses it: {error!r}"
    advice = f"To leave such rows out: on_error='skip'. To see it: query('SELECT * FROM {table} WHERE _id = {row_id}')"
    cause = f"{address}: {reason}. {advice}"
    return UnreadableRowError("read", source.path, cause, table, row_id, agent, stream_id.hex(), seq)
