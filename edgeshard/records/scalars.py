"""What a field of each plain type accepts, and what is stored of it: the value exactly, or an error that says why not.

A field accepts instances of exactly its type. A subclass would come back as its base, and differ in ways that nobody
sees: a bool in an int field would be 1, a pandas Timestamp would lose its nanoseconds. There is one exception: a float
field accepts an int that a float holds exactly. A time comes back in UTC, as the same moment.

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
import uuid
from typing import Any, Final

from edgeshard import format

_INTEGER_MAX: Final = 1 << 63

_FIELD_TYPES: Final = (
    bool,
    int,
    float,
    str,
    bytes,
    datetime.datetime,
    datetime.date,
    decimal.Decimal,
    uuid.UUID,
    dict,
    list,
)

#: What to write instead of a value that is almost of a type, for errors.
_REMEDIES: Final[dict[type, str]] = {
    datetime.datetime: "convert it first (pandas: value.to_pydatetime())",
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


def boolean(value: Any) -> bool:
    """Return a bool."""
    if value is True or value is False:
        return value
    raise wrong_type(bool, value)


def integer(value: Any) -> int:
    """Return an int of 64 bits."""
    if type(value) is not int:
        raise wrong_type(int, value)
    if not -_INTEGER_MAX <= value < _INTEGER_MAX:
        raise ValueError(_TOO_LARGE)
    return value


def real(value: Any) -> float:
    """Return a float other than NaN, which SQLite would store as NULL, or an int that a float holds exactly."""
    if type(value) is int:
        return _exact_float(value)
    if type(value) is not float:
        raise wrong_type(float, value)
    if value != value:
        raise ValueError("SQLite would store NaN as NULL; make the field Optional, and write None")
    return value


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
    if type(value) is not str:
        raise wrong_type(str, value)
    check_unicode(value)
    return value


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
    if type(value) is not bytes:
        raise wrong_type(bytes, value)
    check_size(len(value))
    return value


def moment(value: Any) -> str:
    """Return an aware datetime as ISO 8601 in UTC."""
    if type(value) is not datetime.datetime:  # looked up now, because libraries that freeze the time replace it
        raise wrong_type(datetime.datetime, value)
    return utc_text(value)


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
    if type(value) is not datetime.date:
        raise wrong_type(datetime.date, value)
    converted: str = value.isoformat()
    return converted


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
