"""How records of one class become rows: the INSERT statement, and the functions that bind a record to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from edgeshard import format
from edgeshard.errors import RecordError, quoted
from edgeshard.records import codecs, declare, forms, json_values, now_text, scalars
from edgeshard.records.columns import Table
from edgeshard.sqlite import quote

#: The table that dicts go to for which no other is given.
AGENT_DATA: Final = declare.table_of(declare.AgentData).name


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


#: What tells records of one kind from others: their class, a TypedDict, or the name of a table of dicts.
WriterKey = type | str


def writer_key(record: Any, table: str | type | None, path: str) -> WriterKey:
    """Return the key of a record, for which a table may be given.

    Raises:
        RecordError: records of this type do not go to that table.
    """
    cls: type = record.__class__
    if table is None:
        return cls
    takes_dicts = isinstance(table, str) or forms.is_typed_dict(table)
    if table is cls or (takes_dicts and isinstance(record, dict)):
        return table
    if takes_dicts:
        cause = (
            f"table={quoted(table)} is for dicts, got {scalars.type_name(record)}; leave table= out, or write a dict"
        )
    else:
        cause = (
            f"table must be a name or a TypedDict, both for dicts, got {quoted(table)}; write an instance of the class"
        )
    raise RecordError("write to shard", path, cause)


#: Attributes of the classes whose instances are one record, and may be iterated over: of attrs, dataclasses, pydantic
#: and named tuples.
_OF_RECORDS = ("__attrs_attrs__", "__dataclass_fields__", "__pydantic_fields__", "_fields")


def ensure_several(records: object, path: str) -> None:
    """Refuse what cannot be meant as several records.

    Raises:
        RecordError: it is one record, a text, or nothing that can be iterated over.
    """
    cls = type(records)
    is_one = isinstance(records, (Mapping, str, bytes, bytearray)) or any(hasattr(cls, name) for name in _OF_RECORDS)
    if is_one or not isinstance(records, Iterable):
        what = "an async iterator; collect its records in a list first" if hasattr(cls, "__aiter__") else ""
        what = what or f"{scalars.type_name(records)}; for one record there is shard.write(record)"
        cause = f"write_many takes a list or another iterable of records, as in shard.write_many([record]), got {what}"
        raise RecordError("write to shard", path, cause)


def table_for(key: WriterKey) -> Table:
    """Return the table that records with this key go to.

    Raises:
        TableError: there can be no such table.
    """
    if isinstance(key, str):
        return declare.dict_table(key)
    if issubclass(key, dict) and not forms.is_typed_dict(key):
        return declare.dict_table(AGENT_DATA)
    return declare.table_of(key)


def for_class(table: Table, next_timestamp: Callable[[], int] | None) -> RecordWriter:
    """Return the writer of a record class.

    Args:
        table: the class's table, with the column types that the shard has.
        next_timestamp: the clock for changes of a keyed table; None if rows of the table have no timestamp.
    """
    sql = _insert_sql(table)
    return RecordWriter(table, sql, *codecs.compile_functions(table, sql, next_timestamp))


def for_dicts(table: Table, agent: str) -> RecordWriter:
    """Return the writer of dicts, which become rows of ``agent_data`` or of a table like it."""
    sql = _insert_sql(table)
    now, to_json = now_text.make_clock(), table.columns[-1].encode
    if to_json is codecs.encode_dict:
        to_json = json_values.to_json  # that it is a dict is known

    def encode(row_id: int, record: dict[str, Any]) -> tuple[int, str, str, str]:
        return (row_id, agent, now(), to_json(record))

    def insert(execute: Callable[..., Any], row_id: int, record: dict[str, Any]) -> None:
        execute(sql, (row_id, agent, now(), to_json(record)))

    return RecordWriter(table, sql, encode, insert)


def _insert_sql(table: Table) -> str:
    own = ("_id", format.TIMESTAMP) if table.is_timestamped else ("_id",)
    names = [*own, *(column.name for column in table.columns)]
    return f"INSERT INTO {quote(table.name)}({', '.join(map(quote, names))}) VALUES ({', '.join('?' * len(names))})"
