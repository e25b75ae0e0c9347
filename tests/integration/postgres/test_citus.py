"""Citus: tables are distributed as they are created, a worker is refused, and one that fails stops only its streams."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import PostgresError, PostgresUnavailableError, PostgresUnsuitableError
from edgeshard.postgres import plan
from tests.support import keyed_model
from tests.support.keyed_model import Lww
from tests.support.processes import command
from tests.support.records import NOON, Reading

pytest.importorskip("psycopg")
from tests.support import citus_double
from tests.support.citus_double import calls
from tests.support.postgres_server import cluster_nodes, do, fetch, needs_triggers


@pytest.fixture
def cluster(pg: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The DSN of a database that looks like the coordinator of a Citus cluster; no push waits between attempts."""
    citus_double.install(pg)
    monkeypatch.setattr(plan, "back_off_s", lambda *_: 0.0)
    return pg


@pytest.fixture
def merged(store: edgeshard.Store) -> edgeshard.Store:
    """A store with three readings of each of four agents."""
    for agent in "abcd":
        with store.shard(agent) as shard:
            for n in range(3):
                shard.write(Reading(agent, float(n), NOON))
    store.merge()
    return store


def newest_streams(store: edgeshard.Store) -> dict[str, str]:
    """Return the id of each agent's last stream."""
    return dict(store.query("select agent_id, lower(hex(stream_id)) from _edgeshard_streams order by stream_no"))


def pushed(dsn: str) -> dict[str, int]:
    sql = "SELECT agent_id, count(*) FROM reading JOIN edgeshard_streams ON stream = _stream GROUP BY agent_id"
    return dict(fetch(dsn, sql))


# -- distributing -----------------------------------------------------------------------------------------------------


def test_tables_of_rows_are_distributed_in_the_transaction_that_creates_them(cluster: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        shard.write(Reading("inlet", 1.0, NOON))
        shard.write(Lww("p", 1, 1))
    store.merge()
    would = store.push(cluster, distribute=True, dry_run=True)
    assert [] == calls(cluster)
    done = store.push(cluster, distribute=True)
    made = calls(cluster)
    assert {"reading", "cell", "cell_deleted"} == {table for call, table, _ in made if call == "distributed by _stream"}
    assert ["edgeshard_keys"] == [table for call, table, _ in made if call == "reference"]
    assert 4 == len(made)  # of our own tables, no other one
    assert all(is_new for _, _, is_new in made)
    assert set(done.statements) <= set(would.statements)
    assert "SELECT create_reference_table('edgeshard_keys')" in done.statements
    for again in (store.push(cluster, distribute=True), store.push(cluster, distribute=True, dry_run=True)):
        assert () == again.statements
    assert made == calls(cluster)


def test_tables_that_exist_already_are_distributed_without_new_rows(cluster: str, tmp_path: Path) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        shard.write(Lww("p", 1, 1))
        shard.write(Reading("inlet", 1.0, NOON))
    store.merge()
    store.push(cluster)
    assert [] == calls(cluster)
    would = store.push(cluster, distribute=True, dry_run=True)
    done = store.push(cluster, distribute=True)
    assert (0, would.statements) == (done.rows, done.statements)
    made = calls(cluster)
    assert [("reference", "edgeshard_keys"), ("distributed by _stream", "cell"), ("truncated", "cell")] == [
        call[:2] for call in made if call[1] in ("edgeshard_keys", "cell")
    ]
    assert {"cell", "cell_deleted", "reading"} == {table for call, table, _ in made if call == "truncated"}
    assert () == store.push(cluster, distribute=True).statements
    assert made == calls(cluster)
    with store.shard("a") as shard:
        shard.write(Lww("p", 1, 2))
    store.merge()
    assert 1 == store.push(cluster, distribute=True).rows


def test_a_push_that_does_not_distribute_leaves_tables_as_they_are(cluster: str, merged: edgeshard.Store) -> None:
    assert 12 == merged.push(cluster).rows
    assert [] == calls(cluster)


def test_nothing_is_distributed_without_citus(pg: str, merged: edgeshard.Store) -> None:
    if cluster_nodes(pg):
        pytest.skip("the server has Citus")
    for dry_run in (True, False):
        with pytest.raises(PostgresUnsuitableError, match="it has no Citus"):
            merged.push(pg, distribute=True, dry_run=dry_run)
    done = command("push", merged.root, pg, "--distribute")
    assert (78, True) == (done.returncode, "it has no Citus" in done.stderr)
    assert [] == fetch(pg, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'")


# -- commits ----------------------------------------------------------------------------------------------------------


def test_a_transaction_of_inserts_begins_with_a_copy_so_that_all_nodes_commit_together(
    cluster: str, merged: edgeshard.Store
) -> None:
    merged.push(cluster)
    citus_double.record_statements(cluster, "reading")
    with merged.shard("e") as shard:
        for n in range(4):
            shard.write(Reading("e", float(n), NOON))
    merged.merge()
    assert 4 == merged.push(cluster, inserts=True, batch=2).rows
    assert [[("COPY", ""), ("INSERT", "")]] * 2 == citus_double.statements(cluster)


def test_a_chunk_that_is_sifted_by_insert_begins_with_a_copy(cluster: str, merged: edgeshard.Store) -> None:
    merged.push(cluster)
    citus_double.record_statements(cluster, "reading")
    citus_double.add_check(cluster, "reading", "celsius <= 100")
    with merged.shard("e") as shard:
        for celsius in (1.0, 101.0, 2.0):
            shard.write(Reading("e", celsius, NOON))
    merged.merge()
    assert 2 == merged.push(cluster).rows
    (sifted,) = citus_double.statements(cluster)
    assert (("COPY", ""), {("INSERT", "")}) == (sifted[0], set(sifted[1:]))


@pytest.mark.parametrize("inserts", [False, True])
def test_rows_of_keyed_tables_use_one_connection_to_each_worker(cluster: str, tmp_path: Path, inserts: bool) -> None:
    (store,) = keyed_model.world(tmp_path, 1)
    with store.shard("a") as shard:
        shard.write(Lww("p", 1, 1))
    store.merge()
    store.push(cluster)
    citus_double.record_statements(cluster, "cell")
    with store.shard("a") as shard:
        shard.write(Lww("p", 1, 2))
    store.merge()
    assert 1 == store.push(cluster, inserts=inserts).rows
    (made,) = citus_double.statements(cluster)
    assert [("COPY", "sequential"), ("INSERT", "sequential")][: 1 + inserts] == made


# -- a worker as the target -------------------------------------------------------------------------------------------


def test_a_worker_is_refused(pg: str, merged: edgeshard.Store) -> None:
    citus_double.install(pg, group=1)
    for distribute, dry_run in ((False, False), (True, False), (False, True)):
        with pytest.raises(PostgresUnsuitableError, match="it is a worker of a Citus cluster; name the coordinator"):
            merged.push(pg, distribute=distribute, dry_run=dry_run)
    with pytest.raises(PostgresUnsuitableError, match="it is a worker"):
        edgeshard.Store.pushed_ranges(pg)
    assert 78 == command("push", merged.root, pg).returncode
    assert [] == fetch(pg, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'")


def test_a_worker_that_has_our_own_tables_is_pushed_to(pg: str, merged: edgeshard.Store) -> None:
    citus_double.install(pg)
    merged.push(pg)
    do(pg, "SELECT create_reference_table('edgeshard_database')", "UPDATE pg_dist_local_group SET groupid = 1")
    with merged.shard("e") as shard:
        shard.write(Reading("e", 1.0, NOON))
    merged.merge()
    assert 1 == merged.push(pg).rows


# -- errors without a SQLSTATE ----------------------------------------------------------------------------------------


def test_a_row_that_a_worker_rejects_in_a_copy_is_found_by_insert(cluster: str, merged: edgeshard.Store) -> None:
    merged.push(cluster)
    citus_double.add_check(cluster, "reading", "celsius <= 100")
    with merged.shard("e") as shard:
        for celsius in (1.0, 101.0, 2.0):
            shard.write(Reading("e", celsius, NOON))
    merged.merge()
    report = merged.push(cluster)
    (rejected,) = report.rejected
    assert (2, "e", 2, 1) == (report.rows, rejected.agent, rejected.seq, report.remaining)


def test_an_internal_error_of_a_server_that_is_not_citus_ends_the_push(
    pg: str, merged: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_triggers(pg)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it is not temporary"))
    merged.push(pg)
    do(
        pg,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = 'XX000'; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    with merged.shard("e") as shard:
        shard.write(Reading("e", 1.0, NOON))
    merged.merge()
    with pytest.raises(PostgresError, match="XX000: no") as caught:
        merged.push(pg)
    assert not isinstance(caught.value, PostgresUnavailableError)


# -- workers that do not answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sqlstate", ["08006", "XX000", "57P01"])
def test_streams_of_live_workers_are_pushed_beside_a_dead_one(
    cluster: str, merged: edgeshard.Store, sqlstate: str
) -> None:
    merged.push(cluster)
    for there, dead in ((3, "a"), (5, "bd"), (7, "abcd")):
        for agent in "abcd":
            with merged.shard(agent) as shard:
                shard.write_many(Reading(agent, 9.0, NOON) for _ in range(2))
        merged.merge()
        newest = newest_streams(merged)
        citus_double.kill_worker(cluster, "reading", *(newest[agent] for agent in dead), sqlstate=sqlstate)
        with pytest.raises(PostgresUnavailableError, match="a worker of this Citus cluster does not answer") as caught:
            merged.push(cluster)
        assert f"{2 * len(dead)} rows of {len(dead)} stream" in str(caught.value)
        assert {agent: there if agent in dead else there + 2 for agent in "abcd"} == pushed(cluster)
        citus_double.revive_worker(cluster, "reading")
        assert (2 * len(dead), 0) == ((report := merged.push(cluster)).rows, report.remaining)
        assert dict.fromkeys("abcd", there + 2) == pushed(cluster)


def test_a_worker_that_answers_again_takes_its_streams_in_the_same_push(
    cluster: str, merged: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged.push(cluster, batch=1)
    for agent in "abcd":
        with merged.shard(agent) as shard:
            shard.write(Reading(agent, 9.0, NOON))
    merged.merge()
    newest = newest_streams(merged)
    citus_double.kill_worker(cluster, "reading", newest["a"], newest["c"], newest["d"])
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            citus_double.revive_worker(cluster, "reading")

    monkeypatch.setattr(time, "sleep", sleep)
    assert (4, 0) == ((report := merged.push(cluster)).rows, report.remaining)
    assert dict.fromkeys("abcd", 4) == pushed(cluster)


def test_the_command_says_try_again_later(cluster: str, merged: edgeshard.Store) -> None:
    merged.push(cluster)
    with merged.shard("e") as shard:
        shard.write(Reading("e", 9.0, NOON))
    merged.merge()
    citus_double.kill_worker(cluster, "reading", newest_streams(merged)["e"])
    done = command("push", merged.root, cluster)
    assert (69, True) == (done.returncode, "1 row of 1 stream still to push" in done.stderr)
