"""A class is read once in a process, and the code that stores its records compiled once; decorated again, read again."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import attrs
import pydantic
import pytest

import edgeshard
from edgeshard.errors import TableError
from edgeshard.records import codecs, declare, forms
from edgeshard.records.declare import table_of


def attrs_class() -> Any:
    @attrs.frozen
    class Reading:
        value: int
        note: str = ""

    return Reading


def dataclass_class() -> Any:
    @dataclasses.dataclass
    class Reading:
        value: int
        note: str = ""

    return Reading


def pydantic_class() -> Any:
    class Reading(pydantic.BaseModel):
        value: int
        note: str = ""

    return Reading


def named_tuple_class() -> Any:
    class Reading(NamedTuple):
        value: int
        note: str = ""

    return Reading


def typed_dict_class() -> Any:
    class Reading(TypedDict):
        value: int
        note: str

    return Reading


FORMS = [attrs_class, dataclass_class, pydantic_class, named_tuple_class, typed_dict_class]

each_form = pytest.mark.parametrize("make", FORMS)


def write(store: edgeshard.Store, agent: str, cls: Any) -> None:
    with store.shard(agent) as shard:
        shard.write(cls(value=1, note="n"), table=cls if forms.is_typed_dict(cls) else None)


@each_form
def test_a_further_opening_reads_and_compiles_nothing(
    store: edgeshard.Store, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = make()
    write(store, "a", cls)
    compiled = codecs._compiled.cache_info().misses
    monkeypatch.setattr(forms, "form_of", lambda *_: pytest.fail("it is read again"))
    write(store, "b", cls)
    assert compiled == codecs._compiled.cache_info().misses


@each_form
def test_a_class_that_was_written_can_be_collected(store: edgeshard.Store, make: Callable[[], Any]) -> None:
    cls = make()
    write(store, "agent", cls)
    alive = weakref.ref(cls)
    del cls
    gc.collect()
    assert alive() is None


@each_form
def test_two_classes_of_one_name_are_two(store: edgeshard.Store, make: Callable[[], Any]) -> None:
    first, second = make(), make()
    tables = [table_of(cls) for cls in (first, second, first)]
    assert [first, second, first] == [table.form and table.form.cls for table in tables]
    assert tables[0] is tables[2]


@pytest.mark.parametrize("make", [attrs_class, dataclass_class, pydantic_class])
def test_a_subclass_and_its_base_are_tables_of_their_own(make: Callable[[], Any]) -> None:
    base = make()
    table_of(base)
    derived = type("Derived", (base,), {})
    assert ("derived", derived) == (table_of(derived).name, getattr(table_of(derived).form, "cls", None))
    assert ("reading", base) == (table_of(base).name, getattr(table_of(base).form, "cls", None))


def unslotted_attrs_class() -> Any:
    @attrs.define(slots=False)
    class Reading:
        value: int
        note: str = ""

    return Reading


def copied(cls: Any) -> Any:
    """Copy a class as decorators do that change its metaclass."""
    attributes = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls)(cls.__name__, cls.__bases__, attributes)


@pytest.mark.parametrize(
    ("make", "again"),
    [
        (unslotted_attrs_class, attrs.define),
        (unslotted_attrs_class, copied),
        (dataclass_class, dataclasses.dataclass(slots=True)),
        (dataclass_class, copied),
    ],
)
def test_a_class_that_a_decorator_copies_is_not_taken_for_the_original(make: Any, again: Any) -> None:
    original = make()
    table_of(original)
    copy = again(original)
    assert copy is not original
    assert [copy, original] == [getattr(table_of(cls).form, "cls", None) for cls in (copy, original)]


def test_a_dataclass_that_is_decorated_again_has_its_new_fields_and_defaults(store: edgeshard.Store) -> None:
    cls = dataclass_class()
    write(store, "agent", cls)
    cls.__annotations__ |= {"added": "float"}
    cls.added = 0.5
    del cls.note  # the field has no default any more
    assert cls is dataclasses.dataclass(kw_only=True)(cls)
    columns = table_of(cls).columns
    assert [("value", False), ("note", False), ("added", True)] == [(each.name, each.has_default) for each in columns]
    with store.shard("agent") as shard:
        shard.write(cls(value=2, note="x"))
    store.merge()
    assert [1, 2] == [row["value"] for row in store.query("SELECT value FROM reading ORDER BY value")]


def test_options_that_are_given_later_hold_from_then_on() -> None:
    cls: Any = attrs_class()
    assert "reading" == table_of(cls).name
    edgeshard.table(name="measured", key="value")(cls)
    assert "measured" == table_of(cls).name
    deletion = type(declare.deletion(cls, (1,)))
    assert "measured_deleted" == table_of(deletion).name
    edgeshard.table(name="observed", key="value")(cls)
    assert "observed_deleted" == table_of(deletion).name


def test_a_class_that_is_pickled_whole_is_read_where_it_arrives() -> None:
    cls = unslotted_attrs_class()
    table_of(cls)
    arrived = copied(cls)
    setattr(arrived, declare._READ, pickle.loads(pickle.dumps(vars(cls)[declare._READ])))
    assert vars(arrived)[declare._READ] is None
    assert arrived is getattr(table_of(arrived).form, "cls", None)


def test_a_model_that_is_rebuilt_is_read_again() -> None:
    class Reading(pydantic.BaseModel):
        value: int

    table_of(Reading)
    Reading.model_config = pydantic.ConfigDict(extra="allow")
    with pytest.raises(TableError, match="extra"):
        table_of(Reading)


def test_a_class_that_is_refused_is_read_again() -> None:
    @dataclasses.dataclass
    class Reading:
        value: complex

    for _ in range(2):
        with pytest.raises(TableError, match="complex"):
            table_of(Reading)
    Reading.__annotations__["value"] = "int"
    assert ["integer"] == [column.type for column in table_of(Reading).columns]


def test_a_class_that_takes_no_attribute_is_read_each_time() -> None:
    class Sealed(type):
        def __setattr__(cls, name: str, value: object) -> None:
            if name == declare._READ:
                raise AttributeError(name)
            super().__setattr__(name, value)

    @attrs.frozen
    class Reading(metaclass=Sealed):
        value: int

    assert table_of(Reading) == table_of(Reading)
    assert declare._READ not in vars(Reading)
