"""An older master that is put back names the rows that removed shards brought, because notes outside it say so."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import pytest

import edgeshard
from edgeshard.errors import DiskFullError
from edgeshard.master import removed_shards
from edgeshard.merge import chunk
from edgeshard.reports import OLDER_MASTER, OTHER_MASTER
from tests.support.forks import Count, begin
from tests.support.hostile_shards import edit
from tests.support.processes import command, sql
from tests.support.stores import numbers, shard_path


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in ns)


def put_back(store: edgeshard.Store, snapshot: Path) -> Path:
    """Put a snapshot in the master's place by hand, as people do; return where the old files are."""
    replaced = store.root.parent / "replaced"
    replaced.mkdir()
    for path in store.root.glob("master.db*"):
        path.rename(replaced / path.name)
    shutil.copyfile(snapshot, store.master_path)
    return replaced / "master.db"


def named(gaps: tuple[edgeshard.Gap, ...]) -> list[tuple[str, int, int]]:
    return [(gap.agent, gap.first, gap.last) for gap in gaps]


@pytest.fixture
def older(store: edgeshard.Store, tmp_path: Path) -> Path:
    """A snapshot with one row; afterwards two agents brought rows, and their shards were removed."""
    write(store, "a", 1)
    store.merge()
    store.snapshot(tmp_path / "older.db")
    write(store, "a", 2, 3)
    write(store, "b", 4, 5, 6)
    assert 2 == store.merge().removed
    return tmp_path / "older.db"


def test_each_report_names_rows_of_removed_shards_that_an_older_master_lacks(
    store: edgeshard.Store, older: Path
) -> None:
    put_back(store, older)
    expected = [("a", 1, 2), ("b", 1, 3)]
    verified, status = store.verify(), store.status()
    assert (expected, expected) == (named(verified.gaps), named(status.gaps))
    assert [OLDER_MASTER] * 2 == [loss.cause for loss in verified.losses]
    assert (False, 5, 5) == (status.complete, status.master.missing_rows, verified.states.missing)
    assert expected == named(store.merge(dry_run=True).gaps)
    merged = store.merge()
    assert (expected, 5, False) == (named(merged.gaps), merged.missing_rows, merged.complete)
    assert expected == named(store.verify().gaps), "the merge recorded them in the master"
    assert ((), [OLDER_MASTER] * 2) == (store.verify().errors, [loss.cause for loss in store.verify().losses])


def test_rows_of_a_removed_shard_that_were_truncated_before_are_named_too(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    write(store, "other", 0)
    store.merge()
    store.snapshot(tmp_path / "older.db")
    with store.shard("a") as shard:
        shard.write({"n": 1})
        assert (1, 0) == (store.merge().truncated, store.merge().removed)
    write(store, "a", 2, 3)  # a stream of its own, and the only one with rows that the master lacks
    assert 1 == store.merge().removed
    put_back(store, tmp_path / "older.db")
    assert [("a", 1, 1), ("a", 1, 2)] == sorted(named(store.status().gaps))


def test_commands_exit_3_and_name_the_rows(store: edgeshard.Store, older: Path) -> None:
    put_back(store, older)
    for verb in ("verify", "status", "merge"):
        done = command(verb, store.root)
        assert (3, True) == (done.returncode, "5 rows missing" in done.stdout), (verb, done)
    assert "this master held them before an older copy of it was restored" in command("verify", store.root).stdout


def test_the_gaps_close_once_the_replaced_master_is_merged(store: edgeshard.Store, older: Path) -> None:
    replaced = put_back(store, older)
    assert 5 == store.merge([replaced]).rows
    assert (True, [1, 2, 3, 4, 5, 6]) == (store.verify().ok, numbers(store))
    assert store.merge().complete


def test_a_new_master_names_what_the_lost_one_had(store: edgeshard.Store, older: Path) -> None:
    lost = store.status().master.database
    for path in store.root.glob("master.db*"):
        path.unlink()
    write(store, "c", 7)
    assert ([("a", 1, 1), ("a", 1, 2), ("b", 1, 3)], 1) == (
        sorted(named(store.merge().gaps)),
        len(numbers(store)),
    )
    assert {(OTHER_MASTER, lost)} == {(loss.cause, loss.database) for loss in store.verify().losses}


def test_notes_are_bounded_and_an_older_master_says_that_it_cannot_name_all(
    store: edgeshard.Store, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removed_shards, "STREAMS_MAX", 2)
    write(store, "c", 7)
    write(store, "d", 8)
    store.merge()
    assert store.verify().ok, "the master that wrote them knows them all"
    put_back(store, older)
    report = store.verify()
    assert ([("c", 1, 1), ("d", 1, 1)], False) == (named(report.gaps), report.ok)
    assert "rows of up to 2 more streams" in report.unnamed
    assert (report.unnamed, False) == (store.status().unnamed, store.status().complete)
    done = command("verify", store.root)
    assert (3, True) == (done.returncode, "cannot be named" in done.stdout)
    assert 2 == sql(store.root / "removed-shards.db", "select count(*) from _edgeshard_removed")[0][0]


def test_a_budget_bounds_the_notes_by_a_64th(store: edgeshard.Store) -> None:
    assert (20_000, 512, 1) == (
        removed_shards.limit(None), removed_shards.limit(2 << 20), removed_shards.limit(1000),
    )  # fmt: skip


@pytest.mark.parametrize("harm", ["garbage", "a shard", "another table"])
def test_damaged_notes_stop_no_merge_and_are_set_aside(store: edgeshard.Store, older: Path, harm: str) -> None:
    notes = store.root / "removed-shards.db"
    with store.shard("live") as shard:
        shard.write({"n": 9})
        if harm == "garbage":
            notes.write_bytes(b"garbage" * 1000)
        elif harm == "a shard":
            shutil.copyfile(shard_path(store, "live"), notes)
        else:
            edit(notes, "drop table _edgeshard_removed")
        report = store.verify()
        assert (False, (), True) == (report.ok, report.errors, "is not known" in report.unnamed)
        assert 3 == command("verify", store.root).returncode
    assert (1, 1) == (store.merge().rows, store.merge().removed + 1)
    assert [1, 2, 3, 4, 5, 6, 9] == numbers(store)
    assert store.verify().ok
    assert 1 == len(list(store.root.glob("removed-shards-damaged-*.db")))


def test_shards_that_cannot_be_noted_are_truncated_and_stay(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(root: Path, *_: object) -> None:
        raise DiskFullError("make notes", root, "the disk is full")

    write(store, "a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(removed_shards, "record", refuse)
        report = store.merge()
        assert (1, 1, 0) == (report.rows, report.truncated, report.removed)
    assert "the disk is full" in caplog.text
    assert 1 == store.merge().removed


def test_a_note_of_a_stream_that_the_master_forgot_since_is_no_news(store: edgeshard.Store, older: Path) -> None:
    write(store, "c", 7)
    store.merge()
    stream = "(select stream_no from _edgeshard_streams where agent_id = 'b')"
    edit(
        store.master_path,
        f"delete from agent_data where _stream = {stream}",
        *(f"delete from _edgeshard_{table} where stream_no = {stream}" for table in ("blocks", "ranges", "proven")),
        "delete from _edgeshard_streams where agent_id = 'b'",
    )
    assert (True, ()) == (store.verify().ok, store.merge().gaps)


def test_a_note_that_was_left_half_written_keeps_no_merge_from_reading_the_others(
    store: edgeshard.Store, older: Path
) -> None:
    notes = store.root / "removed-shards.db"

    def work(_: Count) -> None:
        connection = apsw.Connection(str(notes))
        connection.execute("PRAGMA cache_size = 1")  # so that the journal is durable, and pages are overwritten
        connection.execute("BEGIN IMMEDIATE")
        for number in range(100, 600):
            row = (number, b"%016d" % number, "agent", 1, bytes(16))
            connection.execute("INSERT INTO _edgeshard_removed VALUES (?, ?, ?, ?, ?)", row)
        os.kill(os.getpid(), signal.SIGKILL)

    life = begin(work)
    life.killed = True
    life.wait()
    put_back(store, older)
    assert "merge first" in store.verify().unnamed
    report = store.merge()
    assert ([("a", 1, 2), ("b", 1, 3)], "") == (named(report.gaps), store.verify().unnamed)
    assert not os.path.lexists(f"{notes}-journal")


@pytest.mark.parametrize("moment", ["before the note", "after the note"])
def test_a_merger_killed_around_the_note_loses_nothing(store: edgeshard.Store, tmp_path: Path, moment: str) -> None:
    write(store, "a", 1)
    store.merge()
    store.snapshot(tmp_path / "older.db")
    write(store, "b", 2, 3)

    def work(_: Count) -> None:
        real = removed_shards.record

        def record(*given: Any) -> Any:
            if moment == "after the note":
                real(*given)
            os.kill(os.getpid(), signal.SIGKILL)

        with mock.patch.object(removed_shards, "record", record):
            store.merge()

    life = begin(work)
    life.killed = True
    life.wait()
    assert shard_path(store, "b").exists(), "it was removed before it was noted"
    put_back(store, tmp_path / "older.db")
    # the shard still has the rows, so they are pending, and not lost
    assert (2, [1, 2, 3]) == (store.merge().rows, numbers(store))
    assert store.verify().ok


def test_when_a_stream_began_is_known_again_once_a_database_that_has_it_is_merged(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    began = "select began_at from _edgeshard_streams"
    store.init()
    store.snapshot(tmp_path / "older.db")
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    assert 1 == store.merge().removed
    store.snapshot(tmp_path / "newer.db")
    before = sql(store.master_path, began)
    store.restore(tmp_path / "older.db")
    store.merge()
    assert [[""]] == sql(store.master_path, began)  # the note of the removed shard does not say
    store.merge([tmp_path / "newer.db"])
    assert before == sql(store.master_path, began)


def test_a_shard_whose_rows_were_rolled_back_for_lack_of_quota_is_not_noted_as_removed(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise apsw.FullError("database or disk is full")

    write(store, "agent", 1)
    capped = edgeshard.Store(store.root, max_bytes="4M")
    capped.init()
    with monkeypatch.context() as patch:
        patch.setattr(chunk, "_record_arrival", fail)
        with pytest.raises(edgeshard.DiskBudgetError):
            capped.merge()
    assert not (store.root / "removed-shards.db").exists()
    assert (1, ()) == ((report := store.merge()).rows, report.gaps)
