"""Limits on tables: what one side accepts, every other side accepts, and nobody else is harmed by what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import SchemaConflictError, TableError
from edgeshard.records import limits
from edgeshard.records.keys import Key
from tests.support.forms import others_slow
from tests.support.stores import new_store, numbers


def cls(first: int, last: int, *, name: str = "wide", indexes: int = 0, key: bool = False, **options: Any) -> Any:
    """Return a class of a table, with columns of these numbers, the first of which are indexed."""
    columns = [f"c{n}" for n in range(first, last)]
    fields = {"k": attrs.field(type=int)} if key else {}
    fields |= {column: attrs.field(type=int, default=0) for column in columns}
    declare: Any = edgeshard.table(name=name, index=columns[:indexes], key="k" if key else (), **options)
    return declare(attrs.make_class("Wide", fields, frozen=True))


def write(store: edgeshard.Store, agent: str, *records: Any) -> None:
    with store.shard(agent) as shard:
        for record in records:
            shard.write(record)


def ensure_all_accept(store: edgeshard.Store, tmp_path: Path, rows: int, table: str = "wide") -> None:
    """Check that whoever reads the store's master takes all of it."""
    hub, hubs_hub, carried = (new_store(tmp_path / name) for name in ("hub", "hubs_hub", "carried"))
    store.export(tmp_path / "bundle.db")
    for target, source in ((hub, store.master_path), (hubs_hub, hub.master_path), (carried, tmp_path / "bundle.db")):
        assert () == target.merge([source]).blocked
        assert [(rows,)] == [tuple(row) for row in target.query(f"SELECT count(*) FROM {table}")]
    assert str(hubs_hub.master_path) not in [item.path for item in store.merge([hubs_hub.master_path]).blocked]
    assert store.verify().ok
    assert hub.ranges().held == store.ranges().held


# -- what one declaration may have ------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("key", others_slow([False, True], always=(False,)))
def test_a_class_with_all_that_it_may_have_goes_wherever_its_rows_go(
    key: bool, history: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    columns = format.COLUMNS_MAX - key
    options: Any = {"history": True} if history and key else {}
    renamed = {f"old{n}": "c399" if not key else "c398" for n in range(format.RENAMES_MAX)}
    record = cls(0, columns, indexes=format.INDEXES_MAX, key=key, renamed=renamed, **options)
    write(store, "a", *([record(1)] if key else [record()]))
    write(store, "innocent", {"n": 1})
    assert () == store.merge().blocked
    ensure_all_accept(store, tmp_path, 1)


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (lambda: cls(0, format.COLUMNS_MAX + 1), "400 columns"),
        (lambda: cls(0, format.COLUMNS_MAX, key=True), "400 columns"),
        (lambda: cls(0, 40, indexes=format.INDEXES_MAX + 1), "32 indexes"),
        (lambda: cls(0, 40, indexes=format.INDEXES_MAX + 1, key=True), "32 indexes"),
        (lambda: cls(0, 1, renamed={f"old{n}": "c0" for n in range(format.RENAMES_MAX + 1)}), "400 renames"),
        (lambda: cls(0, 1, name="x" * 95, key=True), "its deletions or its history go to"),
    ],
)
def test_a_class_with_one_more_is_refused_when_it_is_declared(made: Any, what: str, store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        with pytest.raises(TableError, match=what):
            shard.write(made()(1))
        shard.write({"n": 1})
    assert 1 == store.merge().rows


# -- what several declare together ------------------------------------------------------------------------------------

#: Two versions of a class that exceed a limit together, and which.
VERSIONS = [
    ({"first": 0, "last": 220}, {"first": 220, "last": 440}, "400 columns"),
    ({"first": 0, "last": 20, "indexes": 20}, {"first": 20, "last": 40, "indexes": 20}, "32 indexes"),
    (
        {"first": 0, "last": 1, "renamed": {f"old{n}": "c0" for n in range(220)}},
        {"first": 0, "last": 1, "renamed": {f"older{n}": "c0" for n in range(220)}},
        "400 renames",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("key", [False, True], ids=["plain", "keyed"])
@pytest.mark.parametrize(("older", "newer", "what"), VERSIONS, ids=[what for _, _, what in VERSIONS])
def test_versions_of_two_agents_that_exceed_a_limit_block_the_table_of_the_newcomer_alone(
    older: dict[str, Any], newer: dict[str, Any], what: str, key: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    write(store, "a", cls(**older, key=key)(1))
    store.merge()
    write(store, "b", cls(**newer, key=key)(2), {"n": 1})
    write(store, "innocent", {"n": 2})
    assert [[what in each.reason for each in shard.blocked] for shard in store.status().shards] == [[True], []]
    (refused,) = store.merge().blocked
    assert (f"{store.root}/shards/b.db", True) == (refused.path, f"more than {what}" in refused.reason)
    ensure_all_accept(store, tmp_path, 1)
    assert [1, 2] == numbers(store)


@pytest.mark.parametrize("key", [False, True], ids=["plain", "keyed"])
@pytest.mark.parametrize(("older", "newer", "what"), VERSIONS, ids=[what for _, _, what in VERSIONS])
def test_versions_of_one_agent_that_exceed_a_limit_are_refused_when_they_are_written(
    older: dict[str, Any], newer: dict[str, Any], what: str, key: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write(cls(**older, key=key)(1))
        with pytest.raises(SchemaConflictError, match=what):
            shard.write(cls(**newer, key=key)(2))
        shard.write(cls(**older, key=key)(3))
    assert () == store.merge().blocked
    ensure_all_accept(store, tmp_path, 2)


def test_indexes_that_renames_make_one_count_once(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "a", cls(0, 40, indexes=format.INDEXES_MAX)(1))
    renamed = {f"c{n}": f"d{n}" for n in range(40)}
    fields = {f"d{n}": attrs.field(type=int, default=0) for n in range(40)}
    declare = edgeshard.table(name="wide", index=[f"d{n}" for n in range(format.INDEXES_MAX)], renamed=renamed)
    write(store, "b", declare(attrs.make_class("Wide", fields, frozen=True))(2))
    assert () == store.merge().blocked
    ensure_all_accept(store, tmp_path, 2)


# -- all tables together ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", others_slow([False, True], always=(True,)))
def test_an_agent_can_declare_no_more_tables_than_a_master_takes(
    history: bool, store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "TABLES_MAX", 10)
    fitting = (10 - 1) // (3 if history else 2)  # agent_data, and each table with its tombstones
    with store.shard("a") as shard:
        for number in range(fitting):
            shard.write(cls(0, 2, name=f"t{number}", key=True, history=history)(1))
        with pytest.raises(SchemaConflictError, match=r"a master of the shard would have 1[0-9] tables"):
            shard.write(cls(0, 2, name="more", key=True, history=True)(1))
        shard.delete(cls(0, 2, name="t0", key=True, history=history), 1)
        shard.write({"n": 1})
    assert () == store.merge().blocked
    ensure_all_accept(store, tmp_path, 1, "t1")


def test_an_agent_can_declare_no_more_columns_than_a_master_takes(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format, "COLUMNS_IN_ALL_MAX", 100)
    with store.shard("a") as shard:
        shard.write(cls(0, 90, name="wide")())
        with pytest.raises(SchemaConflictError, match="103 columns; at most 500 and 100"):
            shard.write(cls(0, 10, name="more")())
        shard.write({"n": 1})
    assert () == store.merge().blocked
    ensure_all_accept(store, tmp_path, 1)


@pytest.mark.slow
def test_a_master_with_all_tables_and_indexes_that_it_may_have_is_read(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        for number in range(format.TABLES_MAX - 1):
            shard.write(cls(0, 38, name=f"t{number}", indexes=format.INDEXES_MAX)())
    hub = new_store(tmp_path / "hub")
    assert ((), ()) == (store.merge().blocked, hub.merge([store.master_path]).blocked)
    assert format.TABLES_MAX - 1 == hub.export(tmp_path / "bundle.db").rows


def test_limits_count_what_classes_declare() -> None:
    key = Key(("K",))
    many = [(f"c{n}",) for n in range(format.INDEXES_MAX)]
    assert "" == limits.excess([*(f"c{n}" for n in range(400)), "_timestamp", "_reason"])
    assert "more than 400 columns" == limits.excess([f"c{n}" for n in range(401)])
    assert "" == limits.excess(["k"], [*many, ("k",), ("C0",)], key)
    assert "more than 32 indexes" == limits.excess(["k"], [*many, ("k",)])
    tables = {f"t{n}": ["k"] * 40 for n in range(499)}
    assert "" == limits.excess_of_all(tables, {"t1": key})
    assert limits.excess_of_all(tables, {"t1": key, "t2": key}).startswith("501 tables and 19964 columns; at most 500 ")
