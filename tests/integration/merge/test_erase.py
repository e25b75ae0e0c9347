"""Erased rows are gone from the store for good, whatever is merged or put back, and nothing else is."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, DamagedError, MergeInProgressError, QueryError
from edgeshard.files import paths
from edgeshard.format.ranges import Range
from edgeshard.merge import locks
from edgeshard.reports import RowStates
from edgeshard.retention import erased_file
from tests.support.last_known import LastKnown
from tests.support.last_known import values as last_values
from tests.support.processes import command
from tests.support.pruning import note, stream_of
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path, write_apart

SECRET = "data ->> '$.user' = 'ada'"


@edgeshard.table(key="sensor", history=True)
@attrs.frozen
class Remembered:
    sensor: str
    value: float


def users(store: edgeshard.Store) -> set[str]:
    return {row.user for row in store.query("select distinct data ->> '$.user' as user from agent_data")}


def write(shard: edgeshard.Shard, first: int, last: int) -> None:
    for n in range(first, last + 1):
        shard.write({"n": n, "user": "ada" if n % 3 == 0 else "bob"})


def put_back(store: edgeshard.Store, snapshot: Path) -> None:
    for path in (store.master_path, *map(Path, paths.side_files(store.master_path))):
        path.unlink(missing_ok=True)
    shutil.copy(snapshot, store.master_path)


def copy_shard(source: Path, target: Path) -> Path:
    for suffix in ("", "-wal"):
        if Path(f"{source}{suffix}").exists():
            shutil.copy(f"{source}{suffix}", f"{target}{suffix}")
    return target


def test_merged_and_pending_rows_are_erased_and_a_live_writer_goes_on(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 6)
        store.merge()
        write(shard, 7, 12)
        dry = store.erase("agent_data", SECRET, dry_run=True)
        assert (2, 6, True, False) == (dry.rows, dry.pending, dry.dry_run, paths.erased(store.root).exists())
        assert (4, True) == ((report := store.erase(edgeshard.AgentData, SECRET)).rows, report.complete)
        assert (0, RowStates(present=8, erased=4)) == (store.status().pending_rows, store.status().states)
        write(shard, 13, 14)
        assert (2, 2) == ((merged := store.merge()).rows, merged.truncated)
    assert [n for n in range(1, 15) if n % 3] == numbers(store)
    assert (True, (), RowStates(present=10, erased=4)) == (
        (found := store.verify(deep=True)).ok,
        found.errors,
        found.states,
    )
    assert "10 rows of 1 stream, 4 erased: all well" == str(found)
    assert 0 == store.erase("agent_data", SECRET).rows


def test_erased_rows_come_back_with_no_copy(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 9)
        copied = copy_shard(Path(shard.path), tmp_path / "copy.db")
        hub = new_store(tmp_path / "hub")
        hub.merge([copied])
        store.merge()
        store.snapshot(tmp_path / "snapshot.db")
        store.export(tmp_path / "bundle.db")
        assert 3 == store.erase("agent_data", SECRET).rows
        for source in (copied, hub.master_path, tmp_path / "snapshot.db", tmp_path / "bundle.db"):
            assert ((), 0) == ((report := store.merge([source])).quarantined, report.rows)
    copy_shard(copied, shard_path(store, "a"))  # an older copy of the shard is put back under its name
    assert ((), {"bob"}) == (store.merge().quarantined, users(store))
    copy_shard(copied, shard_path(store, "b"))
    (refused,) = store.merge().quarantined
    assert ("3 rows stay in it" in refused.reason, {"bob"}) == (True, users(store))
    assert {"ada", "bob"} == users(hub)  # it must erase them itself
    assert 3 == hub.erase("agent_data", SECRET).rows


def test_an_older_master_that_is_put_back_erases_them_again(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 3)
        store.merge()
        store.snapshot(tmp_path / "old.db")
        write(shard, 4, 9)
        copied = copy_shard(Path(shard.path), tmp_path / "copy.db")
    with store.shard("b") as other:  # whose stream the older master does not know
        write(other, 10, 12)
        shutil.copy(copy_shard(Path(other.path), tmp_path / "other.db"), tmp_path / "other.db2")
    assert 4 == store.erase("agent_data", SECRET).rows
    put_back(store, tmp_path / "old.db")
    store.merge([copied, tmp_path / "other.db"])
    assert [1, 2, 4, 5, 7, 8, 10, 11] == numbers(store)
    found = store.verify(deep=True)
    assert ((), RowStates(present=8, erased=4)) == (found.errors, found.states)
    assert 1 == erased_file.number(store.root)


def test_a_master_that_has_retired_the_stream_of_erased_rows_has_it_once(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    for agent in ("a", "b"):
        with store.shard(agent) as shard:
            write(shard, 1, 3)
        store.merge()
    store.snapshot(tmp_path / "before.db")
    assert 1 == store.prune(keep_rows=3).retired_streams
    store.snapshot(tmp_path / "after.db")
    put_back(store, tmp_path / "before.db")
    assert 2 == store.erase("agent_data", SECRET).rows  # one of each agent
    put_back(store, tmp_path / "after.db")
    store.merge()
    found = store.verify(deep=True)
    assert ((), RowStates(present=2, erased=1, pruned=3)) == (found.errors, found.states)


def test_a_lost_list_is_made_again_by_the_next_erasure(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 6)
    store.erase("agent_data", SECRET)
    paths.erased(store.root).unlink()
    store.erase("agent_data", "data ->> '$.n' = 1")
    number, (stream,) = erased_file.load(store.root)
    assert (2, [(1, 1), (3, 3), (6, 6)]) == (number, [(part.first, part.last) for part in stream.seqs])


def test_a_damaged_list_is_made_again_by_a_master_that_has_erased(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 6)
    store.erase("agent_data", SECRET)
    before = erased_file.load(store.root)
    paths.erased(store.root).write_text("{")
    assert store.merge().complete
    assert before == erased_file.load(store.root)


@pytest.mark.parametrize("text", ["", "{}", '{"edgeshard": "erased", "format": 1, "number": 9, "sha256": ""}\nx'])
def test_a_damaged_list_is_named_and_stops_merges_into_a_master_that_has_erased_nothing(
    store: edgeshard.Store, text: str
) -> None:
    store.init()
    store.merge()
    paths.erased(store.root).write_text(text)
    with pytest.raises(DamagedError, match=r"erased.json: .* put back the file of a backup"):
        store.merge()


def test_rows_of_one_transaction_and_histories(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write_many([{"n": 1, "user": "ada"}, Reading("inlet", 1.5, NOON), {"n": 3, "user": "bob"}])
        for value in (1.0, 2.0, 3.0):
            shard.write(Remembered("ada", value))
            shard.write(LastKnown("ada", value))
    store.merge()
    assert 1 == store.erase("agent_data", SECRET).rows
    assert (1, [3]) == (len(list(store.read(Reading))), numbers(store))
    assert 3 == store.erase("remembered", "sensor = 'ada'").rows  # the current row, and its history
    assert 1 == store.erase(LastKnown, "sensor = 'ada'").rows
    found = store.verify(deep=True)
    assert ((), RowStates(present=2, superseded=2, erased=5)) == (found.errors, found.states)
    hub = new_store(tmp_path / "hub")
    assert ((), 4) == ((report := hub.merge([store.master_path])).quarantined, report.rows)
    assert ({}, 5) == (last_values(hub), hub.verify().states.missing)


def test_an_older_version_does_not_take_the_place_of_an_erased_one(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("ada", 1.0))
        old = copy_shard(Path(shard.path), store.root / "old.db")
    store.merge()
    with store.shard("b") as shard:
        shard.write(LastKnown("ada", 2.0))
    assert 1 == store.erase(LastKnown, "sensor = 'ada'").rows
    copy_shard(old, shard_path(store, "copy"))
    store.merge()
    assert {} == last_values(store)


def test_peers_with_the_rows_are_named(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 9)
    store.merge()
    hub = new_store(tmp_path / "hub")
    hub.merge([store.master_path])
    store.receipt(hub.ranges(), trust=True)
    note(store, {stream_of(store): [edgeshard.format.ranges.Range(1, 4)]})
    found = store.erase("agent_data", SECRET)
    assert {("edgeshard", 3), ("postgresql", 1)} == {(each.kind, each.rows) for each in found.elsewhere}
    assert hub.status().master.database in str(found)


def test_what_cannot_be_examined_is_named(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        write(shard, 1, 3)
    store.root.joinpath("shards", "b.db").write_bytes(b"x" * 5_000)
    report = store.erase("agent_data", SECRET)
    assert (1, False, ["b.db"]) == (report.rows, report.complete, [Path(each.path).name for each in report.unexamined])
    assert 3 == command("erase", store.root, "agent_data", "--where", SECRET).returncode


@pytest.mark.parametrize("change", ["first_id = first_id + 1", "first = first + 1"])
def test_no_other_row_is_erased_if_the_master_contradicts_itself(store: edgeshard.Store, change: str) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(6))
    store.merge()
    store.query("select 1")
    connection = sqlite3.connect(store.master_path)
    connection.execute(f"update _edgeshard_blocks set {change}")
    connection.commit()
    connection.close()
    with pytest.raises(DamagedError, match="not where the address says"):
        store.erase("agent_data", "data ->> '$.n' = 3")
    assert list(range(6)) == numbers(store)
    # an erasure that an older copy of the master has not done
    ((stream_id, agent, began_at),) = store.query("select stream_id, agent_id, began_at from _edgeshard_streams")
    erased_file.save(store.root, 1, [erased_file.ErasedStream(stream_id, agent, began_at, (Range(3, 3),))])
    with pytest.raises(DamagedError, match="not where the address says"):
        store.merge()
    assert list(range(6)) == numbers(store)


@pytest.mark.slow
def test_a_full_budget_keeps_nobody_from_erasing(store: edgeshard.Store) -> None:
    capped = edgeshard.Store(store.root, max_bytes="2M")
    with capped.shard("a") as shard, pytest.raises(edgeshard.errors.DiskBudgetError):
        for n in range(10_000):
            shard.write({"n": n, "user": "ada", "text": "x" * 500})
            if n % 100 == 99:
                capped.merge()
    rows = capped.status().states.total
    assert rows == capped.erase("agent_data", SECRET).rows == capped.verify().states.erased


@pytest.mark.parametrize(
    ("table", "where", "error", "cause"),
    [
        ("nosuch", "1", ConfigurationError, "there is no table 'nosuch'"),
        ("last_known_deleted", "1", ConfigurationError, "holds tombstones"),
        ("agent_data", "nosuch = 1", QueryError, "no such column"),
        ("agent_data", "1) ; delete from agent_data; select (1", QueryError, "it only reads"),
        ("agent_data", "_id in (select 1", QueryError, "incomplete input|syntax error"),
        ("agent_data", "load_extension('x')", QueryError, "it only reads"),
        ("agent_data", "_id = ?", QueryError, "1 parameter, but got 0: erase"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    store: edgeshard.Store, table: str, where: str, error: type[Exception], cause: str
) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        shard.write(LastKnown("ada", 1.0))
        shard.delete(LastKnown, "bob")
    store.merge()
    for dry_run in (True, False):
        with pytest.raises(error, match=cause):
            store.erase(table, where, dry_run=dry_run)
    assert RowStates(present=3) == store.verify().states


def test_it_has_the_lock_of_mergers_and_needs_a_master(store: edgeshard.Store) -> None:
    (store.root / "shards").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="there is no master yet"):
        store.erase("agent_data", "1", dry_run=True)
    write_apart(store, "a", {"n": 1, "user": "ada"})
    held = locks.merge_lock(store.root, 0, lambda: False)
    assert held is not None
    with pytest.raises(MergeInProgressError):
        store.erase("agent_data", SECRET, lock_wait=0)
    held.release()
    store.merge()
    arguments = ("erase", store.root, "agent_data", "--where", SECRET)
    assert (0, "would erase 1 row\n") == ((done := command(*arguments, "--dry-run")).returncode, done.stdout)
    assert (0, True) == ((done := command(*arguments, "--json", "--yes")).returncode, '"rows": 1' in done.stdout)
    assert 78 == command("erase", store.root, "nosuch", "--where", "1").returncode
    assert 1 == command("erase", store.root, "agent_data", "--where", "nosuch").returncode


def test_nothing_of_the_rows_is_left_in_the_files_of_the_store(store: edgeshard.Store) -> None:
    """Pages that earlier truncations freed may have copies of them until they are used again; here there are none."""
    with store.shard("a") as shard:
        for n in range(50):
            shard.write({"n": n, "user": "ada", "name": f"secret{n % 2}"})
        store.erase("agent_data", "data ->> '$.name' = 'secret1'")
        found = [path.name for path in store.root.rglob("*") if path.is_file() and b"secret1" in path.read_bytes()]
        assert [] == found
