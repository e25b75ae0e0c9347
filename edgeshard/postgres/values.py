"""Map column types to PostgreSQL's types, and stored values to the values that psycopg takes. Pure.

A value that PostgreSQL would change is rejected with a `ValueError` whose text says why. "Change" means what PostgreSQL
itself calls different: a time is an instant, numbers keep their value and their scale, and JSON keeps its meaning but
not its spaces.
"""

from __future__ import annotations

import datetime
import decimal
import json
import re
import struct
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from edgeshard import format
from edgeshard.postgres.options import OnInvalid
from edgeshard.postgres.schema import PgColumn
from edgeshard.records import types

Row = Sequence[Any]

#: The PostgreSQL type of each column type.
PG_TYPES: Final = {
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

#: How information_schema.columns names a type, if not as `PG_TYPES` does.
_LONG_NAMES: Final = {"timestamptz": "timestamp with time zone"}

#: What a conversion may raise if a value does not belong to its column type.
INVALID_VALUE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    ArithmeticError,
    RecursionError,
    AttributeError,
    struct.error,
)


class NulError(ValueError):
    """A text contains U+0000."""

    def __init__(self) -> None:
        super().__init__("it contains the character U+0000, which PostgreSQL's text and jsonb cannot store")


_TOO_FINE: Final = re.compile(r"[.,]\d{7}")

#: The most digits of a numeric before and after its point.
_DIGITS_BEFORE: Final = 131_072

_DIGITS_AFTER: Final = 16_383


def long_pg_type(column_type: str) -> str:
    """Return the PostgreSQL type of a column type, as information_schema.columns names it."""
    return _LONG_NAMES.get(PG_TYPES[column_type], PG_TYPES[column_type])


#: The column type of each PostgreSQL type, by its name in information_schema.columns. Columns that no class declares
#: are left out, because they never get another type.
COLUMN_TYPES: Final = {long_pg_type(name): name for name in PG_TYPES if name not in format.OWN_COLUMNS.values()}


def can_hold(pg_type: str, other: str) -> bool:
    """Return whether a column of one PostgreSQL type can store all values of another without loss."""
    ours, theirs = COLUMN_TYPES.get(pg_type), COLUMN_TYPES.get(other)
    return pg_type == other or (ours is not None and theirs is not None and types.widest(ours, theirs) == ours)


# -- several columns of the master to one -----------------------------------------------------------------------------


class UnfitValueError(Exception):
    """A value cannot be converted to the type that its column has in PostgreSQL.

    Attributes:
        row: its row, as the master has it.
        column: the master's column.
        reason: why.
    """

    def __init__(self, row: Row, column: str, reason: str) -> None:
        super().__init__(row, column, reason)
        self.row = row
        self.column = column
        self.reason = reason


def convert_rows(columns: Sequence[PgColumn], rows: Sequence[Row]) -> Sequence[Row]:
    """Return rows with the values of the columns that they fill, for rows with the values of the columns' sources.

    A row is its stream's number, its seq and these values.

    Raises:
        UnfitValueError: a value cannot be converted, or a row has two values for one column.
    """
    if all(column.is_same for column in columns):
        return rows
    return [(*row[:2], *_convert_row(columns, row)) for row in rows]


def _convert_row(columns: Sequence[PgColumn], row: Row) -> Iterator[Any]:
    values = iter(row[2:])
    for column in columns:
        found = None
        for (name, column_type), value in zip(column.sources, values, strict=False):
            try:
                value = types.widened(value, column_type, column.type)
            except INVALID_VALUE as error:
                raise UnfitValueError(row, name, f"{error}, which {column.name} is in PostgreSQL") from error
            if found is not None and value is not None and found != value:
                others = " and ".join(other for other, _ in column.sources)
                raise UnfitValueError(row, name, f"{others} have different values, and renames make them one column")
            found = value if found is None else found
        yield found


# -- stored values to Python values -----------------------------------------------------------------------------------


def parse_boolean(value: int) -> bool:
    """Parse a stored boolean."""
    if value not in (0, 1):
        raise ValueError(f"it is {value}, but a boolean is 0 or 1")
    return bool(value)


def _text(value: str) -> str:
    if "\0" in value:
        raise NulError
    return value


def parse_datetime(value: str) -> datetime.datetime:
    """Parse a stored time."""
    if _TOO_FINE.search(value):
        raise ValueError("it is finer than a microsecond, which PostgreSQL's times cannot be")
    moment = datetime.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone")
    return moment


def parse_date(value: str) -> datetime.date:
    """Parse a stored date."""
    return datetime.date.fromisoformat(value)


def parse_decimal(value: str) -> decimal.Decimal:
    """Parse a stored decimal."""
    number = decimal.Decimal(value)
    if number.is_nan():
        if number.is_snan() or number.is_signed() or number.as_tuple().digits:
            raise ValueError("PostgreSQL has only one NaN, without a sign or digits")
    elif number.is_finite():
        exponent = number.as_tuple().exponent
        if number.adjusted() >= _DIGITS_BEFORE or (isinstance(exponent, int) and -exponent > _DIGITS_AFTER):
            raise ValueError("it has more digits than PostgreSQL's numeric can store")
    return number


def check_json(value: str) -> str:
    """Return a stored JSON text unchanged if jsonb can store it."""
    parsed = _decode_json(value)
    if "\\u" in value:
        _check_texts(parsed)
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("it contains a name twice, and jsonb would keep only one of the two")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


#: Created once, because json.loads would create one each time.
_decode_json: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=str, parse_float=str, parse_constant=_no_constant
).decode


def _check_texts(parsed: Any) -> None:
    if isinstance(parsed, str):
        if "\0" in parsed:
            raise NulError
        parsed.encode()  # fails for half of a surrogate pair
    elif isinstance(parsed, list):
        for item in parsed:
            _check_texts(item)
    elif isinstance(parsed, dict):
        for name, item in parsed.items():
            _check_texts(name)
            _check_texts(item)


# -- invalid characters -----------------------------------------------------------------------------------------------

#: An escape sequence of JSON. The group is that of an invalid character: half of a surrogate pair, or U+0000.
_JSON_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2}|0000)|\\.", re.DOTALL
)


def repair_text(value: str, mode: OnInvalid) -> str:
    r"""Return a text with each U+0000 replaced by U+FFFD, or by the six characters ``\u0000``."""
    return value.replace("\0", "\\u0000" if mode == "escape" else "\N{REPLACEMENT CHARACTER}")


def repair_json(value: str, mode: OnInvalid) -> str:
    r"""Return a JSON text whose strings have U+FFFD, or the six characters ``\uXXXX``, for invalid characters."""

    def repaired(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        return f"\\\\u{match[1].lower()}" if mode == "escape" else "\N{REPLACEMENT CHARACTER}"

    return _JSON_ESCAPE.sub(repaired, value)


_REPAIRS: Final[Mapping[str, Callable[[str, OnInvalid], str]]] = {"text": repair_text, "json": repair_json}


def repair_rows(columns: Sequence[PgColumn], fixed: Collection[str], rows: Sequence[Row], mode: OnInvalid) -> list[Row]:
    """Return converted rows without characters that PostgreSQL cannot store, except in some columns.

    Args:
        columns: the columns that the rows fill.
        fixed: the names of columns that decide what is a version of what. Two keys must not become one.
        rows: the rows.
        mode: "replace" or "escape".
    """
    repairs = [None if column.name in fixed else _REPAIRS.get(column.type) for column in columns]
    return [
        (
            *row[:2],
            *(
                repair(value, mode) if repair is not None and isinstance(value, str) else value
                for value, repair in zip(row[2:], repairs, strict=True)
            ),
        )
        for row in rows
    ]


def _unchanged(value: Any) -> Any:
    return value


#: The functions that turn a stored value into one that psycopg takes, or raise `INVALID_VALUE`.
PARSERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "boolean": parse_boolean,
    "integer": _unchanged,
    "timestamp": _unchanged,
    "reason": _text,
    "real": _unchanged,
    "text": _text,
    "blob": _unchanged,
    "datetime": parse_datetime,
    "date": parse_date,
    "decimal": parse_decimal,
    "uuid": uuid.UUID,
    "json": check_json,
}
