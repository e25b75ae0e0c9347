"""Each record table of a master has a view that names the agent of each row: ``reading_with_agent``."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard.errors import TableError
from tests.support.keyed_schema_versions import plain
from tests.support.records import NOON, Reading
from tests.support.schema_versions import merged, version, write
from tests.support.stores import new_store, shard_path, write_apart

OWN = ["_id", "_stream", "_seq"]


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """A store with a row of two agents each."""
    store = new_store(tmp_path / "data")
    for agent in ("alice", "bob"):
        write(store, agent, Reading("inlet", 71.5, NOON), {"n": 1})
    merged(store)
    return store


def by_hand(store: edgeshard.Store, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(store.master_path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def names(path: Path, view: str) -> list[str]:
    """Return the names of a view's columns, as the standard library reads them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f'SELECT * FROM "{view}" ORDER BY _id LIMIT 1')
        assert found.fetchone() is not None
        return [column[0] for column in found.description]


def views(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")}


def test_a_view_names_the_agent_and_the_beginning_of_the_stream_of_each_row(store: edgeshard.Store) -> None:
    assert ["agent_id", "_began_at", *OWN, "sensor", "celsius", "at"] == names(store.master_path, "reading_with_agent")
    rows = store.query("SELECT agent_id, sensor FROM reading_with_agent ORDER BY 1")
    assert [("alice", "inlet"), ("bob", "inlet")] == [tuple(row) for row in rows]
    began = "SELECT count(*) FROM reading_with_agent v JOIN _edgeshard_streams s ON s.began_at = v._began_at"
    assert [(2,)] == store.query(f"{began} AND s.stream_no = v._stream")
    assert [(2,)] == store.query("SELECT count(*) FROM reading_with_agent WHERE unixepoch(_began_at) > 1e9")


def test_the_table_of_dicts_has_its_own_column_of_agents(store: edgeshard.Store) -> None:
    assert ["_began_at", *OWN, "agent_id", "timestamp", "data"] == names(store.master_path, "agent_data_with_agent")


def test_a_store_without_a_master_has_the_view_of_dicts(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    store.master_path.unlink(missing_ok=True)
    assert [] == store.query("SELECT agent_id, _seq FROM agent_data_with_agent")
    merged(store)
    assert {"agent_data_with_agent"} == views(store.master_path)


def test_a_view_follows_columns_that_come_and_are_renamed_and_widened(store: edgeshard.Store) -> None:
    def columns() -> list[str]:
        return names(store.master_path, "sample_with_agent")[5:]

    write(store, "a", version(b=int, a=int)(1, 2))
    merged(store)
    assert ["b", "a"] == columns()
    write(store, "b", version(a=int, c=int)(1, 2))
    merged(store)
    assert ["b", "a", "c"] == columns()
    write(store, "c", version({"a": "z"}, z=int)(1))
    merged(store)
    assert ["b", "z", "c"] == columns()
    write(store, "d", version(b=float)(1.5))
    merged(store)
    assert ["z", "c", "b"] == columns()
    assert [(4,)] == store.query("SELECT count(*) FROM sample_with_agent")


def test_a_table_with_a_column_agent_id_of_its_own_keeps_it(store: edgeshard.Store) -> None:
    write(store, "a", version(Agent_Id=str)("mine"))
    merged(store)
    assert ["_agent_id", "_began_at", *OWN, "Agent_Id"] == names(store.master_path, "sample_with_agent")
    assert [("a", "mine")] == store.query("SELECT _agent_id, agent_id FROM sample_with_agent")


def test_the_view_is_made_again_when_a_column_agent_id_comes_or_goes(store: edgeshard.Store) -> None:
    write(store, "a", version(n=int)(1))
    merged(store)
    write(store, "b", version(n=int, agent_id=str)(2, "mine"))
    merged(store)
    assert ["_agent_id", "_began_at", *OWN, "n", "agent_id"] == names(store.master_path, "sample_with_agent")
    write(store, "c", version({"agent_id": "name"}, n=int, name=str)(3, "other"))
    merged(store)
    assert ["agent_id", "_began_at", *OWN, "n", "name"] == names(store.master_path, "sample_with_agent")
    assert [("a", None), ("b", "mine"), ("c", "other")] == store.query(
        "SELECT agent_id, name FROM sample_with_agent ORDER BY n"
    )


def test_tombstones_and_history_have_views_and_a_dropped_table_takes_its_own_along(store: edgeshard.Store) -> None:
    cls = plain(None, {"key": "k", "history": True}, k=str, v=int)
    with store.shard("a") as shard:
        shard.write_many([cls("p", 1), cls("p", 2)])
        shard.delete(cls, "p")
    merged(store)
    for table, rows in {"sample": 0, "sample_deleted": 1, "sample_history": 2}.items():
        assert [(rows,)] == store.query(f"SELECT count(*) FROM {table}_with_agent WHERE agent_id = 'a'")
    store.prune(table=cls, drop_table=True)
    assert {"agent_data_with_agent", "reading_with_agent"} == views(store.master_path)
    merged(store)
    assert store.verify(deep=True).ok


def test_a_hub_has_views_of_its_own_and_a_bundle_none(store: edgeshard.Store, tmp_path: Path) -> None:
    hub, receiver, bundle = new_store(tmp_path / "hub"), new_store(tmp_path / "receiver"), tmp_path / "all.bundle"
    merged(hub, store)
    store.export(bundle)
    assert set() == views(bundle)
    assert receiver.merge([bundle]).complete
    for other in (hub, receiver):
        assert views(store.master_path) == views(other.master_path)
        found = other.query("SELECT agent_id FROM reading_with_agent ORDER BY 1")
        assert [("alice",), ("bob",)] == [tuple(row) for row in found]


def test_a_snapshot_that_is_put_back_has_the_views(store: edgeshard.Store, tmp_path: Path) -> None:
    before = views(store.master_path)
    store.snapshot(tmp_path / "snapshot.db")
    write(store, "carol", version(n=int)(1))
    merged(store)
    store.restore(tmp_path / "snapshot.db")
    assert before == views(store.master_path)
    assert () == store.verify(deep=True).errors


# -- what users do with them ------------------------------------------------------------------------------------------


def test_a_view_that_was_dropped_is_made_again_by_the_next_merge(store: edgeshard.Store) -> None:
    by_hand(store, "DROP VIEW reading_with_agent")
    merged(store)
    assert [(2,)] == store.query("SELECT count(*) FROM reading_with_agent")


@pytest.mark.parametrize("change", ["DROP TABLE reading", "ALTER TABLE reading RENAME TO kept"])
def test_the_view_of_a_table_that_was_dropped_or_renamed_is_that_of_the_new_table(
    store: edgeshard.Store, change: str
) -> None:
    by_hand(store, change)
    write(store, "carol", Reading("outlet", 3.5, NOON))
    merged(store)
    found = store.query("SELECT agent_id, sensor FROM reading_with_agent")
    assert [("carol", "outlet")] == [tuple(row) for row in found]
    assert () == store.verify(deep=True).errors


TAKEN = {
    "table": "CREATE TABLE reading_with_agent(mine)",
    "view": "CREATE VIEW Reading_With_Agent AS SELECT 'mine' AS agent_id",
    "index": "CREATE INDEX reading_with_agent ON mine(x)",
}


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_user_made_with_the_name_of_a_view_stays_and_is_named_once(
    tmp_path: Path, kind: str, is_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if "lacks views" in record.getMessage()]

    caplog.set_level(logging.WARNING, logger="edgeshard")
    store = new_store(tmp_path / "data")
    made = ["CREATE TABLE mine(x)", TAKEN[kind]]
    if is_first:
        by_hand(store, *made)
    write(store, "alice", Reading("inlet", 71.5, NOON))
    merged(store)
    if not is_first:
        by_hand(store, "DROP VIEW reading_with_agent", *made)
    for n in range(3):
        write(store, "alice", Reading("inlet", n, NOON))
        merged(store)
    assert 4 == len(list(store.read(Reading)))
    sql = f"SELECT count(*) FROM sqlite_schema WHERE name = 'reading_with_agent' COLLATE NOCASE AND type = '{kind}'"
    assert [(1,)] == store.query(sql)
    (text,) = warned()
    assert "reading_with_agent" in text
    by_hand(store, f"DROP {kind} reading_with_agent")
    merged(store)
    assert [(4,)] == store.query("SELECT count(*) FROM reading_with_agent WHERE agent_id = 'alice'")
    assert 1 == len(warned())


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reading_with_agent", "Reading_With_Agent", "_with_agent", "x_with_agent"])
def test_no_record_table_has_the_name_of_a_view(tmp_path: Path, name: str) -> None:
    @edgeshard.table(name=name)
    @attrs.frozen
    class Taken:
        n: int

    store = new_store(tmp_path / "data")
    with pytest.raises(TableError, match=f"table '{name}': .*; choose another"), store.shard("agent") as shard:
        shard.write(Taken(1))


def test_a_field_may_end_as_a_view_does(tmp_path: Path) -> None:
    store = new_store(tmp_path / "data")
    write(store, "agent", version(met_with_agent=int)(1))
    merged(store)
    assert [(1,)] == store.query("SELECT met_with_agent FROM sample_with_agent")


def test_the_longest_name_of_a_table_has_a_view(tmp_path: Path) -> None:
    @edgeshard.table(name="x" * 100)
    @attrs.frozen
    class Long:
        n: int

    store = new_store(tmp_path / "data")
    write(store, "agent", Long(1))
    merged(store)
    assert [("agent",)] == store.query(f"SELECT agent_id FROM {'x' * 100}_with_agent")


def test_a_shard_with_a_table_that_has_the_name_of_a_view_is_quarantined(store: edgeshard.Store) -> None:
    write_apart(store, "bad", version(n=int)(1))
    with contextlib.closing(sqlite3.connect(shard_path(store, "bad"))) as connection, connection:
        connection.execute("ALTER TABLE sample RENAME TO reading_with_agent")
        connection.execute("UPDATE _edgeshard_columns SET table_name = 'reading_with_agent'")
    (found,) = store.merge().quarantined
    assert (str(shard_path(store, "bad")), True) == (found.path, "cannot have this name" in found.reason)
