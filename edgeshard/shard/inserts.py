"""How records of one class become rows: the INSERT statement, and the functions that bind a record to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from edgeshard import format
from edgeshard.records import codecs, json_values, now_text
from edgeshard.records.columns import Table
from edgeshard.sqlite import quote


@attrs.frozen
class RecordWriter:
    """Writes records of one class.

    Attributes:
        table: their table.
        sql: the statement that inserts one.
        encode: returns the bindings of the statement, given a row id and a record.
        insert: executes the statement, given a cursor's execute, a row id and a record.
    """

    table: Table
    sql: str
    encode: Callable[[int, Any], tuple[Any, ...]]
    insert: Callable[[Callable[..., Any], int, Any], Any]


def for_class(table: Table, next_timestamp: Callable[[], int] | None) -> RecordWriter:
    """Return the writer of an attrs class.

    Args:
        table: the class's table, with the column types that the shard has.
        next_timestamp: the clock for changes of a keyed table; None if rows of the table have no timestamp.
    """
    sql = _insert_sql(table)
    return RecordWriter(table, sql, *codecs.compile_functions(table, sql, next_timestamp))


def for_dicts(table: Table, agent: str) -> RecordWriter:
    """Return the writer of dicts, which become rows of ``agent_data``."""
    sql = _insert_sql(table)
    now, to_json = now_text.make_clock(), json_values.to_json

    def encode(row_id: int, record: dict[str, Any]) -> tuple[int, str, str, str]:
        return (row_id, agent, now(), to_json(record))

    def insert(execute: Callable[..., Any], row_id: int, record: dict[str, Any]) -> None:
        execute(sql, (row_id, agent, now(), to_json(record)))

    return RecordWriter(table, sql, encode, insert)


def _insert_sql(table: Table) -> str:
    own = ("_id", format.TIMESTAMP) if table.is_timestamped else ("_id",)
    names = [*own, *(column.name for column in table.columns)]
    return f"INSERT INTO {quote(table.name)}({', '.join(map(quote, names))}) VALUES ({', '.join('?' * len(names))})"
