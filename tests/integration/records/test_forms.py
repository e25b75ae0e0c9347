"""Each form of a record works as an attrs class does: the same columns, rows, options and errors."""

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import attrs
import pydantic
import pytest

import edgeshard
from edgeshard.errors import RecordError, SchemaConflictError, TableError
from edgeshard.records.declare import table_of
from edgeshard.records.json_values import DEPTH_MAX
from tests.support.enums import Word

T = TypeVar("T")


@attrs.frozen
class Frozen:
    sensor: str
    celsius: float
    word: Word
    tags: list[str]
    note: str | None = None
    level: int = 7


@attrs.define
class Mutable:
    sensor: str
    celsius: float
    word: Word
    tags: list[str]
    note: str | None = None
    level: int = 7


@dataclass
class Data:
    sensor: str
    celsius: float
    word: Word
    tags: list[str]
    note: str | None = None
    level: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class SlottedData:
    sensor: str
    celsius: float
    word: Word
    tags: list[str] = dataclasses.field(default_factory=list)
    note: str | None = None
    level: int = 7


class Model(pydantic.BaseModel):
    sensor: str
    celsius: float
    word: Word
    tags: list[str]
    note: str | None = None
    level: int = 7


class Aliased(pydantic.BaseModel):
    sensor: str = pydantic.Field(alias="Sensor")
    celsius: float = pydantic.Field(validation_alias=pydantic.AliasChoices("degrees", "c"))
    word: Word
    tags: list[str]
    note: str | None = None
    level: int = 7


class Tuple(NamedTuple):
    sensor: str
    celsius: float
    word: Word
    tags: list[str]
    note: str | None = None
    level: int = 7


class Typed(TypedDict):
    sensor: str
    celsius: float
    word: Word
    tags: list[str]
    note: str | None
    level: int


VALUES: dict[str, Any] = {"sensor": "inlet", "celsius": 71.5, "word": Word.YES, "tags": ["a", "b"]}

#: Each form, and how an instance of it is made.
FORMS: dict[Any, Callable[..., Any]] = {
    **{cls: cls for cls in (Frozen, Mutable, Data, SlottedData, Model, Tuple)},
    Aliased: lambda sensor, celsius, **more: Aliased(**{"Sensor": sensor, "c": celsius, **more}),
    Typed: lambda **values: {"note": None, "level": 7, **values},
}

each_form = pytest.mark.parametrize("cls", FORMS, ids=lambda cls: cls.__name__)


def table_argument(cls: Any) -> dict[str, Any]:
    """Return what `write` needs to know of a record's form."""
    return {"table": cls} if cls is Typed else {}


@each_form
def test_each_form_has_the_same_columns(cls: Any) -> None:
    def columns(cls: Any) -> list[tuple[str, str, bool]]:
        return [(column.name, column.type, column.optional) for column in table_of(cls).columns]

    assert columns(Frozen) == columns(cls)


@each_form
def test_instances_of_each_form_come_back_as_they_were(store: edgeshard.Store, cls: Any) -> None:
    make, given = FORMS[cls], table_argument(cls)
    records = [make(**VALUES | {"celsius": float(n), "note": note}) for n, note in enumerate([None, "x", None, "y"])]
    with store.shard("agent") as shard:
        assert 1 == shard.write(records[0], **given)
        assert 1 == shard.write_many(records[1:2], **given)
        assert 1 == shard.write_many(iter(records[2:3]), **given)
        with shard.transaction():
            assert 4 == shard.write(records[3], **given)
    store.merge()
    read = list(store.read(cls))
    assert records == read
    assert {type(records[0])} == set(map(type, read))


@each_form
def test_a_value_that_is_refused_is_named_in_each_form(shard: edgeshard.Shard, cls: Any) -> None:
    wrong = FORMS[cls](**VALUES)
    if isinstance(wrong, pydantic.BaseModel):
        wrong = wrong.model_copy(update={"tags": ["a", 1]})
    else:
        wrong = FORMS[cls](**VALUES | {"tags": ["a", 1]})
    for write in (shard.write, lambda record, **given: shard.write_many([record, record], **given)):
        with pytest.raises(RecordError, match=rf"{cls.__name__}\.tags, \$\[1\] = 1: expected str, got int"):
            write(wrong, **table_argument(cls))
    assert 1 == shard.write(FORMS[cls](**VALUES), **table_argument(cls))


@each_form
def test_options_and_deletions_work_with_each_form(store: edgeshard.Store, cls: Any) -> None:
    edgeshard.table(name="last_known", key="sensor", index=["celsius"])(cls)
    try:
        make, given = FORMS[cls], table_argument(cls)
        with store.shard("agent") as shard:
            shard.write_many([make(**VALUES | {"sensor": name}) for name in "aab"], **given)
            shard.delete(cls, "b")
        store.merge()
        assert [make(**VALUES | {"sensor": "a"})] == list(store.read(cls))
    finally:
        del cls.__edgeshard_table__


def test_a_key_that_a_typed_dict_need_not_have_is_missing_again(store: edgeshard.Store) -> None:
    class Partial(TypedDict):
        sensor: str
        note: NotRequired[str]

    class Loose(TypedDict, total=False):
        sensor: typing.Required[str]
        note: str

    for cls in (Partial, Loose):
        records = [{"sensor": "a"}, {"sensor": "b", "note": "x"}]
        with store.shard(cls.__name__) as shard:
            shard.write_many(records, table=cls)
            for wrong, words in (
                ({"note": "x"}, r"has no value for the key 'sensor'"),
                ({"sensor": "a", "nite": "x"}, r"declares no key 'nite'"),
                ({"sensor": "a", "note": None}, r"\.note = None: it is None"),
                (collections.OrderedDict(sensor="a"), "OrderedDict is a subclass of dict"),
            ):
                with pytest.raises(RecordError, match=words):
                    shard.write(wrong, table=cls)
        store.merge()
        assert records == list(store.read(cls))


def test_a_record_that_does_not_belong_to_the_table_is_refused(shard: edgeshard.Shard) -> None:
    for record, table, words in (
        (Frozen(**VALUES), "events", r"table='events' is for dicts, got Frozen; leave table= out"),
        ([1], "events", "got list"),
        ({"a": 1}, Frozen, "a name or a TypedDict, both for dicts"),
        ({"a": 1}, 5, "got 5"),
        (Tuple(**VALUES), Typed, "got Tuple"),
    ):
        wrong: Any = table
        with pytest.raises(RecordError, match=words):
            shard.write(record, table=wrong)
    assert 1 == shard.write(Frozen(**VALUES), table=Frozen)


def test_what_a_class_computes_itself_comes_back_as_it_was_written(store: edgeshard.Store) -> None:
    @dataclass(frozen=True, slots=True)
    class Numbered:
        n: int
        made: float = dataclasses.field(init=False, default=0.0)

    record = Numbered(1)
    object.__setattr__(record, "made", 12.5)
    with store.shard("agent") as shard:
        shard.write(record)
    store.merge()
    (read,) = store.read(Numbered)
    assert (1, 12.5) == (read.n, read.made)


# -- classes that are derived, generic, or made in functions ----------------------------------------------------------


class Derived(Frozen):
    """An attrs class without a decorator or fields of its own."""


@dataclass
class DerivedData(Data):
    extra: bool = True


class Box(pydantic.BaseModel, Generic[T]):
    content: T


@dataclass
class Pair(Generic[T]):
    left: T
    right: list[T]


class IntPair(Pair[int]):
    pass


class DeepPair(IntPair):
    pass


def test_derived_classes_and_concrete_generics_are_tables_of_their_own(store: edgeshard.Store) -> None:
    box = edgeshard.table(name="int_box")(Box[int])
    records: list[Any] = [Derived(**VALUES), DerivedData(**VALUES), IntPair(1, [2]), DeepPair(3, [4]), box(content=5)]
    with store.shard("agent") as shard:
        shard.write_many(records)
        with pytest.raises(RecordError, match=r"IntPair\.right, \$\[0\] = 'x': expected int"):
            shard.write(IntPair(1, ["x"]))  # type: ignore[list-item]
    store.merge()
    for record in records:
        assert [record] == list(store.read(type(record)))


def test_annotations_that_only_a_function_knows_are_resolved_by_the_decorator(store: edgeshard.Store) -> None:
    class Local(typing.NamedTuple):
        n: int

    @edgeshard.table
    @dataclass
    class Known:
        parts: list[Local]

    @dataclass
    class Unknown:
        parts: list[Local]

    with store.shard("agent") as shard:
        shard.write(Known([Local(1)]))
        with pytest.raises(TableError, match=r"Unknown has an annotation .*'Local' is not defined.*@edgeshard\.table"):
            shard.write(Unknown([]))
    store.merge()
    assert [Known([Local(1)])] == list(store.read(Known))


# -- what is refused when it is declared ------------------------------------------------------------------------------


class Undecorated(Data):
    extra: int = 1


class UndecoratedFrozen(Frozen):
    extra: int = 1


class Longer(Tuple):
    extra: int = 1


@dataclass
class WithInitVar:
    n: int
    given: dataclasses.InitVar[int]


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    n: int


class Root(pydantic.RootModel[int]):
    pass


class ByPath(pydantic.BaseModel):
    n: int = pydantic.Field(validation_alias=pydantic.AliasPath("a", 0))


class Ambiguous(TypedDict):
    n: NotRequired[int | None]


class Plain:
    n: int = 1


class NoFields(TypedDict):
    pass


def with_field(hint: Any) -> Any:
    return dataclasses.make_dataclass("Probe", [("x", hint)])


REFUSED: list[tuple[Any, str]] = [
    (Undecorated, "declares extra, but is not decorated like its base; add @dataclass"),
    (UndecoratedFrozen, "declares extra, but is not decorated like its base; add @attrs.frozen"),
    (Longer, "which a subclass of a NamedTuple cannot add"),
    (WithInitVar, "WithInitVar.given is an InitVar without a default"),
    (Open, 'extra="allow"'),
    (Root, "RootModel"),
    (ByPath, "ByPath.n can only be given by an AliasPath"),
    (Ambiguous, "Ambiguous.n is NotRequired and may be None"),
    (Pair, "the type variable ~T; declare a subclass"),
    (Pair[int], "is not a class of its own; declare a subclass"),
    (collections.namedtuple("Bare", "a b"), "a namedtuple without types"),
    (NoFields, "has no fields"),
    (Plain, "a plain class: decorate it with @attrs.frozen or @dataclass"),
    (object, "builtin type"),
    (str, "builtin type"),
    (type, "write Reading"),
    ("reading", "is not a class"),
    (collections.UserDict, r"a mapping; write dict\(value\)"),
    (with_field(typing.Literal[1, "a"]), "of one type"),
    (with_field(typing.Literal[1.5, 2.5] | int), "columns are bool"),
    (with_field(int | str), "columns are bool"),
    (with_field(list[int | Word]), "of which JSON cannot tell"),
    (with_field(list[bytes]), "bytes inside a container"),
    (with_field(dict[int, str]), "the keys of a JSON object are texts"),
    (with_field(collections.abc.Sequence[int]), r"declare list\[\.\.\.\]"),
    (with_field(collections.abc.Mapping[str, int]), r"declare dict\[\.\.\.\]"),
    (with_field(list[complex]), "columns are bool"),
    (with_field(list[Plain]), "columns are bool"),
    (with_field(Any), "columns are bool"),
    (with_field("Missing"), "cannot be resolved"),
    (with_field("1 +"), "cannot be resolved"),
]


@pytest.mark.parametrize(("cls", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_class_whose_instances_could_not_come_back_is_refused_with_the_reason(cls: Any, words: str) -> None:
    with pytest.raises(TableError, match=words):
        table_of(cls)


def test_an_instance_of_what_is_no_record_is_refused_by_a_write(shard: edgeshard.Shard) -> None:
    for record in (Plain(), Plain, [1], "x", None, 5, collections.UserDict(a=1)):
        with pytest.raises(TableError, match=r"instance|mapping|plain class|builtin"):
            shard.write(record)
    assert 1 == shard.write({"usable": True})


# -- values inside values ---------------------------------------------------------------------------------------------


@attrs.frozen
class Point:
    x: int
    y: float = 0.5


@dataclass
class Tree:
    name: str
    point: Point | None = None
    children: list[Tree] = dataclasses.field(default_factory=list)
    models: dict[str, Model] = dataclasses.field(default_factory=dict)
    pairs: tuple[tuple[int, Word], ...] = ()


def test_instances_inside_a_field_come_back_as_instances(store: edgeshard.Store) -> None:
    tree = Tree("a", Point(1), [Tree("b", children=[Tree("c")])], {"m": Model(**VALUES)}, ((1, Word.YES),))
    with store.shard("agent") as shard:
        shard.write(tree)
    store.merge()
    assert [tree] == list(store.read(Tree))
    assert [("b",)] == store.query("select children ->> '$[0].name' from tree")


def test_a_value_inside_an_instance_is_refused_by_its_path(shard: edgeshard.Shard) -> None:
    deep = leaf = Tree("0")
    for n in range(DEPTH_MAX):
        leaf.children.append(Tree(str(n)))
        leaf = leaf.children[0]
    circular = Tree("c")
    circular.children.append(circular)
    for record, words in (
        (Tree("a", children=[Tree("b", Point("x"))]), r"Tree\.children, \$\[0\]\.point\.x = 'x': expected int"),  # type: ignore[arg-type]
        (Tree("a", pairs=((1, "yes"),)), r"\$\[0\]\[1\] = 'yes': expected Word"),  # type: ignore[arg-type]
        (Tree("a", pairs=((1,),)), r"\$\[0\] = \(1,\): expected 2 items, got 1"),  # type: ignore[arg-type]
        (Tree("a", point=Derived(**VALUES)), "expected Point, got Derived"),  # type: ignore[arg-type]
        (deep, f"more than {DEPTH_MAX} levels"),
        (circular, "or contains itself"),
    ):
        with pytest.raises(RecordError, match=words):
            shard.write(record)


def test_an_instance_inside_a_field_takes_the_default_for_what_older_rows_lack(store: edgeshard.Store) -> None:
    old_point, new_point = (
        attrs.make_class("Inner", {"x": attrs.field(type=int), **more}, frozen=True)
        for more in ({"gone": attrs.field(type=int, default=0)}, {"y": attrs.field(type=int, default=9)})
    )
    old, new = (
        edgeshard.table(name="outer")(attrs.make_class("Outer", {"inner": attrs.field(type=inner)}))
        for inner in (old_point, new_point)
    )
    with store.shard("agent") as shard:
        shard.write(old(old_point(1, 2)))
        shard.write(new(new_point(3, 4)))
    store.merge()
    assert [new(new_point(1, 9)), new(new_point(3, 4))] == list(store.read(new))


# -- tables of dicts --------------------------------------------------------------------------------------------------


def test_dicts_go_to_the_table_that_is_named(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        assert 1 == shard.write({"n": 1}, table="events")
        assert 2 == shard.write_many([{"n": 2}, {"n": 3}], table="Events")
        assert 2 == shard.write_many(({"n": n} for n in (4, 5)), table="events")
        shard.write({"n": 6})
    store.merge()
    columns = "agent_id, data, typeof(timestamp)"
    events = store.query(f"select {columns} from events order by _seq")
    (dict_row,) = store.query(f"select {columns} from agent_data")
    assert [(row[0], f'{{"n":{n}}}', row[2]) for n, row in enumerate([dict_row] * 5, 1)] == events
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("name", ["", "a b", "edgeshard_x", "sqlite_x", "_x", "x" * 101])
def test_a_name_that_no_table_can_have_is_refused(shard: edgeshard.Shard, name: str) -> None:
    with pytest.raises(TableError, match="a name must have"):
        shard.write({"n": 1}, table=name)


def test_a_table_of_dicts_cannot_be_one_of_a_class_with_a_key(shard: edgeshard.Shard) -> None:
    edgeshard.table(name="keyed", key="n")(keyed := dataclasses.make_dataclass("Keyed", [("n", int)]))
    shard.write(keyed(1))
    with pytest.raises(SchemaConflictError, match=r"keyed has the key \(n\)"):
        shard.write({"n": 1}, table="keyed")


@attrs.frozen
class Result:
    step: int
    loss: float


@pytest.mark.parametrize("first", ["class", "dict"])
@pytest.mark.parametrize("merged", [False, True], ids=["in the shard", "in the master"])
def test_rows_of_a_class_and_dicts_do_not_mix(store: edgeshard.Store, first: str, merged: bool) -> None:
    """A reader of the class would find its fields empty in the rows of dicts."""

    def write(shard: edgeshard.Shard, kind: str) -> int:
        return shard.write(Result(1, 0.5)) if kind == "class" else shard.write({"step": 2}, table="result")

    other = "dict" if first == "class" else "class"
    with store.shard("one") as shard:
        write(shard, first)
        if merged:
            store.merge()
            with store.shard("two") as second, pytest.raises(SchemaConflictError, match="table result has"):
                write(second, other)
        with pytest.raises(SchemaConflictError, match=r"table result has (dicts|rows of a class) there"):
            write(shard, other)
        assert 2 == write(shard, first)


def test_where_two_agents_mix_dicts_and_a_class_the_later_ones_rows_are_blocked(store: edgeshard.Store) -> None:
    with store.shard("one") as one, store.shard("two") as two:
        one.write(Result(1, 0.5))
        two.write({"step": 2}, table="result")
        two.write({"goes": "on"})
        report = store.merge()
    assert (2, 1) == (report.rows, sum(blocked.rows for blocked in report.blocked))
    assert [Result(1, 0.5)] == list(store.read(Result))
    assert [("one",)] == store.query("select agent_id from result_with_agent")
