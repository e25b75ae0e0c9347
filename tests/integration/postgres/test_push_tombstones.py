"""Tombstones in PostgreSQL are deleted once the master has pruned them, and no other stream can bring an older change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeshard
from edgeshard.master import database, tombstone_gc
from tests.support import keyed_model
from tests.support.keyed_model import Lww
from tests.support.processes import command
from tests.support.wall_clock import Wall

pytest.importorskip("psycopg")
from tests.support.keyed_pushes import state
from tests.support.postgres_server import do, fetch, needs_triggers


def tombstones(dsn: str) -> list[int]:
    return [col for (col,) in fetch(dsn, "SELECT col FROM cell_deleted ORDER BY col")]


def delete(store: edgeshard.Store, *cols: int, agent: str = "a") -> None:
    """Write and delete keys, and merge."""
    with store.shard(agent) as shard:
        for col in cols:
            shard.write(Lww("p", col, col))
            shard.delete(Lww, "p", col)
    store.merge()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The clock of all devices, ten days and more behind the server's."""
    return Wall(monkeypatch)


def test_what_the_master_has_pruned_is_deleted_there_too(wall: Wall, pg: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    delete(store, 1, 2)
    assert (4, 0) == ((report := store.push(pg)).rows + 2, report.tombstones)
    wall.advance(11)
    delete(store, 3)
    store.push(pg)
    assert [1, 2, 3] == tombstones(pg)
    assert 2 == store.prune(deletions_older_than="10d").rows
    report = store.push(pg)
    assert (2, [3]) == (report.tombstones, tombstones(pg))
    assert "deleted 2 tombstones there" in str(report)
    assert 0 == store.push(pg).tombstones
    assert state(pg) == keyed_model.state(store)
    assert store.verify_against(pg, deep=True).ok


def test_nothing_is_deleted_before_the_master_has_pruned_it(wall: Wall, pg: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    delete(store, 1)
    store.push(pg)
    wall.advance(30)
    assert (0, [1]) == (store.push(pg).tombstones, tombstones(pg))


def test_rows_that_were_pruned_for_another_reason_make_no_tombstone_collected(
    wall: Wall, pg: str, tmp_path: Path
) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        for n in range(3):
            shard.write({"n": n})
        shard.write(Lww("p", 1, 1))
        shard.delete(Lww, "p", 1)  # seq 5
    store.merge()
    store.push(pg)
    wall.advance(11)
    assert 3 == store.prune(table="agent_data", keep_rows=0).rows
    delete(store, 2, agent="b")
    store.push(pg)
    wall.advance(9)
    connection = database.open_master(store.master_path, writable=True)
    tombstone_gc.record(connection, "cell", 1 << 62, 1.0)  # as if newer ones had been collected
    connection.close()
    assert (0, [1, 2]) == (store.push(pg).tombstones, tombstones(pg))


def test_streams_that_retired_in_the_master_count_as_pruned(wall: Wall, pg: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    delete(store, 1)
    store.push(pg)
    wall.advance(11)
    assert 1 == store.prune(deletions_older_than="10d").rows
    wall.advance(400)
    store.merge()
    store.prune(deletions_older_than="10d")
    assert (1, []) == (store.push(pg).tombstones, tombstones(pg))


def end_first_stream(dsn: str) -> None:
    """Let the first stream of agent b look as if nothing of it had arrived for eleven days."""
    first = "SELECT stream FROM edgeshard_streams WHERE agent_id = 'b' ORDER BY began_at LIMIT 1"
    do(dsn, f"UPDATE edgeshard_streams SET pushed_at = now() - interval '11 days' WHERE stream = ({first})")


# -- other masters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two(wall: Wall, pg: str, tmp_path: Path) -> tuple[edgeshard.Store, edgeshard.Store]:
    """Two devices that push there. The first has deleted key 1, and pruned the tombstone."""
    one, other = keyed_model.world(tmp_path, 2)
    with other.shard("b") as shard:
        shard.write(Lww("p", 9, 9))  # before the deletion
    other.merge()
    other.push(pg)
    wall.advance(1)
    delete(one, 1)
    one.push(pg)
    wall.advance(11)
    assert 1 == one.prune(deletions_older_than="10d").rows
    return one, other


def test_a_stream_of_another_master_that_may_bring_an_older_change_keeps_tombstones(
    two: tuple[edgeshard.Store, edgeshard.Store], pg: str
) -> None:
    one, _ = two
    assert (0, [1]) == (one.push(pg).tombstones, tombstones(pg))


def test_a_stream_of_another_master_that_brought_a_newer_change_keeps_none(
    two: tuple[edgeshard.Store, edgeshard.Store], pg: str
) -> None:
    one, other = two
    with other.shard("b") as shard:
        shard.write(Lww("p", 8, 8))
    other.merge()
    other.push(pg)
    end_first_stream(pg)
    assert (1, []) == (one.push(pg).tombstones, tombstones(pg))


@pytest.mark.parametrize(("days", "left"), [(9, [1]), (11, [])])
def test_a_stream_that_brought_nothing_during_the_grace_period_keeps_none(
    two: tuple[edgeshard.Store, edgeshard.Store], pg: str, days: int, left: list[int]
) -> None:
    one, _ = two
    do(pg, f"UPDATE edgeshard_streams SET pushed_at = now() - interval '{days} days' WHERE agent_id = 'b'")
    one.push(pg)
    assert left == tombstones(pg)


def test_a_stream_that_rows_are_missing_of_keeps_all(two: tuple[edgeshard.Store, edgeshard.Store], pg: str) -> None:
    one, other = two
    with other.shard("b") as shard:
        shard.write(Lww("p", 8, 8))
    other.merge()
    other.push(pg)
    end_first_stream(pg)
    do(pg, "UPDATE edgeshard_streams SET last_seq = 2 WHERE pushed_at > now() - interval '1 day' AND agent_id = 'b'")
    assert (0, [1]) == (one.push(pg).tombstones, tombstones(pg))
    do(pg, "UPDATE edgeshard_streams SET last_seq = 1 WHERE agent_id = 'b'")
    assert (1, []) == (one.push(pg).tombstones, tombstones(pg))


def test_a_stream_that_the_master_has_merged_keeps_none(two: tuple[edgeshard.Store, edgeshard.Store], pg: str) -> None:
    one, other = two
    one.merge([other.master_path])
    assert (1, []) == (one.push(pg).tombstones, tombstones(pg))


def test_a_known_stream_that_went_on_elsewhere_keeps_tombstones(
    two: tuple[edgeshard.Store, edgeshard.Store], pg: str
) -> None:
    one, other = two
    one.merge([other.master_path])
    ((stream,),) = other.query("select lower(hex(stream_id)) from _edgeshard_streams")
    do(
        pg,
        f"UPDATE edgeshard_streams SET last_seq = 2, pushed_at = now() WHERE stream = '{stream}'",
        f"UPDATE edgeshard_ranges SET last = 2 WHERE stream = '{stream}'",
    )
    assert (0, [1]) == (one.push(pg).tombstones, tombstones(pg))


def test_nothing_is_deleted_while_rows_are_still_to_push(wall: Wall, pg: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    delete(store, 1)
    store.push(pg)
    wall.advance(11)
    store.prune(deletions_older_than="10d")
    with store.shard("c") as shard:
        shard.write({"text": "a\0b"})
    store.merge()
    report = store.push(pg)
    assert (1, 0, [1]) == (report.remaining, report.tombstones, tombstones(pg))


def test_a_server_that_fails_meanwhile_does_not_fail_the_push(
    wall: Wall, pg: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs_triggers(pg)
    (store,) = keyed_model.world(tmp_path, 1)
    delete(store, 1)
    store.push(pg)
    wall.advance(11)
    store.prune(deletions_older_than="10d")
    with store.shard("a") as shard:
        shard.write({"n": 1})
    store.merge()
    do(
        pg,
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '55P03'; END $$",
        "CREATE TRIGGER no BEFORE DELETE ON cell_deleted FOR EACH ROW EXECUTE FUNCTION no()",
    )
    report = store.push(pg)
    assert (1, 0, [1]) == (report.rows, report.tombstones, tombstones(pg))
    assert "the next push tries again" in caplog.text
    do(pg, "DROP TRIGGER no ON cell_deleted")
    said = json.loads(command("push", store.root, pg, "--json").stdout)
    assert (1, []) == (said["tombstones"], tombstones(pg))
