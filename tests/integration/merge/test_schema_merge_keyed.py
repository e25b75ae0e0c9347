"""Agents of different versions write a keyed table: its history follows it, and what decides what is kept never changes."""

from __future__ import annotations

import decimal
import itertools
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import SchemaConflictError, TableError
from edgeshard.records import keys
from tests.support.keyed_schema_versions import NEW, OLD, agree, columns, plain, version
from tests.support.processes import sql
from tests.support.schema_versions import (
    KEY,
    merged,
    write,
)
from tests.support.stores import new_store, shard_path, write_apart

KEPT_SHARD = "No row of the shard is lost: it can be merged into a store of its own"


def held_back(store: edgeshard.Store, agent: str) -> str:
    """Merge; why the shard of this agent, and of no other, is held back. Status says the same."""
    report = store.merge()
    assert [str(shard_path(store, agent))] == [aside.path for aside in report.blocked]
    (problem,) = (each.reason for shard in store.status().shards for each in shard.blocked)
    assert problem in report.blocked[0].reason
    assert KEPT_SHARD in problem
    return report.blocked[0].reason


# -- columns that are no part of the key ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("late", [False, True], ids=["merged each time", "merged once"])
def test_a_history_is_renamed_and_widened_with_its_table(
    store: edgeshard.Store, order: tuple[int, ...], late: bool
) -> None:
    records = [OLD("p", 1), NEW("p", 2.5), OLD("p", 3)]
    for number in order:
        write(store, f"agent{number}", records[number])
        if not late:
            merged(store)
    merged(store)
    agree(store)
    assert {"k": "text", "b": "real", "_timestamp": "timestamp"} == columns(store, "sample")
    written = [float(getattr(records[number], "a", 2.5)) for number in order]
    assert written[-1:] == [value for (value,) in store.query("SELECT b FROM sample")]
    assert sorted(written[:-1]) == [value for (value,) in store.query("SELECT b FROM sample_history ORDER BY b")]


def test_a_history_that_comes_late_has_the_columns_that_its_table_has_by_then(store: edgeshard.Store) -> None:
    forgetful = {"key": "k"}
    write(store, "x", *(plain(None, forgetful, k=str, a=int)("p", n) for n in (1, 2)))
    merged(store)
    write(store, "y", plain({"a": "b"}, forgetful, k=str, b=float)("p", 0.5))
    merged(store)
    write(store, "z", version(k=str, b=float)("p", 7.0))
    merged(store)
    agree(store)
    assert [(7.0,)] == store.query("SELECT b FROM sample")
    assert [(0.5,)] == store.query("SELECT b FROM sample_history ORDER BY b")


def test_a_shard_whose_columns_changed_while_it_waited_brings_the_last_version_and_the_history(
    store: edgeshard.Store,
) -> None:
    with store.shard("x") as shard:
        shard.write_many([OLD("p", 1), OLD("q", 2)])
        shard.write(NEW("p", 0.5))
        shard.write(OLD("p", 3))
        shard.delete(NEW, "q")
        shard.write(NEW("q", 4.0))
        shard.delete(OLD, "p")
    merged(store)
    agree(store)
    assert [("q", 4.0)] == store.query("SELECT k, b FROM sample")
    found = store.query("SELECT k, b, _reason AS reason FROM sample_history ORDER BY _seq")
    assert [("p", 1.0, "deleted"), ("q", 2.0, "replaced"), ("p", 0.5, "deleted"), ("p", 3.0, "deleted")] == found
    assert {"k": "text", "_timestamp": "timestamp"} == columns(store, "sample_deleted")


@pytest.mark.slow
@pytest.mark.parametrize("carried", ["master", "bundle"])
@pytest.mark.parametrize("newer_first", [False, True])
def test_a_hub_renames_and_widens_its_history_whatever_device_comes_first(
    tmp_path: Path, carried: str, newer_first: bool
) -> None:
    older, newer, hub = (new_store(tmp_path / name) for name in ("older", "newer", "hub"))
    for n in range(3):
        write(older, "x", OLD("p", n))
        merged(older)
        write(newer, "y", NEW("p", n + 0.5))
        merged(newer)
    devices = [newer, older, newer] if newer_first else [older, newer, older]
    for number, device in enumerate(devices):
        if carried == "bundle":
            device.export(tmp_path / f"bundle{number}")
            assert hub.merge([tmp_path / f"bundle{number}"]).complete
        else:
            merged(hub, device)
    merged(older, hub)
    for store in (hub, older):
        agree(store)
        assert [("p", 2.5)] == store.query("SELECT k, b FROM sample")
        assert [0.0, 0.5, 1.0, 1.5, 2.0] == [
            value for (value,) in store.query("SELECT b FROM sample_history ORDER BY b")
        ]


def test_values_of_the_history_by_both_names_that_differ_hold_back_the_shard_that_brings_the_rename(
    store: edgeshard.Store,
) -> None:
    write(store, "x", version(k=str, a=int, b=int)("p", 1, 2), version(k=str, a=int, b=int)("p", 3, 3))
    merged(store)
    before = columns(store, "sample")
    write(store, "y", version(k=str, b=int, renamed={"a": "b"})("p", 4))
    assert "has rows with different values in a and b" in held_back(store, "y")
    assert before == columns(store, "sample")
    assert [(1, 2)] == store.query("SELECT a, b FROM sample_history")


def test_an_integer_of_the_history_that_a_real_would_round_holds_back_the_shard_that_widens(
    store: edgeshard.Store,
) -> None:
    big = 2**53 + 1
    write(store, "x", OLD("p", big), OLD("p", 1))
    merged(store)
    write(store, "y", version(k=str, a=float)("p", 0.5))
    assert "has integers beyond 2^53" in held_back(store, "y")
    write(store, "z", version(k=str, a=decimal.Decimal)("p", decimal.Decimal("0.1")))
    store.merge()
    merged(store)
    agree(store)
    assert [str(big), "1", "0.5"] == [value for (value,) in store.query("SELECT a FROM sample_history ORDER BY _id")]


def test_a_copy_of_a_shard_of_before_is_found_equal_or_replaced(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "x", OLD("p", 1), OLD("q", 2))
    path = shard_path(store, "x")
    shutil.copy(path, tmp_path / "copy.db")
    write(store, "y", NEW("p", 0.5))
    merged(store)
    shutil.copy(tmp_path / "copy.db", path)
    merged(store)
    assert [("p", 0.5), ("q", 2.0)] == store.query("SELECT k, b FROM sample ORDER BY k")
    agree(store)


def test_a_class_reads_a_keyed_table_by_its_older_name(store: edgeshard.Store) -> None:
    write(store, "x", OLD("p", 1), NEW("p", 2.0))
    merged(store)
    assert ([OLD("p", 2)], [NEW("p", 2.0)]) == (list(store.read(OLD)), list(store.read(NEW)))


@pytest.mark.parametrize(
    "changes",
    [
        [
            "UPDATE _edgeshard_columns SET column_name = 'c' WHERE table_name = 'sample_history' AND column_name = 'b'",
            "ALTER TABLE sample_history RENAME COLUMN b TO c",
        ],
        ["DELETE FROM _edgeshard_renames WHERE table_name = 'sample_history'"],
        ["INSERT INTO _edgeshard_renames VALUES ('sample_deleted', 'q', 'k')"],
    ],
)
def test_a_source_whose_history_or_deletions_do_not_belong_to_their_table_is_held_back(
    tmp_path: Path, changes: list[str]
) -> None:
    device, hub = new_store(tmp_path / "device"), new_store(tmp_path / "hub")
    write(device, "x", OLD("p", 1), NEW("p", 2.0))
    merged(device)
    for statement in changes:
        sql(device.master_path, statement)
    (aside,) = hub.merge([device.master_path]).quarantined
    assert "has other columns than table 'sample', to which it belongs" in aside.reason


# -- the columns of a key, and of a conflict rule ---------------------------------------------------------------------

MAX = {"key": "k", "conflict": "max:v"}
NAMES = [("k", "key"), ("v", "rule")]


def ruled(renamed: dict[str, str] | None = None, **fields: Any) -> Any:
    """A class of the same table of which the version with the highest v is kept."""
    return plain(renamed, MAX, **fields)


@pytest.mark.parametrize("renamed", [{"old": "k"}, {"old": "v"}])
def test_a_class_that_renames_what_decides_is_refused(renamed: dict[str, str]) -> None:
    ((_, new),) = renamed.items()
    with pytest.raises(TableError, match=f"table sample: renamed says that {new} was called old, .* Call it old, or"):
        edgeshard.records.declare.table_of(ruled(renamed, k=str, v=int))
    edgeshard.records.declare.table_of(ruled({"old": "w"}, k=str, v=int, w=int))


@pytest.mark.parametrize("arrow", [("k", "w"), ("v", "w"), ("w", "k"), ("w", "v")])
@pytest.mark.parametrize("honest_first", [True, False])
def test_a_shard_that_renames_what_decides_is_held_back_and_no_other(
    store: edgeshard.Store, arrow: tuple[str, str], honest_first: bool
) -> None:
    if honest_first:
        write(store, "honest", ruled(k=str, v=int)("p", 1))
        merged(store)
    write(store, "renaming", ruled(k=str, v=int)("q", 1))
    sql(shard_path(store, "renaming"), format.DDL[format.RENAMES])
    sql(shard_path(store, "renaming"), f"INSERT INTO _edgeshard_renames VALUES ('sample', '{arrow[0]}', '{arrow[1]}')")
    write(store, "third", {"n": 1})
    assert "uses it: such a column keeps its name and its type" in held_back(store, "renaming")
    write(store, "honest", ruled(k=str, v=int)("p", 2))
    assert "uses it" in held_back(store, "renaming")
    assert [("p", 2)] == store.query("SELECT k, v FROM sample")


WIDENED: list[tuple[Any, Any, Any, Any]] = [
    (bool, int, True, 1),
    (int, float, 1, 1.0),
    (uuid.UUID, str, KEY, str(KEY)),
]


@pytest.mark.parametrize(("narrow", "wide", "one", "other"), WIDENED)
@pytest.mark.parametrize("way", ["narrow first", "wide first", "in one merge"])
def test_a_key_that_another_class_has_by_another_type_holds_back_that_shard(
    store: edgeshard.Store, narrow: Any, wide: Any, one: Any, other: Any, way: str
) -> None:
    pair = [version(k=narrow, a=int)(one, 1), version(k=wide, a=int)(other, 2)]
    if way == "wide first":
        pair.reverse()
    write(store, "first", pair[0])
    if way != "in one merge":
        merged(store)
    write_apart(store, "second", pair[1])
    write(store, "third", {"n": 1})
    assert "column sample.k is" in held_back(store, "second")
    assert [(pair[0].a,)] == store.query("SELECT a FROM sample")
    assert [[pair[1].a]] == sql(shard_path(store, "second"), "SELECT a FROM sample")
    assert 2 == store.verify().rows


@pytest.mark.parametrize("conflict", ["max:v", "min:v"])
def test_a_value_that_a_rule_compares_keeps_its_type(store: edgeshard.Store, conflict: str) -> None:
    options = {"key": "k", "conflict": conflict}
    write(store, "first", plain(None, options, k=str, v=int)("p", 2**53 + 1))
    merged(store)
    write_apart(store, "second", plain(None, options, k=str, v=float)("p", 0.5))
    assert "column sample.v is real in this shard and integer in the master, and the table's key" in held_back(
        store, "second"
    )
    assert [(2**53 + 1,)] == store.query("SELECT v FROM sample")


def test_a_shard_refuses_a_class_that_widens_what_decides_and_goes_on(store: edgeshard.Store) -> None:
    with store.shard("x") as shard:
        shard.write(ruled(k=int, v=int)(1, 1))
        for wider in (ruled(k=float, v=int)(1.0, 2), ruled(k=int, v=float)(1, 2.0)):
            with pytest.raises(SchemaConflictError, match=r"so it keeps its type\. Give the table another name"):
                shard.write(wider)
        shard.write(ruled(k=int, v=int)(1, 3))
    merged(store)
    assert [(1, 3)] == store.query("SELECT k, v FROM sample")


def test_a_deletion_by_a_class_with_another_type_of_key_is_refused(store: edgeshard.Store) -> None:
    with store.shard("x") as shard:
        shard.write(version(k=int, a=int)(1, 1))
        shard.delete(version(k=int, a=int), 1)
        with pytest.raises(SchemaConflictError, match="so it keeps its type"):
            shard.delete(version(k=float, a=int), 1.0)
    merged(store)
    assert [] == store.query("SELECT * FROM sample")


def test_names_of_a_key_fold_as_sql_does(store: edgeshard.Store) -> None:
    assert frozenset({"row", "col", "v"}) == keys.Key(("Row", "COL"), "max:V").fixed
    write(store, "first", plain(None, {"key": "Row"}, Row=str, a=int)("p", 1))
    merged(store)
    write(store, "second", plain(None, {"key": "ROW"}, ROW=str, a=int)("p", 2))
    merged(store)
    assert [("p", 2)] == store.query("SELECT row, a FROM sample")
