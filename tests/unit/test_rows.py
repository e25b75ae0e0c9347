"""Rows of a query: values by name and by position, whatever the columns are called."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
from typing import Any

import pytest

import edgeshard
from edgeshard import Row, Rows
from edgeshard.records.rows import distinct, row_maker


def made(*names: str) -> Row:
    """Return a row whose values are 0, 1, 2 ..."""
    return row_maker(names)(range(len(names)))


#: Names that a named tuple could not have, or that tuples and this class use themselves.
NAMES = (
    "agent_id", "_seq", "_stream", "class", "from", "a b", "count(*)", "count", "index", "keys", "_asdict", "_fields",
    "_make", "_replace", "_repr_html_", "__class__", "__len__", "__getitem__", "_Row__positions", "", "é", "x\0y", "1",
)  # fmt: skip


def test_every_name_gives_its_value_and_none_breaks_the_tuple() -> None:
    row = made(*NAMES)
    assert list(range(len(NAMES))) == [row[name] for name in NAMES]
    assert dict(zip(NAMES, range(len(NAMES)), strict=True)) == dict(row) == row._asdict() == {**row}
    assert list(NAMES) == row.keys() == list(row._fields)
    assert (len(NAMES), tuple(range(len(NAMES)))) == (len(row), tuple(row))
    reserved = {name for name in NAMES if getattr(row, name, None) != row[name]}
    assert {
        "keys", "_asdict", "_fields", "_make", "_replace", "_repr_html_", "_Row__positions",
        "__class__", "__len__", "__getitem__",
    } == reserved  # fmt: skip


def test_a_row_is_a_tuple() -> None:
    row = made("a", "b", "c")
    a, b, c = row
    plain = (0, 1, 2)
    assert [plain, plain] == [(a, b, c), row]
    assert [row] == [row_maker(("x", "y", "z"))(range(3))]
    assert hash(plain) == hash(row)
    assert (1, 2) == row[1:]
    assert (2, 2, 2) == (row[-1], row["c"], row.c)
    assert {Row, tuple} <= set(type(row).__mro__)
    assert [[0, 1, 2]] == json.loads(json.dumps([row]))
    with pytest.raises(AttributeError):
        setattr(row, "a", 5)  # noqa: B010
    with pytest.raises(TypeError):
        row[1.5]  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        row[3]


def test_a_missing_name_says_which_there_are() -> None:
    row = made("agent_id", "n")
    assert not hasattr(row, "agent")
    with pytest.raises(KeyError, match="no column 'agent'; the row has agent_id, n"):
        row["agent"]
    with pytest.raises(AttributeError, match="no column 'agent'; the row has agent_id, n"):
        _ = row.agent


def test_a_str_enum_is_a_name() -> None:
    class Name(enum.StrEnum):
        N = "n"

    assert 1 == made("agent_id", "n")[Name.N]
    with pytest.raises(KeyError):
        made("m")[Name.N]


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("a", "a"), ("a", "a_2")),
        (("a", "a_2", "a"), ("a", "a_2", "a_3")),
        (("a", "a", "a_2"), ("a", "a_3", "a_2")),
        (("a", "a", "a", "b", "b"), ("a", "a_2", "a_3", "b", "b_2")),
        (("a", "A"), ("a", "A")),
        (("", ""), ("", "_2")),
        ((), ()),
    ],
)
def test_a_repeated_name_gets_a_number_and_no_value_is_lost(names: tuple[str, ...], columns: tuple[str, ...]) -> None:
    assert columns == distinct(names) == made(*names)._fields
    assert dict(zip(columns, range(len(names)), strict=True)) == dict(made(*names))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_rows_can_be_pickled_and_copied(protocol: int) -> None:
    row = made("a", "a", "count", "class")
    rows = Rows([row, row], row._fields)
    for again in (pickle.loads(pickle.dumps(rows, protocol)), copy.copy(rows), copy.deepcopy(rows), rows[:]):
        assert (rows, Rows, rows.columns) == (again, type(again), again.columns)
        assert (1, 2, Row) == (again[1].a_2, again[1].count, type(again[1]).__bases__[0])
    assert row == copy.copy(row) == copy.deepcopy(row)


def test_a_row_does_what_libraries_do_with_named_tuples() -> None:
    @dataclasses.dataclass
    class Holder:
        row: Any

    row = made("a", "b")
    assert {"row": (0, 1)} == dataclasses.asdict(Holder(row))
    assert ("b", 7) == (row._fields[1], row._replace(b=7).b)
    assert (5, 6) == type(row)._make([5, 6]) == type(row)(5, 6)
    with pytest.raises(TypeError, match="2 columns, but got 1 value"):
        type(row)._make([5])
    with pytest.raises(ValueError, match="no column 'c'"):
        row._replace(c=1)


# -- on a screen ------------------------------------------------------------------------------------------------------


def test_a_repr_has_the_names_and_the_values() -> None:
    row = row_maker(("agent_id", "a b", "class"))(["door-3", None, 1.5])
    assert "Row(agent_id='door-3', 'a b'=None, class=1.5)" == repr(row)
    assert "[Row(n=0), Row(n=1)]" == repr(Rows(map(row_maker(("n",)), [(0,), (1,)]), ("n",)))
    assert "[]" == repr(Rows((), ("n",)))


@pytest.mark.parametrize(
    "values",
    [
        ["x" * 10_000_000],
        [b"\0" * 10_000_000],
        [{"a": list(range(1_000))}],
        [10**5_000],
        list(range(2_000)),
        ["\x1b[2J\u202e\n"] * 30,
    ],
)
def test_a_repr_fits_on_a_screen_whatever_the_values_are(values: list[Any]) -> None:
    row = row_maker(tuple(f"column_{n}" for n in range(len(values))))(values)
    rows = Rows([row] * 100_000, row._fields)
    for text in (repr(row), repr(rows)):
        assert len(text) < 2_000
        assert text.isprintable()
    assert "99,9" in repr(rows)
    assert "more]" in repr(rows)


def test_rows_are_public() -> None:
    assert (Row, Rows) == (edgeshard.Row, edgeshard.Rows)
