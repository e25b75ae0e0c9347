"""The classes that agents write, declared in plain Python, and values for their fields."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

import edgeshard
from edgeshard.exchange import import_state
from edgeshard.records import forms

Pick = Callable[[Sequence[Any]], Any]

TYPES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "real",
    str: "text",
    bytes: "blob",
    datetime.datetime: "datetime",
    datetime.date: "date",
    decimal.Decimal: "decimal",
    uuid.UUID: "uuid",
    dict: "json",
}

#: The most fields that a class may have, and the columns of the widest key here.
FIELDS_MAX, WIDE_KEY = 400, 38


@attrs.frozen(eq=False)
class Shape:
    """A class of records.

    Attributes:
        name: its name in logs.
        table: the table that it becomes.
        fields: the type of each field.
        key: the fields of its key.
        conflict: its conflict rule.
        history: whether superseded versions are kept.
        index: its indexes.
        renamed: older names of its fields.
        cls: the class, of any form.
        is_dicts: whether its rows are written as dicts of any keys.
    """

    name: str
    table: str
    fields: Mapping[str, type]
    key: tuple[str, ...] = ()
    conflict: str = "lww"
    history: bool = False
    index: tuple[tuple[str, ...], ...] = ()
    renamed: Mapping[str, str] = attrs.Factory(dict)
    priority: int = 0
    cls: Any = None
    is_dicts: bool = False

    @property
    def table_argument(self) -> Any:
        """What `write` must be told of where a record belongs; None: nothing."""
        if self.is_dicts and self.table != "agent_data":
            return self.table
        return self.cls if forms.is_typed_dict(self.cls) else None

    @property
    def deletes(self) -> bool:
        """Whether rows can be deleted by their key."""
        return bool(self.key) and self.conflict in ("lww", "keep-all")


def _attrs_class(name: str, fields: Mapping[str, Any]) -> Any:
    return attrs.make_class(name, {field: attrs.field(type=kind) for field, kind in fields.items()}, frozen=True)


def _dataclass(name: str, fields: Mapping[str, Any]) -> Any:
    return dataclasses.make_dataclass(name, fields.items(), slots=True)


def _named_tuple(name: str, fields: Mapping[str, Any]) -> Any:
    return typing.NamedTuple(name, list(fields.items()))


def _typed_dict(name: str, fields: Mapping[str, Any]) -> Any:
    return typing.TypedDict(name, dict(fields))  # type: ignore[operator]  # the same


def _shape(
    name: str,
    table: str,
    fields: Mapping[str, type],
    form: Callable[[str, Mapping[str, Any]], Any] = _attrs_class,
    **options: Any,
) -> Shape:
    cls = form(name, fields)
    declared = {option: options[option] for option in options if option != "index"}
    cls = edgeshard.table(name=table, index=list(options.get("index", ())), **declared)(cls)
    return Shape(name, table, fields, cls=cls, **options)


_DICT = {"agent_id": str, "timestamp": datetime.datetime, "data": dict}

DICT = Shape("Dict", "agent_data", _DICT, cls=edgeshard.AgentData, is_dicts=True)

#: A table of dicts with a name of its own.
EVENTS = attrs.evolve(_shape("Events", "events", _DICT), is_dicts=True)

_CELL = {"row": str, "col": int, "value": int}


def _cell(name: str, **options: Any) -> Shape:
    return _shape(name, name.lower(), _CELL, key=("row", "col"), **options)


LWW = _cell("Lww")

KEYED = (
    LWW,
    _cell("First", conflict="first"),
    _cell("Highest", conflict="max:value"),
    _cell("Lowest", conflict="min:value"),
    _cell("All", conflict="keep-all"),
    _cell("Past", history=True),
)

#: One class over the months: each version renames, widens or adds something.
VERSIONS = (
    _shape("V1", "sample", {"n": int, "a": bool}),
    _shape("V2", "sample", {"n": int, "a": int, "extra": uuid.UUID}, _dataclass, index=(("n",),)),
    _shape("V3", "sample", {"n": int, "b": float, "extra": str}, _named_tuple, renamed={"a": "b"}, index=(("b", "n"),)),
    _shape("V4", "sample", {"n": int, "c": decimal.Decimal}, renamed={"a": "c", "b": "c"}, priority=7),
)

PHOTO = _shape("Photo", "photo", {"n": int, "pixels": bytes}, _typed_dict, priority=3)

#: Every type, at its limits.
EVERY = _shape("Every", "every", {"n": int, **{f"f_{text}": kind for kind, text in TYPES.items()}})

WIDE = _shape("Wide", "wide", {"n": int, **{f"f{number}": float for number in range(FIELDS_MAX - 1)}})

WIDE_KEYED = _shape(
    "WideKeyed",
    "wide_keyed",
    {**{f"k{number}": int for number in range(WIDE_KEY)}, "value": int},
    key=tuple(f"k{number}" for number in range(WIDE_KEY)),
)

#: Two tables that agents declare in different ways. No type holds the values of both classes of the first; the second
#: becomes a decimal, or blocks integers that a real would round.
DISPUTED = (
    _shape("Number", "disputed", {"n": int, "v": int}),
    _shape("Text", "disputed", {"n": int, "v": str}),
    _shape("Whole", "measured", {"n": int, "v": int}),
    _shape("Real", "measured", {"n": int, "v": float}),
    _shape("Exact", "measured", {"n": int, "v": decimal.Decimal}),
)
NUMBER, TEXT, WHOLE, REAL, EXACT = DISPUTED
DISPUTED_TABLES = ("disputed", "measured")

#: What imports write: rows of a database of another program, and how far they have come.
READING = _shape("Reading", "reading", {"id": int, "n": int, "label": str}, _typed_dict)
IMPORT_STATE = Shape(
    "ImportState",
    import_state.TABLE,
    {
        **dict.fromkeys(("import_id", "agent", "source", "table_name", "form"), str),
        **dict.fromkeys(("rows", "position"), int),
        "columns": dict,
        "head": str,
        "head_bytes": int,
        "fingerprint": str,
        "tail": dict,
    },
    key=("import_id",),
    conflict="max:rows",
    cls=import_state.ImportState,
)

#: The largest integer up to which a real represents all.
EXACT_MAX = 2**53

#: How often each is chosen.
WEIGHTS: tuple[tuple[Shape, int], ...] = (
    (DICT, 8),
    (PHOTO, 3),
    *((shape, 3) for shape in VERSIONS),
    *((shape, 2) for shape in KEYED),
    (EVERY, 2),
    (WIDE, 1),
    (WIDE_KEYED, 1),
)

SHAPES: dict[str, Shape] = {
    shape.name: shape for shape in [*(shape for shape, _ in WEIGHTS), EVENTS, *DISPUTED, READING, IMPORT_STATE]
}
DECK = [shape for shape, weight in WEIGHTS for _ in range(weight)]

#: What agents write in fleets in which they contradict one another.
DECK_WITH_DISPUTES = [*DECK, *[NUMBER, TEXT, WHOLE, REAL] * 3, EXACT]

_EPOCH = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_INTEGERS = (0, -1, 2**53 + 1, 2**63 - 1, -(2**63))
_REALS = (0.1, -2.5e-300, 1.7976931348623157e308, 5e-324, float("inf"), float("-inf"), 2.0**60)
_TEXTS = ("", "12", "ok", "\u00e9\u202e\U0001f600", 'it\'s "quoted"', "x" * 3_000, "\x1b[31m\n\t")
_READABLE_TEXTS = ("", "12", "\u00e9\U0001f600", None)
_DECIMALS = ("0.10", "-12345678901234567890.123456789", "1E+30", "0")
_DATETIMES = (
    _EPOCH,
    datetime.datetime(1, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 29, 2, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=2, minutes=15))),
)
_DATES = (datetime.date(2026, 2, 28), datetime.date(1, 1, 1), datetime.date(9999, 12, 31))
_JSONS: tuple[Any, ...] = (
    {},
    {"a": [1, 2.5, None, True, "x"], "": {}},
    {"deep": {"er": [[[]]]}},
    {"\u00e9": "\U0001f600"},
)

_VALUES: Mapping[type, Sequence[Any]] = {
    bool: (True, False),
    int: _INTEGERS,
    float: _REALS,
    str: _TEXTS,
    bytes: (b"", b"\0\xff", b"pixels" * 500),
    datetime.datetime: _DATETIMES,
    datetime.date: _DATES,
    decimal.Decimal: tuple(map(decimal.Decimal, _DECIMALS)),
    uuid.UUID: (uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)),
    dict: _JSONS,
}

#: Values of columns that may be widened: these survive every conversion.
_VERSION_VALUES: Mapping[type, Sequence[Any]] = {
    **_VALUES,
    int: (0, 1, -3, 2**53),
    float: (0.5, 0.1, 1e22, -3.0),
    decimal.Decimal: tuple(map(decimal.Decimal, ("0.10", "4", "-7.25"))),
    str: ("", "key"),
}

_DISPUTED_VALUES: Mapping[type, Sequence[Any]] = {**_VERSION_VALUES, int: (1, -EXACT_MAX, EXACT_MAX + 1)}


def values_for(shape: Shape, number: int, pick: Pick) -> dict[str, Any]:
    """Return values for a record: `number` tells it from all others of its table, except in keyed tables."""
    if shape.is_dicts:
        return {"data": {"n": number, "more": pick((*_JSONS, "x" * 3_000, [[number]], -0.5))}}
    if shape in KEYED:
        return {"row": pick("pq"), "col": pick((1, 2)), "value": pick((number, -number, 0, 7))}
    if shape is WIDE_KEYED:
        return {**dict.fromkeys(shape.key, pick((1, 2))), "value": number}
    if shape is WIDE:
        return {**dict.fromkeys(shape.fields, number + 0.25), "n": number}
    if shape is READING:
        return {"n": number, "label": pick(_READABLE_TEXTS)}
    known = _VERSION_VALUES if shape in VERSIONS else _DISPUTED_VALUES if shape in DISPUTED else _VALUES
    return {field: number if field == "n" else pick(known[kind]) for field, kind in shape.fields.items()}


def record(shape: Shape, values: Mapping[str, Any]) -> Any:
    """Return the record that has these values."""
    return values["data"] if shape.is_dicts else shape.cls(**values)


#: Records that nobody should ask a database to keep: `write` either refuses them, or everything works with them.
def strange_records(number: int) -> list[tuple[Shape, dict[str, Any]]]:
    """Return records that are refused, or stored exactly."""
    deep: Any = number
    for _ in range(1_200):
        deep = [deep]
    n: dict[str, Any] = {"n": number}
    lone = "\ud800"
    usual = {field: _VALUES[kind][0] for field, kind in EVERY.fields.items()} | n
    return [
        (DICT, {"data": {**n, "deep": deep}}),
        (DICT, {"data": {**n, "lone": lone}}),
        (DICT, {"data": {**n, "nan": float("nan")}}),
        (DICT, {"data": {**n, "tuple": (1, 2)}}),
        (DICT, {"data": {**n, "keys": {1: "a", "1": "b"}}}),
        (DICT, {"data": {**n, "keys": {True: 1}}}),
        (DICT, {"data": {**n, "whole": 2**70}}),
        (EVERY, {**usual, "f_real": 2**53 + 1}),
        (EVERY, {**usual, "f_real": float("nan")}),
        (EVERY, {**usual, "f_boolean": 2}),
        (EVERY, {**usual, "f_integer": "12"}),
        (EVERY, {**usual, "f_integer": 2**63}),
        (EVERY, {**usual, "f_integer": None}),
        (EVERY, {**usual, "f_json": None}),
        (EVERY, {**usual, "f_text": lone}),
        (EVERY, {**usual, "f_decimal": decimal.Decimal("sNaN")}),
        (EVERY, {**usual, "f_datetime": datetime.datetime(2026, 1, 1)}),
    ]
