"""Whatever is written, of whatever type: it is refused and nothing has changed, or it comes back as it was."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import math
import tempfile
import uuid
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeshard
from edgeshard.errors import RecordError
from edgeshard.records import json_values
from edgeshard.records.declare import table_of
from edgeshard.records.json_values import JsonError, Place
from tests.support.enums import Colour, Level, Word
from tests.support.few_examples import QUIET
from tests.support.forms import short_and_full


class Ratio(enum.Enum):
    HALF = 0.5
    NONE = float("nan")


class Text(str):
    __slots__ = ()


class Number(int):
    __slots__ = ()


class Moment(datetime.datetime):
    pass


#: Any str: also with U+0000, and with lone surrogates.
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)

INTS = st.one_of(
    st.integers(),
    st.integers(-2, 2),
    st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**1024]),
    st.sampled_from([4_299, 4_300]).map(lambda digits: 10**digits),  # the second cannot even be shown
)

FLOATS = st.one_of(st.floats(), st.sampled_from([-0.0, math.nan, math.inf, 1e308, 5e-324, 1e22]))

KEYS = st.one_of(TEXTS, TEXTS, TEXTS, INTS, st.sampled_from([None, True, 1.5, "1", Text("t"), Word.YES, (1,)]))

ZONES = st.sampled_from([None, datetime.UTC, datetime.timezone(datetime.timedelta(hours=-9, minutes=-30))])

MEMBERS = st.sampled_from([*Colour, *Level, *Word, *Ratio])

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    INTS,
    FLOATS,
    TEXTS,
    st.binary(max_size=4),
    st.decimals(),
    st.decimals(allow_nan=False).map(lambda value: value.scaleb(-40)),
    st.sampled_from(["sNaN", "-NaN", "NaN1", "1E+200000", "-0.0"]).map(decimal.Decimal),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=ZONES),
    st.builds(Moment, st.just(2026), st.just(1), st.just(1), tzinfo=ZONES),
    MEMBERS,
    st.builds(Text, st.just("t")),
    st.builds(Number, st.just(7)),
    st.fractions(),
    st.binary(max_size=2).map(bytearray),
)

#: What a dict or list may have in it, exact or not.
INSIDE = st.recursive(
    st.one_of(st.none(), st.booleans(), INTS, FLOATS, TEXTS, SCALARS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=2).map(collections.OrderedDict),
    ),
    max_leaves=6,
)

DICTS = st.one_of(
    st.dictionaries(KEYS, INSIDE, max_size=3),
    st.dictionaries(st.text(max_size=3), INSIDE, max_size=3),
    st.integers(95, 110).map(lambda levels: json.loads('{"a":' * levels + "1" + "}" * levels)),
)

LISTS = st.one_of(st.lists(INSIDE, max_size=3), st.integers(95, 110).map(lambda n: json.loads("[" * n + "]" * n)))

KINDS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: INTS,
    float: FLOATS,
    str: TEXTS,
    bytes: st.binary(max_size=4),
    datetime.datetime: st.datetimes(timezones=ZONES),
    datetime.date: st.dates(),
    decimal.Decimal: st.decimals(),
    uuid.UUID: st.uuids(),
    dict: DICTS,
    list: LISTS,
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Word: st.sampled_from(Word),
    Ratio: st.sampled_from(Ratio),
    datetime.timedelta: st.timedeltas(),
    datetime.time: st.times(timezones=ZONES),
    Path: st.one_of(TEXTS.map(Path), TEXTS),
    list[int]: st.lists(st.one_of(INTS, INSIDE), max_size=3),
    dict[str, float]: st.dictionaries(KEYS, FLOATS, max_size=3),
    list[float | None]: st.lists(st.one_of(FLOATS, st.none()), max_size=3),
    dict[str, tuple[Colour, datetime.datetime]]: st.dictionaries(
        st.text(max_size=2), st.tuples(MEMBERS, st.datetimes(timezones=ZONES)), max_size=2
    ),
    set[decimal.Decimal]: st.sets(st.decimals(allow_nan=False), max_size=3),
}


def probe(number: int, kind: Any) -> Any:
    fields = {"n": attrs.field(type=int), "x": attrs.field(type=kind)}
    return attrs.make_class(f"Probe{number}", fields, frozen=True, eq=False)


#: A class for each type of a field, required and Optional.
CLASSES = [probe(number, kind) for number, kind in enumerate([*KINDS, *(kind | None for kind in KINDS)])]


def values_for(number: int) -> st.SearchStrategy[tuple[int, Any]]:
    fitting = list(KINDS.values())[number % len(KINDS)]
    return st.tuples(st.just(number), st.one_of(fitting, fitting, SCALARS, DICTS, LISTS))


WRITES = st.lists(
    st.one_of(st.integers(0, len(CLASSES) - 1).flatmap(values_for), st.tuples(st.none(), st.one_of(DICTS, LISTS))),
    min_size=1,
    max_size=20,
)


def same(written: Any, read: Any) -> bool:
    """Return whether two values, and all that is in them, are of the same types and equal."""
    if type(written) is not type(read):
        return False
    if isinstance(written, dict):
        return written.keys() == read.keys() and all(
            same(key, other) and same(item, read[other])
            for (key, item), other in zip(written.items(), read, strict=True)
        )
    if isinstance(written, (list, tuple)):
        return len(written) == len(read) and all(map(same, written, read))
    return bool(written == read or repr(written) == repr(read))


def expected(cls: Any, value: Any) -> Any:
    """Return what must come back for a value that was accepted: only ints in float fields and time zones change."""
    if attrs.fields(cls).x.type in (float, float | None) and type(value) is int:
        return float(value)
    return in_utc(value)


def in_utc(value: Any) -> Any:
    """Return a value with all times in it in UTC."""
    if type(value) is dict:
        return {key: in_utc(item) for key, item in value.items()}
    if type(value) is tuple:
        return tuple(map(in_utc, value))
    return value.astimezone(datetime.UTC) if isinstance(value, datetime.datetime) else value


@pytest.mark.parametrize("examples", short_and_full(8, 400))
def test_what_is_accepted_comes_back_and_what_is_not_leaves_the_shard_usable(examples: int) -> None:
    limits = settings(max_examples=examples, deadline=None, suppress_health_check=QUIET)
    limits(given(WRITES)(write_and_read))()


def write_and_read(writes: list[tuple[Any, Any]]) -> None:
    accepted: dict[Any, list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = edgeshard.Store(Path(folder))
        with store.shard("agent") as shard:
            seq = 0
            for number, value in writes:
                cls: Any = dict if number is None else CLASSES[number]
                record = {"n": seq, "x": value} if number is None else cls(seq, value)
                try:
                    written = shard.write(record)
                except RecordError as error:
                    assert ".x = " in str(error) or ".x" in str(error).split(" = ")[0], error
                    continue
                seq += 1
                assert seq == written
                accepted.setdefault(cls, []).append(value)
            assert seq + 1 == shard.write({"n": "last"})
        store.merge()
        *dicts, last = store.read(edgeshard.AgentData)
        assert "last" == last.data["n"]
        assert same(accepted.pop(dict, []), [record.data["x"] for record in dicts])
        for cls, values in accepted.items():
            assert same([expected(cls, value) for value in values], [record.x for record in store.read(cls)])
            if table_of(cls).columns[1].type == "json":
                assert [] == store.query(f"select x from {cls.__name__.lower()} where not json_valid(x)")
        assert [] == store.query("select data from agent_data where not json_valid(data)")
        assert store.verify(deep=True).ok


def find_refusal(value: Any) -> JsonError | None:
    try:
        json_values.plain(value, Place())
    except JsonError as error:
        return error
    return None


@given(st.one_of(DICTS, LISTS))
@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
def test_the_fast_check_of_json_decides_as_the_rule_does(value: Any) -> None:
    error = find_refusal(value)
    if error is not None:
        with pytest.raises(JsonError) as caught:
            json_values.to_json(value)
        assert error.path == caught.value.path
        return
    text = json_values.to_json(value)
    assert same(value, json.loads(text))
    assert json_values.depth_of(text) <= json_values.DEPTH_MAX
    connection = apsw.Connection(":memory:")
    ((valid, tree),) = connection.execute("select json_valid(?1), (select count(*) from json_tree(?1))", (text,))
    assert valid
    assert tree
