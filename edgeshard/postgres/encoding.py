"""Encode rows for a server: in COPY's binary format, or as the parameters of an INSERT. Pure.

Encoding is what a push spends most of its time on. So COPY's encoder is compiled for each table, like the writer's
functions in `edgeshard.records.codecs`.
"""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from edgeshard.postgres import values
from edgeshard.postgres.values import Row

_EPOCH: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

_PACK_LONG: Final = struct.Struct(">iq").pack

_EPOCH_DAY: Final = _EPOCH.date().toordinal()

#: What a COPY in binary format begins and ends with.
COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)

COPY_TAIL: Final = b"\xff\xff"

# -- COPY -------------------------------------------------------------------------------------------------------------


def _pack_boolean(value: int) -> bytes:
    return b"\0\0\0\1\1" if values.parse_boolean(value) else b"\0\0\0\1\0"


def _pack_datetime(value: str) -> bytes:
    # edgeshard writes times without a fraction, or with six digits; only others need a closer look
    if not (value[19:20] == "+" or (value[19:20] == "." and value[26:27] == "+")):
        values.parse_datetime(value)
    since = datetime.datetime.fromisoformat(value) - _EPOCH  # a TypeError if it has no time zone
    return _PACK_LONG(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _pack_date(value: str) -> bytes:
    return struct.pack(">ii", 4, values.parse_date(value).toordinal() - _EPOCH_DAY)


def _pack_uuid(value: str) -> bytes:
    return b"\0\0\0\x10" + uuid.UUID(value).bytes


def _pack_json(value: str) -> bytes:
    data = values.check_json(value).encode()
    return struct.pack(">iB", len(data) + 1, 1) + data


def _pack_blob(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def _pack_decimal(value: str) -> bytes:
    data = _numeric(values.parse_decimal(value))
    return struct.pack(">i", len(data)) + data


def _numeric(number: decimal.Decimal) -> bytes:
    """Encode a number as PostgreSQL's numeric_send does: in groups of four digits."""
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        return struct.pack(">hhHh", 0, 0, 0xC000 if number.is_nan() else 0xF000 if sign else 0xD000, 0)
    text = "".join(map(str, digits)) + "0" * (exponent % 4)
    text = "0" * (-len(text) % 4) + text
    groups = [int(text[at : at + 4]) for at in range(0, len(text), 4)]
    weight = len(groups) + exponent // 4 - 1
    while groups and not groups[0]:
        groups.pop(0)
        weight -= 1
    while groups and not groups[-1]:
        groups.pop()
    head = struct.pack(
        ">hhHh", len(groups), weight if groups else 0, 0x4000 if sign and groups else 0, max(0, -exponent)
    )
    return head + struct.pack(f">{len(groups)}h", *groups)


_PACKERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "boolean": _pack_boolean,
    "blob": _pack_blob,
    "datetime": _pack_datetime,
    "date": _pack_date,
    "decimal": _pack_decimal,
    "uuid": _pack_uuid,
    "json": _pack_json,
}

# Source code that packs a value which is not NULL. `add` takes bytes.
_LONG: Final = "add(pack_integer(8, {0}))"

# The length of what follows comes first.
_UTF8: Final = "{0} = {0}.encode(); fail_on_nul({0}) if 0 in {0} else None; add(pack_length(len({0}))); add({0})"

_SOURCES: Final = {
    "integer": _LONG,
    "timestamp": _LONG,
    "real": "add(pack_real(8, {0}))",
    "text": _UTF8,
    "reason": _UTF8,
}


def _fail_on_nul(_: bytes) -> None:
    raise values.NulError


def compile_packer(column_types: Sequence[str]) -> Callable[[Sequence[Row], Mapping[int, bytes]], bytes]:
    """Compile a function ``pack(rows, ids)`` that encodes rows with columns of these types for COPY.

    A row is its stream's number, its seq and its columns; `ids` maps the numbers to the streams' ids. The function
    raises one of `values.INVALID_VALUE` if a value does not belong to its column type, and KeyError for a stream that
    is not in `ids`.
    """
    names: dict[str, Any] = {
        "pack_head": struct.Struct(">hi16siq").pack,
        "pack_integer": _PACK_LONG,
        "pack_real": struct.Struct(">id").pack,
        "pack_length": struct.Struct(">i").pack,
        "fail_on_nul": _fail_on_nul,
        "null": b"\xff\xff\xff\xff",
    }
    columns = [f"v{index}" for index in range(len(column_types))]
    body = [f"add(pack_head({len(column_types) + 2}, 16, ids[stream], 8, seq))"]
    for column, column_type in zip(columns, column_types, strict=True):
        names[f"pack_{column_type}"] = _PACKERS.get(column_type) or names.get(f"pack_{column_type}")
        source = _SOURCES.get(column_type, f"add(pack_{column_type}({{0}}))").format(column)
        body += [f"if {column} is None: add(null)", f"else: {source}"]
    lines = [
        "def pack(rows, ids):",
        "    packed = []",
        "    add = packed.append",
        f"    for stream, seq, {''.join(f'{column}, ' for column in columns)} in rows:",
        *(f"        {line}" for line in body),
        "    return b''.join(packed)",
    ]
    exec("\n".join(lines), names)  # noqa: S102  # no name of a user's is in this source: columns are numbered
    pack: Callable[[Sequence[Row], Mapping[int, bytes]], bytes] = names["pack"]
    return pack


# -- INSERT -----------------------------------------------------------------------------------------------------------


def to_parameters(column_types: Sequence[str], rows: Sequence[Row], ids: Mapping[int, bytes]) -> list[Any]:
    """Return the values of rows, one after the other, as parameters of an INSERT; see `compile_packer` for errors."""
    parsers = [values.PARSERS[column_type] for column_type in column_types]
    parameters: list[Any] = []
    for stream, seq, *columns in rows:
        parameters += (uuid.UUID(bytes=ids[stream]), seq)
        parameters += [None if value is None else parse(value) for value, parse in zip(columns, parsers, strict=True)]
    return parameters


# -- what cannot be encoded -------------------------------------------------------------------------------------------


@attrs.frozen
class InvalidValue:
    """A value that PostgreSQL cannot store.

    Attributes:
        column: the index of its column.
        error: why PostgreSQL cannot store it.
    """

    column: int
    error: Exception


def find_invalid(column_types: Sequence[str], row: Row) -> InvalidValue | None:
    """Return the first value of a row that does not belong to its column type, or None if all do."""
    for index, column_type in enumerate(column_types):
        value = row[index + 2]
        try:
            if value is not None:
                (_PACKERS.get(column_type) or values.PARSERS[column_type])(value)
        except values.INVALID_VALUE as error:
            return InvalidValue(index, error)
    return None
