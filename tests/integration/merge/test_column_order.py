"""Columns have the order in which they were declared: in a shard, a master, a bundle, a hub, a snapshot, PostgreSQL.

The rule: a table has the order of the first class that it meets. Each later class adds its new columns behind, in its
own order; a renamed column keeps its place.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeshard
from tests.support.few_examples import FEW
from tests.support.forms import short_and_full
from tests.support.keyed_schema_versions import plain
from tests.support.schema_versions import merged, version, write
from tests.support.stores import new_store, shard_path

NAMES = ("sensor", "Celsius", "at", "b", "zone")

#: Classes of one table, each as its fields in order.
DECLARED = st.lists(
    st.permutations(NAMES).flatmap(lambda names: st.integers(1, 5).map(lambda n: names[:n])), max_size=3
)

GRID = [
    (("sensor", "Celsius", "at"),),
    (("sensor", "Celsius", "at"), ("at", "zone", "sensor", "b")),
    (("zone", "b"), ("at",), ("Celsius", "at", "sensor")),
]


def declared(names: Iterable[str], **renamed: str) -> Any:
    fields: dict[str, Any] = dict.fromkeys(names, int)
    return version(renamed or None, **fields)


def stored_order(path: Path, table: str = "sample") -> list[str]:
    """Return the names of a table's columns, without our own: as the table has them, if it is as the database records.

    Raises:
        AssertionError: the database records another order.
    """
    recorded_sql = "SELECT column_name FROM _edgeshard_columns WHERE table_name = ? ORDER BY position"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
        recorded = [name for (name,) in connection.execute(recorded_sql, (table,))]
    ours = {"_id", "_stream", "_seq"}
    assert recorded == [name for name in found if name not in ours]
    return [name for name in recorded if not name.startswith("_")]


def expected(versions: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in versions for name in names))


def fill(store: edgeshard.Store, versions: Iterable[Iterable[str]]) -> None:
    """Let an agent of each version write a row and merge, one after the other."""
    for number, names in enumerate(versions):
        cls = declared(names)
        write(store, f"agent{number}", cls(*range(len(list(names)))))
        assert list(names) == stored_order(shard_path(store, f"agent{number}"))
        merged(store)


def check_copies(store: edgeshard.Store, folder: Path, order: list[str]) -> None:
    """Check the order in all databases that get the rows of a master."""
    assert order == stored_order(store.master_path)
    hub, next_hub, receiver = (new_store(folder / name) for name in ("hub", "next-hub", "receiver"))
    merged(hub, store)
    merged(next_hub, hub)
    bundle, snapshot = folder / "all.bundle", folder / "snapshot.db"
    store.export(bundle)
    assert receiver.merge([bundle]).complete
    store.snapshot(snapshot)
    for path in (hub.master_path, next_hub.master_path, bundle, receiver.master_path, snapshot):
        assert order == stored_order(path), path
        (first, *_), names = _row(path)
        assert names[:1] == order[:1]
        assert first == 0


def _row(path: Path) -> tuple[tuple[Any, ...], list[str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT * FROM sample ORDER BY _id LIMIT 1")
        return found.fetchone()[3:], [column[0] for column in found.description][3:]


@pytest.mark.parametrize("versions", GRID)
def test_columns_keep_the_order_of_their_declaration_wherever_they_go(
    tmp_path: Path, versions: tuple[tuple[str, ...], ...]
) -> None:
    store = new_store(tmp_path / "data")
    fill(store, versions)
    check_copies(store, tmp_path, expected(versions))


@pytest.mark.parametrize("examples", short_and_full(3, 60))
def test_a_master_takes_the_first_order_and_adds_behind_what_is_new(
    tmp_path_factory: pytest.TempPathFactory, examples: int
) -> None:
    @settings(FEW, max_examples=examples)
    @given(DECLARED)
    def check(versions: list[list[str]]) -> None:
        store = new_store(tmp_path_factory.mktemp("order") / "data")
        fill(store, versions)
        if versions:
            assert expected(versions) == stored_order(store.master_path)

    check()


def test_a_hub_takes_the_order_of_the_first_master_and_merging_again_changes_nothing(tmp_path: Path) -> None:
    one, two, hub = (new_store(tmp_path / name) for name in ("one", "two", "hub"))
    fill(one, [("zone", "at")])
    fill(two, [("b", "at", "sensor")])
    merged(hub, one)
    assert ["zone", "at"] == stored_order(hub.master_path)
    for source in (two, one, two):
        merged(hub, source)
        assert ["zone", "at", "b", "sensor"] == stored_order(hub.master_path)


def test_an_agent_that_adds_a_field_adds_its_column_behind(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    write(store, "agent", declared(("sensor", "at"))(1, 2))
    merged(store)
    write(store, "agent", declared(("Celsius", "sensor", "b", "at"))(1, 2, 3, 4))
    merged(store)
    assert ["sensor", "at", "Celsius", "b"] == stored_order(store.master_path)


def test_a_renamed_column_keeps_its_place_also_beside_others_that_come(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    write(store, "old", declared(("sensor", "at", "b"))(0, 2, 3))
    merged(store)
    write(store, "new", declared(("zone", "moment", "sensor"), at="moment")(0, 2, 3))
    merged(store)
    check_copies(store, tmp_path, ["sensor", "moment", "b", "zone"])


def test_a_history_and_tombstones_have_the_order_of_their_table(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    cls = plain(None, {"key": ("zone", "b"), "history": True}, zone=str, at=int, b=str, a=int)
    with store.shard("agent") as shard:
        shard.write_many([cls("z", 1, "b", 2), cls("z", 3, "b", 4)])
        shard.delete(cls, "z", "b")
    merged(store)
    for table, order in {"sample": "zone at b a", "sample_history": "zone at b a", "sample_deleted": "zone b"}.items():
        assert order.split() == stored_order(store.master_path, table)


def test_a_history_that_comes_together_with_a_rename_has_the_order_of_its_table(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    write(store, "old", plain(None, {"key": "k"}, k=str, a=int, b=int)("k", 1, 2))
    merged(store)
    write(store, "new", plain({"a": "z"}, {"key": "k", "history": True}, k=str, z=int, b=int)("k", 3, 4))
    merged(store)
    for table in ("sample", "sample_history"):
        assert ["k", "z", "b"] == stored_order(store.master_path, table)


def test_a_widened_column_keeps_its_place_in_databases_that_are_made_later(tmp_path: Path) -> None:
    store, hub = (new_store(tmp_path / name) for name in ("data", "hub"))
    write(store, "old", version(a=int, b=int)(1, 2))
    merged(store)
    write(store, "new", version(a=float, b=int)(1.5, 2))
    merged(store)
    merged(hub, store)
    with contextlib.closing(sqlite3.connect(store.master_path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info('sample')")]
    assert ["b", "a"] == names[3:]  # SQLite cannot change the type of a column in its place
    assert ["a", "b"] == stored_order(hub.master_path)


def test_a_table_that_was_dropped_by_hand_is_made_again_in_its_order(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    fill(store, [("zone", "at", "b")])
    with contextlib.closing(sqlite3.connect(store.master_path)) as connection:
        connection.execute("DROP TABLE sample")
    write(store, "other", declared(("at", "zone"))(1, 2))
    merged(store)
    assert ["zone", "at", "b"] == stored_order(store.master_path)


@pytest.mark.parametrize("position", ["'first'", "x'00'", "1.5", "null"])
def test_a_shard_whose_columns_have_no_positions_is_quarantined(tmp_path: Path, position: str) -> None:
    store = new_store(tmp_path / "data")
    for agent in ("bad", "good"):
        write(store, agent, declared(("zone", "at"))(1, 2))
    with contextlib.closing(sqlite3.connect(shard_path(store, "bad"))) as connection:
        connection.executescript(f"""
            CREATE TABLE other AS SELECT table_name, column_name, type, {position} AS position FROM _edgeshard_columns;
            DROP TABLE _edgeshard_columns;
            ALTER TABLE other RENAME TO _edgeshard_columns;
        """)
    report = store.merge()
    assert (1, [str(shard_path(store, "bad"))]) == (report.rows, [each.path for each in report.quarantined])


@pytest.mark.parametrize("positions", [(9, 9), (-(2**63), 2**63 - 1), (7, 3)])
def test_any_positions_of_a_shard_are_an_order(tmp_path: Path, positions: tuple[int, int]) -> None:
    store = new_store(tmp_path / "data")
    write(store, "odd", declared(("zone", "at"))(1, 2))
    with contextlib.closing(sqlite3.connect(shard_path(store, "odd"))) as connection, connection:
        for name, position in zip(("zone", "at"), positions, strict=True):
            connection.execute("UPDATE _edgeshard_columns SET position = ? WHERE column_name = ?", (position, name))
    merged(store)
    assert (["zone", "at"] if positions[0] < positions[1] else ["at", "zone"]) == stored_order(store.master_path)


@pytest.mark.slow
@pytest.mark.parametrize("versions", GRID)
def test_postgresql_has_the_columns_in_the_order_of_their_declaration(
    tmp_path: Path, pg: str, versions: tuple[tuple[str, ...], ...]
) -> None:
    from tests.support.postgres_server import fetch  # needs psycopg

    store = new_store(tmp_path / "data")
    fill(store, versions)
    assert store.push(pg).complete
    listed = "select column_name from information_schema.columns where table_name = 'sample' order by ordinal_position"
    assert ["_stream", "_seq", *map(str.lower, expected(versions))] == [name for (name,) in fetch(pg, listed)]
