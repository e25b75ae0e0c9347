"""Convert values to and from storage.

A record's values are converted here and nowhere else. SQLite's STRICT tables check plain types for us. What SQLite
would change silently (NaN becomes NULL, a number in a text column becomes text) is refused before it gets there.
"""

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
    raise TypeError(f"expected a str, got a {type(value).__name__}")  # STRICT would turn a number into text


def _real(value: float) -> float:
    if value is None:
        _refuse_none()
    if value != value:
        raise ValueError("NaN cannot be stored (SQLite would make it NULL); use an Optional field and None")
    return value


def _datetime(value: datetime.datetime) -> str:
    if not isinstance(value, datetime.datetime):
        raise TypeError(f"expected a datetime, got a {type(value).__name__}")
    if value.tzinfo is not datetime.UTC:
        if value.utcoffset() is None:
            raise ValueError("it has no time zone; use datetime.now(timezone.utc) or .astimezone()")
        value = value.astimezone(datetime.UTC)
    return value.isoformat()


def _date(value: datetime.date) -> str:
    if isinstance(value, datetime.datetime) or not isinstance(value, datetime.date):
        raise TypeError(f"expected a date, got a {type(value).__name__}")
    return value.isoformat()


def _decimal(value: decimal.Decimal) -> str:
    if not isinstance(value, decimal.Decimal):
        raise TypeError(f"expected a Decimal, got a {type(value).__name__}")
    return str(value)


def _uuid(value: uuid.UUID) -> str:
    if not isinstance(value, uuid.UUID):
        raise TypeError(f"expected a UUID, got a {type(value).__name__}")
    return str(value)


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def to_json(value: Any) -> str:
    """Return JSON text: strict (no NaN), and valid UTF-8 even if a str in it is not.

    Raises:
        TypeError, ValueError: the value is not JSON-able.
    """
    text = _dump(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, as in cut-off text: JSON can escape it, UTF-8 cannot hold it
            return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


# -- column types -----------------------------------------------------------------------------------------------------

#: By Python type: the column type, and the conversions to and from storage (None: the value stays as it is).
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
    table: Table, sql: str, next_timestamp: Callable[[], int] | None = None
) -> tuple[Callable[..., tuple[Any, ...]], Callable[..., Any]]:
    """Compile the functions that encode and insert a class's records, as attrs compiles an ``__init__``.

    A loop over columns would cost a fifth of a commit, and a second call a sixtieth (measured).

    Args:
        table: the table.
        sql: the statement that inserts a row.
        next_timestamp: the clock, if rows of the table have a timestamp.

    Returns:
        ``encode(row_id, record)``, which returns the bindings of the statement: the id, the timestamp if there is one,
        and the table's columns.
        ``insert(execute, row_id, record)``, which executes the statement.
        Both raise what the conversions raise; `why_unstorable` puts it into words.
    """
    names: dict[str, Any] = {"refuse_none": _refuse_none, "sql": sql, "timestamp": next_timestamp}
    body = []
    for index, column in enumerate(table.columns):
        names[f"convert{index}"] = column.encode
        body += [f"v{index} = record.{column.name}", *_encoding(column, f"v{index}", f"convert{index}")]
    own = "row_id" if next_timestamp is None else "row_id, timestamp()"
    row = f"({own}, {', '.join(f'v{index}' for index in range(len(table.columns)))})"
    encode = ["def encode(row_id, record):", *body, f"return {row}"]
    insert = ["def insert(execute, row_id, record):", *body, f"execute(sql, {row})"]
    # the only text of the user's in this code are column names, which are identifiers (records.names)
    exec("\n".join(["\n    ".join(encode), "\n    ".join(insert)]), names)  # noqa: S102
    return names["encode"], names["insert"]


def _encoding(column: Column, value: str, convert: str) -> list[str]:
    """Return source code that converts a value to the stored one; the common case needs no call."""
    plain = {"text": f"{value}.__class__ is str", "real": f"{value} == {value} is not None"}.get(column.type)
    if column.encode in (_text, _real):
        line = f"if not ({plain}): {value} = {convert}({value})"
    elif column.encode is not None:
        line = f"{value} = {convert}({value})"
    else:
        return [] if column.optional else [f"if {value} is None: refuse_none()"]
    return [f"if {value} is not None:", f"    {line}"] if column.optional else [line]


def _refuse_none() -> None:
    raise ValueError("it is None, but not Optional")


def why_unstorable(table: Table, record: Any) -> str:
    """Return which field of a record cannot be stored, and why; "" if every field can."""
    if isinstance(record, dict):
        return _error_of(to_json, record)
    for column in table.columns:
        value = getattr(record, column.name)
        shown = f"{column.name} = {value!r:.80}"
        if value is None:
            if not column.optional:
                return f"{shown}: it is None, but the field is not Optional"
            continue
        if column.encode is not None and (cause := _error_of(column.encode, value)):
            return f"{shown}: {cause}"
        stored = value if column.encode is None else column.encode(value)
        if isinstance(stored, str) and not _is_unicode(stored):
            return f"{shown}: it is not valid Unicode text (a lone surrogate)"
        if not _fits(format.STORED_AS[column.type], stored):
            return f"{shown}: a {type(value).__name__} does not fit a column of type {column.type}"
    return ""


def _error_of(encode: Callable[[Any], Any], value: Any) -> str:
    try:
        encode(value)
    except Exception as error:  # any error of a conversion is the reason
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
    """Convert the parameters of a query to what columns of their types store.

    Raises:
        TypeError, ValueError: no column could store one of them.
    """
    if isinstance(params, Mapping):
        return {name: _stored(value) for name, value in params.items()}
    return tuple(_stored(value) for value in params)


def _stored(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    for base in type(value).__mro__:
        if base in CONVERSIONS:
            encode = CONVERSIONS[base][1]
            return value if encode is None else encode(value)
    return value


# -- storage -> records -----------------------------------------------------------------------------------------------


def decoder(cls: type, table: Table) -> Callable[[Sequence[Any]], Any]:
    """Return a function that converts a row, in the order of the table's columns, to an instance of the class.

    A field without a value (its agent did not have the field yet) takes the class's default, or None.
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
