"""JSON: what a dict or list may contain so that it comes back as it was, and its text.

Every level is held to one rule: a value is exactly a dict, list, str, int, float, bool or None; a key is exactly a str.
Everything else would come back as something else (a tuple as a list, an IntEnum as an int) or replace another (the keys
1 and "1"). A number is finite; a text can be encoded in UTF-8; there are at most `DEPTH_MAX` levels. A scalar of numpy
or pandas becomes the Python value that it is exactly. For other values the store may have a replacement
(`edgeshard.records.fallbacks`).

`plain` is the rule, and says which value breaks it. `to_json` decides faster, by a check of the types and by what the
encoder itself refuses; a test holds it to the rule.
"""

from __future__ import annotations

import datetime
import enum
import json
import json.encoder
import math
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import attrs

from edgeshard.records import fallbacks, foreign, scalars
from edgeshard.records.fallbacks import Fallbacks

#: The most levels of dicts and lists. SQLite's JSON functions take 1,000, and Python's parser fails where its caller
#: has used up most of the recursion limit of 1,000; MySQL and MongoDB take 100 as well.
DEPTH_MAX: Final = 100

#: The most digits of an int: what Python itself converts, unless told otherwise.
DIGITS_MAX: Final = 4_300

_PLAIN: Final = frozenset((str, int, float, bool, type(None)))

_are_plain = _PLAIN.issuperset

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')

_BRACKET: Final = re.compile(r"[][{}]")

_NOT_FINITE: Final = "JSON has no NaN and no infinity; write None, or a str, or open the store with nan='null'"

_PATH_MAX: Final = 80

TOO_DEEP: Final = f"it has more than {DEPTH_MAX} levels of dicts and lists, or contains itself; write it in parts"


def _refuse_type(value: Any) -> Any:
    raise TypeError(f"JSON has no {type(value).__name__}")


def _compile_encoder() -> Any:
    """Return the encoder that JSONEncoder.encode creates anew for each text, which takes longer than the encoding."""
    encoder = json.JSONEncoder(
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
        check_circular=False,  # what contains itself has too many levels
        default=_refuse_type,
    )
    make = getattr(json.encoder, "c_make_encoder", None)  # CPython's, which has no other name
    if make is None:
        return encoder.iterencode
    return make(None, _refuse_type, json.encoder.encode_basestring, None, ":", ",", False, False, False)


_encode: Final = _compile_encoder()

_join: Final = "".join


def to_json(value: Any, replacing: Fallbacks = fallbacks.REFUSE) -> str:
    """Return the JSON text of a dict or list.

    Args:
        value: the dict or list.
        replacing: what to store instead of values in it that cannot be stored exactly.

    Raises:
        JsonError: a value in it cannot be stored exactly, and has no replacement.
    """
    try:
        if is_plain(value):
            text = _join(_encode(value, 0))
            if not text.isascii():
                text.encode()
            # a process may lift Python's limit on digits, but those that read the row may not
            if len(text) <= DIGITS_MAX or 0 < sys.get_int_max_str_digits() <= DIGITS_MAX:
                return text
    except (TypeError, ValueError):
        pass
    return _join(_encode(plain(value, Place(replacing=replacing)), 0))


def is_plain(value: Any, depth: int = DEPTH_MAX) -> bool:
    """Return whether all types in a dict or list are exactly those of JSON, in at most that many levels.

    Two passes in C, of the keys and of the values, would take longer up to some hundred members, and all() twice as
    long as a loop (measured). A type that only claims to be one of these is left for the encoder to refuse.
    """
    if value.__class__ is dict:
        for key, item in value.items():
            if key.__class__ is not str:
                return False
            if item.__class__ not in _PLAIN and (depth == 1 or not is_plain(item, depth - 1)):
                return False
        return True
    if value.__class__ is list:
        if _are_plain(map(type, value)):
            return True
        for item in value:
            if item.__class__ not in _PLAIN and (depth == 1 or not is_plain(item, depth - 1)):
                return False
        return True
    return False


def depth_of(text: str) -> int:
    """Return how many levels of dicts and lists a JSON text has, however many."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "{[" else -1
        deepest = max(deepest, depth)
    return deepest


# -- what is wrong ----------------------------------------------------------------------------------------------------


class JsonError(ValueError):
    """A value inside a dict or list cannot be stored exactly.

    Attributes:
        path: where it is, as SQLite's JSON functions write it: ``$.steps[2].score``.
        value: the value, or the key that is wrong.
        cause: why it cannot be stored, and what to write instead.
    """

    def __init__(self, path: str, value: Any, cause: str) -> None:
        super().__init__(path, value, cause)
        self.path = _shortened(path)
        self.value = value
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path} = {scalars.shown(self.value)}: {self.cause}"


@attrs.frozen
class Place:
    """A place in a dict or list.

    Attributes:
        path: where it is, as SQLite's JSON functions write it.
        depth: how many levels of dicts and lists a value there may have.
        replacing: what to store instead of values that cannot be stored exactly.
    """

    path: str = "$"
    depth: int = DEPTH_MAX
    replacing: Fallbacks = fallbacks.REFUSE

    def member(self, key: str) -> Place:
        """Return the place of a member of the dict here."""
        return Place(f"{self.path}.{_label(key)}", self.depth - 1, self.replacing)

    def item(self, index: int) -> Place:
        """Return the place of an item of the list here."""
        return Place(f"{self.path}[{index}]", self.depth - 1, self.replacing)


def plain(value: Any, at: Place) -> Any:
    """Return a value as what JSON has: exactly the same, or what the user chose to store instead.

    Raises:
        JsonError: it, or a value in it, cannot be stored exactly.
    """
    return try_to_store(lambda found: _plain(found, at), value, at)


def try_to_store(convert: Callable[[Any], Any], value: Any, at: Place) -> Any:
    """Return what `convert` makes of a value, or else of what the user chose to store instead.

    Raises:
        JsonError: `convert` refuses both, or a value inside one of them.
    """
    try:
        return convert(value)
    except JsonError:
        raise  # a value inside, for which a replacement was asked for already
    except (TypeError, ValueError) as error:
        refusal = error
    try:
        replaced = at.replacing.replace(value, at.path)
    except fallbacks.EncodeError as error:
        raise JsonError(at.path, value, f"{refusal}; {error}") from error
    if replaced is fallbacks.NOTHING:
        raise JsonError(at.path, value, str(refusal)) from refusal
    try:
        return convert(replaced)
    except JsonError:
        raise
    except (TypeError, ValueError) as error:
        cause = f"{error} (encode= returned it for {scalars.shown(value)})"
        raise JsonError(at.path, replaced, cause) from error


def _plain(value: Any, at: Place) -> Any:
    """As `plain`, but raise a TypeError or ValueError if JSON lacks the value itself, and JsonError if one in it."""
    if type(value) in (dict, list) and at.depth == 0:
        raise JsonError(at.path, value, TOO_DEEP)
    if type(value) is dict:
        for key in value:
            check_key(key, at)
        return {key: plain(item, at.member(key)) for key, item in value.items()}
    if type(value) is list:
        return [plain(item, at.item(index)) for index, item in enumerate(value)]
    found = foreign.to_python(value)
    if cause := _cause_in_scalar(found):
        raise ValueError(cause)
    return found


def _label(key: str) -> str:
    return key if key.isidentifier() and key.isascii() else json.dumps(key)


def _shortened(path: str) -> str:
    return path if len(path) <= _PATH_MAX else f"{path[:_PATH_MAX]}…"


def check_key(key: Any, at: Place) -> None:
    """Check that JSON can have the key of a dict.

    Raises:
        JsonError: it cannot.
    """
    if type(key) is not str:
        raise JsonError(at.path, key, f"a key must be a str, not {scalars.type_name(key)}; write str(key)")
    if cause := _cause_in_text(key):
        raise JsonError(at.path, key, cause)


def _cause_in_text(text: str) -> str:
    try:
        scalars.check_unicode(text)
    except ValueError as error:
        return str(error)
    return ""


def _cause_in_scalar(value: Any) -> str:
    if type(value) is str:
        return _cause_in_text(value)
    if type(value) is float:
        return "" if math.isfinite(value) else _NOT_FINITE
    if type(value) is int:
        digits = min(sys.get_int_max_str_digits() or DIGITS_MAX, DIGITS_MAX)
        return "" if abs(value) < 10**digits else f"it has more than {digits:,} digits; write a str, as by hex(value)"
    if value is None or type(value) is bool:
        return ""
    return f"JSON has no {scalars.type_name(value)}, and it would come back as something else; {_remedy(value)}"


#: What to write instead of instances of types that JSON does not have; the first type that fits decides.
_REMEDIES: Final = (
    (enum.Enum, "value.value"),
    *((base, f"{base.__name__}(value)") for base in (dict, list, str, int, float)),
    ((tuple, set, frozenset), "list(value)"),
    ((bytes, bytearray, memoryview), "value.hex(), or an instance of a class with a bytes field"),
    ((datetime.date, datetime.time), "value.isoformat()"),
)

#: The same by an attribute of the type: attrs classes, dataclasses, numpy and pandas, pydantic.
_REMEDIES_BY_ATTRIBUTE: Final = (
    ("__attrs_attrs__", "attrs.asdict(value)"),
    ("__dataclass_fields__", "dataclasses.asdict(value)"),
    ("tolist", "value.tolist()"),
    ("model_dump", 'value.model_dump(mode="json")'),
)


def _remedy(value: Any) -> str:
    for types, remedy in _REMEDIES:
        if isinstance(value, types):
            return f"write {remedy}"
    found = (remedy for attribute, remedy in _REMEDIES_BY_ATTRIBUTE if hasattr(type(value), attribute))
    return f"write {next(found, 'str(value), or what else describes it')}"
