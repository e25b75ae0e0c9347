"""Convert records to rows and back.

`CONVERSIONS` has the types of fields, each with the function that decides what is stored (`edgeshard.records.scalars`,
`edgeshard.records.json_values`): the value exactly, or an error. The writer compiles these decisions into one function
for each class. When it fails, `why_unstorable` takes them again, field by field, to say which value was refused.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import json
import pathlib
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from edgeshard.records import fallbacks, json_types, json_values, scalars
from edgeshard.records.columns import Column, Table
from edgeshard.records.fallbacks import Fallbacks
from edgeshard.records.json_values import JsonError

# -- column types -----------------------------------------------------------------------------------------------------


def encode_dict(value: Any) -> str:
    """Return the JSON text of a dict, or raise a TypeError or ValueError."""
    if type(value) is not dict:
        raise scalars.wrong_type(dict, value)
    return json_values.to_json(value)


def encode_list(value: Any) -> str:
    """Return the JSON text of a list, or raise a TypeError or ValueError."""
    if type(value) is not list:
        raise scalars.wrong_type(list, value)
    return json_values.to_json(value)


#: By Python type: the column type, and the conversions to and from storage (None: the value stays as it is).
CONVERSIONS: dict[Any, tuple[str, Callable[[Any], Any], Callable[[Any], Any] | None]] = {
    bool: ("boolean", scalars.boolean, scalars.parse_boolean),
    int: ("integer", scalars.integer, None),
    float: ("real", scalars.real, None),
    str: ("text", scalars.text, None),
    bytes: ("blob", scalars.blob, None),
    datetime.datetime: ("datetime", scalars.moment, datetime.datetime.fromisoformat),
    datetime.date: ("date", scalars.date, datetime.date.fromisoformat),
    datetime.time: ("text", scalars.time_of_day, datetime.time.fromisoformat),
    datetime.timedelta: ("integer", scalars.duration, scalars.parse_duration),
    decimal.Decimal: ("decimal", scalars.number, decimal.Decimal),
    uuid.UUID: ("uuid", scalars.unique_id, uuid.UUID),
    dict: ("json", encode_dict, json.loads),
    list: ("json", encode_list, json.loads),
}

# -- values -> storage ------------------------------------------------------------------------------------------------


def with_fallbacks(table: Table, replacing: Fallbacks) -> Table:
    """Return the table with conversions that store what the user chose instead of values that are refused."""
    if replacing is fallbacks.REFUSE:
        return table
    name = "$" if table.form is None else table.form.cls.__name__
    return attrs.evolve(table, columns=tuple(_with_fallbacks(column, replacing, name) for column in table.columns))


def _with_fallbacks(column: Column, replacing: Fallbacks, owner: str) -> Column:
    placed = replacing if owner == "$" else replacing.at(f"{owner}.{column.name}")
    if column.json is not None:
        return attrs.evolve(column, encode=partial(json_types.to_text, column.json, replacing=placed), quick=None)
    return attrs.evolve(column, encode=partial(_encode_or_replace, column, placed))


def _encode_or_replace(column: Column, replacing: Fallbacks, value: Any) -> Any:
    try:
        return column.encode(value)
    except (TypeError, ValueError) as error:
        refusal = error
    try:
        replaced = replacing.replace(value, "$")
    except fallbacks.EncodeError as error:
        raise ValueError(f"{refusal}; {error}") from error
    if replaced is fallbacks.NOTHING:
        raise refusal
    if replaced is None and (column.optional or _may_be_null(column, replacing, value)):
        return None
    if replaced is None and replacing.nan == "null" and fallbacks.is_not_finite(value):
        cause = "NULL would be read back as the default of the field; declare it Optional, or without a default"
        raise ValueError(cause) from refusal
    if isinstance(replaced, str) and fallbacks.is_not_finite(value) and column.type == "real":
        cause = "a column of floats holds no text; open the store with nan='null', or write the metric in a dict"
        raise ValueError(cause) from refusal
    try:
        return column.encode(replaced)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error} (this is for {scalars.shown(replaced)}, which encode= returned)") from error


def _may_be_null(column: Column, replacing: Fallbacks, value: Any) -> bool:
    """Return whether NaN is stored as NULL: of a field with a default, NULL would be read back as the default."""
    return replacing.nan == "null" and not column.has_default and fallbacks.is_not_finite(value)


#: For values that are stored as they are: the condition under which the conversion need not be called. It leaves out
#: what apsw refuses when it binds the value: integers beyond 64 bits, lone surrogates, and objects that only
#: claim to be of the class.
_PLAIN: Final[dict[Callable[[Any], Any] | None, str]] = {
    scalars.boolean: "{0} is True or {0} is False",
    scalars.integer: "{0}.__class__ is int",
    scalars.real: "{0}.__class__ is float and {0} == {0}",
    scalars.text: "{0}.__class__ is str",
    scalars.blob: "{0}.__class__ is bytes",
}

#: For other values: an expression for what is stored that saves a call in the common case.
_CONVERTED: Final[dict[Callable[[Any], Any] | None, str]] = {
    scalars.moment: "{0}.isoformat() if {0}.__class__ is datetime and {0}.tzinfo is utc else {1}({0})",
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
    names: dict[str, Any] = {
        "sql": sql,
        "timestamp": next_timestamp,
        "datetime": datetime.datetime,
        "utc": datetime.UTC,
    }
    is_mapping = table.form is not None and table.form.is_mapping
    body = ["if record.__class__ is not dict: raise TypeError"] if is_mapping else []
    for index, column in enumerate(table.columns):
        names[f"convert{index}"] = column.encode
        body += _fetch_from_dict(column, index) if is_mapping else [f"v{index} = record.{column.name}"]
        body.append(_encoding(column, f"v{index}", f"convert{index}"))
    if is_mapping:
        absent = "".join(f" - absent{index}" for index, column in enumerate(table.columns) if not column.is_required)
        body.append(f"if len(record) != {len(table.columns)}{absent}: raise KeyError")
    own = "row_id" if next_timestamp is None else "row_id, timestamp()"
    row = f"({own}, {', '.join(f'v{index}' for index in range(len(table.columns)))})"
    encode = ["def encode(row_id, record):", *body, f"return {row}"]
    insert = ["def insert(execute, row_id, record):", *body, f"execute(sql, {row})"]
    exec(_compiled("\n".join(["\n    ".join(encode), "\n    ".join(insert)])), names)  # noqa: S102
    return names["encode"], names["insert"]


@functools.lru_cache(maxsize=256)
def _compiled(source: str) -> types.CodeType:
    """Compile source code; the last ones are kept, because this takes longer than writing the row (measured).

    The only text of the user's in it are column names, which are identifiers (`edgeshard.records.names`).
    """
    return compile(source, "<edgeshard: encode and insert>", "exec")


def _fetch_from_dict(column: Column, index: int) -> list[str]:
    """Return the lines of source code that fetch a value of a TypedDict."""
    if column.is_required:
        return [f"v{index} = record[{column.name!r}]"]
    # a key that is there must have a value: None would come back as no key
    return [
        f"v{index} = record.get({column.name!r})",
        f"absent{index} = {column.name!r} not in record",
        f"if v{index} is None and not absent{index}: raise KeyError",
    ]


def _encoding(column: Column, value: str, convert: str) -> str:
    """Return a line of source code that converts a value to the stored one; the common case needs no call."""
    if (plain := _PLAIN.get(column.quick)) is not None:
        needs_call = f"not ({plain.format(value)})" + (f" and {value} is not None" if column.optional else "")
        return f"if {needs_call}: {value} = {convert}({value})"
    line = f"{value} = {_CONVERTED.get(column.quick, '{1}({0})').format(value, convert)}"
    return f"if {value} is not None: {line}" if column.optional else line


def why_unstorable(table: Table, record: Any) -> str:
    """Return which value of a record cannot be stored, and why; "" if each can.

    A dict has the value's path, as in ``dict, $.steps[2].score = nan``, an instance of a class the field's name.
    """
    if table.form is None:
        data = next(column for column in table.columns if column.name == "data")
        return _why_refused("dict", data.encode, record)
    name = table.form.cls.__name__
    if table.form.is_mapping and type(record) is not dict:
        return f"{name} = {scalars.shown(record)}: {scalars.wrong_type(dict, record)}"
    try:
        values = table.form.values_of(record)
    except ValueError as error:
        return str(error)
    for column in table.columns:
        if column.name not in values or (values[column.name] is None and column.optional and column.is_required):
            continue
        if cause := _why_refused(f"{name}.{column.name}", column.encode, values[column.name]):
            return cause
    return ""


def _why_refused(name: str, encode: Callable[[Any], Any], value: Any) -> str:
    try:
        encode(value)
    except JsonError as error:
        return f"{name}, {error}"
    except RecursionError:
        raise  # of the caller's own stack
    except Exception as error:  # any error of a conversion is the reason
        return f"{name} = {scalars.shown(value)}: {str(error) or type(error).__name__}"
    return ""


#: By type: how parameters of a query are converted, which may be instances of subclasses.
_PARAMETERS: Final[dict[type, Callable[[Any], Any]]] = {
    datetime.datetime: scalars.utc_text,
    datetime.date: datetime.date.isoformat,
    decimal.Decimal: str,
    uuid.UUID: str,
    dict: json_values.to_json,
    list: json_values.to_json,
    pathlib.PurePath: str,
}


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
    if type(value) in CONVERSIONS:
        return CONVERSIONS[type(value)][1](value)
    for base in type(value).__mro__:
        if base in _PARAMETERS:
            return _PARAMETERS[base](value)
    return value


# -- storage -> records -----------------------------------------------------------------------------------------------


class FieldError(ValueError):
    """What is stored for a field is not a value of it. The text names the field and says why."""


def decoder(table: Table, narrowing: Sequence[Callable[[Any], Any] | None]) -> Callable[[Sequence[Any]], Any]:
    """Return a function that converts a row, in the order of the table's columns, to an instance of the table's class.

    A field without a value (its agent did not have the field yet) takes the class's default, or None. The function
    raises a FieldError for a value that does not fit its field, and what the class itself raises.

    Args:
        table: the table of a class.
        narrowing: for each column, what converts a stored value to the column's type, or None.
    """
    if table.form is None:
        raise AssertionError(f"table {table.name} has no class")
    make, cls = table.form.make, table.form.cls
    names = [column.name for column in table.columns]
    decoders = [_chained(narrow, column.decode) for narrow, column in zip(narrowing, table.columns, strict=True)]
    # a dict lacks the key, an instance takes its default
    omitted = [not column.is_required or (column.has_default and not column.optional) for column in table.columns]

    def decode(row: Sequence[Any]) -> Any:
        values = {}
        for name, value, convert, omits in zip(names, row, decoders, omitted, strict=True):
            if value is None and omits:
                continue
            try:
                values[name] = value if value is None or convert is None else convert(value)
            except Exception as error:
                _ensure_row_is_at_fault(error, value)
                cause = f"{cls.__name__}.{name} = {scalars.shown(value)}: {error}"
                raise FieldError(cause) from error
        return make(values)

    return decode


def _chained(first: Callable[[Any], Any] | None, second: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if first is None or second is None:
        return first or second
    return lambda value: second(first(value))


def _ensure_row_is_at_fault(error: Exception, value: Any) -> None:
    """Raise an error of decoding again unless the value caused it."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, RecursionError) and json_values.depth_of(str(value)) <= json_values.DEPTH_MAX:
        raise error  # the caller has used up the stack
