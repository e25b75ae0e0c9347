"""Convert values to and from storage."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from edgeshard import format
from edgeshard.records.columns import Column, Table

# -- values -> storage ------------------------------------------------------------------------------------------------


def _text(value: str) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"a {type(value).__name__} where a str belongs")  # STRICT would turn a number into text


def _real(value: float) -> float:
    if value is None:
        _none()
    if value != value:
        raise ValueError("NaN cannot be stored (SQLite would make it NULL); use an Optional field and None")
    return value


def _datetime(value: datetime.datetime) -> str:
    if not isinstance(value, datetime.datetime):
        raise TypeError(f"a {type(value).__name__} where a datetime belongs")
    if value.tzinfo is not datetime.UTC:
        if value.utcoffset() is None:
            raise ValueError("it has no time zone; use datetime.now(timezone.utc) or .astimezone()")
        value = value.astimezone(datetime.UTC)
    return value.isoformat()


def _date(value: datetime.date) -> str:
    if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date):
        raise TypeError(f"a {type(value).__name__} where a date belongs")
    return value.isoformat()


def _decimal(value: decimal.Decimal) -> str:
    if not isinstance(value, decimal.Decimal):
        raise TypeError(f"a {type(value).__name__} where a Decimal belongs")
    return str(value)


def _uuid(value: uuid.UUID) -> str:
    if not isinstance(value, uuid.UUID):
        raise TypeError(f"a {type(value).__name__} where a UUID belongs")
    return str(value)


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def to_json(value: Any) -> str:
    """JSON text: strict (no NaN), and valid UTF-8 even where a str in it is not.

    Raises:
        TypeError, ValueError: it is not JSON-able.
    """
    text = _dump(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, as cut-off text has: JSON can spell it, UTF-8 cannot
            return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


# -- kinds ------------------------------------------------------------------------------------------------------------

CONVERSIONS: dict[Any, tuple[str, Callable[[Any], Any] | None, Callable[[Any], Any] | None]] = {
    bool: ("boolean", None, bool),
    int: ("integer", None, None),
    float: ("real", _real, None),
    str: ("text", _text, None),
    bytes: ("blob", None, None),
    datetime.datetime: ("datetime", _datetime, datetime.datetime.fromisoformat),
    datetime.date: ("date", _date, datetime.date.fromisoformat),
    decimal.Decimal: ("decimal", _decimal, decimal.Decimal),
    uuid.UUID: ("uuid", _uuid, uuid.UUID),
    dict: ("json", to_json, json.loads),
    list: ("json", to_json, json.loads),
}


def compile_functions(
    table: Table, sql: str, timestamp: Callable[[], int] | None = None
) -> tuple[Callable[..., tuple[Any, ...]], Callable[..., Any]]:
    """The write path of a table's records, compiled for their class as attrs compiles an ``__init__``.

    A loop over columns would cost a fifth of a commit, and a second call a sixtieth (measured).

    Args:
        table: the table.
        sql: the statement that inserts a row.
        timestamp: gives the next timestamp, where rows of the table have one.

    Returns:
        ``encode(row_id, record)``, which makes the bindings of the statement: the id, the timestamp where there is one, and
        the table's columns; and
        ``insert(execute, row_id, record)``, which executes it. Both raise whatever the conversions do; `why_unstorable`
        finds the words for that.
    """
    names: dict[str, Any] = {"none": _none, "sql": sql, "timestamp": timestamp}
    body = []
    for index, column in enumerate(table.columns):
        names[f"convert{index}"] = column.encode
        body += [f"v{index} = record.{column.name}", *_encoding(column, f"v{index}", f"convert{index}")]
    own = "row_id" if timestamp is None else "row_id, timestamp()"
    row = f"({own}, {', '.join(f'v{index}' for index in range(len(table.columns)))})"
    encode = ["def encode(row_id, record):", *body, f"return {row}"]
    insert = ["def insert(execute, row_id, record):", *body, f"execute(sql, {row})"]
    # no user text gets here but column names, which are identifiers (_check_name)
    exec("\n".join(["\n    ".join(encode), "\n    ".join(insert)]), names)  # noqa: S102
    return names["encode"], names["insert"]


def _encoding(column: Column, value: str, convert: str) -> list[str]:
    """Source that turns a value into the stored one, where the common case needs no call."""
    plain = {"text": f"{value}.__class__ is str", "real": f"{value} == {value} is not None"}.get(column.type)
    if column.encode in (_text, _real):
        line = f"if not ({plain}): {value} = {convert}({value})"
    elif column.encode is not None:
        line = f"{value} = {convert}({value})"
    else:
        return [] if column.optional else [f"if {value} is None: none()"]
    return [f"if {value} is not None:", f"    {line}"] if column.optional else [line]


def _none() -> None:
    raise ValueError("it is None, and not Optional")


def why_unstorable(table: Table, record: Any) -> str:
    """Which field of a record cannot be stored, and why; "" where every field can."""
    if isinstance(record, dict):
        return _refusal(to_json, record)
    for column in table.columns:
        value = getattr(record, column.name)
        shown = f"{column.name} = {value!r:.80}"
        if value is None:
            if not column.optional:
                return f"{shown}: it is None, and the field is not Optional"
            continue
        if column.encode is not None and (refusal := _refusal(column.encode, value)):
            return f"{shown}: {refusal}"
        stored = value if column.encode is None else column.encode(value)
        if isinstance(stored, str) and not _is_unicode(stored):
            return f"{shown}: it is not valid Unicode text (a lone surrogate)"
        if not _fits(format.STORED_AS[column.type], stored):
            return f"{shown}: a {type(value).__name__} does not fit a column of kind {column.type}"
    return ""


def _refusal(encode: Callable[[Any], Any], value: Any) -> str:
    try:
        encode(value)
    except Exception as error:  # whatever a conversion raises is the answer
        return str(error) or type(error).__name__
    return ""


def _fits(storage: str, stored: Any) -> bool:
    if storage == "INTEGER":
        whole = isinstance(stored, int) or (isinstance(stored, float) and stored.is_integer())
        return whole and -(2**63) <= stored < 2**63
    if storage == "REAL":
        return isinstance(stored, (int, float)) and not math.isnan(stored) and abs(stored) != 2**1024
    if storage == "BLOB":
        return isinstance(stored, (bytes, bytearray, memoryview))
    return isinstance(stored, str)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bindable(params: Any) -> Any:
    """Parameters of a query as columns of their types hold them.

    Raises:
        TypeError, ValueError: one cannot be held by a column.
    """
    if isinstance(params, Mapping):
        return {name: _stored(value) for name, value in params.items()}
    return tuple(_stored(value) for value in params)


def _stored(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    for kind in type(value).__mro__:
        if kind in CONVERSIONS:
            encode = CONVERSIONS[kind][1]
            return value if encode is None else encode(value)
    return value


# -- storage -> records -----------------------------------------------------------------------------------------------


def decoder(cls: type, table: Table) -> Callable[[Sequence[Any]], Any]:
    """A function that takes a row, in the order of the table's columns, and returns an instance of the class.

    A field without a value (written by an agent that did not know it yet) takes the class's default, or None.
    """
    names = [field.alias or field.name for field in attrs.fields(cls)]
    fields = attrs.fields(cls)
    settable = [field.init for field in fields]
    decoders = [column.decode for column in table.columns]
    defaulted = [
        field.default is not attrs.NOTHING and not column.optional
        for field, column in zip(fields, table.columns, strict=True)
    ]

    def decode(row: Sequence[Any]) -> Any:
        arguments = {}
        for name, value, convert, default, init in zip(names, row, decoders, defaulted, settable, strict=True):
            if init and not (value is None and default):
                arguments[name] = value if value is None or convert is None else convert(value)
        return cls(**arguments)

    return decode
