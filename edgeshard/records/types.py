"""How kinds of columns widen: which of two kinds holds the values of both, and how a value is converted. Pure.

Two chains, in which each kind holds every value of those before it, without loss:

    boolean < integer < real < decimal
    uuid < text

with one exception: an integer beyond 2^53 in either direction is none of a real, whose 53 bits would round it. It is
refused, never rounded; a decimal holds it. All other kinds (blob, datetime, date, json) are only what they are.

The widest kind of several does not depend on the order in which they are met, and neither does a converted value: a
number becomes the same decimal whether it was a real in between or not.
"""

from __future__ import annotations

import decimal
import uuid
from collections.abc import Callable
from typing import Any, Final

_CHAINS: Final = (("boolean", "integer", "real", "decimal"), ("uuid", "text"))

#: Integers up to here, in either direction, are reals without loss.
EXACT_MAX: Final = 1 << 53

_WHOLE: Final = ("boolean", "integer")


def widest(one: str, other: str) -> str | None:
    """The kind that holds the values of both, or None where there is none."""
    if one == other:
        return one
    for chain in _CHAINS:
        if one in chain and other in chain:
            return max(one, other, key=chain.index)
    return None


def may_not_fit(kind: str, wider: str) -> bool:
    """Whether a value of a kind may be none of a wider one."""
    return kind == "integer" and wider == "real"


def is_same_value(kind: str, wider: str) -> bool:
    """Whether the stored values of a kind are values of the wider one as they are."""
    return kind == wider or (kind == "boolean" and wider == "integer") or kind == "uuid"


def widened(value: Any, kind: str, wider: str) -> Any:
    """A stored value of a kind as one of a wider kind.

    Raises:
        TypeError, ValueError: it is none of the kind, or does not fit.
    """
    if value is None or is_same_value(kind, wider):
        return value
    if kind in _WHOLE:
        whole = _whole(value)
        return str(whole) if wider == "decimal" else _real(whole)
    return decimal_text(value)


def _whole(value: Any) -> int:
    # as SQLite's INTEGER columns do, which take 2.0 for 2
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise TypeError(f"a {type(value).__name__} where an int belongs")


def _real(whole: int) -> float:
    if abs(whole) > EXACT_MAX:
        raise ValueError("newer agents made this column one of floats, and it has more digits than a float holds")
    return float(whole)


def decimal_text(value: float) -> str:
    """A real as a decimal: the shortest digits that give it again, and an integer where it is one without loss."""
    value = float(value)
    if value.is_integer() and abs(value) <= EXACT_MAX:
        return str(int(value))  # -0.0 as well, which SQLite's columns hold as 0.0
    return str(decimal.Decimal(repr(value)))


def narrowing(kind: str, asked: str) -> Callable[[Any], Any] | None:
    """What makes a stored value of one kind a stored one of another that a class asks for, or refuses it.

    Returns:
        None where the value stays as it is. What it returns raises a ValueError of a value that does not fit.
    """
    if kind == asked or widest(kind, asked) is None:
        return None
    if widest(kind, asked) == asked:
        return lambda value: widened(value, kind, asked)
    return _NARROWING[asked]


def _narrowed_whole(value: Any) -> int:
    number = decimal.Decimal(value)
    if not number.is_finite() or number != (whole := int(number)):
        raise ValueError(f"{value} is no integer")
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
