"""Keyed tables in PostgreSQL: what masters keep is kept there, whoever pushes, in whatever order."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.pusher import Pusher
from tests.support import keyed_model
from tests.support.forms import others_slow
from tests.support.keyed_model import CLASSES, Cell, Highest, Lww
from tests.support.records import Reading
from tests.support.wall_clock import Wall

pytest.importorskip("psycopg")
from tests.support.keyed_pushes import rivals, state, versions
from tests.support.postgres_server import do, fetch


def push_at_once(stores: list[edgeshard.Store], dsn: str) -> None:
    """Push from all devices at the same time, in chunks of a few rows."""
    threads = [threading.Thread(target=store.push, args=(dsn,), kwargs={"batch": 25}) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        assert 0 == store.push(dsn).remaining


def test_devices_that_push_at_once_leave_one_version_of_a_key(pg: str, tmp_path: Path) -> None:
    push_at_once(rivals(tmp_path, 4), pg)
    assert (500, 500) == versions(pg)


def test_a_table_that_has_another_key_there_is_held_back(pg: str, tmp_path: Path) -> None:
    one, other = keyed_model.world(tmp_path, 2)
    with one.shard("a") as shard:
        shard.write(Lww("p", 1, 1))
    one.merge()
    one.push(pg)
    with other.shard("a") as shard:
        shard.write(Highest("p", 1, 2))
    with other.shard("b") as shard:
        shard.write({"n": 1})
    other.merge()
    report = other.push(pg)
    (aside,) = report.rejected
    assert (
        "has the key (row, col) with conflict 'max:value' here, and in PostgreSQL (row, col) with 'lww'" in aside.reason
    )
    assert (1, 1) == (report.rows, report.remaining)


@edgeshard.table(name="cell")
@attrs.frozen
class Plain:
    """The class of agents of before."""

    row: str
    col: int
    value: int | None


def write(store: edgeshard.Store, agent: str, *records: object) -> None:
    with store.shard(agent) as shard:
        for record in records:
            shard.write(record)
    store.merge()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_master_makes_no_rows_of_another_versions_of_its_keys(cls: type[Cell], pg: str, tmp_path: Path) -> None:
    one, other = keyed_model.world(tmp_path, 2)
    write(one, "a", *(Plain("p", n % 2, n) for n in range(6)))
    one.push(pg)
    write(other, "b", cls("p", 1, 7), {"n": 1})
    for dry_run in (True, False):
        (aside,) = other.push(pg, dry_run=dry_run).rejected
        assert "has the key (row, col) here, and in PostgreSQL it has none" in aside.reason
    assert 6 == len(fetch(pg, "SELECT 1 FROM cell"))


def test_a_master_that_knows_no_key_does_not_push_beside_one_that_does(pg: str, tmp_path: Path) -> None:
    one, other = keyed_model.world(tmp_path, 2)
    write(one, "a", Lww("p", 1, 1))
    one.push(pg)
    write(other, "b", Plain("p", 1, 2), {"n": 1})
    for dry_run in (True, False):
        (aside,) = other.push(pg, dry_run=dry_run).rejected
        assert (
            "another master gave it the key (row, col) in PostgreSQL, and this one knows no key for it" in aside.reason
        )
    assert [(1,)] == fetch(pg, "SELECT value FROM cell")


def test_a_push_that_goes_on_beside_one_that_brings_a_key_is_held_back(pg: str, tmp_path: Path) -> None:
    one, other = keyed_model.world(tmp_path, 2)
    pusher = Pusher(other.master_path, parse_dsn(pg))
    write(other, "b", Plain("p", 1, 1))
    assert 1 == pusher.run().rows
    do(pg, "DROP TABLE cell")  # by hand
    write(one, "a", Lww("p", 1, 2))
    assert () == one.push(pg).rejected
    write(other, "b", Plain("p", 1, 3))
    report = pusher.run()
    pusher.close()
    assert (0, 1) == (report.rows, len(report.rejected))
    assert [(2,)] == fetch(pg, "SELECT value FROM cell")


@edgeshard.table(key="name", history=True)
@attrs.frozen
class Setting:
    name: str
    value: str


def test_a_dry_run_says_what_a_keyed_table_needs_and_how_many_rows_are_left_of_it(pg: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        for n in range(3):
            shard.write(Lww("p", 1, n))
        shard.write(Setting("colour", "red"))
    store.merge()
    would = store.push(pg, dry_run=True)
    assert (2, {"cell": 1, "setting": 1}) == (would.rows, would.tables)
    done = store.push(pg)
    assert (would.rows, would.tables) == (done.rows, done.tables)
    assert set(done.statements) < set(would.statements)
    for name in ("cell_deleted", "setting_deleted", "setting_history"):
        assert any(f'CREATE TABLE "{name}"' in text for text in done.statements)
    assert len(set(would.statements)) == len(would.statements)
    assert (0, ()) == (store.push(pg, dry_run=True).rows, store.push(pg, dry_run=True).statements)


def test_only_what_is_still_there_is_pushed_and_all_of_it_counts_as_held(pg: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        for n in range(100):
            shard.write(Lww("p", 1, n))
            shard.write(Reading("inlet", float(n), keyed_model.NOON))
    store.merge()
    report = store.push(pg)
    assert (101, 0) == (report.rows, report.remaining)
    assert [(1, 200)] == fetch(pg, "SELECT first, last FROM edgeshard_ranges")
    assert 0 == store.push(pg).rows


def test_deletions_that_a_master_collected_are_pushed_as_the_holes_that_they_are(
    pg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL must hear of a deletion before it goes; one that went before the first push it need not know."""
    wall = Wall(monkeypatch)
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        for col in (1, 2, 3):
            shard.write(Lww("p", col, col))
        shard.delete(Lww, "p", 1)
        store.merge()
        wall.advance(11)
        assert 1 == store.prune(deletions_older_than="10d").rows
        assert (2, 0) == ((report := store.push(pg)).rows, report.remaining)
        assert keyed_model.state(store) == state(pg)
        shard.delete(Lww, "p", 2)
        store.merge()
        wall.advance(11)
        pruned = store.prune(deletions_older_than="10d")
        assert (0, 1) == (pruned.rows, pruned.tombstones_unheard)
        assert 1 == store.push(pg).rows
        assert 1 == store.prune(deletions_older_than="10d").rows
    assert (0, 0) == ((report := store.push(pg)).rows, report.remaining)
    assert [(("p", 3), 3)] == [row[:2] for row in keyed_model.state(store)]
    assert keyed_model.state(store) == state(pg)
    # seq 1 was replaced, and in its block; seq 4 is the deletion that went before the first push
    assert [(1, 3), (5, 5)] == fetch(pg, "SELECT first, last FROM edgeshard_ranges ORDER BY 1")
    assert store.verify().ok


@pytest.mark.parametrize("columns", others_slow([32, 33, 399], always=[32, 33]))
def test_an_index_takes_as_many_columns_of_a_key_as_postgresql_allows(
    columns: int, pg: str, store: edgeshard.Store
) -> None:
    names = [f"k{n}" for n in range(columns)]
    fields = {name: attrs.field(type=int) for name in [*names, "value"]}
    cls: Any = edgeshard.table(name="wide", key=names)(attrs.make_class("Wide", fields, frozen=True))
    with store.shard("a") as shard:
        for value in (1, 2):  # the second push supersedes what the first one brought
            shard.write_many(cls(*range(n, n + columns), value) for n in range(3))
            shard.delete(cls, *range(2, 2 + columns))
            assert () == store.merge().quarantined
            report = store.push(pg)
            assert ((), 0) == (report.rejected, report.remaining)
    assert [(0, 2), (1, 2)] == fetch(pg, "SELECT k0, value FROM wide ORDER BY k0")
    ((definition,),) = fetch(pg, "SELECT indexdef FROM pg_indexes WHERE tablename = 'wide' AND indexdef LIKE '%k31%'")
    assert f"({', '.join(names[:32])})" in definition
    assert () == store.push(pg).statements
