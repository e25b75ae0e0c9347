"""attrs classes become tables, and their values come back as they were."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.errors import TableError
from edgeshard.records.declare import table_of
from tests.support.enums import Colour, Level
from tests.support.records import NOON
from tests.support.stores import new_store


@attrs.frozen
class Everything:
    flag: bool
    whole: int
    real: float
    text: str
    raw: bytes
    moment: datetime.datetime
    day: datetime.date
    money: decimal.Decimal
    key: uuid.UUID
    colour: Colour
    level: Level
    mapping: dict[str, Any]
    items: list[int]
    maybe: int | None = None
    maybe_colour: Colour | None = None


EVERYTHING = Everything(
    True, -(2**63), 0.1, "äö\0ü", b"\0\xff", NOON, NOON.date(), decimal.Decimal("71.50"), uuid.UUID(int=7),
    Colour.RED, Level.HIGH, {"a": [1, None, "😀"]}, [3, 2, 1], 5, Colour.BLUE,
)  # fmt: skip


@pytest.mark.parametrize("record", [EVERYTHING, attrs.evolve(EVERYTHING, maybe=None, maybe_colour=None, flag=False)])
def test_values_of_every_type_come_back_as_they_were(store: edgeshard.Store, record: Everything) -> None:
    with store.shard("agent") as shard:
        shard.write(record)
    store.merge()

    assert [record] == list(store.read(Everything))


def test_a_time_of_another_zone_comes_back_as_the_same_moment_in_utc(store: edgeshard.Store) -> None:
    @attrs.frozen
    class Event:
        at: datetime.datetime

    elsewhere = NOON.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    with store.shard("agent") as shard:
        shard.write(Event(elsewhere))

    assert [("2026-01-02T12:00:00+00:00",)] == store.query("select at from event", fresh=True)


def test_a_class_is_a_table_named_in_snake_case() -> None:
    @attrs.define
    class HTTPRequestLog2:
        x: int

    assert "http_request_log2" == table_of(HTTPRequestLog2).name


def test_the_decorator_names_table_and_indexes() -> None:
    @edgeshard.table(name="named", index=["x", ("x", "y")])
    @attrs.frozen
    class Any_:
        x: int
        y: str

    assert ("named", (("x",), ("x", "y"))) == (table_of(Any_).name, table_of(Any_).indexes)


@attrs.frozen
class Complex:
    x: complex


@attrs.frozen
class Union2:
    x: int | str


@attrs.frozen
class NoType:
    x = attrs.field()  # type: ignore[var-annotated]


@attrs.frozen
class Private:
    _x: int


@attrs.frozen
class Folded:
    x: int
    X: int


@attrs.frozen
class Empty:
    pass


class Plain:
    x: int = 1


class Mixed(enum.Enum):
    A = 1
    B = "b"


@attrs.frozen
class MixedEnum:
    x: Mixed


@edgeshard.table(name="edgeshard_mine")
@attrs.frozen
class Reserved:
    x: int


@edgeshard.table(name='x"; drop table y')
@attrs.frozen
class Injected:
    x: int


@edgeshard.table(index=["y"])
@attrs.frozen
class StrangeIndex:
    x: int


@pytest.mark.parametrize(
    "cls",
    [Complex, Union2, NoType, Private, Folded, Empty, Plain, MixedEnum, Reserved, Injected, StrangeIndex, int, str],
    ids=lambda cls: cls.__name__,
)
def test_a_class_that_cannot_be_a_table_is_refused_by_name(cls: type) -> None:
    with pytest.raises(TableError):
        table_of(cls)


@pytest.mark.parametrize("index", [[()], [("x", "x")]])
def test_an_index_that_no_merge_would_take_is_refused(index: Any) -> None:
    @edgeshard.table(index=index)
    @attrs.frozen
    class Indexed:
        x: int

    with pytest.raises(TableError, match="index"):
        table_of(Indexed)


def test_a_class_with_more_fields_than_a_merge_takes_is_refused() -> None:
    cls = attrs.make_class("Wide", {f"x{n}": attrs.field(type=int) for n in range(401)})
    with pytest.raises(TableError, match="more than 400"):
        table_of(cls)


def test_one_bare_name_is_not_a_list_of_indexes() -> None:
    with pytest.raises(TableError, match="list"):
        edgeshard.table(index="sensor")


def test_a_field_that_older_rows_lack_takes_the_default_of_the_class(store: edgeshard.Store) -> None:
    def old() -> Any:
        @attrs.frozen
        class Job:
            name: str

        return Job

    def new() -> Any:
        @attrs.frozen
        class Job:
            name: str
            note: str | None = None
            tries: int = 1

        return Job

    with store.shard("old") as shard:
        shard.write(old()("a"))
    with store.shard("new") as shard:
        shard.write(new()("b", "n", 3))
    store.merge()

    assert [("a", None, 1), ("b", "n", 3)] == sorted((job.name, job.note, job.tries) for job in store.read(new()))
    assert ["a", "b"] == sorted(job.name for job in store.read(old()))


@pytest.mark.parametrize(
    ("length", "options", "fits"),
    [
        (100, {}, True),
        (101, {}, False),
        (92, {"key": "k", "history": True}, True),
        (93, {"key": "k"}, False),
        (93, {"key": "k", "conflict": "first", "history": True}, False),
        (100, {"key": "k", "conflict": "first"}, True),
    ],
)
def test_a_name_is_accepted_if_all_tables_of_the_class_can_have_theirs(
    store: edgeshard.Store, length: int, options: dict[str, Any], fits: bool
) -> None:
    """A shard with a longer name would be quarantined."""
    cls = edgeshard.table(name="t" * length, **options)(attrs.make_class("Long", {"k": attrs.field(type=int)}))
    if not fits:
        with pytest.raises(TableError, match="a name must have 1 to 100"):
            table_of(cls)
        return
    with store.shard("agent") as shard:
        shard.write(cls(1))
        shard.write(cls(1))
        if options and "conflict" not in options:
            shard.delete(cls, 2)
    assert store.merge().complete
    hub = new_store(f"{store.root}-hub")
    assert hub.merge([store.master_path]).complete


def test_a_keyed_table_whose_tombstones_could_have_no_table_is_quarantined(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master could not be merged into any other."""
    monkeypatch.setattr(edgeshard.records.declare, "_check_name", lambda name, subject: None)
    cls = edgeshard.table(name="t" * 93, key="k")(attrs.make_class("Long", {"k": attrs.field(type=int)}))
    for agent, record in (("bad", cls(1)), ("good", {"n": 1})):
        with store.shard(agent) as shard:
            shard.write(record)
    (quarantined,) = store.merge().quarantined
    assert "_deleted is no name for a record table" in quarantined.reason
    assert new_store(f"{store.root}-hub").merge([store.master_path]).complete
