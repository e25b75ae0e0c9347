"""The column types and how they widen: which of two types holds the values of both, and how to convert. Pure.

There are two chains, in which each type holds every value of those before it, without loss:

    boolean < integer < real < decimal
    uuid < text

with one exception: a real cannot hold an integer beyond 2^53 in either direction, because its 53 bits would round it.
Such an integer is refused, never rounded; a decimal holds it. All other types (blob, datetime, date, json) do not
widen.

The widest of several types does not depend on the order in which they are met, and neither does a converted value: a
number becomes the same decimal whether it was a real in between or not.
"""

from __future__ import annotations

import decimal
import uuid
from collections.abc import Callable
from typing import Any, Final

_CHAINS: Final = (("boolean", "integer", "real", "decimal"), ("uuid", "text"))

#: A real holds integers up to here, in either direction, without loss.
EXACT_MAX: Final = 1 << 53

_WHOLE: Final = ("boolean", "integer")


def widest(one: str, other: str) -> str | None:
    """Return the type that holds the values of both, or None if there is none."""
    if one == other:
        return one
    for chain in _CHAINS:
        if one in chain and other in chain:
            return max(one, other, key=chain.index)
    return None


def may_not_fit(column_type: str, wider: str) -> bool:
    """Return whether the wider type may be unable to hold some value of the other."""
    return column_type == "integer" and wider == "real"


def is_same_value(column_type: str, wider: str) -> bool:
    """Return whether stored values of a type are valid values of the wider one as they are."""
    return column_type == wider or (column_type == "boolean" and wider == "integer") or column_type == "uuid"


def widened(value: Any, column_type: str, wider: str) -> Any:
    """Convert a stored value to a wider type.

    Raises:
        TypeError, ValueError: it is not a value of its type, or does not fit.
    """
    if value is None or is_same_value(column_type, wider):
        return value
    if column_type in _WHOLE:
        whole = _whole(value)
        return str(whole) if wider == "decimal" else _real(whole)
    return decimal_text(value)


def _whole(value: Any) -> int:
    # as SQLite's INTEGER columns do, which store 2.0 as 2
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise TypeError(f"expected an int, got a {type(value).__name__}")


def _real(whole: int) -> float:
    if abs(whole) > EXACT_MAX:
        raise ValueError("newer agents made this a float column, and it has more digits than a float holds")
    return float(whole)


def decimal_text(value: float) -> str:
    """Return a real as a decimal: the fewest digits that convert back to it, and an integer if it is exactly one."""
    value = float(value)
    if value.is_integer() and abs(value) <= EXACT_MAX:
        return str(int(value))  # also -0.0, which SQLite stores as 0.0
    return str(decimal.Decimal(repr(value)))


def narrowing(column_type: str, wanted: str) -> Callable[[Any], Any] | None:
    """Return a function that converts stored values to the type that a class asks for, or None if none is needed.

    The function raises a ValueError if a value does not fit.
    """
    if column_type == wanted or widest(column_type, wanted) is None:
        return None
    if widest(column_type, wanted) == wanted:
        return lambda value: widened(value, column_type, wanted)
    return _NARROWING[wanted]


def _narrowed_whole(value: Any) -> int:
    number = decimal.Decimal(value)
    if not number.is_finite() or number != (whole := int(number)):
        raise ValueError(f"{value} is not an integer")
    return whole


def _narrowed_boolean(value: Any) -> int:
    whole = _narrowed_whole(value)
    if whole not in (0, 1):
        raise ValueError(f"{value} is neither 0 nor 1")
    return whole


def _narrowed_real(value: str) -> float:
    real = float(value)
    if decimal.Decimal(decimal_text(real)) != decimal.Decimal(value):
        raise ValueError(f"{value} has more digits than a float holds")
    return real


def _narrowed_uuid(value: str) -> str:
    return str(uuid.UUID(value))


_NARROWING: Final[dict[str, Callable[[Any], Any]]] = {
    "boolean": _narrowed_boolean,
    "integer": _narrowed_whole,
    "real": _narrowed_real,
    "uuid": _narrowed_uuid,
}
