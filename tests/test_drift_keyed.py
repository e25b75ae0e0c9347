"""Agents of different versions write a keyed table: its history follows it, and what decides what is kept never changes."""

from __future__ import annotations

import decimal
import itertools
import os
import random
import shutil
import signal
import tempfile
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from helpers import shard_path, sql
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_parts import begin
from test_drift import KEY, VALUES, VERSIONS, expected_of, gathered, merged, strike_at, write

import edgeshard
from edgeshard.errors import SchemaConflictError, TableError
from edgeshard.master import database
from edgeshard.records import keys

KEPT_SHARD = "No row of the shard is lost: it can be merged into a store of its own"


def version(renamed: dict[str, str] | None = None, **fields: Any) -> Any:
    """A class of one version of an agent, with the key k and a history."""
    return plain(renamed, {"key": "k", "history": True}, **fields)


def plain(renamed: dict[str, str] | None = None, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A class of the same table, by default without a key: each field is its type, or (type, default)."""
    types = {name: field[0] if isinstance(field, tuple) else field for name, field in fields.items()}
    defaults = {name: field[1] for name, field in fields.items() if isinstance(field, tuple)}
    cls = type("Sample", (), {"__annotations__": types, **defaults})
    return edgeshard.table(renamed=renamed, **options or {})(attrs.frozen(cls))


def columns(store: edgeshard.Store, table: str) -> dict[str, str]:
    """What a master notes of a table's columns; raises where the table has others."""
    noted = dict(
        store.query("SELECT column_name, type FROM edgeshard_columns WHERE table_name = ? ORDER BY 1", (table,))
    )
    there = {row[1] for row in sql(store.master_path, f"pragma table_info({table})")}
    assert there == {*noted, "_id", "_stream", "_seq"}
    return noted


def agree(store: edgeshard.Store) -> None:
    """Raise where the history does not have the columns, and the renames, of its table."""
    assert {**columns(store, "sample"), "_reason": "reason"} == columns(store, "sample_history")
    sql_ = "SELECT old_name, new_name FROM edgeshard_renames WHERE table_name = ? ORDER BY 1, 2"
    assert store.query(sql_, ("sample",)) == store.query(sql_, ("sample_history",))
    assert store.verify(deep=True).ok


def held_back(store: edgeshard.Store, agent: str) -> str:
    """Merge; why the shard of this agent, and of no other, is held back. Status says the same."""
    report = store.merge()
    assert [str(shard_path(store, agent))] == [aside.path for aside in report.quarantined]
    (problem,) = (shard.problem for shard in store.status().shards if shard.problem)
    assert problem in report.quarantined[0].reason
    assert KEPT_SHARD in problem
    return report.quarantined[0].reason


# -- columns that are no part of the key ------------------------------------------------------------------------------

OLD, NEW = version(k=str, a=int), version(k=str, b=float, renamed={"a": "b"})


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
    write(store, "x", plain(k=str, a=int)("p", 1), plain(k=str, a=int)("p", 2))
    merged(store)
    write(store, "y", plain(k=str, b=float, renamed={"a": "b"})("p", 0.5))
    merged(store)
    write(store, "z", version(k=str, b=float)("p", 7.0))
    merged(store)
    agree(store)
    assert [(7.0,)] == store.query("SELECT b FROM sample")
    assert [(0.5,), (1.0,), (2.0,)] == store.query("SELECT b FROM sample_history ORDER BY b")


def test_a_plain_class_renames_and_widens_a_keyed_table_too(store: edgeshard.Store) -> None:
    write(store, "x", OLD("p", 1), OLD("p", 2))
    merged(store)
    write(store, "y", plain(k=str, b=float, renamed={"a": "b"})("q", 0.5))
    merged(store)
    agree(store)
    assert [("p", 2.0), ("q", 0.5)] == store.query("SELECT k, b FROM sample ORDER BY k")
    assert [("p", 1.0)] == store.query("SELECT k, b FROM sample_history")


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


@pytest.mark.parametrize("carried", ["master", "bundle"])
@pytest.mark.parametrize("newer_first", [False, True])
def test_a_hub_renames_and_widens_its_history_whatever_device_comes_first(
    tmp_path: Path, carried: str, newer_first: bool
) -> None:
    older, newer, hub = (edgeshard.Store(tmp_path / name) for name in ("older", "newer", "hub"))
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
            "UPDATE edgeshard_columns SET column_name = 'c' WHERE table_name = 'sample_history' AND column_name = 'b'",
            "ALTER TABLE sample_history RENAME COLUMN b TO c",
        ],
        ["DELETE FROM edgeshard_renames WHERE table_name = 'sample_history'"],
        ["INSERT INTO edgeshard_renames VALUES ('sample_deleted', 'q', 'k')"],
    ],
)
def test_a_source_whose_history_or_deletions_do_not_belong_to_their_table_is_held_back(
    tmp_path: Path, changes: list[str]
) -> None:
    device, hub = edgeshard.Store(tmp_path / "device"), edgeshard.Store(tmp_path / "hub")
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


@pytest.mark.parametrize(
    ("fields", "renamed"),
    [
        ({"v": int, "w": int}, {"k": "w"}),
        ({"k": str, "w": int}, {"V": "w"}),
        ({"k": str, "v": int}, {"w": "k"}),
        ({"k": str, "v": int}, {"w": "v"}),
    ],
)
@pytest.mark.parametrize("keyed_first", [True, False])
def test_a_rename_of_what_decides_holds_back_the_shard_that_comes_second_and_no_other(
    store: edgeshard.Store, fields: dict[str, Any], renamed: dict[str, str], keyed_first: bool
) -> None:
    renaming = plain(renamed, **fields)
    pair = [("keyed", ruled(k=str, v=int)("p", 1)), ("renaming", renaming(*(kind("1") for kind in fields.values())))]
    (_, first), (second, other) = pair if keyed_first else reversed(pair)
    write(store, "first", first)
    merged(store)
    write(store, second, other)
    write(store, "third", {"n": 1})
    reason = held_back(store, second)
    assert "uses it: such a column keeps its name and its type" in reason
    assert 2 == store.verify().rows
    own = edgeshard.Store(store.root / "own")
    assert own.merge([shard_path(store, second)]).complete
    assert 1 == own.verify().rows


WIDENED: list[tuple[Any, Any, Any, Any]] = [
    (bool, int, True, 1),
    (int, float, 1, 1.0),
    (uuid.UUID, str, KEY, str(KEY)),
]


@pytest.mark.parametrize(("narrow", "wide", "one", "other"), WIDENED)
@pytest.mark.parametrize("way", ["narrow first", "wide first", "in one merge", "plain second", "keyed second"])
def test_a_key_that_another_class_has_by_another_type_holds_back_that_shard(
    store: edgeshard.Store, narrow: Any, wide: Any, one: Any, other: Any, way: str
) -> None:
    pair = [version(k=narrow, a=int)(one, 1), version(k=wide, a=int)(other, 2)]
    if way == "wide first":
        pair.reverse()
    if way == "plain second":
        pair[1] = plain(k=wide, a=int)(other, 2)
    if way == "keyed second":
        pair[0] = plain(k=narrow, a=int)(one, 1)
    write(store, "first", pair[0])
    if way != "in one merge":
        merged(store)
    write(store, "second", pair[1])
    write(store, "third", {"n": 1})
    assert "column sample.k is" in held_back(store, "second")
    assert [(pair[0].a,)] == store.query("SELECT a FROM sample")
    assert [[pair[1].a]] == sql(shard_path(store, "second"), "SELECT a FROM sample")
    assert 2 == store.verify().rows


@pytest.mark.parametrize(("narrow", "one"), [(int, 1), (float, 1.5)])
@pytest.mark.parametrize("keyed_first", [True, False])
def test_a_key_that_a_plain_class_makes_decimal_holds_back_the_second_shard(
    store: edgeshard.Store, narrow: Any, one: Any, keyed_first: bool
) -> None:
    pair = [version(k=narrow, a=int)(one, 1), plain(k=decimal.Decimal, a=int)(decimal.Decimal("1.0"), 2)]
    first, second = pair if keyed_first else reversed(pair)
    write(store, "first", first)
    merged(store)
    write(store, "second", second)
    assert "column sample.k is" in held_back(store, "second")
    assert [(first.a,)] == store.query("SELECT a FROM sample")


@pytest.mark.parametrize("conflict", ["max:v", "min:v"])
def test_a_value_that_a_rule_compares_keeps_its_type(store: edgeshard.Store, conflict: str) -> None:
    options = {"key": "k", "conflict": conflict}
    write(store, "first", plain(None, options, k=str, v=int)("p", 2**53 + 1))
    merged(store)
    write(store, "second", plain(None, options, k=str, v=float)("p", 0.5))
    assert "column sample.v is real in this shard and integer in the master, and the table's key" in held_back(
        store, "second"
    )
    assert [(2**53 + 1,)] == store.query("SELECT v FROM sample")


@pytest.mark.parametrize("plainly", [False, True])
def test_a_shard_refuses_a_class_that_renames_or_widens_what_decides_and_goes_on(
    store: edgeshard.Store, plainly: bool
) -> None:
    other = plain if plainly else ruled
    with store.shard("x") as shard:
        shard.write(ruled(k=int, v=int)(1, 1))
        for wider in (other(k=float, v=int)(1.0, 2), other(k=int, v=float)(1, 2.0)):
            with pytest.raises(SchemaConflictError, match=r"there it keeps its type\. Give the table another name"):
                shard.write(wider)
        with pytest.raises(SchemaConflictError, match=r"must keep its name\. Give the table another name"):
            shard.write(plain({"k": "w"}, w=int, v=int)(1, 2))
        shard.write(ruled(k=int, v=int)(1, 3))
    assert [] == sql(shard_path(store, "x"), "SELECT name FROM sqlite_schema WHERE name = 'edgeshard_renames'")
    merged(store)
    assert [(1, 3)] == store.query("SELECT k, v FROM sample")


def test_a_deletion_by_a_class_with_another_type_of_key_is_refused(store: edgeshard.Store) -> None:
    with store.shard("x") as shard:
        shard.write(version(k=int, a=int)(1, 1))
        shard.delete(version(k=int, a=int), 1)
        with pytest.raises(SchemaConflictError, match="there it keeps its type"):
            shard.delete(version(k=float, a=int), 1.0)
    merged(store)
    assert [] == store.query("SELECT * FROM sample")


def test_a_table_whose_future_key_was_renamed_cannot_get_that_key_in_its_shard(store: edgeshard.Store) -> None:
    with store.shard("x") as shard:
        shard.write(plain({"sensor": "k"}, k=str, a=int)("p", 1))
        with pytest.raises(SchemaConflictError, match=r"sample\.k was called sensor"):
            shard.write(version(k=str, a=int)("p", 2))
        shard.write(plain({"sensor": "k"}, k=str, a=int)("p", 3))
    merged(store)
    assert [(1,), (3,)] == store.query("SELECT a FROM sample ORDER BY a")


def test_names_of_a_key_fold_as_sql_does(store: edgeshard.Store) -> None:
    assert frozenset({"row", "col", "v"}) == keys.Key(("Row", "COL"), "max:V").fixed
    write(store, "first", plain(None, {"key": "Row"}, Row=str, a=int)("p", 1))
    merged(store)
    write(store, "second", plain({"ROW": "w"}, w=str, a=int)("p", 1))
    assert "column sample.w was called row before" in held_back(store, "second")


# -- the law ----------------------------------------------------------------------------------------------------------

#: Versions of one keyed class over the months, as of the plain one.
CLASSES = [version(renamed, n=int, k=str, **{name: kind}, **more) for name, kind, renamed, more in VERSIONS]
#: (which of three stores, which of two agents, which version, which of its values or None: delete, which key); or what to
#: merge where.
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 1),
            st.integers(0, 5),
            st.sampled_from([0, 0, 1, 1, 2, 2, None]),
            st.sampled_from("pq"),
        ),
        st.tuples(st.integers(0, 2), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=14,
)


class Log:
    """What was written, and of each key the number of the last record; None: it was deleted since."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.last: dict[str, int | None] = {}
        self.deleted_by: list[Any] = []

    def change(self, store: edgeshard.Store, agent: int, which: int, value: int | None, key: str) -> None:
        with store.shard(str(agent)) as shard:
            if value is None:
                shard.delete(CLASSES[which], key)
                self.last[key] = None
                self.deleted_by.append(CLASSES[which])
            else:
                number, values = len(self.written), VALUES[which]
                self.written.append(CLASSES[which](number, key, values[value % len(values)]))
                shard.write(self.written[-1])
                self.last[key] = number

    @property
    def expected(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        return expected_of(self.written, self.deleted_by)

    @property
    def kept(self) -> list[int]:
        return sorted(number for number in self.last.values() if number is not None)


def dump(store: edgeshard.Store, expected: dict[str, str]) -> tuple[list[dict[str, Any]], list[int]]:
    """All versions, kept or not, and the numbers of those that are kept."""
    names = ", ".join(sorted(expected))
    rows = store.query(f"SELECT {names} FROM sample UNION ALL SELECT {names} FROM sample_history ORDER BY n")
    versions = [dict(zip(sorted(expected), map(repr, row), strict=True)) for row in rows]
    return versions, [n for (n,) in store.query("SELECT n FROM sample ORDER BY n")]


@settings(max_examples=60, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_versions_and_their_columns_do_not_depend_on_the_order_of_classes_and_merges(
    steps: list[tuple[Any, ...]], rng: random.Random
) -> None:
    log = Log()
    with tempfile.TemporaryDirectory() as folder:
        stores = [edgeshard.Store(Path(folder) / str(number)) for number in range(3)]
        for step in steps:
            if len(step) == 5:
                place, *change = step
                log.change(stores[place], *change)
            else:
                merged(stores[step[0]])
                merged(stores[step[1]], stores[step[0]])
        hub = gathered(Path(folder), stores, rng)
        if log.written:
            merged(stores[0], hub)
            used, rows = log.expected
            for store in (hub, stores[0]):
                assert (rows, log.kept) == dump(store, used)
                agree(store)


# -- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", range(0, 13, 2))
def test_a_merge_that_is_killed_as_it_changes_a_table_and_its_history_changes_neither(
    store: edgeshard.Store, statement: int
) -> None:
    write(store, "x", *(OLD(f"k{n % 500}", n) for n in range(1_500)))
    merged(store)
    write(store, "y", NEW("k0", 0.5))
    write(store, "z", OLD("k1", 7))

    def merge(_: Any) -> None:
        with mock.patch.object(database, "open_master", strike_at(statement)):
            store.merge()

    life = begin(merge)
    life.killed = True
    life.wait()
    assert signal.SIGKILL == os.WTERMSIG(life.status or 0)
    assert [(500, 1_000)] == store.query("SELECT count(a), (SELECT count(a) FROM sample_history) FROM sample")
    merged(store)
    agree(store)
    found = store.query("SELECT b FROM sample UNION ALL SELECT b FROM sample_history ORDER BY b")
    assert sorted([*map(float, range(1_500)), 0.5, 7.0]) == [value for (value,) in found]
    assert [(0.5,), (7.0,)] == store.query("SELECT b FROM sample WHERE k IN ('k0', 'k1') ORDER BY k")
