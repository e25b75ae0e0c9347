"""What a stored value is in PostgreSQL, and which values it cannot hold.

Each kind has a type there, a function that makes the Python value of what SQLite stores, or refuses it with a
`ValueError` whose text says why, and one that packs what SQLite stores as COPY's binary format wants it. The second
is compiled for a table, as `tables.functions` is: it is the cost of a push. A value that would be changed on its way is
refused. Equal is what PostgreSQL calls equal: a time is an instant, numbers keep their value and their scale, JSON its
meaning, and not its spaces.
"""

from __future__ import annotations

import datetime
import decimal
import json
import re
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

Row = Sequence[Any]

#: The type of each kind.
TYPES: Final = {
    "boolean": "boolean",
    "integer": "bigint",
    "real": "double precision",
    "text": "text",
    "blob": "bytea",
    "datetime": "timestamptz",
    "date": "date",
    "decimal": "numeric",
    "uuid": "uuid",
    "json": "jsonb",
    "timestamp": "bigint",
    "reason": "text",
}

#: What a conversion may raise where a value is none of its kind.
UNFIT: Final = (ValueError, TypeError, OverflowError, ArithmeticError, RecursionError, AttributeError, struct.error)

_ZERO: Final = "it holds the character U+0000, which PostgreSQL's text and jsonb cannot hold"

_EPOCH: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

_PACK_LONG: Final = struct.Struct(">iq").pack

_EPOCH_DAY: Final = _EPOCH.date().toordinal()

_TOO_FINE: Final = re.compile(r"[.,]\d{7}")

#: Digits that numeric has before and after its point.
_DIGITS_BEFORE: Final = 131_072

_DIGITS_AFTER: Final = 16_383

# -- what SQLite stores -> Python's values ----------------------------------------------------------------------------


def _boolean(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError(f"it is {value}, and a boolean is 0 or 1")
    return bool(value)


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError(_ZERO)
    return value


def _datetime(value: str) -> datetime.datetime:
    if _TOO_FINE.search(value):
        raise ValueError("PostgreSQL's times have microseconds, and it has more digits")
    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("it is a time without a time zone")
    return moment


def _date(value: str) -> datetime.date:
    return datetime.date.fromisoformat(value)


def _decimal(value: str) -> decimal.Decimal:
    number = decimal.Decimal(value)
    if number.is_nan():
        if number.is_snan() or number.is_signed() or number.as_tuple().digits:
            raise ValueError("PostgreSQL has one NaN alone")
    elif number.is_finite():
        exponent = number.as_tuple().exponent
        if number.adjusted() >= _DIGITS_BEFORE or (isinstance(exponent, int) and -exponent > _DIGITS_AFTER):
            raise ValueError("it has more digits than PostgreSQL's numeric")
    return number


def _json(value: str) -> str:
    parsed = _decode(value)
    if "\\u" in value:
        _ensure_text(parsed)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is in it twice, of which jsonb would keep one")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


#: Made once: json.loads would make one each time.
_decode: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=str, parse_float=str, parse_constant=_no_constant
).decode


def _ensure_text(parsed: Any) -> None:
    if isinstance(parsed, str):
        if "\0" in parsed:
            raise ValueError(_ZERO)
        parsed.encode()  # half of a surrogate pair is no text
    elif isinstance(parsed, list):
        for item in parsed:
            _ensure_text(item)
    elif isinstance(parsed, dict):
        for name, item in parsed.items():
            _ensure_text(name)
            _ensure_text(item)


def _as_it_is(value: Any) -> Any:
    return value


#: What makes Python's value, or refuses; psycopg takes each of them.
PARSERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "boolean": _boolean,
    "integer": _as_it_is,
    "timestamp": _as_it_is,
    "reason": _text,
    "real": _as_it_is,
    "text": _text,
    "blob": _as_it_is,
    "datetime": _datetime,
    "date": _date,
    "decimal": _decimal,
    "uuid": uuid.UUID,
    "json": _json,
}

# -- what SQLite stores -> COPY's binary format -----------------------------------------------------------------------


def _packed_boolean(value: int) -> bytes:
    return b"\0\0\0\1\1" if _boolean(value) else b"\0\0\0\1\0"


def _packed_datetime(value: str) -> bytes:
    # as we write it: either without a fraction, or with six digits
    if not (value[19:20] == "+" or (value[19:20] == "." and value[26:27] == "+")):
        _datetime(value)
    since = datetime.datetime.fromisoformat(value) - _EPOCH  # a TypeError where it has no time zone
    return _PACK_LONG(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _packed_date(value: str) -> bytes:
    return struct.pack(">ii", 4, _date(value).toordinal() - _EPOCH_DAY)


def _packed_uuid(value: str) -> bytes:
    return b"\0\0\0\x10" + uuid.UUID(value).bytes


def _packed_json(value: str) -> bytes:
    data = _json(value).encode()
    return struct.pack(">iB", len(data) + 1, 1) + data


def _packed_blob(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def _packed_decimal(value: str) -> bytes:
    data = _numeric(_decimal(value))
    return struct.pack(">i", len(data)) + data


def _numeric(number: decimal.Decimal) -> bytes:
    """A number as PostgreSQL's numeric_send writes it: groups of four digits."""
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
    "boolean": _packed_boolean,
    "blob": _packed_blob,
    "datetime": _packed_datetime,
    "date": _packed_date,
    "decimal": _packed_decimal,
    "uuid": _packed_uuid,
    "json": _packed_json,
}

#: What a COPY in the binary format begins and ends with.
COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)

COPY_TAIL: Final = b"\xff\xff"

# the source of what packs a value, where it is not NULL; `add` takes bytes
_LONG: Final = "add(pack_integer(8, {0}))"

# the length of what follows is a part of it
_UTF8: Final = "{0} = {0}.encode(); zero({0}) if 0 in {0} else None; add(pack_length(len({0}))); add({0})"

_SOURCES: Final = {
    "integer": _LONG,
    "timestamp": _LONG,
    "real": "add(pack_real(8, {0}))",
    "text": _UTF8,
    "reason": _UTF8,
}


def _refuse_zero(_: bytes) -> None:
    raise ValueError(_ZERO)


def packer(kinds: Sequence[str]) -> Callable[[Sequence[Row], Mapping[int, bytes]], bytes]:
    """What packs rows of columns of these kinds, compiled: ``pack(rows, ids)``.

    Each row is its stream's number, its seq, and its columns; `ids` has the id of each stream that may be among them.
    It raises one of `UNFIT` where a value is none of its kind, and a KeyError where a stream is none of these.
    """
    names: dict[str, Any] = {
        "pack_head": struct.Struct(">hi16siq").pack,
        "pack_integer": _PACK_LONG,
        "pack_real": struct.Struct(">id").pack,
        "pack_length": struct.Struct(">i").pack,
        "zero": _refuse_zero,
        "null": b"\xff\xff\xff\xff",
    }
    columns = [f"v{index}" for index in range(len(kinds))]
    body = [f"add(pack_head({len(kinds) + 2}, 16, ids[stream], 8, seq))"]
    for column, kind in zip(columns, kinds, strict=True):
        names[f"pack_{kind}"] = _PACKERS.get(kind) or names.get(f"pack_{kind}")
        source = _SOURCES.get(kind, f"add(pack_{kind}({{0}}))").format(column)
        body += [f"if {column} is None: add(null)", f"else: {source}"]
    lines = [
        "def pack(rows, ids):",
        "    packed = []",
        "    add = packed.append",
        f"    for stream, seq, {''.join(f'{column}, ' for column in columns)} in rows:",
        *(f"        {line}" for line in body),
        "    return b''.join(packed)",
    ]
    exec("\n".join(lines), names)  # noqa: S102  # nothing of a user's gets here: columns are numbered
    packing: Callable[[Sequence[Row], Mapping[int, bytes]], bytes] = names["pack"]
    return packing


def parameters(kinds: Sequence[str], rows: Sequence[Row], ids: Mapping[int, bytes]) -> list[Any]:
    """The values of rows, one after the other, as parameters of an INSERT; raises as what `packer` makes does."""
    parsers = [PARSERS[kind] for kind in kinds]
    values: list[Any] = []
    for stream, seq, *columns in rows:
        values += (uuid.UUID(bytes=ids[stream]), seq)
        values += [None if value is None else parse(value) for value, parse in zip(columns, parsers, strict=True)]
    return values


@attrs.frozen
class Unfit:
    """A value that PostgreSQL cannot hold: at which place among its rows, in which column, and why."""

    row: int
    column: int
    reason: str


def find_unfit(kinds: Sequence[str], rows: Sequence[Row]) -> Unfit | None:
    """The first value of rows that is not one of its kind."""
    for number, row in enumerate(rows):
        for index, kind in enumerate(kinds):
            value = row[index + 2]
            try:
                if value is not None:
                    (_PACKERS.get(kind) or PARSERS[kind])(value)
            except UNFIT as error:
                return Unfit(number, index, f"{str(error) or type(error).__name__}")
    return None
