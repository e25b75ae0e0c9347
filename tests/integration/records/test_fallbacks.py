"""Values without an exact form: scalars of numpy and pandas, the store's encode function, and NaN."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, RecordError
from tests.support.records import NOON


@attrs.frozen
class Metric:
    value: float | None
    samples: list[float] = attrs.Factory(list)
    more: dict[str, Any] = attrs.Factory(dict)


@dataclass
class Scalars:
    whole: int
    real: float
    flag: bool
    text: str
    blob: bytes


class Opaque:
    def __init__(self, *values: Any) -> None:
        self.values = values


def encode(value: Any, path: str) -> Any:
    """Store arrays and sets as lists, and an Opaque as the path and its values."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Opaque):
        return {"path": path, "values": list(value.values)}
    raise LookupError(f"nothing for {path}")


def stored(store: edgeshard.Store, record: Any, cls: Any) -> Any:
    """Write a record, merge, and return what is read."""
    with store.shard("agent") as shard:
        shard.write(record)
        shard.write_many([record, record])
        shard.write_many(iter([record]))
    store.merge()
    first, *others = store.read(cls)
    assert all(repr(first) == repr(other) for other in others if cls is not edgeshard.AgentData)
    return first


# -- numpy and pandas -------------------------------------------------------------------------------------------------


def test_numpy_scalars_are_stored_as_the_python_values_that_they_are(store: edgeshard.Store) -> None:
    whole: Any = np.int64(2**62)
    flag: Any = np.bool_(True)
    read = stored(store, Scalars(whole, np.float32(0.1), flag, np.str_("ä"), np.bytes_(b"x")), Scalars)  # type: ignore[arg-type]
    assert Scalars(2**62, float(np.float32(0.1)), True, "ä", b"x") == read
    assert [int, float, bool, str, bytes] == [type(getattr(read, name)) for name in Scalars.__dataclass_fields__]


def test_numpy_scalars_inside_dicts_and_lists_are_stored_exactly(store: edgeshard.Store) -> None:
    record = {"n": np.uint64(2**64 - 1), "f": [np.float16(0.5), np.float64(-0.0)], "b": {"x": np.bool_(False)}}
    assert {"n": 2**64 - 1, "f": [0.5, -0.0], "b": {"x": False}} == stored(store, record, edgeshard.AgentData).data
    assert [0.5, 3.0] == list(samples_of(store, [np.float32(0.5), np.int8(3)]))


def samples_of(store: edgeshard.Store, samples: list[Any]) -> list[float]:
    with store.shard("other") as shard:
        shard.write(Metric(None, samples))
    store.merge()
    (read,) = store.read(Metric)
    return read.samples


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.longdouble("0.1"), "longdouble"),
        (np.datetime64("2026-01-01T00:00"), "datetime64"),
        (np.float64("nan"), "NaN"),
        (np.complex128(1), "complex128"),
        (np.arange(2), "ndarray"),
    ],
)
def test_numpy_values_that_python_does_not_have_are_refused(shard: edgeshard.Shard, value: Any, words: str) -> None:
    for record in (Metric(value), Metric(0.0, [value]), {"v": value}):
        with pytest.raises(RecordError, match=words):
            shard.write(record)


def test_an_int_of_numpy_that_a_float_would_round_is_refused(shard: edgeshard.Shard) -> None:
    value: Any = np.int64(2**53 + 1)
    with pytest.raises(RecordError, match="53 bits"):
        shard.write(Metric(value))


@pytest.mark.slow
def test_pandas_scalars_are_stored_where_they_are_exact(store: edgeshard.Store) -> None:
    import pandas as pd  # type: ignore[import-untyped]

    @edgeshard.table
    @dataclass
    class Times:
        at: datetime.datetime
        took: datetime.timedelta

    at, took = pd.Timestamp(NOON), pd.Timedelta(milliseconds=7)
    read = stored(store, Times(at, took), Times)
    assert Times(NOON, datetime.timedelta(milliseconds=7)) == read
    assert [datetime.datetime, datetime.timedelta] == [type(read.at), type(read.took)]
    wrong: list[tuple[Any, Any, str]] = [
        (at + pd.Timedelta(nanoseconds=1), took, "Timestamp.*floor"),
        (at, took + pd.Timedelta(nanoseconds=1), "Timedelta"),
        (at.tz_localize(None), took, "no time zone"),
        (pd.NaT, took, "NaT"),
        (pd.NA, took, "NA"),
    ]
    with store.shard("agent") as shard:
        for at, took, words in wrong:
            with pytest.raises(RecordError, match=words):
                shard.write(Times(at, took))


# -- the store's function ---------------------------------------------------------------------------------------------


@pytest.fixture
def encoding(tmp_path: Path) -> edgeshard.Store:
    return edgeshard.Store(tmp_path / "encoding", encode=encode)


def test_the_function_is_given_each_value_without_an_exact_form_and_its_path(encoding: edgeshard.Store) -> None:
    free = {"a": [1, {2}], "b b": Opaque(np.arange(2), Opaque())}

    def at(place: str) -> Any:
        inner = {"path": f'{place}."b b".values[1]', "values": []}
        return {"a": [1, [2]], "b b": {"path": f'{place}."b b"', "values": [[0, 1], inner]}}

    samples: Any = np.array([0.5, 1.5])
    assert Metric(1.0, [0.5, 1.5], at("Metric.more")) == stored(encoding, Metric(1.0, samples, free), Metric)
    assert at("$") == stored(encoding, free, edgeshard.AgentData).data
    with encoding.shard("agent") as shard:
        shard.write(free, table="events")
    encoding.merge()
    assert 1 == len(encoding.query("select 1 from events where data ->> '$.\"b b\".path' = '$.\"b b\"'"))


def test_what_the_function_returns_is_held_to_the_same_rule(tmp_path: Path) -> None:
    returned: list[Any] = [None]
    store = edgeshard.Store(tmp_path / "data", encode=lambda value, path: returned[0])
    with store.shard("agent") as shard:
        opaque: Any = Opaque()
        for record, answer, words in (
            (Metric(opaque), "x", r"Metric\.value = .*expected float, got str.*encode= returned"),
            (Metric(1.0, opaque), ["x"], r"Metric\.samples, \$\[0\] = \['x'\]: expected float, got list"),
            (Metric(1.0, [opaque]), 2**53 + 1, "53 bits.*encode= returned"),
            ({"v": opaque}, float("nan"), r"\$\.v = nan: JSON has no NaN.*encode= returned it for <"),
            ({"v": opaque}, {1: 2}, r"\$\.v = 1: a key must be a str"),
            ({"v": {1: 2}}, None, "a key must be a str"),  # a key is no value
        ):
            returned[0] = answer
            with pytest.raises(RecordError, match=words):
                shard.write(record)
        returned[0] = 2.5
        assert 1 == shard.write(Metric(opaque, [opaque], {"v": [opaque]}))
    store.merge()
    assert [Metric(2.5, [2.5], {"v": [2.5]})] == list(store.read(Metric))


def test_a_function_that_never_ends_its_work_meets_the_limit_of_levels(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", encode=lambda value, path: [value])
    with store.shard("agent") as shard, pytest.raises(RecordError, match="more than 100 levels"):
        shard.write({"v": Opaque()})


def test_what_the_function_raises_refuses_the_record(encoding: edgeshard.Store) -> None:
    wrong: Any = "x"
    with encoding.shard("agent") as shard:
        for record, words in (
            (Metric(wrong), r"Metric\.value = 'x': expected float, got str.*encode= raised LookupError.*Metric\.value"),
            ({"v": [b"x"]}, r"\$\.v\[0\] = b'x': JSON has no bytes.*encode= raised LookupError"),
        ):
            with pytest.raises(RecordError, match=words):
                shard.write(record)
        assert 1 == shard.write({"usable": {3, 1}})


# -- NaN and infinity -------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf


def test_nan_becomes_null_where_that_was_chosen(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", nan="null")

    @attrs.frozen
    class Loss:
        value: float

    @attrs.frozen
    class Defaulted:
        value: float = 0.5

    assert Metric(None, [None, 1.0], {"v": None}) == stored(store, Metric(NAN, [INF, 1.0], {"v": -INF}), Metric)  # type: ignore[list-item]
    assert {"v": [None, None, {"x": None}]} == stored(
        store, {"v": [NAN, -INF, {"x": np.float32("nan")}]}, edgeshard.AgentData
    ).data
    with store.shard("agent") as shard:
        shard.write_many([Loss(NAN), Loss(np.float64("nan")), Loss(INF)])
        with pytest.raises(RecordError, match=r"Defaulted\.value = nan"):  # it would come back as 0.5
            shard.write(Defaulted(NAN))
    store.merge()
    assert [None, None, INF] == [loss.value for loss in store.read(Loss)]
    assert [(None,), (None,), (INF,)] == store.query("select value from loss")


def test_nan_becomes_a_text_where_that_was_chosen(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", nan="text")
    read = stored(store, Metric(INF, [NAN, INF, -INF, 0.5], {"v": [NAN, INF]}), Metric)
    assert "[nan, inf, -inf, 0.5]" == repr(read.samples)  # the type of the field says what the texts are
    assert (INF, {"v": ["NaN", "Infinity"]}) == (read.value, read.more)
    assert ["-Infinity"] == stored(store, {"v": [-INF]}, edgeshard.AgentData).data["v"]
    with store.shard("agent") as shard, pytest.raises(RecordError, match=r"Metric\.value = nan: .*nan='null'"):
        shard.write(Metric(NAN))


def test_nan_is_refused_unless_something_else_was_chosen(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        for record in (Metric(NAN), Metric(0.0, [NAN]), {"v": INF}):
            with pytest.raises(RecordError, match="NaN"):
                shard.write(record)


def test_the_choice_for_nan_comes_before_the_function(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", nan="null", encode=lambda value, path: f"{path} was {value!r}")
    assert {"a": None, "b": "$.b was (1, 2)"} == stored(store, {"a": NAN, "b": (1, 2)}, edgeshard.AgentData).data


@pytest.mark.parametrize("wrong", [{"encode": 5}, {"encode": "json"}, {"nan": "drop"}, {"nan": None}])
def test_a_wrong_choice_is_refused_when_the_store_is_opened(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        edgeshard.Store(tmp_path / "data", **wrong)
