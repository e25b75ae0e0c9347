"""Rows from lines of NDJSON and CSV: exactly what they say, or why not."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeshard.exchange import text_rows
from edgeshard.exchange.text_rows import HeaderError, LineError, NumberedRow
from edgeshard.records import json_values

Reader = Callable[[Iterable[bytes]], Iterator[NumberedRow]]


def read(reader: Reader, text: bytes, piece_bytes: int = 7) -> list[tuple[int, Any]]:
    """Return the rows of a file that arrives in pieces; a bad line as its cause."""
    lines = text_rows.split_lines(partial(io.BytesIO(text).read, piece_bytes))
    return [(number, str(row) if isinstance(row, LineError) else row) for number, row in reader(lines)]


ndjson = partial(read, text_rows.ndjson_rows)
csv = partial(read, text_rows.csv_rows)


def cause(line: bytes) -> str:
    """Return why a line of NDJSON is bad."""
    ((number, found),) = ndjson(line)
    assert (number, type(found)) == (1, str)
    return str(found)


# -- lines ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12)), st.integers(min_value=1, max_value=20))
def test_pieces_become_the_lines_of_the_file(parts: list[bytes], piece_bytes: int) -> None:
    text = b"\n".join(parts)
    assert list(text_rows.split_lines(partial(io.BytesIO(text).read, piece_bytes))) == [
        line.removesuffix(b"\n") for line in io.BytesIO(text)
    ]


def test_of_a_line_that_is_too_long_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_rows, "LINE_BYTES_MAX", 20)
    lines = list(text_rows.split_lines(partial(io.BytesIO(b'{"a":1}\n' + b"x" * 1000 + b'\n{"b":2}').read, 8)))
    assert [lines[0], lines[2]] == [b'{"a":1}', b'{"b":2}']
    assert 20 < len(lines[1]) < 40
    assert [number for number, row in text_rows.ndjson_rows(lines) if isinstance(row, LineError)] == [2]


# -- NDJSON -----------------------------------------------------------------------------------------------------------


def test_each_object_is_a_row_with_the_number_of_its_line() -> None:
    assert ndjson(b'\xef\xbb\xbf{"open": true}\r\n\n  {"a": [1, {"b": null}], "\xc3\xa9": "\\u00e9\\n"} \n{}') == [
        (1, {"open": True}),
        (3, {"a": [1, {"b": None}], "é": "é\n"}),
        (4, {}),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": 1', "it is not JSON: character 8: Expecting ',' delimiter"),
        (b"open", "it is not JSON: character 1: Expecting value"),
        (b"[1]", "it is an array, and a row is an object; NDJSON is not one array, but an object per line"),
        (b"[", "it is not JSON: character 2: Expecting value; NDJSON is not one array"),
        (b"7", "it is a number, and a row is an object"),
        (b'"a"', "it is a text, and"),
        (b"null", "it is null, and"),
        (b"true", "it is true or false, and"),
        (b'{"a": 1} {"a": 2}', "the object ends at character 8, and more follows; write one object per line"),
        (b'{"a": 1}\x0c', "the object ends at character 8"),
        (b'{"a": NaN}', "$.a: JSON has no NaN; write null"),
        (b'{"a": [0, {"b": -Infinity}]}', "$.a[1].b: JSON has no -Infinity; write null"),
        (b'{"a b": {"c": 1, "d": 2, "c": 1}}', '$."a b".c: this key occurs twice'),
        (b'{"a": 1e400}', "$.a: 1e400: a float would round it; write it as a text, in quotes"),
        (b'{"a": 1e-400}', "$.a: 1e-400: a float would round it"),
        (b'{"a": 1.5e-323}', ""),
        (b'{"a": 1.2345e-320}', "$.a: 1.2345e-320: a float would round it"),
        (b'{"a": 12345678901234567.89}', "$.a: 12345678901234567.89: a float would round it"),
        (b'{"a": 9007199254740993.0}', "$.a: 9007199254740993.0: a float would round it"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it has more than 4,300 digits; write it as a text, in quotes"),
        (b'{"a": "\xff"}', "it is not UTF-8 (byte 8 is 0xff); convert the input first"),
        (b'{"a":' * 100_000, json_values.TOO_DEEP),
        (b'{"a": NaN, "b":' + b"[" * 100_000, json_values.TOO_DEEP),
        (b'{"b":' + b"[" * 200 + b"NaN" + b"]" * 200 + b"}", json_values.TOO_DEEP),
        (b'{"a": NaN, "b": }', "it is not JSON: character 17"),
        (b'{"a": ["x\\ud83d"]}', "$.a[0]: it has half of a surrogate pair"),
        (b'{"\\uDE00": 1}', '$: its key "\\ude00": it has half of a surrogate pair'),
        (b'{"\\ud83d\\ude00": "\\ud83d\\ude00 \\\\ud83d"}', ""),
    ],
)
def test_what_is_no_row_is_explained(line: bytes, expected: str) -> None:
    if expected:
        assert expected in cause(line)
    else:
        assert isinstance(ndjson(line)[0][1], dict)


def test_after_a_bad_line_reading_goes_on() -> None:
    assert [(number, type(row)) for number, row in ndjson(b'{}\n{"a": NaN}\n{"a":\n{}\n')] == [
        (1, dict),
        (2, str),
        (3, str),
        (4, dict),
    ]


def test_an_object_may_have_several_lines_where_it_is_not_read_from_lines() -> None:
    assert text_rows.json_row(b'{\n "a": 1\n}\n') == {"a": 1}
    assert text_rows.json_row(b" \n") is None
    with pytest.raises(LineError, match="line 2 of it, character 6"):
        text_rows.json_row(b'{\n "a" 1\n}')


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(min_value=0, max_value=30))
def test_a_float_is_read_however_many_of_its_digits_are_printed(value: float, more_digits: int) -> None:
    for text in (repr(value), f"{value:.16e}", f"{value:.{17 + more_digits}g}", f"{value:.{400 + more_digits}f}"):
        assert ndjson(b'{"a": %s}' % text.encode()) == [(1, {"a": float(text)})]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None))
def test_a_number_is_the_float_that_prints_as_it_or_is_refused(value: Any) -> None:
    text = f"{value:e}"
    ((_, found),) = ndjson(b'{"a": %s}' % text.encode())
    if isinstance(found, dict):
        digits = len(value.as_tuple().digits)
        assert type(value)(f"{found['a']:.{digits - 1}e}") == value
    else:
        assert "would round it" in found


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_what_json_wrote_is_read_as_it_was(row: dict[str, Any]) -> None:
    assert ndjson(json.dumps(row).encode() + b"\n" + json.dumps(row, ensure_ascii=False).encode(), 64) == [
        (1, row),
        (2, row),
    ]


# -- CSV --------------------------------------------------------------------------------------------------------------


def test_each_record_is_a_row_with_the_number_of_its_first_line() -> None:
    text = b'\xef\xbb\xbfname,"note, long",n\r\na,"two\r\nlines ""so""",1\r\n\r\nb,,2.5\nc,"x\n\ny",\n'
    assert csv(text) == [
        (2, {"name": "a", "note, long": 'two\r\nlines "so"', "n": 1}),
        (5, {"name": "b", "note, long": None, "n": 2.5}),
        (6, {"name": "c", "note, long": "x\n\ny", "n": None}),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("", None),
        ("7", 7),
        ("-0.5", -0.5),
        ("1e+16", 1e16),
        ("1e-05", 1e-05),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), str(2**63)),
        ("9" * 5000, "9" * 5000),
        ("1.5e+300", 1.5e300),
        *((text, text) for text in ("007", "1.10", "1e3", "-0", "+1", "1_000", " 1", "1 ", "٣", "-", "nan", "-inf")),
        *((text, text) for text in ("true", "null", "2026-11-30", "0x10", "1e999", "x")),
    ],
)
def test_a_field_is_a_number_only_if_it_is_written_as_that_number(field: str, value: Any) -> None:
    found = text_rows.csv_value(field)
    assert (found, type(found)) == (value, type(value))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_a_number_that_python_wrote_is_that_number(value: float) -> None:
    found = text_rows.csv_value(str(value))
    assert (found, type(found)) == (value, type(value))
    assert math.copysign(1, float(str(found))) == math.copysign(1, value)


def test_without_rows_there_are_none() -> None:
    assert csv(b"") == csv(b"\n\n") == csv(b"a,b\n") == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"a,,b", "column 2 has no name; the first line must name each column"),
        (b"a,b,a", "two columns are called 'a'; the first line must name each column once"),
        (b"a,\xff", "it is not UTF-8 (byte 3 is 0xff)"),
        (b'a,"b', "it is not CSV"),
    ],
)
def test_a_header_must_name_each_column_once(header: bytes, expected: str) -> None:
    with pytest.raises(HeaderError) as raised:
        csv(header + b"\n1,2,3\n")
    assert expected in str(raised.value)


def test_bad_records_are_explained_and_reading_goes_on() -> None:
    found = csv(b'a,b\n1\n1,2,3\n"x"y,2\n1,\xff\n3,4\n"5,\n')
    assert [number for number, _ in found] == [2, 3, 4, 5, 6, 7]
    causes = [row for _, row in found]
    assert causes[0] == "it has no field for the column 'b'; the first line of the file names: a, b"
    assert causes[1] == "its field '3' has no column; the first line of the file names: a, b"
    assert "it is not CSV" in causes[2]
    assert "it is not UTF-8 (byte 3 is 0xff)" in causes[3]
    assert causes[4] == {"a": 3, "b": 4}
    assert "it is not CSV: unexpected end of data" in causes[5]


def test_a_quote_that_is_never_closed_swallows_a_limited_number_of_lines() -> None:
    found = csv(b'a,b\n1,"2\n' + b"3,4\n" * 50_000, 65_536)
    assert found[0][0] == 2
    assert "field larger than field limit" in found[0][1]
    assert found[-1] == (50_002, {"a": 3, "b": 4})
