"""Reading a class's rows: one bad row costs one row, and is named by its address."""

from __future__ import annotations

import datetime
import decimal
import inspect
import logging
import pickle
import re
import sys
import uuid
from typing import Any

import apsw
import attrs
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, UnreadableRowError
from edgeshard.master import reading
from tests.support.enums import Colour
from tests.support.records import NOON

TODAY = NOON.date()

KEY = uuid.UUID(int=7)


@attrs.frozen
class Everything:
    n: int
    flag: bool | None = True
    at: datetime.datetime = NOON
    day: datetime.date = TODAY
    money: decimal.Decimal = decimal.Decimal("1.5")
    key: uuid.UUID = KEY
    colour: Colour = Colour.RED
    mapping: dict[str, Any] = attrs.field(factory=dict)
    text: str = ""


@attrs.frozen
class Positive:
    n: int = attrs.field()

    @n.validator
    def _(self, _attribute: object, value: int) -> None:
        if value < 0:
            raise ValueError("too low")


#: SQL for values that no write through edgeshard makes, by column, with a word of the error.
BAD = [
    ("flag", "2", "it is 2, but a bool is stored as 0 or 1"),
    ("at", "'yesterday'", "Invalid isoformat"),
    ("day", "'2026-02-30'", "day is out of range"),
    ("money", "'much'", "ConversionSyntax"),
    ("key", "'x'", "badly formed"),
    ("colour", "'green'", "'green' is not a valid Colour"),
    ("mapping", "'{'", "Expecting property name"),
    ("mapping", "replace(hex(zeroblob(50000)), '0', '[')", "recursion"),
    ("mapping", "'[' || replace(hex(zeroblob(2500)), '0', '1') || ']'", "4300 digits"),
    ("text", "CAST(x'ff' AS TEXT)", "not valid UTF-8"),
    ("mapping", "CAST(x'22ff22' AS TEXT)", "not valid UTF-8"),
]


@pytest.fixture
def filled(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> edgeshard.Store:
    """Return a store with rows of two agents in its master, which are read in portions of four."""
    monkeypatch.setattr(reading, "PORTION_ROWS", 4)
    for agent in ("a", "b"):
        with store.shard(agent) as shard:
            shard.write_many(Everything(n) for n in range(10))
    store.merge()
    return store


def change(store: edgeshard.Store, statement: str) -> None:
    """Change the master as another program could."""
    connection = apsw.Connection(str(store.master_path))
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(("column", "value", "words"), BAD)
def test_a_row_that_cannot_be_read_costs_one_row_and_is_named_by_its_address(
    filled: edgeshard.Store, caplog: pytest.LogCaptureFixture, column: str, value: str, words: str
) -> None:
    change(filled, f"update everything set {column} = {value} where _id = 13")
    rows = filled.read(Everything)
    assert [*range(10), 0, 1] == [next(rows).n for _ in range(12)]
    with pytest.raises(UnreadableRowError, match=re.escape(words)) as caught:
        next(rows)
    error = caught.value
    assert ("everything", 13, "b", 3) == (error.table, error.row_id, error.agent, error.seq)
    streams: dict[str, str] = dict(filled.query("select agent_id, hex(stream_id) from _edgeshard_streams"))
    assert streams["b"].lower() == error.stream
    assert f"row 13 of everything (agent 'b', stream {error.stream}, seq 3)" in str(error)
    assert vars(error) == vars(pickle.loads(pickle.dumps(error)))
    with caplog.at_level(logging.WARNING, "edgeshard.read"):
        left = [record.n for record in filled.read(Everything, on_error="skip")]
    assert [*range(10), 0, 1, *range(3, 10)] == left
    assert [f"left out: {error}"] == [record.getMessage() for record in caplog.records]


def test_every_row_may_be_bad(filled: edgeshard.Store) -> None:
    change(filled, "update everything set text = CAST(x'ff' AS TEXT)")
    assert [] == list(filled.read(Everything, on_error="skip"))


def test_a_row_that_the_class_itself_refuses_is_named(store: edgeshard.Store) -> None:
    wide = attrs.make_class("Positive", {"n": attrs.field(type=int)})
    with store.shard("agent") as shard:
        shard.write_many(map(wide, (1, -1, 2)))
    store.merge()
    with pytest.raises(UnreadableRowError, match=r"row 2 of positive .*Positive refuses it: ValueError\('too low'\)"):
        list(store.read(Positive))
    assert [1, 2] == [record.n for record in store.read(Positive, on_error="skip")]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_reader_that_has_used_up_the_stack_loses_no_row(store: edgeshard.Store, on_error: Any) -> None:
    nested: dict[str, Any] = {}
    for _ in range(99):
        nested = {"a": nested}
    with store.shard("agent") as shard:
        shard.write(nested)
    store.merge()

    def deeper(frames: int) -> int:
        return deeper(frames - 1) if frames else len(list(store.read(edgeshard.AgentData, on_error=on_error)))

    here = len(inspect.stack(0))
    found = set()
    for left in (400, 150, 120, 110, 100, 90, 80, 60):
        try:
            found.add(deeper(sys.getrecursionlimit() - here - left))
        except RecursionError:
            found.add(-1)
    assert {1, -1} == found


def test_an_unknown_way_with_errors_is_refused_at_once(store: edgeshard.Store) -> None:
    way: Any = "ignore"
    store.init()
    with pytest.raises(ConfigurationError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        store.read(Everything, on_error=way)


def test_reading_fresh_sees_what_is_written_before_the_call(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write(Positive(1))
        assert [] == list(store.read(Positive))
        reading_now = store.read(Positive, fresh=True)  # it merges when it is called, not when the first row is taken
        shard.write(Positive(2))
        assert [Positive(1)] == list(reading_now)
        assert [Positive(1), Positive(2)] == list(store.read(Positive, fresh=True))
