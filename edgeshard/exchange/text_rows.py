"""Read rows from lines of text, which are NDJSON or CSV: each row has the number of its line, or the line is bad.

NDJSON has one JSON object per line. What it says is stored exactly, or its line is bad: a number that a float would
round, a key that occurs twice, and NaN, which JSON lacks.

CSV (RFC 4180) has the names of the columns in its first line, and its fields are separated by commas. It has no types,
so a field becomes a number only if it is written exactly as that number prints (7, -0.5; not 007, 1.10 or 1e3), and
None if it is empty. Everything else is text. So each field can be written again as it was.

Both are UTF-8, with or without a byte order mark. Blank lines are skipped, and count.
"""

from __future__ import annotations

import codecs
import decimal
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs

from edgeshard import format
from edgeshard.records import scalars
from edgeshard.records.json_values import DIGITS_MAX, TOO_DEEP, Place

#: The longest line that is kept in memory, in bytes: no longer one fits in a row.
LINE_BYTES_MAX: Final = format.ROW_BYTES_MAX

#: A text that is shorter, and has no exponent, has at most 15 digits, which a float always holds.
_SURELY_EXACT_CHARACTERS: Final = 17

_JSON_SPACE: Final = b" \t\r\n"

_NAMES: Final = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}

_ROUNDED: Final = "a float would round it; write it as a text, in quotes"

_HALF_PAIR: Final = "it has half of a surrogate pair, as in text that was cut off; write whole characters"

#: How many names of columns an error lists.
_COLUMNS_SHOWN: Final = 20

_SHOWN_CHARACTERS: Final = 80


class LineError(ValueError):
    """A line is not a row. The text says why, names the field if one is at fault, and says what to write instead."""


class HeaderError(ValueError):
    """The first line of a CSV file does not name its columns. The text says why, and what to write instead."""


#: The number of a line, from 1, and its row, or why there is none.
NumberedRow = tuple[int, dict[str, Any] | LineError]


def split_lines(read: Callable[[], bytes]) -> Iterator[bytes]:
    r"""Yield the lines of a file without their "\n", holding one piece and one line in memory.

    Of a line of more than `LINE_BYTES_MAX` bytes only the beginning is yielded, with at least one byte too many.

    Args:
        read: returns the next piece of the file, or b"" at its end.
    """
    begun: list[bytes] = []
    begun_bytes = 0
    while piece := read():
        first, newline, others = piece.partition(b"\n")
        if begun_bytes <= LINE_BYTES_MAX:
            begun.append(first)
            begun_bytes += len(first)
        if newline:
            yield b"".join(begun)
            *whole, last = others.split(b"\n")
            yield from whole
            begun, begun_bytes = [last], len(last)
    if begun_bytes:
        yield b"".join(begun)


def _text_of(line: bytes) -> str:
    """Decode a line, or a few.

    Raises:
        LineError: it is too long, or is not UTF-8.
    """
    if len(line) > LINE_BYTES_MAX:
        raise LineError(f"it has more than {LINE_BYTES_MAX:,} bytes, and no row has; write it in parts")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} is 0x{line[error.start]:02x}"
        raise LineError(f"it is not UTF-8 ({byte}); convert the input first, as with iconv") from error


# -- NDJSON -----------------------------------------------------------------------------------------------------------


def ndjson_rows(lines: Iterable[bytes]) -> Iterator[NumberedRow]:
    """Yield the rows of NDJSON.

    Args:
        lines: the lines of the file, as `split_lines` yields them.
    """
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            row = json_row(line)
        except LineError as error:
            yield number, error
        else:
            if row is not None:
                yield number, row


def json_row(line: bytes) -> dict[str, Any] | None:
    """Return the row that a JSON text is, or None if there is only white space.

    Whether it fits in a row is for the shard to say: it may have too many bytes, or levels.

    Raises:
        LineError: it is not JSON, or no object, or something in it cannot be stored exactly.
    """
    text = _text_of(line.strip(_JSON_SPACE))
    if not text:
        return None
    try:
        row, end = _decode(text)
    except (ValueError, RecursionError) as error:
        raise LineError(_why_refused(text)) from error
    if row.__class__ is not dict:
        raise LineError(f"it is {_NAMES.get(type(row), 'a number')}, and a row is an object{_array_advice(text)}")
    if end != len(text):
        raise LineError(f"the object ends at character {end}, and more follows; write one object per line")
    if "\\ud" in text or "\\uD" in text:  # halves of surrogate pairs, perhaps not in pairs
        for cause in _all_refused(row, Place()):
            raise LineError(cause)
    return row


def _array_advice(text: str) -> str:
    is_array = text.startswith("[")
    return "; NDJSON is not one array, but an object per line, as `jq -c '.[]'` writes it" if is_array else ""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) != len(members):
        raise ValueError
    return made


def _float(text: str) -> float:
    value = float(text)
    if len(text) < _SURELY_EXACT_CHARACTERS and "e" not in text and "E" not in text:
        return value
    if not _is_exact(text, value):
        raise ValueError
    return value


def _is_exact(text: str, value: float) -> bool:
    """Return whether a text is how its float is written with that many digits: no digit of it is lost.

    Programs print floats with up to 17 digits, and some with more, which are still those of the float.
    """
    if repr(value) == text:
        return True
    if not math.isfinite(value):
        return False
    written = decimal.Decimal(text)
    digits = len(written.as_tuple().digits)
    return decimal.Decimal(f"{value:.{digits - 1}e}") == written


def _constant(_: str) -> Any:
    raise ValueError


_decode: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant).raw_decode


# -- what is wrong with a JSON text, and where -------------------------------------------------------------------------


@attrs.frozen
class _Refused:
    """Stands for a value that was refused.

    Attributes:
        cause: why, and what to write instead.
    """

    cause: str


def _why_refused(text: str) -> str:
    """Return what is wrong with a JSON text, and where."""
    try:
        value, _ = _decode_marked(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} of it, " if error.lineno > 1 else ""
        return f"it is not JSON: {line}character {error.colno}: {error.msg}{_array_advice(text)}"
    except RecursionError:
        return TOO_DEEP
    return next(_all_refused(value, Place()))


def _all_refused(value: Any, at: Place) -> Iterator[str]:
    """Yield which values are refused, and why."""
    if isinstance(value, _Refused):
        yield f"{_shown(at.path)}: {value.cause}"
    elif isinstance(value, (dict, list)) and at.depth == 0:
        yield f"{_shown(at.path)}: {TOO_DEEP}"
    elif isinstance(value, str) and not _is_encodable(value):
        yield f"{_shown(at.path)}: {_HALF_PAIR}"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _is_encodable(key):
                yield f"{_shown(at.path)}: its key {_shown(json.dumps(key))}: {_HALF_PAIR}"
            yield from _all_refused(item, at.member(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _all_refused(item, at.item(index))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _marked_object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in members:
        made[key] = _Refused("this key occurs twice; write each key once") if key in made else value
    return made


def _marked_float(text: str) -> Any:
    value = float(text)
    return value if _is_exact(text, value) else _Refused(f"{_shown(text)}: {_ROUNDED}")


def _marked_int(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return _Refused(f"{_shown(text)}: it has more than {DIGITS_MAX:,} digits; write it as a text, in quotes")


def _marked_constant(text: str) -> Any:
    return _Refused(f"JSON has no {text}; write null")


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


_decode_marked: Final = json.JSONDecoder(
    object_pairs_hook=_marked_object,
    parse_float=_marked_float,
    parse_int=_marked_int,
    parse_constant=_marked_constant,
).raw_decode


# -- CSV --------------------------------------------------------------------------------------------------------------


def csv_rows(lines: Iterable[bytes]) -> Iterator[NumberedRow]:
    """Yield the rows of CSV. A row whose fields have line breaks has the number of its first line.

    A field has at most 131,072 characters, the limit of Python's reader: it also bounds what a quote that is never
    closed swallows. After such a bad row, reading goes on with the next line.

    Args:
        lines: the lines of the file, as `split_lines` yields them.

    Raises:
        HeaderError: the first line does not name the columns.
    """
    names: list[str] = []
    for number, fields in _csv_records(lines):
        if not names:
            names = _checked_header(fields)
        elif isinstance(fields, LineError):
            yield number, fields
        elif len(fields) != len(names):
            yield number, LineError(_wrong_count(fields, names))
        else:
            yield number, dict(zip(names, map(csv_value, fields), strict=True))


def csv_value(field: str) -> int | float | str | None:
    """Return the value of a field of CSV: None if it is empty, a number if it is written as one, otherwise the text."""
    return scalars.number_or_text(field) if field else None


class _TextLines:
    """Decodes lines for a CSV reader, counts them, and goes on after one that cannot be decoded."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.number = 0

    def __iter__(self) -> _TextLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        if self.number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        return _text_of(line) + "\n"


def _csv_records(lines: Iterable[bytes]) -> Iterator[tuple[int, list[str] | LineError]]:
    import csv  # which few commands need

    source = _TextLines(lines)
    reader = csv.reader(source, strict=True)
    while True:
        number = source.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except LineError as error:
            yield number, error
        except csv.Error as error:
            yield number, LineError(f"it is not CSV: {error}; put quotes around texts, and double those inside")
        else:
            if fields:
                yield number, fields


def _checked_header(fields: list[str] | LineError) -> list[str]:
    """Return the names of the columns.

    Raises:
        HeaderError: there are none, or one is empty or occurs twice.
    """
    if isinstance(fields, LineError):
        raise HeaderError(str(fields)) from fields
    seen: set[str] = set()
    for place, name in enumerate(fields, 1):
        if not name:
            raise HeaderError(f"column {place} has no name; the first line must name each column")
        if name in seen:
            raise HeaderError(f"two columns are called {_shown(name)!r}; the first line must name each column once")
        seen.add(name)
    return fields


def _wrong_count(fields: list[str], names: list[str]) -> str:
    if len(fields) < len(names):
        fault = f"it has no field for the column {_shown(names[len(fields)])!r}"
    else:
        fault = f"its field {_shown(fields[len(names)])!r} has no column"
    shown = ", ".join(map(_shown, names[:_COLUMNS_SHOWN])) + (", …" if len(names) > _COLUMNS_SHOWN else "")
    return f"{fault}; the first line of the file names: {shown}"
