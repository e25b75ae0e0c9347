"""A value is stored exactly, or refused with an error that names the field, the path, the value and a remedy."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import re
import sys
import typing
import uuid
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, QueryError, RecordError
from edgeshard.records import codecs, json_values
from edgeshard.records.declare import dict_table, table_of
from tests.support.enums import Colour, Level, Word
from tests.support.records import NOON

UTC = datetime.UTC


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Blob(bytes):
    __slots__ = ()


class Real(float):
    __slots__ = ()


class Moment(datetime.datetime):
    """Like pandas.Timestamp: a datetime with more than a datetime has."""


class Day(datetime.date):
    pass


class Money(decimal.Decimal):
    pass


class Key(uuid.UUID):
    pass


class Span(datetime.timedelta):
    pass


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no description")


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def endless() -> dict[str, Any]:
    value: list[Any] = []
    value += [value, value]
    return {"a": value}


#: For each type of a field: values that come back as they were, and values that do not, with a word of the error.
FIELDS: list[tuple[Any, list[Any], list[tuple[Any, str]]]] = [
    (
        bool,
        [True, False],
        [(1, "expected bool, got int"), (0, "bool"), (2, "bool"), (1.0, "bool"), ("true", "bool"), (None, "Optional")],
    ),
    (
        int,
        [0, 2**63 - 1, -(2**63)],
        [
            (True, "bool is a subclass of int"), (Level.LOW, r"write int\(value\), or declare the field as Level"),
            (2**63, "64 bits"), (-(2**63) - 1, "64 bits"), (10**5000, "64 bits"),
            (3.0, "expected int, got float"), (1.5, "got float"), (float("nan"), "got NaN; declare the field Optional"),
            (float("inf"), "got float"), ("12", "got str"), (decimal.Decimal(1), "Decimal"), (None, "Optional"),
        ],
    ),
    (
        float,
        [0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf")],
        [
            (float("nan"), "NaN"), (2**53 + 1, "a float holds only 53 bits"), (1_700_000_000_123_456_789, "53 bits"),
            (2**63 - 1, "53 bits"), (2**64 - 1, "53 bits"), (10**400, "53 bits"), (10**5000, "53 bits"),
            (True, "bool"), (Real(1), r"write float\(value\)"), ("1.5", "got str"), (fractions.Fraction(1), "Fraction"),
            (None, "Optional"),
        ],
    ),
    (
        str,
        ["", "äö\0ü", "😀", "12"],
        [
            ("\ud800", "half of a surrogate pair at 0"), ("cut \ud83d", "at 4.*replace"), (Text("x"), r"str\(value\)"),
            (Word.YES, "declare the field as Word"), (b"x", "got bytes"), (1, "expected str, got int"),
            (pathlib.Path("x"), "PosixPath; convert it$"), (None, "Optional"),
        ],
    ),
    (
        bytes,
        [b"", b"\0\xff"],
        [(bytearray(b"x"), "bytearray"), (memoryview(b"x"), "memoryview"), (Blob(b"x"), "Blob"), ("x", "str"), (None, "O")],
    ),
    (
        datetime.datetime,
        [NOON, datetime.datetime.min.replace(tzinfo=UTC), datetime.datetime.max.replace(tzinfo=UTC)],
        [
            (datetime.datetime(2026, 1, 1), "no time zone"), (Moment(2026, 1, 1, tzinfo=UTC), "floor"),
            (datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-5))), "1 and 9999"),
            (NOON.date(), "got date"), ("2026-01-01T00:00:00+00:00", "got str"), (1.5, "got float"), (None, "Optional"),
        ],
    ),
    (
        datetime.date,
        [datetime.date.min, datetime.date.max],
        [(NOON, r"value\.date\(\)"), (Day(2026, 1, 1), "Day"), ("2026-01-01", "got str"), (None, "Optional")],
    ),
    (
        decimal.Decimal,
        list(map(decimal.Decimal, ["0", "-0.00", "71.50", "1E+200000", "1E-999999", "Infinity", "-Infinity", "NaN"])),
        [
            (decimal.Decimal("sNaN"), "quiet"), (decimal.Decimal("-NaN"), "sign"), (decimal.Decimal("NaN7"), "digits"),
            (Money("1.5"), "Money"), (1.5, r"write Decimal\(str\(value\)\)"), (1, "got int"), (None, "Optional"),
        ],
    ),
    (
        uuid.UUID,
        [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)],
        [(Key(int=7), "Key"), (str(uuid.UUID(int=7)), r"UUID\(str\(value\)\)"), (7, "got int"), (None, "Optional")],
    ),
    (Colour, [Colour.RED], [("red", r"write a member, as by Colour\(value\)"), ("green", "member"), (None, "Optional")]),
    (Level, [Level.LOW], [(1, "expected Level, got int"), (True, "got bool"), (None, "Optional")]),
    (Word, [Word.YES], [("yes", "expected Word, got str"), (None, "Optional")]),
    (Mode, [Mode.READ, Mode.READ | Mode.WRITE, Mode(0)], [(1, "got int"), (None, "Optional")]),
    (
        dict,
        [{}, {"a": {"b": [1, None, 0.5, True, "😀"]}, "": 1, 'q"': 2}, {"n": 2**70, "z": -0.0}, nested(100)],
        [
            ([], "expected dict, got list"), (collections.OrderedDict(a=1), r"dict\(value\)"), ("{}", "got str"),
            (nested(101), "more than 100 levels"), (endless(), "contains itself"), (None, "Optional"),
        ],
    ),
    (list, [[], [3, [2, {"a": 1}]]], [({}, "got dict"), ((1, 2), "got tuple"), ({1}, "got set"), (None, "Optional")]),
    (
        datetime.timedelta,
        [datetime.timedelta(0), datetime.timedelta(days=-1, microseconds=1), datetime.timedelta(days=10**8)],
        [(datetime.timedelta.max, "64 bits"), (5, "got int"), (Span(1), "a subclass of timedelta"), (None, "Optional")],
    ),
    (
        datetime.time,
        [datetime.time.min, datetime.time.max, datetime.time(12, 30)],
        [
            (datetime.time(1, tzinfo=UTC), "without a time zone"), (datetime.time(1, fold=1), "fold would be lost"),
            ("12:30:00", "got str"), (NOON, "got datetime"), (None, "Optional"),
        ],
    ),
    (
        pathlib.Path,
        [pathlib.Path(), pathlib.Path("/a b/ä")],
        [
            ("x", "expected Path, got str"), (pathlib.PurePosixPath("x"), "got PurePosixPath"),
            (pathlib.Path("\udce4"), "surrogate"), (None, "Optional"),
        ],
    ),
    (pathlib.PureWindowsPath, [pathlib.PureWindowsPath("c:/x")], [(pathlib.Path("x"), "got PosixPath")]),
    (typing.Literal["a", "b"], ["a", "b"], [("c", "expected one of 'a', 'b'"), (1, "got int"), (None, "Optional")]),
    (typing.Literal[1, 2], [1, 2], [(3, "one of 1, 2"), (True, "bool is a subclass of int"), (1.0, "got float")]),
    (typing.Literal[Word.YES], [Word.YES], [("yes", "expected Word, got str")]),
    (typing.NewType("Celsius", float), [1.5], [("x", "expected float, got str")]),
    (typing.Annotated[int, "of 64 bits"], [1], [("x", "expected int, got str")]),
    (
        list[int],
        [[], [1, 2**70]],
        [([True], "bool is a subclass"), ([1.0], "got float"), ([1, None], r"\$\[1\] = None"), ((1,), "expected list")],
    ),
    (
        dict[str, float],
        [{}, {"a": 0.1, "b": -0.0}],
        [
            ({"a": float("nan")}, "no NaN"), ({"a": "x"}, r"\$\.a = 'x': expected float"), ({1: 0.5}, "a key must be"),
            ({"a": 2**53 + 1}, "53 bits"), ([], "expected dict"), ({"a": None}, "None"),
        ],
    ),
    (list[float | None], [[0.5, None]], [(["x"], "expected float, got str"), ([1.5, "x"], r"\$\[1\]")]),
    (dict[str, int | str], [{"a": 1, "b": "x"}], [({"a": 1.5}, "expected int or str, got float")]),
    (dict[str, Any], [{"a": [1, {"b": None}]}], [({"a": {1}}, r"\$\.a = \{1\}"), ([], "expected dict")]),
    (tuple[int, ...], [(), (1, 2)], [([1], "expected tuple, got list"), (("x",), r"\$\[0\]")]),
    (tuple[int, Colour], [(1, Colour.RED)], [((1,), "expected 2 items, got 1"), ((1, "red"), "expected Colour")]),
    (set[str], [set(), {"a", "b"}], [({1}, "expected str"), (frozenset("a"), "expected set, got frozenset")]),
    (frozenset[int], [frozenset({1})], [({1}, "got set")]),
    (
        list[dict[str, datetime.datetime]],
        [[{"at": NOON}]],
        [([{"at": NOON.replace(tzinfo=None)}], r"\$\[0\]\.at = .*no time zone"), ([{"at": "x"}], "got str")],
    ),
    (list[decimal.Decimal], [[decimal.Decimal("0.10")]], [([0.1], "got float")]),
    (dict[str, uuid.UUID | None], [{"a": uuid.UUID(int=7), "b": None}], [({"a": "x"}, "got str")]),
    (list[typing.Literal["a"]], [["a"]], [(["b"], "expected one of 'a'")]),
    (list[datetime.timedelta], [[datetime.timedelta(1)]], [([1], "got int")]),
]  # fmt: skip

#: Values inside a dict that would come back otherwise, or not at all; their path, and a word of the error.
INSIDE: list[tuple[Any, str, str]] = [
    ({"steps": [1, 2, {"score": float("nan")}]}, "$.steps[2].score", "no NaN and no infinity; write None"),
    ({"v": float("-inf")}, "$.v", "infinity"),
    ({"v": (1, 2)}, "$.v", "no tuple.*list(value)"),
    ({"v": {1, 2}}, "$.v", "no set"),
    ({"v": Level.LOW}, "$.v", "value.value"),
    ({"v": Word.YES}, "$.v", "value.value"),
    ({"v": Text("x")}, "$.v", "str(value)"),
    ({"v": Real(1)}, "$.v", "float(value)"),
    ({"v": [collections.OrderedDict(a=1)]}, "$.v[0]", "dict(value)"),
    ({"v": collections.defaultdict(int)}, "$.v", "dict(value)"),
    ({"v": b"x"}, "$.v", "hex()"),
    ({"v": NOON}, "$.v", "isoformat()"),
    ({"v": decimal.Decimal(1)}, "$.v", "str(value)"),
    ({"v": uuid.UUID(int=7)}, "$.v", "str(value)"),
    ({"v": attrs.make_class("Point", ["x"])(1)}, "$.v", "attrs.asdict(value)"),
    ({"v": Odd()}, "$.v", "no Odd"),
    ({"v": type("bool", (), {"__module__": "numpy"})()}, "$.v", "no numpy.bool"),
    ({1: "a", "1": "b"}, "$", "a key must be a str, not int"),
    ({"m": {True: 1, "true": 2}}, "$.m", "not bool"),
    ({"m": {None: 1}}, "$.m", "not NoneType"),
    ({"m": {Word.YES: 1}}, "$.m", "not Word"),
    ({"m": {(1, 2): 1}}, "$.m", "not tuple"),
    ({"a b": ["cut \ud83d"]}, '$."a b"[0]', "half of a surrogate pair at 4"),
    ({"m": {"\ud800": 1}}, "$.m", "half of a surrogate pair"),
    ({"v": 10**4300}, "$.v", "more than 4,300 digits"),
    ({"v": [nested(99)]}, "$.v[0]" + ".a" * 98, "more than 100 levels"),
]

ACCEPTED = [(kind, value) for kind, values, _ in FIELDS for value in values]

REFUSED = [(kind, value, words) for kind, _, values in FIELDS for value, words in values]


def record_class(kind: Any, **settings: Any) -> Any:
    return attrs.make_class("Probe", {"x": attrs.field(type=kind, **settings)}, frozen=True, eq=False)


def same(value: Any, other: Any) -> bool:
    """Return whether two values are of one type, and cannot be told apart (NaN included) but for the sign of a zero."""
    return type(value) is type(other) and (value == other or repr(value) == repr(other))


def test_each_accepted_value_of_a_field_comes_back_as_it_was(store: edgeshard.Store) -> None:
    classes = {kind: edgeshard.table(name=f"probe_{n}")(record_class(kind)) for n, (kind, *_) in enumerate(FIELDS)}
    with store.shard("agent") as shard:
        for kind, value in ACCEPTED:
            shard.write(classes[kind](value))
    store.merge()
    for kind, values, _ in FIELDS:
        read = [record.x for record in store.read(classes[kind])]
        assert len(values) == len(read)
        assert all(map(same, values, read)), (values, read)
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("inserts", [False, True], ids=["copy", "inserts"])
def test_each_accepted_value_is_pushed_but_for_those_that_the_guide_names(
    store: edgeshard.Store, pg: str, inserts: bool
) -> None:
    classes = {kind: edgeshard.table(name=f"probe_{n}")(record_class(kind)) for n, (kind, *_) in enumerate(FIELDS)}
    with store.shard("agent") as shard:
        seqs = {shard.write(classes[kind](value)): value for kind, value in ACCEPTED}
        seqs[shard.write({"nul": "\0"})] = "\0"
    store.merge()
    report = store.push(pg, inserts=inserts)
    named = ["äö\0ü", decimal.Decimal("1E+200000"), decimal.Decimal("1E-999999"), "\0"]
    ranges = store.rejected().ranges
    assert named == [seqs[seq] for rejected in ranges for seq in range(rejected.first, rejected.last + 1)]
    assert len(seqs) - len(named) == report.rows


def test_an_int_that_a_float_holds_is_stored_as_the_float(store: edgeshard.Store) -> None:
    cls = record_class(float)
    with store.shard("agent") as shard:
        shard.write_many([cls(3), cls(-(2**53)), cls(2**60)])
    store.merge()
    assert [3.0, -(2.0**53), 2.0**60] == [record.x for record in store.read(cls)]
    assert [("real",)] == store.query("select distinct typeof(x) from probe")


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED, ids=lambda item: getattr(item, "__name__", ""))
def test_a_value_that_would_change_is_refused_by_name(kind: Any, value: Any, words: str) -> None:
    for cls in (record_class(kind), record_class(kind | None)):
        table = table_of(cls)
        cause = codecs.why_unstorable(table, cls(value))
        if value is None and table.columns[0].optional:
            assert "" == cause
        else:
            pattern = rf"^Probe\.x, {words}" if words.startswith(r"\$") else rf"^Probe\.x(, \$\S*)? = .*: .*{words}"
            assert re.search(pattern, cause), cause


@pytest.mark.parametrize(("record", "path", "words"), INSIDE, ids=lambda item: item if isinstance(item, str) else "")
def test_a_value_inside_a_dict_or_list_is_refused_by_its_path(record: Any, path: str, words: str) -> None:
    cls = record_class(dict)
    for cause, name in (
        (codecs.why_unstorable(dict_table("agent_data"), record), "dict"),
        (codecs.why_unstorable(table_of(cls), cls(record)), "Probe.x"),
    ):
        assert cause.startswith(f"{name}, {path if len(path) <= 80 else path[:80] + '…'} = "), cause
        assert all(word in cause for word in words.split(".*")), cause


def test_every_refusal_leaves_the_shard_as_it_was(store: edgeshard.Store) -> None:
    bad = [record_class(kind)(value) for kind, value, _ in REFUSED] + [record for record, *_ in INSIDE]
    with store.shard("agent") as shard:
        for refused in bad:
            with pytest.raises(RecordError, match=re.escape(shard.path)):
                shard.write(refused)
        shard.write({"n": 0})
        for n, refused in enumerate(bad, 1):
            with shard.transaction():
                with pytest.raises(RecordError):
                    shard.write(refused)
                for make in (list, iter):
                    with pytest.raises(RecordError):
                        shard.write_many(make([{"n": -1}, refused, {"n": -2}]))
                assert n + 1 == shard.write({"n": n})
            with pytest.raises(RecordError):
                shard.write_many([refused, refused])
    store.merge()
    assert [*range(len(bad) + 1)] == [record.data["n"] for record in store.read(edgeshard.AgentData)]
    assert [("agent_data",)] == store.query("select name from sqlite_schema where name in ('agent_data', 'probe')")
    assert store.verify(deep=True).ok


def test_a_value_of_a_wider_column_is_held_to_the_rule_of_its_class(store: edgeshard.Store) -> None:
    old, new = record_class(int), record_class(decimal.Decimal)
    with store.shard("agent") as shard:
        shard.write(new(decimal.Decimal("0.5")))
        for value, words in (
            (True, "bool"),
            ("12", "got str"),
            (1.0, "got float"),
            (None, "Optional"),
            (2**63, "64 bits"),
        ):
            with pytest.raises(RecordError, match=rf"Probe\.x = .*{words}"):
                shard.write(old(value))
        shard.write(old(12))
    store.merge()
    assert [decimal.Decimal("0.5"), decimal.Decimal(12)] == [record.x for record in store.read(new)]


def test_an_attribute_that_was_never_assigned_is_named(shard: edgeshard.Shard) -> None:
    cls = attrs.make_class("Probe", {"x": attrs.field(type=int, init=False)})
    with pytest.raises(RecordError, match=r"Probe\.x has no value; assign one"):
        shard.write(cls())
    assert 1 == shard.write({"n": 1})


def test_a_value_or_row_that_is_too_large_for_a_row_is_named(
    shard: edgeshard.Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = attrs.make_class("Probe", {"x": attrs.field(type=str), "y": attrs.field(type=bytes)})
    with pytest.raises(RecordError, match=r"Probe\.x = .*it has 100,000,001 bytes.*at most 100,000,000.*in parts"):
        shard.write(cls("x" * 100_000_001, b""))
    with pytest.raises(
        RecordError, match=r"table probe: the row has about 120,000,027 bytes.*at most 100,000,000.*in parts"
    ):
        shard.write(cls("x" * 60_000_000, b"y" * 60_000_000))
    with pytest.raises(RecordError, match=r"table agent_data: the row has about 100,000,0.. bytes, and .* at most"):
        shard.write({"x": "x" * 99_999_985})  # the agent, the time and the braces take the rest
    assert 1 == shard.write({"n": 1})


def test_an_int_that_only_this_process_can_convert_is_refused(shard: edgeshard.Shard) -> None:
    limit = sys.get_int_max_str_digits()
    try:
        for process_limit in (0, 10_000, 640):
            sys.set_int_max_str_digits(process_limit)
            for most in (4300, process_limit or 4300):
                with pytest.raises(RecordError, match=r"dict, \$\.v\[0\] = .*digits"):
                    shard.write({"v": [10**most], "text": "x" * 5_000})
            shard.write({"v": [10**639 - 1], "text": "x" * 5_000})
    finally:
        sys.set_int_max_str_digits(limit)


def test_a_caller_that_has_used_up_the_stack_gets_python_s_own_error(shard: edgeshard.Shard) -> None:
    def at_depth(frames: int) -> int:
        return shard.write(nested(90)) if frames == 0 else at_depth(frames - 1)

    with pytest.raises(RecursionError):
        at_depth(sys.getrecursionlimit() - 100)
    assert 1 == shard.write(nested(90))


@pytest.mark.parametrize("levels", [100, 101, 1_000, 1_001, 100_000])
def test_the_limit_on_levels_is_one_that_sqlite_and_python_hold(store: edgeshard.Store, levels: int) -> None:
    assert (levels > 100) == (not json_values.is_plain(nested(levels)))
    with store.shard("agent") as shard:
        if levels > 100:
            with pytest.raises(RecordError, match="more than 100 levels"):
                shard.write(nested(levels))
        shard.write(nested(100))
    store.merge()
    assert [nested(100)] == [record.data for record in store.read(edgeshard.AgentData)]
    path = "$" + ".a" * 99
    assert [("{}",)] == store.query("select json_extract(data, ?) from agent_data", (path,))
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("name", ["\0", "a\0b", "\ud800", "", "x" * 201, b"a", None])
def test_an_agent_name_that_some_database_could_not_hold_is_refused(store: edgeshard.Store, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        store.shard(name)


@pytest.mark.parametrize(
    "value", [2**63, 10**400, float("nan"), "\ud800", {1: 2}, [(1,)], datetime.datetime(2026, 1, 1)]
)
def test_a_parameter_that_no_column_could_hold_is_refused(store: edgeshard.Store, value: Any) -> None:
    store.init()
    with pytest.raises(QueryError):
        store.query("select ?", (value,))
