"""Agents of different versions: columns that are new, gone, renamed or wider, and what cannot be brought together."""

from __future__ import annotations

import decimal
import itertools
import random
import uuid
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeshard
from edgeshard.errors import RecordError, SchemaConflictError, TableError, UnreadableRowError
from edgeshard.records import renames, types
from tests.support.processes import command, sql, unwrapped
from tests.support.schema_versions import (
    BIG,
    KEY,
    column,
    kinds_of,
    merged,
    version,
    write,
)
from tests.support.stores import new_store, shard_path, write_apart

# -- renamed columns --------------------------------------------------------------------------------------------------

OLD, NEW = version(a=int), version(b=int, renamed={"a": "b"})


@pytest.mark.parametrize("order", list(itertools.permutations(["old", "new", "older"])))
def test_a_renamed_column_is_one_in_the_master_in_whatever_order_its_agents_come(
    store: edgeshard.Store, order: tuple[str, ...]
) -> None:
    for agent in order:
        write(store, agent, NEW(1) if agent == "new" else OLD(2))
        merged(store)
    assert {"b": "integer"} == kinds_of(store)
    assert [1, 2, 2] == sorted(column(store, "b"))


def test_an_agent_that_is_updated_and_set_back_goes_on_in_its_shard(store: edgeshard.Store) -> None:
    for n, cls in enumerate([OLD, NEW, OLD, NEW]):
        write(store, "x", cls(n))
    merged(store)
    assert [0, 1, 2, 3] == column(store, "b")


def test_an_old_and_a_new_class_read_a_renamed_column(store: edgeshard.Store) -> None:
    write(store, "x", OLD(1))
    write(store, "y", NEW(2))
    merged(store)
    assert [OLD(1), OLD(2)] == list(store.read(OLD))
    assert [NEW(1), NEW(2)] == list(store.read(NEW))


def test_values_that_came_under_both_names_are_brought_together_when_the_rename_is_known(
    store: edgeshard.Store,
) -> None:
    write(store, "x", OLD(1))
    write(store, "y", version(b=int)(2))  # it does not say that it was renamed
    merged(store)
    assert {"a", "b"} == set(kinds_of(store))
    write(store, "z", NEW(3))
    merged(store)
    assert {"b": "integer"} == kinds_of(store)
    assert [1, 2, 3] == column(store, "b")
    assert ["_id", "_seq", "_stream", "b"] == sorted(
        row[1] for row in sql(store.master_path, "pragma table_info(sample)")
    )


def test_rows_with_both_names_and_other_values_hold_back_the_shard_that_brings_the_rename(
    store: edgeshard.Store,
) -> None:
    write(store, "x", version(a=int, b=int)(1, 2))
    merged(store)
    write(store, "y", NEW(3))
    write(store, "z", version(other=int)(4))
    report = store.merge()
    assert [str(shard_path(store, "y"))] == [aside.path for aside in report.blocked]
    assert "has rows with different values in a and b" in report.blocked[0].reason
    assert [(1, 2, None), (None, None, 4)] == store.query("select a, b, other from sample order by _id")


def test_rows_of_a_shard_with_both_names_and_other_values_hold_it_back(store: edgeshard.Store) -> None:
    write(store, "y", NEW(3))
    merged(store)
    write(store, "x", version(a=int, b=int)(1, 2))
    assert "in b and a" in store.merge().blocked[0].reason


def test_a_field_that_has_the_older_name_of_another_field_is_refused(store: edgeshard.Store) -> None:
    write(store, "x", NEW(1))
    with store.shard("x") as shard:
        with pytest.raises(SchemaConflictError, match=r"sample\.a is what b was called before\. Give the field"):
            shard.write(version(a=int, b=int)(1, 2))
        shard.write(NEW(2))
    merged(store)
    assert [1, 2] == column(store, "b")


@pytest.mark.slow
def test_a_column_that_was_renamed_twice_has_the_last_name_whatever_comes_first(tmp_path: Path) -> None:
    second = version(b=int, renamed={"a": "b"})
    for name, third in (("short", {"b": "c"}), ("long", {"a": "c", "b": "c"})):
        classes = [OLD(1), second(2), version(c=int, renamed=third)(3)]
        for number, order in enumerate(itertools.permutations(enumerate(classes))):
            store = edgeshard.Store(tmp_path / f"{name}{number}")
            for agent, record in order:
                write(store, str(agent), record)
                store.merge()
            merged(store)
            assert ({"c": "integer"}, [1, 2, 3]) == (kinds_of(store), sorted(column(store, "c")))


def test_renames_in_a_circle_hold_back_the_shard_that_closes_it(store: edgeshard.Store) -> None:
    write(store, "x", NEW(1))
    write(store, "y", {"n": 1})
    merged(store)
    write_apart(store, "z", version(a=int, renamed={"b": "a"})(2))
    write(store, "y", {"n": 2})
    report = store.merge()
    (aside,) = report.blocked
    assert (str(shard_path(store, "z")), 1) == (aside.path, report.rows)
    assert "the renames of a form a circle: choose a third name for one of them" in aside.reason
    assert [1] == column(store, "b")


def test_a_column_that_was_renamed_to_two_names_holds_back_the_second_shard(store: edgeshard.Store) -> None:
    write(store, "x", NEW(1))
    merged(store)
    write_apart(store, "y", version(c=int, renamed={"a": "c"})(2))
    (aside,) = store.merge().blocked
    assert "a was renamed to b and to c" in aside.reason
    write(store, "z", version(c=int, renamed={"b": "c"})(3))  # which says how they belong together
    merged(store)
    assert [1, 2, 3] == sorted(column(store, "c"))


def test_an_index_of_older_agents_alone_goes_on_under_the_new_name(store: edgeshard.Store) -> None:
    write(store, "x", version(a=int, n=int, index=("a", "n"))(1, 1))
    merged(store)
    write(store, "y", version(b=float, renamed={"a": "b"})(2))
    merged(store)
    listed = "select name from sqlite_schema where type = 'index' and tbl_name = 'sample' order by 1"
    assert [["sample by b"], ["sample by n"]] == sql(store.master_path, listed)
    noted = "select columns from _edgeshard_indexes where table_name = 'sample' order by 1"
    assert [('["b"]',), ('["n"]',)] == store.query(noted)


def test_an_index_goes_on_under_the_new_name(store: edgeshard.Store) -> None:
    write(store, "x", version(a=int, n=int, index=("a",))(1, 1))
    merged(store)
    write(store, "y", version(b=float, n=int, renamed={"a": "b"}, index=("b",))(2, 2))
    write(store, "z", version(a=int, n=int, index=("a",))(3, 3))
    merged(store)
    made = "select name from sqlite_schema where type = 'index' and tbl_name = 'sample'"
    assert [["sample by b"]] == sql(store.master_path, made)
    assert [('["b"]',)] == store.query("select columns from _edgeshard_indexes where table_name = 'sample'")
    assert store.verify(deep=True).ok


@pytest.mark.parametrize(
    ("renamed", "said"),
    [
        ({"a": "x"}, "'a' leads to 'x', which is not one of its fields"),
        ({"b": "c"}, "'b' is still one of its fields"),
        ({"B": "c"}, "'B' is still one of its fields"),
        ({"a": "b", "A": "b"}, "'A' is there twice"),
        ({"_a": "b"}, "letters, digits or _"),
        ({1: "b"}, "1 is not a name"),
    ],
)
def test_renames_that_cannot_be_are_refused(renamed: dict[str, str], said: str) -> None:
    with pytest.raises(TableError, match=said):
        edgeshard.records.declare.table_of(version(b=int, c=int, renamed=renamed))


def test_renamed_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(TableError, match="renamed must map older names of fields"):
        edgeshard.table(renamed=["a"])  # type: ignore[call-overload]


def test_old_names_fold_as_sql_does(store: edgeshard.Store) -> None:
    write(store, "x", version(Temp=int)(1))
    write(store, "y", version(celsius=int, renamed={"TEMP": "celsius"})(2))
    merged(store)
    assert [1, 2] == sorted(column(store, "celsius"))


# -- wider kinds ------------------------------------------------------------------------------------------------------

WIDER = [
    (bool, int, True, 5, [1, 5]),
    (bool, float, True, 0.5, [1.0, 0.5]),
    (bool, decimal.Decimal, True, decimal.Decimal("0.5"), ["1", "0.5"]),
    (int, float, 3, 0.5, [3.0, 0.5]),
    (int, decimal.Decimal, BIG, decimal.Decimal("0.10"), [str(BIG), "0.10"]),
    (float, decimal.Decimal, 0.1, decimal.Decimal("0.10"), ["0.1", "0.10"]),
    (uuid.UUID, str, KEY, "any", [str(KEY), "any"]),
]


@pytest.mark.parametrize(("narrow", "wide", "one", "other", "expected"), WIDER)
@pytest.mark.parametrize("way", ["master", "backlog", "shard", "narrow last", "back"])
def test_a_wider_column_holds_the_values_of_both(
    store: edgeshard.Store, narrow: Any, wide: Any, one: Any, other: Any, expected: list[Any], way: str
) -> None:
    first, second = version(n=int, v=narrow, w=(str, "w")), version(n=int, v=wide, w=(str, "w"))
    records = [first(1, one), second(2, other)]
    if way == "back":  # to the older software, in a shard whose column is wide by then
        write(store, "x", records[1], records[0])
    elif way == "shard":  # the shard's own table is widened, with a row in it
        write(store, "x", records[0])
        write(store, "x", records[1])
    elif way == "narrow last":
        write(store, "y", records[1])
        merged(store)
        write(store, "x", records[0])
    else:
        write(store, "x", records[0])
        if way == "master":
            merged(store)
        write(store, "y", records[1])
    merged(store)
    found = store.query("select v, typeof(v), w from sample order by n")
    assert [(value, "w") for value in expected] == [(v, w) for v, _, w in found]
    assert {type(value) for value in expected} == {type(v) for v, _, _ in found}
    assert [other] == [record.v for record in store.read(second) if record.n == 2]
    assert store.verify(deep=True).ok


@pytest.mark.parametrize(
    ("narrow", "wide", "fits", "other"),
    [
        (bool, int, 1, 5),
        (int, float, 3.0, 0.5),
        (int, decimal.Decimal, decimal.Decimal("3.00"), decimal.Decimal("NaN")),
        (float, decimal.Decimal, decimal.Decimal("0.10"), decimal.Decimal("0.10000000000000000001")),
        (uuid.UUID, str, str(KEY), "any"),
    ],
)
def test_an_older_class_reads_what_fits_of_a_wider_column_and_says_what_does_not(
    store: edgeshard.Store, narrow: Any, wide: Any, fits: Any, other: Any
) -> None:
    old = version(v=narrow)
    write(store, "x", version(v=wide)(fits))
    merged(store)
    (found,) = store.read(old)
    assert (narrow, narrow(fits)) == (type(found.v), found.v)
    write(store, "y", version(v=wide)(other))
    merged(store)
    rows = store.read(old)
    assert found == next(rows)
    said = (
        r"row 2 of sample \(agent 'y', .* seq 1\): Sample\.v = .*: the column is .* in this class, and .*Read it with"
    )
    with pytest.raises(UnreadableRowError, match=said):
        next(rows)


def test_a_newer_class_reads_a_column_that_is_narrow_still(store: edgeshard.Store) -> None:
    write(store, "x", version(v=int)(3))
    merged(store)
    assert [3.0] == [record.v for record in store.read(version(v=float))]
    assert [decimal.Decimal(3)] == [record.v for record in store.read(version(v=decimal.Decimal))]
    with pytest.raises(SchemaConflictError, match=r"column sample\.v is integer there and text in this class"):
        list(store.read(version(v=str)))


def test_an_integer_that_a_real_would_round_holds_back_the_shard_and_a_decimal_resolves_it(
    store: edgeshard.Store,
) -> None:
    write(store, "x", version(v=int)(BIG))
    write(store, "z", version(v=float)(0.5))
    (aside,) = store.merge().blocked
    assert str(shard_path(store, "z")) == aside.path
    assert "integers beyond 2^53" in aside.reason
    write(store, "y", version(v=float)(1.5), version(v=float)(2.5))
    write(store, "w", version(v=decimal.Decimal)(decimal.Decimal("0.10")))
    store.merge()
    merged(store)
    assert sorted([str(BIG), "0.5", "1.5", "2.5", "0.10"]) == sorted(column(store, "v"))


def test_an_integer_that_a_real_would_round_is_held_back_where_the_column_is_real_before(
    store: edgeshard.Store,
) -> None:
    write(store, "z", version(v=float)(0.5))
    merged(store)
    write(store, "x", version(v=int)(2**53), version(v=int)(-BIG))
    (aside,) = store.merge().blocked
    assert "column sample.v has integers beyond 2^53, and other agents declare it as real" in aside.reason
    assert [[2**53], [-BIG]] == sql(shard_path(store, "x"), "select v from sample")


def test_an_older_agent_in_a_wider_shard_is_refused_what_would_be_rounded_and_goes_on(store: edgeshard.Store) -> None:
    write(store, "x", version(v=float)(0.5))
    with store.shard("x") as shard:
        with pytest.raises(RecordError, match="more digits than a float holds"):
            shard.write(version(v=int)(BIG))
        with pytest.raises(RecordError, match="expected int, got str"):
            shard.write(version(v=int)("3"))
        with pytest.raises(RecordError, match="not Optional"):
            shard.write(version(v=int)(None))
        shard.write(version(v=int | None)(None))
        shard.write_many([version(v=int)(3), version(v=bool)(True)])
    merged(store)
    assert [0.5, None, 3.0, 1.0] == column(store, "v")


def test_a_class_that_wrote_before_its_column_was_widened_in_the_same_handle_rounds_nothing(
    store: edgeshard.Store,
) -> None:
    whole, real = version(v=int), version(v=float)
    with store.shard("x") as shard:
        shard.write(whole(1))
        shard.write(real(0.1 + 0.2))
        with pytest.raises(RecordError, match="more digits than a float holds"):
            shard.write(whole(BIG))
        shard.write(version(v=decimal.Decimal)(decimal.Decimal("0.10")))
        shard.write(real(0.1 + 0.2))
        shard.write(whole(BIG))
    merged(store)
    assert ["1", "0.30000000000000004", "0.10", "0.30000000000000004", str(BIG)] == column(store, "v")


def test_a_shard_whose_integers_a_float_would_round_refuses_the_wider_class_until_they_are_merged(
    store: edgeshard.Store,
) -> None:
    with store.shard("x") as shard:
        shard.write(version(v=int)(BIG))
        with pytest.raises(SchemaConflictError, match=r"beyond 2\^53 in the shard, which a float would round"):
            shard.write(version(v=float)(0.5))
        shard.write(version(v=decimal.Decimal)(decimal.Decimal("0.5")))
    merged(store)
    assert [str(BIG), "0.5"] == column(store, "v")


def test_a_widened_shard_that_is_undone_is_as_it_was(store: edgeshard.Store) -> None:
    with store.shard("x") as shard:
        shard.write(version(v=int)(1))
        with pytest.raises(ZeroDivisionError), shard.transaction():
            shard.write(version(v=float, renamed={"u": "v"})(0.5))
            raise ZeroDivisionError
        shard.write(version(v=int)(2))
    assert [["v", "integer"]] == sql(
        shard_path(store, "x"), "select column_name, type from _edgeshard_columns where table_name = 'sample'"
    )
    merged(store)
    assert [(1, "integer"), (2, "integer")] == store.query("select v, typeof(v) from sample")


def test_rows_that_stayed_in_a_shard_are_found_equal_after_its_column_was_renamed_and_widened(
    store: edgeshard.Store,
) -> None:
    with store.shard("x") as shard:
        shard.write_many([version(a=int)(1), version(a=int)(2)])
        before = Path(shard_path(store, "x")).read_bytes(), Path(f"{shard_path(store, 'x')}-wal").read_bytes()
    merged(store)
    write(store, "y", version(b=decimal.Decimal, renamed={"a": "b"})(decimal.Decimal("0.5")))
    merged(store)
    shard_path(store, "x").write_bytes(before[0])  # a copy comes back
    Path(f"{shard_path(store, 'x')}-wal").write_bytes(before[1])
    merged(store)
    assert ["1", "2", "0.5"] == column(store, "b")


@given(st.floats(allow_nan=False))
def test_a_float_that_became_a_decimal_is_that_float_again(value: float) -> None:
    assert value == float(decimal.Decimal(types.decimal_text(value)))


@given(st.lists(st.sampled_from([*edgeshard.format.STORED_AS]), min_size=3, max_size=3))
def test_the_widest_kind_does_not_depend_on_the_order(three: list[str]) -> None:
    def of(found: list[str]) -> str | None:
        first = types.widest(found[0], found[1])
        return None if first is None else types.widest(first, found[2])

    assert 1 == len({of(list(order)) for order in itertools.permutations(three)})


@given(st.integers(-types.EXACT_MAX, types.EXACT_MAX))
def test_a_number_becomes_the_same_decimal_by_way_of_a_real(value: int) -> None:
    by_way = types.widened(types.widened(value, "integer", "real"), "real", "decimal")
    assert types.widened(value, "integer", "decimal") == by_way


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), max_size=6), st.randoms())
def test_where_renames_end_does_not_depend_on_the_order(arrows: list[tuple[str, str]], rng: random.Random) -> None:
    def of(found: list[tuple[str, str]]) -> dict[str, str] | str:
        try:
            return renames.ends(found)
        except renames.UnclearError as error:
            return str(error)

    assert of(arrows) == of(rng.sample(arrows, len(arrows)))


# -- fields and tables that are gone, and what cannot be brought together ---------------------------------------------


def test_a_class_that_lost_a_field_and_a_table_that_nobody_writes_any_more_lose_nothing(store: edgeshard.Store) -> None:
    write(store, "x", version(a=int, b=str)(1, "kept"), {"n": 1})
    merged(store)
    write(store, "x", version(a=int)(2))
    write(store, "y", version(a=int)(3))
    merged(store)
    assert [(1, "kept"), (2, None), (3, None)] == store.query("select a, b from sample order by _id")
    assert [1, 2, 3] == [record.a for record in store.read(version(a=int))]
    assert 1 == len(store.query("select * from agent_data"))


def test_hubs_that_learnt_columns_in_another_order_are_one_whatever_hub_comes_first(tmp_path: Path) -> None:
    found = []
    for number, order in enumerate([(0, 1), (1, 0)]):
        devices = [edgeshard.Store(tmp_path / f"{name}{number}") for name in ("one", "two")]
        write(devices[0], "x", version(a=int, z=str)(1, "z"))
        write(devices[1], "y", version(z=str, b=float, c=int, renamed={"a": "b"})("zz", 0.5, 7))
        hub = new_store(tmp_path / f"hub{number}")
        for at in order:
            merged(devices[at])
            merged(hub, devices[at])
        merged(hub, *devices)
        merged(devices[0], hub)
        found += [
            (kinds_of(store), sorted(store.query("select b, c, z from sample"), key=str)) for store in (hub, devices[0])
        ]
    assert [({"b": "real", "c": "integer", "z": "text"}, [(0.5, 7, "zz"), (1.0, None, "z")])] * 4 == found


def test_a_bundle_carries_renames_and_wider_kinds(store: edgeshard.Store, tmp_path: Path) -> None:
    hub = new_store(tmp_path / "hub")
    write(hub, "old", version(a=int)(1))
    merged(hub)
    write(store, "x", version(a=int)(2))
    write(store, "y", version(b=float, renamed={"a": "b"})(0.5))
    merged(store)
    store.export(tmp_path / "bundle")
    assert hub.merge([tmp_path / "bundle"]).complete
    write(hub, "old", version(a=int)(3))
    merged(hub)
    assert ({"b": "real"}, [0.5, 1.0, 2.0, 3.0]) == (kinds_of(hub), sorted(column(hub, "b")))


def test_a_shard_that_renamed_and_widened_is_salvaged_whole(store: edgeshard.Store) -> None:
    write(store, "x", *(version(a=int, w=str)(n, f"{n}") for n in range(300)))
    write(store, "x", version(b=float, w=str, renamed={"a": "b"})(0.5, "half"))
    write(store, "x", version(a=float, w=str)(1.5, "back"))
    write(store, "y", version(b=int)(7))
    path = shard_path(store, "x")
    sql(path, "pragma wal_checkpoint(truncate)")
    whole = path.read_bytes()
    path.write_bytes(bytes(100) + whole[100:])
    assert not store.merge().complete
    report = store.salvage(path)
    assert (302, 302, 0, ()) == (report.rows, report.merged, report.unassigned, report.gaps)
    assert {"b": "real", "w": "text"} == kinds_of(store)
    assert sorted([*map(float, range(300)), 0.5, 1.5, 7.0]) == sorted(column(store, "b"))


def test_a_shard_cannot_rename_the_columns_of_dicts(store: edgeshard.Store) -> None:
    with store.shard("bad") as shard:
        shard.write({"n": 1})
    path = shard_path(store, "bad")
    sql(path, edgeshard.format.DDL["_edgeshard_renames"])
    sql(path, "insert into _edgeshard_renames values ('Agent_Data', 'data', 'other')")
    write(store, "good", {"n": 2})
    report = store.merge()
    assert (1, [str(path)]) == (report.rows, [aside.path for aside in report.quarantined])
    assert "renames columns of agent_data" in report.quarantined[0].reason


def test_a_shard_cannot_widen_the_columns_of_dicts(store: edgeshard.Store) -> None:
    fields = {"agent_id": str, "timestamp": decimal.Decimal, "data": dict}
    cls = edgeshard.table(name="agent_data")(attrs.frozen(type("Dicts", (), {"__annotations__": fields})))
    write(store, "bad", cls("bad", decimal.Decimal(1), {}))
    write(store, "good", {"n": 2})
    report = store.merge()
    assert (1, [str(shard_path(store, "bad"))]) == (report.rows, [aside.path for aside in report.blocked])
    assert "column agent_data.timestamp is decimal in this shard and datetime in the master" in report.blocked[0].reason


def test_a_hostile_shard_of_renames_without_end_holds_back_itself(store: edgeshard.Store) -> None:
    write(store, "bad", version(b=int, renamed={"a": "b"})(1))
    numbered = "with n(i) as (select 1 union all select i + 1 from n where i < 300) select 'sample', 'a' || i, 'a' || "
    sql(shard_path(store, "bad"), f"insert into _edgeshard_renames {numbered} (i + 1) from n")
    sql(shard_path(store, "bad"), f"insert into _edgeshard_renames {numbered} (i + 2) from n")
    write(store, "good", {"n": 2})
    assert 1 == len([aside for aside in store.merge().quarantined if "bad" in aside.path])
    assert 1 == len(store.query("select * from agent_data"))


def test_text_against_integer_holds_back_that_shard_alone_and_status_says_what_to_do(store: edgeshard.Store) -> None:
    write(store, "x", version(v=int)(1))
    merged(store)
    write_apart(store, "y", version(v=str)("one"))
    write(store, "z", version(v=int)(2))
    before = command("status", store.root)
    report = store.merge()
    assert ([str(shard_path(store, "y"))], 1) == ([aside.path for aside in report.blocked], report.rows)
    for said in (before, command("status", store.root)):
        assert 3 == said.returncode
        assert "column sample.v is text in this shard and integer in the master" in unwrapped(said.stdout)
        assert "merged into a store of its own" in unwrapped(said.stdout)
        assert "shard with another name" in unwrapped(said.stdout)


def test_a_table_becomes_wider_although_another_of_the_same_shard_is_blocked(store: edgeshard.Store) -> None:
    write(store, "x", version(v=int)(1), {"n": 1})
    merged(store)
    later = edgeshard.table(name="zz")(attrs.frozen(type("Z", (), {"__annotations__": {"v": int}})))
    write(store, "w", later(1))
    merged(store)
    other = edgeshard.table(name="zz")(attrs.frozen(type("Z", (), {"__annotations__": {"v": str}})))
    write_apart(store, "y", version(v=float)(0.5), other("one"))
    assert ["zz"] == [item.table for item in store.merge().blocked]
    assert {"v": "real"} == kinds_of(store)


def test_status_says_what_to_do_of_values_that_do_not_fit(store: edgeshard.Store) -> None:
    write(store, "x", version(v=float)(1.0))
    merged(store)
    write(store, "y", version(v=int)(BIG))
    store.merge()
    said = command("status", store.root)
    assert 3 == said.returncode
    assert "which would round them" in unwrapped(said.stdout)
    assert "Declare the field as Decimal" in unwrapped(said.stdout)


def test_a_shard_that_was_held_back_is_merged_once_its_kind_fits(store: edgeshard.Store) -> None:
    write(store, "x", version(v=int)(BIG))
    merged(store)
    write(store, "y", version(v=float)(0.5))
    assert not store.merge().complete
    write(store, "z", version(v=decimal.Decimal)(decimal.Decimal(1)))
    store.merge()
    merged(store)
    assert ["0.5", "1", str(BIG)] == sorted(column(store, "v"))


def test_a_view_of_the_user_over_a_renamed_column_holds_nothing_back_or_that_shard_alone(
    store: edgeshard.Store,
) -> None:
    write(store, "x", version(a=int, c=int)(1, 1))
    merged(store)
    sql(store.master_path, "create view seen as select a, c from sample")
    write(store, "y", version(b=int, renamed={"a": "b"})(2))
    write(store, "z", {"n": 1})
    report = store.merge()
    assert 1 <= report.rows
    if report.blocked:
        assert "A view, an index or a trigger that was made in the master by hand" in report.blocked[0].reason
        sql(store.master_path, "drop view seen")
    write(store, "w", version(c=float)(0.5))
    report = store.merge()
    if report.blocked:
        assert "A view, an index or a trigger that was made in the master by hand" in report.blocked[0].reason
        sql(store.master_path, "drop view seen")
        merged(store)
    assert [1.0, 2.0, None] == column(store, "b")
