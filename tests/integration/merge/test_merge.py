"""The operator: every row once, by whichever route, and nothing half-done."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.budget import usage
from edgeshard.errors import DamagedError, DiskFullError, MergeInProgressError
from edgeshard.files import atomic_file, locks, scan
from edgeshard.format import blocks
from edgeshard.master import database, extents
from edgeshard.merge import chunk, init_store, truncate
from edgeshard.merge import locks as merge_locks
from edgeshard.merge.merger import Merger
from edgeshard.shard import truncations
from edgeshard.sources import attach
from edgeshard.sqlite import maintenance
from tests.support.processes import sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path, write_apart


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        for n in ns:
            shard.write({"n": n})


class Killed(BaseException):
    """Stands for the end of the process at a point of the code."""


def names_in(folder: Path) -> list[str]:
    """What is in a folder, but SQLite's side files."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm")))


def test_rows_move_from_shards_to_the_master_once(store: edgeshard.Store) -> None:
    write(store, "a", 1, 2)
    write(store, "b", 3)
    report = store.merge()

    assert (3, 3, 2, (), ()) == (report.rows, report.truncated, report.shards, report.quarantined, report.gaps)
    assert [1, 2, 3] == numbers(store)
    assert (2, ["master.db", "merge.lock", "removed-shards.db", "shards"]) == (report.removed, names_in(store.root))
    assert [] == names_in(store.root / "shards")
    assert 0 == store.merge().rows
    assert [1, 2, 3] == numbers(store)


def test_a_merge_takes_what_an_open_shard_has_and_the_writer_goes_on(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        for n in range(1, 6):
            assert n == shard.write({"n": n})
            report = store.merge()
            assert (1, 1) == (report.rows, report.truncated)
    assert [1, 2, 3, 4, 5] == numbers(store)
    assert [(1, 5)] == store.query("select first, last from _edgeshard_ranges")


def test_a_row_of_the_master_shows_its_address_and_its_agent(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard.write(Reading("a", 1, NOON))
        stream = shard.stream
    store.merge()
    rows = store.query(
        "select lower(hex(stream_id)), agent_id, _seq from reading join _edgeshard_streams on stream_no = _stream"
    )
    assert [(stream, "agent", 2)] == rows
    assert [["_edgeshard_streams", "_stream", "stream_no"]] == [
        row[2:5] for row in sql(store.master_path, "pragma foreign_key_list(reading)")
    ]


def test_declared_indexes_are_built_in_the_master_only(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write(Reading("a", 1, NOON))
    store.merge()
    count = "select count(*) from sqlite_schema where type = 'index' and tbl_name = 'reading'"
    assert [[0]] == sql(shard_path(store, "agent"), count)
    assert [[1]] == sql(store.master_path, count)
    plan_ = store.query("explain query plan select * from reading where sensor = 'a'")
    assert "reading by sensor" in plan_[0][-1]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(store: edgeshard.Store) -> None:
    write(store, "a", 1, 2)
    for _ in range(2):
        report = store.merge(dry_run=True)
        assert (2, 2, 1, True) == (report.rows, report.truncated, report.shards, report.dry_run)
        assert not store.master_path.exists()
    store.merge()
    write(store, "a", 3)
    assert 1 == store.merge(dry_run=True).rows
    assert [1, 2] == numbers(store)


@pytest.mark.parametrize("point", ["in the copy", "before the commit", "before the truncation", "in the truncation"])
def test_a_merge_killed_anywhere_is_finished_by_the_next(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    write(store, "a", 1, 2, 3)
    owner, name = {
        "in the copy": (extents, "add_ranges"),
        "before the commit": (chunk, "_settle"),
        "before the truncation": (truncate, "truncate"),
        "in the truncation": (truncations, "delete_all"),
    }[point]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        with pytest.raises(Killed):
            store.merge(keep_empty=True)
    expected = [] if point in ("in the copy", "before the commit") else [1, 2, 3]
    assert expected == numbers(store)

    report = store.merge()
    assert (3 - len(expected), 3) == (report.rows, report.truncated)
    assert [1, 2, 3] == numbers(store)
    assert store.verify().ok


def test_a_merge_removes_what_killed_makers_of_the_stores_files_left(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    store.merge()
    size = usage.measure(store.root).used
    os.link(store.master_path, store.root / "master.db.edgeshard-01234567.new")  # killed before it removed this name
    for name in ("restored-master.db", "removed-shards.db", "erased.json"):
        (store.root / f"{name}.edgeshard-89abcdef.new").write_bytes(b"x" * 100_000)
    (store.root / "restored-master.db.edgeshard-89abcdef.new-wal").touch()
    others = {"master.db.edgeshard-new", "copy.db.edgeshard-01234567.new"}
    for name in others:
        (store.root / name).touch()
    write(store, "b", 2)
    assert 1 == store.merge().rows
    assert others == {name for name in os.listdir(store.root) if "edgeshard-" in name}
    assert 1 == os.stat(store.master_path).st_nlink
    assert usage.measure(store.root).used - size < 20_000


def test_who_makes_the_master_waits_for_mergers(store: edgeshard.Store) -> None:
    store.root.joinpath("shards").mkdir(parents=True)
    with merge_locks.merge_lock_held(store.root, 0.0, lambda: False), pytest.raises(MergeInProgressError):
        init_store.make_master(store.root, 0.0)
    init_store.make_master(store.root, 0.0)
    assert store.has_master()
    with merge_locks.merge_lock_held(store.root, 0.0, lambda: False):
        init_store.make_master(store.root, 0.0)  # there is one


def test_a_master_whose_unfinished_file_is_taken_for_a_leftover_is_made_all_the_same(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(unfinished: str, path: str) -> bool:
        unfinished_files.append(unfinished)
        if len(unfinished_files) < 3:
            os.unlink(unfinished)
        return real(unfinished, path)

    unfinished_files: list[str] = []
    real = atomic_file.publish
    monkeypatch.setattr(maintenance, "publish", publish)
    store.init()
    assert (3, True, ()) == (len(unfinished_files), store.has_master(), store.verify().errors)


def test_a_merger_commits_durably_itself_before_it_truncates_what_another_copied(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(truncate, "truncate", lambda *_: None)
        store.merge(keep_empty=True)
    before = store.query("select generation from _edgeshard_database")
    assert (0, 1) == (store.merge().rows, 1)
    after = store.query("select generation from _edgeshard_database")
    assert after[0][0] == before[0][0] + 1
    connection = database.open_master(store.master_path, writable=True)
    assert 2 == connection.pragma("synchronous")
    connection.close()


def test_an_idle_merge_writes_nothing(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    store.merge()
    store.merge()
    before = store.query("select generation from _edgeshard_database")
    store.merge()
    assert before == store.query("select generation from _edgeshard_database")


def test_a_shard_without_news_is_not_looked_into(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)  # as if its last change were long ago
    write(store, "a", 1)
    assert [1, 1, 0] == [store.merge(keep_empty=True).shards for _ in range(3)]
    with store.shard("a") as shard:
        shard.write({"n": 2})
        assert [1, 0, 0] == [store.merge().shards for _ in range(3)]
        shard.write({"n": 3})
        assert 1 == store.merge().rows
    write(store, "b", 4)
    assert 1 == store.merge().rows
    assert [1, 2, 3, 4] == numbers(store)


def test_a_fresh_look_is_not_remembered(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    assert [1, 1, 1] == [store.merge(keep_empty=True).shards for _ in range(3)]


@pytest.mark.slow
def test_more_shards_than_can_be_attached_at_once(store: edgeshard.Store) -> None:
    count = 2 * attach.GROUP_SIZE + 7
    for n in range(count):
        write(store, f"agent-{n}", n)
    (store.root / "shards" / "agent-50.db").write_bytes(b"garbage")

    report = store.merge()
    assert (count - 1, 1) == (report.rows, len(report.quarantined))
    assert [n for n in range(count) if n != 50] == numbers(store)


@pytest.mark.parametrize("sources_at_once", [1, attach.GROUP_SIZE])
def test_a_shard_of_the_store_that_is_named_as_well_is_merged_once(
    sources_at_once: int, store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a", 1, 2)
    with store.shard("b") as open_shard:
        open_shard.write({"n": 3})
        named = [shard_path(store, "a"), shard_path(store, "b")]
        monkeypatch.setattr(attach, "GROUP_SIZE", sources_at_once)
        steps: list[tuple[int, int]] = []
        report = store.merge(named, progress=lambda *step: steps.append(step))
    assert ((), 3, 2, 1) == (report.quarantined, report.rows, report.shards, report.removed)
    assert steps[-1] == (3, 3)
    assert [1, 2, 3] == numbers(store)


def test_a_large_backlog_is_merged_in_pieces_that_keep_transactions_whole(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 5_000)
    commits: list[int] = []
    real = chunk.commit_chunk

    def spy(connection: Any, jobs: Any, totals: Any) -> None:
        real(connection, jobs, totals)
        commits.append(totals.rows)
        groups = store.query("select data ->> 't', count(*) from agent_data where data ->> 't' > 0 group by 1")
        assert all(count == 7 for _, count in groups)
        readings: dict[str, int] = {}
        if readings_exist(store):
            readings = dict(store.query("select sensor, count(*) from reading group by 1"))
        assert {str(t): 1 for t, _ in groups} == readings

    monkeypatch.setattr(chunk, "commit_chunk", spy)
    with store.shard("agent") as shard:
        for t in range(1, 40):
            with shard.transaction():
                for n in range(7):
                    shard.write({"t": t, "n": n})
                shard.write(Reading(str(t), 1, NOON))
            shard.write({"t": 0})
    report = store.merge()

    assert 39 * 9 == report.rows == report.truncated
    assert len(commits) > 5
    assert store.verify().ok


def readings_exist(store: edgeshard.Store) -> bool:
    return bool(store.query("select 1 from sqlite_schema where name = 'reading'"))


def test_pieces_merged_from_a_master_keep_transactions_whole_too(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("agent") as shard:
        for t in range(30):
            shard.write_many([{"t": t, "n": n} for n in range(6)])
            if t % 7 == 0:
                store.merge()
    store.merge()
    hub = new_store(tmp_path / "hub")
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 2_000)
    real = chunk.commit_chunk
    commits = []

    def spy(connection: Any, jobs: Any, totals: Any) -> None:
        real(connection, jobs, totals)
        commits.append(totals.rows)
        assert {6} == {count for (count,) in hub.query("select count(*) from agent_data group by data ->> 't'")}

    monkeypatch.setattr(chunk, "commit_chunk", spy)
    assert 180 == hub.merge([store.master_path]).rows
    assert len(commits) > 5
    assert hub.verify().ok


def test_a_transaction_larger_than_a_chunk_is_merged_in_one(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 1_000)
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(500)])
    real, commits = chunk.commit_chunk, []

    def spy(connection: Any, jobs: Any, totals: Any) -> None:
        real(connection, jobs, totals)
        commits.append(totals.rows)

    monkeypatch.setattr(chunk, "commit_chunk", spy)
    store.merge()
    assert [500] == commits


def test_a_row_larger_than_a_chunk_is_merged(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 1_000)
    with store.shard("agent") as shard:
        for n in range(3):
            shard.write({"n": n, "much": "x" * 100_000})
    assert 3 == store.merge().rows


def test_rows_written_between_commit_and_truncation_stay(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = truncate.truncate
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard.write(Reading("a", 1, NOON))

        def late(*arguments: Any) -> truncate.Truncated | None:
            shard.write({"n": 2})
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(truncate, "truncate", late)
            assert 2 == store.merge().truncated
        assert [[1]] == sql(shard.path, "select count(*) from agent_data")
        assert 1 == store.merge().rows
    assert [1, 2] == numbers(store)


def test_a_table_made_between_commit_and_truncation_stays(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = truncate.truncate
    with store.shard("agent") as shard:
        shard.write({"n": 1})

        def late(*arguments: Any) -> truncate.Truncated | None:
            shard.write(Reading("a", 1, NOON))
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(truncate, "truncate", late)
            store.merge()
        store.merge()
    assert ["a"] == [reading.sensor for reading in store.read(Reading)]
    assert store.verify().ok


def test_a_busy_shard_is_truncated_piece_by_piece(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncate, "_DELETE_ROWS", 10)
    monkeypatch.setattr(truncate, "_PUT_BACK_ROWS", 0)
    real = truncate.truncate
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(95)])

        def late(*arguments: Any) -> truncate.Truncated | None:
            shard.write({"n": 95})
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(truncate, "truncate", late)
            assert 95 == store.merge().truncated
        assert [[1, 0]] == sql(
            shard.path, "select (select count(*) from agent_data), (select count(*) from _edgeshard_transactions)"
        )
    store.merge()
    assert [*range(96)] == numbers(store)


def test_a_busy_shard_is_cleared_and_what_came_meanwhile_is_put_back_as_it_was(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = truncate.truncate
    with store.shard("agent") as shard:
        shard.write(Reading("first", 0.0, NOON))
        shard.write_many([{"n": n} for n in range(50)])

        def late(*arguments: Any) -> truncate.Truncated | None:
            shard.write_many([{"n": n} for n in range(50, 53)])
            shard.write(Reading("ü\0", 1e-300, NOON))
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(truncate, "truncate", late)
            patch.setattr(truncations, "delete_piecewise", None)  # it would be an error to get there
            assert 51 == store.merge(keep_empty=True).truncated
        assert [[3, 1]] == sql(
            shard.path, "select (select count(*) from agent_data), (select count(*) from _edgeshard_transactions)"
        )
        assert 56 == shard.write({"n": 54})
    store.merge()
    assert [*range(53), 54] == numbers(store)
    _, reading = store.read(Reading)
    assert ("ü\0", 1e-300) == (reading.sensor, reading.celsius)
    assert store.verify().ok


def test_a_shard_whose_agent_is_far_ahead_is_left_as_it_is_by_a_merger_that_comes_again(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncate, "_PUT_BACK_ROWS", 2)
    monkeypatch.setattr(truncate, "HELD_BYTES", 1)
    real = truncate.truncate
    merger = Merger(store.root, watching=True)
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(20)])

        def late(*arguments: Any) -> truncate.Truncated | None:
            shard.write_many([{"n": n} for n in range(20, 23)])
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(truncate, "truncate", late)
            report = merger.run()
        assert (20, 0) == (report.rows, report.truncated)
        assert [[23, 0]] == sql(
            shard.path, "select (select count(*) from agent_data), (select count(*) from _edgeshard_truncations)"
        )
        report = merger.run()
        assert (3, 23) == (report.rows, report.truncated)
    merger.close()
    assert [*range(23)] == numbers(store)


def test_a_truncation_killed_half_way_is_finished_and_its_rows_do_not_come_back(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> Any:
        raise Killed

    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(20)])
        real = truncate.truncate

        def late(*arguments: Any) -> truncate.Truncated | None:
            shard.write({"n": 20})
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(truncate, "truncate", late)
            patch.setattr(truncate, "_PUT_BACK_ROWS", 0)
            patch.setattr(truncations, "delete_piecewise", kill)
            with pytest.raises(Killed):
                store.merge()
        # truncated means given up: another master sees a gap, not a half of a transaction
        other = new_store(tmp_path / "other")
        report = other.merge([shard.path])
        assert (1, [(1, 20)]) == (report.rows, [(gap.first, gap.last) for gap in report.gaps])
    report = store.merge(keep_empty=True)
    assert (1, 21) == (report.rows, report.truncated)
    assert [*range(21)] == numbers(store)


def test_a_shard_whose_writer_is_in_a_transaction_is_left_for_next_time(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncate, "_BUSY_TIMEOUT_S", 0.01)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with shard.transaction():
            shard.write({"n": 2})
            report = store.merge()
            assert (1, 0, ()) == (report.rows, report.truncated, report.quarantined)
        assert 2 == store.merge().truncated
    assert [1, 2] == numbers(store)


def test_an_emptied_shard_gives_its_disk_back(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write_many([{"n": n, "much": "x" * 10_000} for n in range(1000)])
    before = shard_path(store, "agent").stat().st_size
    store.merge(keep_empty=True)
    assert shard_path(store, "agent").stat().st_size < before / 50


def test_one_merger_works_and_a_second_one_says_so(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    held = locks.lock(store.root / "merge.lock")
    assert held is not None
    with pytest.raises(MergeInProgressError, match="another merger"):
        store.merge()
    timer = threading.Timer(0.2, held.release)
    timer.start()
    assert 1 == store.merge(lock_wait=30).rows
    timer.join()


def test_two_mergers_without_the_lock_double_nothing(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLock:
        def release(self) -> None:
            pass

    store.init()
    real = locks.lock
    monkeypatch.setattr(
        locks, "lock", lambda path, wait_s=0.0: NoLock() if path.name == "merge.lock" else real(path, wait_s)
    )
    stop = threading.Event()
    failures: list[object] = []

    def merger() -> None:
        while not stop.is_set():
            try:
                failures.extend(store.merge().quarantined)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=merger) for _ in range(2)]
    with store.shard("a") as one, store.shard("b") as other:
        one.write({"n": 0})
        for thread in threads:
            thread.start()
        for n in range(1, 1500):
            (one, other)[n % 2].write({"n": n})
        stop.set()
        for thread in threads:
            thread.join()
    store.merge()
    assert [] == failures
    assert [*range(1500)] == numbers(store)
    assert store.verify().ok


# -- copies, restores, several masters --------------------------------------------------------------------------------


def test_a_copy_of_a_shard_doubles_nothing(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "agent", 1, 2)
    shutil.copy(shard_path(store, "agent"), shard_path(store, "copy"))
    shutil.copy(shard_path(store, "agent"), tmp_path / "kept")
    assert 2 == store.merge().rows
    shutil.copy(tmp_path / "kept", shard_path(store, "again"))
    assert 0 == store.merge().rows
    assert [1, 2] == numbers(store)


def test_a_shard_merged_into_two_masters_that_merge_into_each_other_doubles_nothing(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    other = new_store(tmp_path / "other")
    write(store, "agent", 1, 2)
    assert 2 == other.merge([shard_path(store, "agent")]).rows
    assert 2 == store.merge().rows
    write(store, "agent", 3)
    store.merge()
    for _ in range(2):
        other.merge([store.master_path])
        store.merge([other.master_path])
    assert [1, 2, 3] == numbers(store) == numbers(other)
    assert store.verify().ok
    assert other.verify().ok


def test_a_backup_of_a_shard_restored_over_it_loses_nothing_that_was_merged_or_is_written_after(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    write(store, "agent", 1, 2)
    shutil.copy(shard_path(store, "agent"), tmp_path / "backup")
    write(store, "agent", 3, 4)
    store.merge()
    shutil.copy(tmp_path / "backup", shard_path(store, "agent"))
    write(store, "agent", 5, 6)
    report = store.merge()
    assert (2, ()) == (report.rows, report.gaps)
    assert [1, 2, 3, 4, 5, 6] == numbers(store)
    assert store.verify().ok


def test_rows_drained_into_another_master_are_a_named_gap_until_that_one_is_merged(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard.write({"n": 2})
        stream = shard.stream
        store.merge()
        shard.write({"n": 3})
    other = edgeshard.Store(tmp_path / "other")
    shutil.copytree(store.root / "shards", other.root / "shards")
    report = other.merge()

    assert (1, False) == (report.rows, report.complete)
    assert (edgeshard.Gap("agent", stream, 1, 2),) == report.gaps == other.verify().gaps == other.merge().gaps
    assert (2, ()) == (other.merge([store.master_path]).rows, other.merge().gaps)
    assert [1, 2, 3] == numbers(other)
    assert other.verify().ok


def test_an_older_copy_of_the_master_put_back_is_a_named_gap(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        store.merge()
        shutil.copy(store.master_path, tmp_path / "old")
        shard.write({"n": 2})
        store.merge()
        shutil.copy(store.master_path, tmp_path / "new")
        shutil.copy(tmp_path / "old", store.master_path)
        assert [(2, 2)] == [(gap.first, gap.last) for gap in store.merge().gaps]
        shard.write({"n": 3})
        assert [(2, 2)] == [(gap.first, gap.last) for gap in store.merge().gaps]
        assert () == store.merge([tmp_path / "new"]).gaps
    assert [1, 2, 3] == numbers(store)


def test_sources_are_only_read(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "agent", 1)
    store.merge()
    write(store, "agent", 2)
    hub = new_store(tmp_path / "hub")
    sources = [store.master_path, shard_path(store, "agent")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in sources]
    names = sorted(os.listdir(store.root / "shards"))
    assert 2 == hub.merge(sources).rows
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in sources]
    assert names == sorted(os.listdir(store.root / "shards"))


def test_a_hop_through_a_middle_master_brings_streams_tables_and_indexes(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("agent") as shard:
        shard.write(Reading("a", 1, NOON))
        shard.write_many([{"n": 1}, {"n": 2}])
    store.merge()
    middle, hub = new_store(tmp_path / "middle"), new_store(tmp_path / "hub")
    middle.merge([store.master_path])
    hub.merge([middle.master_path])
    rows = "select agent_id, hex(stream_id), _seq from {} join _edgeshard_streams on stream_no = _stream order by 3"
    for table in ("(select _stream, _seq from agent_data)", "reading"):
        assert store.query(rows.format(table)) == hub.query(rows.format(table))
    assert [Reading("a", 1, NOON)] == list(hub.read(Reading))
    assert [("reading by sensor",)] == hub.query("select name from sqlite_schema where name like 'reading by%'")


# -- tables that differ -----------------------------------------------------------------------------------------------


def job(**fields: Any) -> Any:
    return attrs.make_class("Job", {name: attrs.field(type=kind | None, default=None) for name, kind in fields.items()})


def test_two_versions_of_a_class_meet_in_the_master(store: edgeshard.Store) -> None:
    old, new = job(name=str), job(name=str, tries=int)
    for _ in range(2):
        with store.shard("old") as shard:
            shard.write(old("a"))
        with store.shard("new") as shard:
            shard.write(new("b", 2))
        store.merge()
    assert [("a", None), ("a", None), ("b", 2), ("b", 2)] == sorted(
        (row.name, row.tries) for row in store.query("select name, tries from job")
    )


def test_a_contradicting_type_blocks_the_rows_of_that_shards_table_and_no_others(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    with store.shard("a") as shard:
        shard.write(job(x=int)(1))
    store.merge()
    write_apart(store, "b", {"n": 1}, job(x=str)("text"))
    with store.shard("c") as shard:
        shard.write(job(x=int)(3))
    for _ in range(3):
        report = store.merge()
        ((path, reason),) = [(item.path, item.reason) for item in report.blocked]
        assert str(shard_path(store, "b")) == path
        assert "column job.x is text in this shard and integer in the master" in reason
    assert [(1,), (3,)] == store.query("select x from job order by 1")
    assert [] == numbers(store)  # of the same transaction
    assert [[1, 1]] == sql(
        shard_path(store, "b"), "select (select count(*) from job), (select count(*) from agent_data)"
    )


def test_a_shard_that_is_replaced_as_it_is_attached_is_read_by_the_next_merge(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    path, real_attach = shard_path(store, "a"), sqlite.attach
    shutil.copy(path, tmp_path / "new.db")

    def replaced(*arguments: Any) -> None:
        path.unlink()
        try:
            real_attach(*arguments)
        finally:
            (tmp_path / "new.db").rename(path)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "attach", replaced)
        assert ["it was replaced a moment ago"] == [item.reason[:28] for item in store.merge().quarantined]
    assert (1, ()) == ((report := store.merge()).rows, report.quarantined)


# -- the master fails -------------------------------------------------------------------------------------------------


def test_a_master_without_room_is_not_blamed_on_a_shard(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, "a", 1)
    store.merge()
    with store.shard("a") as shard:
        shard.write({"n": 2, "much": "x" * 100_000})
    real = database.open_master

    def small(path: Path, *, writable: bool) -> apsw.Connection:
        connection = real(path, writable=writable)
        connection.pragma("max_page_count", connection.pragma("page_count") + 3)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr("edgeshard.master.database.open_master", small)
        with pytest.raises(DiskFullError, match=r"master\.db"):
            store.merge()
    assert [1] == numbers(store)
    assert 1 == store.merge().rows
    assert [1, 2] == numbers(store)


def test_a_damaged_master_is_not_blamed_on_a_shard(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many([{"n": n, "much": "x" * 3000} for n in range(200)])
        store.merge()
        shard.write({"n": 200, "much": "x" * 3000})
    page = store.query("select rootpage from sqlite_schema where name = 'agent_data'")[0][0]
    with open(store.master_path, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(DamagedError, match=r"master\.db"):
        store.merge()
    assert [[1]] == sql(shard_path(store, "a"), "select count(*) from agent_data")


@pytest.mark.slow
def test_connections_and_descriptors_are_given_back(store: edgeshard.Store) -> None:
    write(store, "a", 1)
    store.merge()
    before = len(os.listdir("/proc/self/fd"))
    for n in range(20):
        write(store, "a", n)
        store.merge(dry_run=True)
        store.merge()
        store.query("select 1")
        assert [] == list(store.read(Reading))
    assert before == len(os.listdir("/proc/self/fd"))
    assert sqlite.BUSY_TIMEOUT_S > 1


# -- the source changes while it is read ------------------------------------------------------------------------------


def test_what_an_agent_adds_after_its_shard_was_attached_is_copied(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chunk.commit_chunk
    with store.shard("agent") as shard:
        shard.write(job(name=str)("a"))

        def late(connection: Any, jobs: Any, totals: Any) -> None:
            sqlite.fetch(connection, f"select * from {jobs[0].schema}.job")  # its schema is known now
            shard.write(job(name=str, precious=str)("b", "value"))
            shard.write({"n": 1})
            real(connection, jobs, totals)

        with monkeypatch.context() as patch:
            patch.setattr(chunk, "commit_chunk", late)
            report = store.merge()
    assert (3, ()) == (report.rows, report.quarantined)
    assert [("a", None), ("b", "value")] == store.query("select name, precious from job order by _id")


def test_names_that_differ_only_in_case_are_one_name(store: edgeshard.Store, tmp_path: Path) -> None:
    def made(name: str, column: str) -> Any:
        return edgeshard.table(name=name, index=[column])(
            attrs.make_class("Made", {column: attrs.field(type=str | None, default=None)})  # type: ignore[arg-type]
        )

    with store.shard("a") as shard:
        shard.write(made("Reading", "Sensor")("1"))
        shard.write(made("reading", "sensor")("2"))
    with store.shard("b") as shard:
        shard.write(made("READING", "SENSOR")("3"))
    hub = new_store(tmp_path / "hub")
    assert (3, ()) == (store.merge().rows, store.merge().quarantined)
    assert (3, ()) == (hub.merge([store.master_path]).rows, hub.merge([store.master_path]).quarantined)
    for each in (store, hub):
        assert ["1", "2", "3"] == sorted(row.sensor for row in each.read(made("reading", "sensor")))
        assert each.verify().ok
        assert [(1,)] == each.query("select count(*) from sqlite_schema where type = 'index' and tbl_name = 'Reading'")


def test_the_shards_folder_may_be_a_link_to_another_disk(store: edgeshard.Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    store.root.mkdir()
    (store.root / "shards").symlink_to(tmp_path / "elsewhere")
    write(store, "a", 1)
    assert 1 == store.merge(keep_empty=True).rows
    assert (tmp_path / "elsewhere" / "a.db").exists()


def test_a_failure_while_counting_for_the_progress_is_no_problem_of_the_shard(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any) -> Any:
        raise apsw.BusyError

    write(store, "a", 1)
    monkeypatch.setattr("edgeshard.merge.merger.survey", busy)
    report = store.merge(progress=lambda done, to_do: None)
    assert (1, 1, ()) == (report.rows, report.truncated, report.quarantined)


def test_no_path_is_too_strange_for_a_source(store: edgeshard.Store, tmp_path: Path) -> None:
    write(store, "a", 1)
    (tmp_path / "file").write_text("")
    report = store.merge([tmp_path / "file" / "x.db", tmp_path / ("x" * 300)])
    assert (1, 2) == (report.rows, len(report.quarantined))


def test_what_waits_in_a_shard_when_a_merge_is_stopped_is_no_gap(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 200_000)
    written = 0
    for _ in range(2):  # two streams
        with store.shard("agent") as shard:
            written += shard.write_many({"n": written + n, "x": "x" * 500} for n in range(1_000))
    stopped = 0
    for most in range(1, 10):
        asked = itertools.count()
        merger = Merger(store.root, should_stop=lambda asked=asked, most=most: next(asked) >= most)  # type: ignore[misc]
        report = merger.run()
        merger.abandon()
        assert ((), ()) == (report.gaps, store.status().gaps)
        stopped += report.stopped and report.rows > 0
    assert stopped > 1
    assert "is missing rows" not in caplog.text
    store.merge()
    assert [*range(written)] == numbers(store)
    assert store.verify().ok


def test_a_dry_run_stops_when_it_is_asked_to(store: edgeshard.Store) -> None:
    for agent in ("a", "b"):
        with store.shard(agent) as shard:
            shard.write({"n": 1})
    report = store.merge(dry_run=True, should_stop=lambda: True)
    assert (0, True) == (report.rows, report.stopped)
    assert 2 == store.merge(dry_run=True).rows


def test_a_dry_run_counts_to_truncate_only_what_a_merge_truncates(store: edgeshard.Store, tmp_path: Path) -> None:
    hub = edgeshard.Store(tmp_path / "hub")
    write(hub, "far", *range(7))
    hub.merge()
    write(store, "near", 1, 2)
    hub.snapshot(tmp_path / "hub.db")
    (tmp_path / "hub.db").rename(store.root / "shards" / "hub.db")  # only shards are truncated, wherever others are
    hub.export(tmp_path / "bundle.db")
    write(hub, "further", 1, 2, 3)
    sources = [tmp_path / "bundle.db", hub.root / "shards" / "further.db"]
    for named in ([], sources, []):
        dry, real = store.merge(named, dry_run=True), store.merge(named)
        assert (dry.rows, dry.truncated, dry.quarantined) == (real.rows, real.truncated, real.quarantined)
    assert 12 == store.status().states.present


def test_rows_are_counted_as_truncated_although_the_shard_is_too_busy_to_be_made_smaller(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise apsw.BusyError("database is locked")

    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(10)])
        with monkeypatch.context() as patch:
            patch.setattr(truncate, "_shrink", fail)
            assert (10, 10) == ((report := store.merge()).rows, report.truncated)
        assert [[0]] == sql(shard.path, "select count(*) from agent_data")
        shard.write({"n": 10})
        assert (1, 1) == ((report := store.merge()).rows, report.truncated)
    assert [*range(11)] == numbers(store)


def test_rows_that_a_busy_shard_kept_after_its_truncation_was_recorded_are_deleted_by_the_next_merge(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = truncations.delete_piecewise

    def delete(*arguments: Any) -> Iterator[int]:
        yield next(real(*arguments[:-1], 4))
        raise apsw.BusyError("database is locked")

    monkeypatch.setattr(truncate, "_rows_to_keep", lambda *_: None)
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(10)])
        with monkeypatch.context() as patch:
            patch.setattr(truncations, "delete_piecewise", delete)
            assert (10, 4) == ((report := store.merge()).rows, report.truncated)
        assert (0, 6) == ((report := store.merge()).rows, report.truncated)
        assert [[0]] == sql(shard.path, "select count(*) from agent_data")
    assert [*range(10)] == numbers(store)
