"""What is stored instead of a value that cannot be stored exactly: what the user of a store chose."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import attrs

from edgeshard.errors import ConfigurationError, quoted
from edgeshard.records import foreign

#: Called with a value and its path, such as ``Reading.image`` or ``$.steps[2].score``; what it returns is stored.
Encode = Callable[[Any, str], Any]

#: What becomes of NaN, and of infinity where there is none: it is refused, or stored as null, or as a text.
NanChoice = Literal["refuse", "null", "text"]

_TEXTS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

#: What these texts stand for, where a float is read.
NOT_FINITE: Final = {text: float(name) for name, text in _TEXTS.items()}

#: Stands for no replacement.
NOTHING: Final = object()


@attrs.frozen
class Fallbacks:
    """What a store does with values that have no exact form.

    Attributes:
        encode: the function that the user gave; None if there is none.
        nan: what becomes of NaN and infinity.
        place: what paths begin with instead of "$": the field of a class.
    """

    encode: Encode | None = None
    nan: NanChoice = "refuse"
    place: str = "$"

    def at(self, place: str) -> Fallbacks:
        """Return the same for the values of a field."""
        return attrs.evolve(self, place=place)

    def replace(self, value: Any, path: str) -> Any:
        """Return what to store instead of a value that is refused, or NOTHING.

        Raises:
            ValueError: the user's function failed.
        """
        if self.nan != "refuse" and is_not_finite(value):
            return None if self.nan == "null" else _TEXTS[str(float(value))]
        if self.encode is None:
            return NOTHING
        try:
            return self.encode(value, self.place + path[1:])
        except RecursionError:
            raise  # of the caller's own stack
        except Exception as error:
            raise EncodeError(f"the function given as encode= raised {error!r}") from error


class EncodeError(ValueError):
    """The user's function failed."""


#: Everything that is not exact is refused.
REFUSE: Final = Fallbacks()


def parse_fallbacks(encode: Any, nan: Any, path: str) -> Fallbacks:
    """Return what was given to a store.

    Args:
        encode: a function, or None.
        nan: "refuse", "null" or "text".
        path: the store, for errors.

    Raises:
        ConfigurationError: one of them is something else.
    """
    if encode is not None and not callable(encode):
        cause = f"encode must be a function of a value and its path, got {quoted(encode)}"
        raise ConfigurationError("open store", path, cause)
    if nan not in get_args(NanChoice):
        raise ConfigurationError("open store", path, f"nan must be 'refuse', 'null' or 'text', got {quoted(nan)}")
    return Fallbacks(encode, nan) if encode is not None or nan != "refuse" else REFUSE


def is_not_finite(value: Any) -> bool:
    """Return whether a value is a float, of Python or numpy, that is NaN or infinite."""
    found = foreign.to_python(value)
    return type(found) is float and not math.isfinite(found)
