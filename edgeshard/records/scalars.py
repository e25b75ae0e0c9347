"""What a field of each plain type accepts, and what is stored of it: the value exactly, or an error that says why not.

A field accepts instances of exactly its type. A subclass would come back as its base, and differ in ways that nobody
sees: a bool in an int field would be 1. There are two exceptions. A float field accepts an int that a float holds
exactly. And a scalar of numpy or pandas is accepted where Python has the same value: it comes back as Python's. A
datetime comes back in UTC, as the same moment.

Each function below returns what is stored. If it cannot be exact, it raises a TypeError or ValueError whose text is the
cause and the remedy; `edgeshard.records.codecs` adds the field and the value. The writer has fast paths for the values
that are stored as they are, and leaves to SQLite's binding what that refuses anyway: integers beyond 64 bits and lone
surrogates. These functions then say what was wrong.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import enum
import pathlib
import sys
import uuid
from typing import Any, Final

from edgeshard import format
from edgeshard.records import foreign

_INTEGER_MAX: Final = 1 << 63

_NUMBERS_BEGIN: Final = frozenset("-0123456789")

#: The types of numbers that a text may be, with the least and the greatest.
_NUMBERS: Final[tuple[tuple[type[int] | type[float], float, float], ...]] = (
    (int, -_INTEGER_MAX, _INTEGER_MAX - 1),
    (float, -sys.float_info.max, sys.float_info.max),
)

_FIELD_TYPES: Final = (
    bool,
    int,
    float,
    str,
    bytes,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    dict,
    list,
)

#: What to write instead of a value that is almost of a type, for errors.
_REMEDIES: Final[dict[type, str]] = {
    datetime.datetime: "convert it first (pandas: value.floor('us') drops the nanoseconds)",
    datetime.date: "write value.date(), or declare the field as datetime",
    decimal.Decimal: "write Decimal(str(value))",
    uuid.UUID: "write UUID(str(value))",
}

_TOO_LARGE: Final = "SQLite's integers have 64 bits; make the field a Decimal or a str"


def wrong_type(expected: type, value: Any) -> Exception:
    """Return the error for a value that is not an instance of exactly the expected type."""
    if value is None:
        return ValueError("it is None, but the field is not Optional; give it a value, or declare it Optional")
    given = type_name(value)
    if isinstance(value, float) and value != value:
        return TypeError(f"expected {expected.__name__}, got NaN; declare the field Optional, and write None")
    if isinstance(value, expected):
        remedy = _REMEDIES.get(expected, f"write {expected.__name__}(value){_or_declare(value)}")
        return TypeError(f"{given} is a subclass of {expected.__name__}, and would come back as the latter; {remedy}")
    if issubclass(expected, enum.Enum):
        remedy = f"write a member, as by {expected.__name__}(value)"
    else:
        remedy = _REMEDIES.get(expected, f"convert it{_or_declare(value)}")
    return TypeError(f"expected {expected.__name__}, got {given}; {remedy}")


def type_name(value: Any) -> str:
    """Return the name of a value's type, with its module if a builtin type has the same name, as numpy's bool has."""
    kind = type(value)
    is_ambiguous = kind.__module__ != "builtins" and hasattr(builtins, kind.__name__)
    return f"{kind.__module__}.{kind.__name__}" if is_ambiguous else kind.__name__


def _or_declare(value: Any) -> str:
    is_storable = type(value) in _FIELD_TYPES or isinstance(value, enum.Enum)
    return f", or declare the field as {type(value).__name__}" if is_storable else ""


def _exactly(expected: type, value: Any) -> Any:
    """Return a value of exactly the expected type, or what a scalar of numpy or pandas is in that type."""
    if type(value) is expected:
        return value
    converted = foreign.to_python(value)
    if type(converted) is expected:
        return converted
    raise wrong_type(expected, value)


def boolean(value: Any) -> bool:
    """Return a bool."""
    found: bool = _exactly(bool, value)
    return found


def integer(value: Any) -> int:
    """Return an int of 64 bits."""
    found: int = _exactly(int, value)
    if not -_INTEGER_MAX <= found < _INTEGER_MAX:
        raise ValueError(_TOO_LARGE)
    return found


def real(value: Any) -> float:
    """Return a float other than NaN, which SQLite would store as NULL, or an int that a float holds exactly."""
    found = foreign.to_python(value)
    if type(found) is int:
        return _exact_float(found)
    real: float = _exactly(float, value)
    if real != real:
        raise ValueError(
            "SQLite would store NaN as NULL; make the field Optional, and write None, or give Store nan='null'"
        )
    return real


def _exact_float(value: int) -> float:
    try:
        converted = float(value)
    except OverflowError:
        converted = 0.0
    if converted != value:
        raise ValueError("a float holds only 53 bits of it, and would round it; make the field an int or a Decimal")
    return converted


def text(value: Any) -> str:
    """Return a str that UTF-8 can encode."""
    found: str = _exactly(str, value)
    check_unicode(found)
    return found


def check_unicode(value: str) -> None:
    """Check that a str has no lone surrogate and fits in a row.

    Raises:
        ValueError: it does not.
    """
    try:
        check_size(len(value.encode()))
    except UnicodeEncodeError as error:
        raise ValueError(
            f"it has half of a surrogate pair at {error.start}, as in text that was cut off; UTF-8 cannot encode that. "
            'Write value.encode("utf-8", "replace").decode()'
        ) from error


def check_size(size: int) -> None:
    """Check that a value of this many bytes fits in a row.

    Raises:
        ValueError: it does not.
    """
    if size > format.ROW_BYTES_MAX:
        raise ValueError(f"it has {size:,} bytes, and a row has at most {format.ROW_BYTES_MAX:,}; write it in parts")


def blob(value: Any) -> bytes:
    """Return bytes."""
    found: bytes = _exactly(bytes, value)
    check_size(len(found))
    return found


def moment(value: Any) -> str:
    """Return an aware datetime as ISO 8601 in UTC."""
    return utc_text(_exactly(datetime.datetime, value))  # looked up now: libraries that freeze the time replace it


def utc_text(value: datetime.datetime) -> str:
    """Return a datetime, or an instance of a subclass, as ISO 8601 in UTC.

    Raises:
        ValueError: it has no time zone, or is before year 1 or after year 9999 in UTC.
    """
    if value.tzinfo is not datetime.UTC:
        if value.utcoffset() is None:
            raise ValueError("it has no time zone; use datetime.now(timezone.utc) or .astimezone()")
        try:
            value = value.astimezone(datetime.UTC)
        except OverflowError as error:
            raise ValueError("in UTC it is not between the years 1 and 9999; write a time that is") from error
    return value.isoformat()


def date(value: Any) -> str:
    """Return a date as ISO 8601."""
    converted: str = _exactly(datetime.date, value).isoformat()
    return converted


def time_of_day(value: Any) -> str:
    """Return a time without a time zone as ISO 8601."""
    found: datetime.time = _exactly(datetime.time, value)
    if found.tzinfo is not None:
        raise ValueError("a time of day is stored without a time zone; write value.replace(tzinfo=None), or a datetime")
    if found.fold:
        raise ValueError("its fold would be lost; write value.replace(fold=0), or a datetime, which keeps the moment")
    return found.isoformat()


def duration(value: Any) -> int:
    """Return a timedelta in microseconds."""
    found: datetime.timedelta = _exactly(datetime.timedelta, value)
    microseconds = found // datetime.timedelta(microseconds=1)
    if not -_INTEGER_MAX <= microseconds < _INTEGER_MAX:
        raise ValueError("it has more microseconds than SQLite's integers of 64 bits hold; make the field a float")
    return microseconds


def parse_duration(stored: int) -> datetime.timedelta:
    """Return the timedelta of so many microseconds.

    Raises:
        ValueError: there is none.
    """
    return datetime.timedelta(microseconds=_exactly(int, stored))


def path_text(cls: type[pathlib.PurePath], value: Any) -> str:
    """Return the text of a path: of the class itself, or of the one that it makes on this system, as a PosixPath."""
    if type(value) not in (cls, type(cls())):
        raise wrong_type(cls, value)
    return text(str(value))


def number_or_text(value: str) -> int | float | str:
    """Return the number that a text without a type is, or else the text.

    It is a number only if it is written exactly as that number prints, and SQL has the same one: 7 and -0.5, but not
    007, 1.10 or 1e3, nor an integer of more than 64 bits. So no digit is lost, and a column of texts still matches.
    """
    if value[:1] not in _NUMBERS_BEGIN:
        return value
    for number_type, least, most in _NUMBERS:
        try:
            found = number_type(value)
        except ValueError:
            continue
        if str(found) == value and least <= found <= most:
            return found
    return value


def number(value: Any) -> str:
    """Return a Decimal with all its digits, an infinity, or NaN without sign and digits."""
    if type(value) is not decimal.Decimal:
        raise wrong_type(decimal.Decimal, value)
    converted = str(value)
    if value.is_nan() and converted != "NaN":
        raise ValueError('a NaN must be quiet, and have no sign or digits; write Decimal("NaN")')
    return converted


def unique_id(value: Any) -> str:
    """Return a UUID in its usual form."""
    if type(value) is not uuid.UUID:
        raise wrong_type(uuid.UUID, value)
    return str(value)


def member(cls: type[enum.Enum], value: Any) -> Any:
    """Return the value of a member of an Enum."""
    if type(value) is not cls:
        raise wrong_type(cls, value)
    return value.value


def parse_boolean(stored: Any) -> bool:
    """Return the bool that is stored.

    Raises:
        ValueError: it is neither 0 nor 1.
    """
    if stored == 1:
        return True
    if stored == 0:
        return False
    raise ValueError(f"it is {stored}, but a bool is stored as 0 or 1")


def shown(value: Any) -> str:
    """Return a short description of a value, for errors."""
    try:
        return f"{value!r:.80}"
    except Exception:  # the class's own __repr__, an int of too many digits, too many levels
        return f"<{type(value).__name__}>"
