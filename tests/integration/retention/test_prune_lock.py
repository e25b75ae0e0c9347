"""A prune takes the lock of mergers for each of its transactions, and only for these."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, MergeInProgressError, StorageBusyError, StorageIOError
from edgeshard.files import locks
from edgeshard.retention import plan, row_rules, shrink, window
from tests.support.forms import others_slow
from tests.support.last_known import LastKnown
from tests.support.processes import command, sql
from tests.support.stores import numbers

ROWS = 40


@pytest.fixture
def merged(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> edgeshard.Store:
    """A store whose rows are pruned in several transactions."""
    monkeypatch.setattr(plan, "FIRST_ROWS", 10)
    monkeypatch.setattr(plan, "MAX_ROWS", 10)
    monkeypatch.setattr(plan, "MIN_ROWS", 10)
    with store.shard("agent") as shard:
        for n in range(ROWS):
            shard.write({"n": n, "x": "x" * 2_000})
    store.merge()
    return store


@pytest.fixture
def merging(merged: edgeshard.Store) -> Iterator[None]:
    """A merger that is at work."""
    held = locks.lock(merged.root / "merge.lock")
    assert held is not None
    yield
    held.release()


@pytest.mark.usefixtures("merging")
@pytest.mark.parametrize("rule", [{"keep_rows": 1}, {"shrink": True}, {"older_than": 0.0}])
def test_a_prune_does_nothing_while_a_merger_is_at_work(merged: edgeshard.Store, rule: dict[str, Any]) -> None:
    with pytest.raises(MergeInProgressError, match="another merger is working on it"):
        merged.prune(**rule, lock_wait=0.05)
    assert [*range(ROWS)] == numbers(merged)


@pytest.mark.usefixtures("merging")
def test_the_command_exits_75_while_a_merger_is_at_work(merged: edgeshard.Store) -> None:
    done = command("prune", merged.root, "--keep-rows", "1", "--lock-wait", "0.05")
    assert (75, "", True) == (done.returncode, done.stdout, "another merger" in done.stderr)
    assert 0 == command("prune", merged.root, "--keep-rows", "1", "--dry-run").returncode


@pytest.mark.usefixtures("merging")
def test_a_dry_run_takes_no_lock(merged: edgeshard.Store) -> None:
    assert ROWS - 1 == merged.prune(keep_rows=1, dry_run=True, lock_wait=0.05).rows


@pytest.mark.usefixtures("merging")
def test_a_prune_that_waits_can_be_stopped(merged: edgeshard.Store) -> None:
    asked = iter([False] * 3)
    report = merged.prune(keep_rows=1, should_stop=lambda: next(asked, True))
    assert (0, True) == (report.rows, report.stopped)
    assert [*range(ROWS)] == numbers(merged)


def test_the_lock_is_held_in_each_transaction_and_not_between_them(
    merged: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*arguments: Any) -> Any:
            seen.append((name, locks.is_locked(merged.root / "merge.lock")))
            return original(*arguments)

        monkeypatch.setattr(module, name, watched)

    watch(window, "delete")
    watch(shrink, "release")
    for module in (window, shrink):
        watch(module, "pause")
    assert ROWS - 5 == merged.prune(keep_rows=5, shrink=True).rows
    assert {("delete", True), ("release", True), ("pause", False)} == set(seen)
    assert 4 <= seen.count(("delete", True))
    assert not locks.is_locked(merged.root / "merge.lock")


def test_a_prune_works_next_to_a_watcher(merged: edgeshard.Store) -> None:
    with merged.watching(), merged.shard("other") as shard:
        shard.write({"n": ROWS})
        assert merged.prune(keep_rows=1).rows >= ROWS - 1
        assert 0 == command("prune", merged.root, "--keep-rows", "1").returncode


def test_a_merge_that_does_not_wait_for_mergers_waits_for_a_step_of_a_prune(
    merged: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, merged_reports = threading.Event(), []
    original = window.delete

    def merge() -> None:
        begun.set()
        merged_reports.append(merged.merge())

    thread = threading.Thread(target=merge)

    def slow(*arguments: Any) -> Any:
        if not thread.ident:
            thread.start()
            assert begun.wait(60)
        return original(*arguments)

    monkeypatch.setattr(window, "delete", slow)
    assert ROWS - 1 == merged.prune(keep_rows=1).rows
    thread.join()
    assert 1 == len(merged_reports)


def test_a_prune_stops_if_the_master_is_replaced_meanwhile(merged: edgeshard.Store, tmp_path: Path) -> None:
    merged.snapshot(tmp_path / "older.db")

    def replace(done: int, to_do: int) -> None:
        if (tmp_path / "older.db").exists():
            os.rename(tmp_path / "older.db", merged.master_path)

    with pytest.raises(StorageIOError, match="replaced during the prune"):
        merged.prune(keep_rows=1, progress=replace)
    for suffix in ("-wal", "-shm"):
        Path(f"{merged.master_path}{suffix}").unlink(missing_ok=True)
    assert [*range(ROWS)] == numbers(merged)


@pytest.mark.parametrize(("keep_rows", "left"), [(0, []), (1, [ROWS])])
def test_current_rows_stay_although_their_table_came_after_the_prune_had_begun(
    merged: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, keep_rows: int, left: list[int]
) -> None:
    follow = row_rules.delete_old_rows

    def merge_before(run: Any) -> int:
        with merged.shard("other") as shard:
            shard.write({"n": ROWS})
            shard.write(LastKnown("inlet", 1.0))
        merged.merge()
        return follow(run)

    monkeypatch.setattr(row_rules, "delete_old_rows", merge_before)
    merged.prune(keep_rows=keep_rows)
    assert left == numbers(merged)
    assert [("inlet",)] == merged.query("SELECT sensor FROM last_known")
    assert () == merged.verify(deep=True).errors


# -- another process writes to the master -----------------------------------------------------------------------------

#: Holds SQLite's lock for writing for a time, without any lock file, as a tool of another vendor does.
_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""

HELD_S = 0.4


@contextlib.contextmanager
def held_by_another(path: Path, held_s: float = HELD_S) -> Iterator[None]:
    """Let another process hold the master's lock for writing for this long, from before the block begins."""
    arguments = [sys.executable, "-c", _WRITER, str(path), str(held_s)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield


@pytest.mark.parametrize("lock_wait", others_slow([-1, -0.5, 60], [-1]))
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_prune_waits_for_another_process_that_writes(
    merged: edgeshard.Store, lock_wait: float, by_hand: bool
) -> None:
    if by_hand:  # then the prune's first transaction records what was deleted
        sql(merged.master_path, "delete from agent_data where data ->> 'n' = 0")
    with held_by_another(merged.master_path):
        began = time.monotonic()
        report = merged.prune(keep_rows=1, lock_wait=lock_wait)
        assert time.monotonic() - began > HELD_S / 2
    assert (ROWS - 1 - by_hand, [ROWS - 1]) == (report.rows, numbers(merged))


@pytest.mark.parametrize("by_hand", others_slow([False, True], [True]))
def test_a_prune_that_does_not_wait_says_that_the_master_is_locked(merged: edgeshard.Store, by_hand: bool) -> None:
    if by_hand:
        sql(merged.master_path, "delete from agent_data where data ->> 'n' = 0")
    with held_by_another(merged.master_path, 3.0), pytest.raises(StorageBusyError) as caught:
        merged.prune(keep_rows=1, lock_wait=0)
    assert str(merged.master_path) == caught.value.path


def test_a_connection_waits_as_before_after_its_wal_was_emptied(merged: edgeshard.Store) -> None:
    connection = sqlite.connect(str(merged.master_path), writable=True, busy_timeout_s=-1)
    with contextlib.closing(connection):
        sqlite.shrink_wal(connection)
        with held_by_another(merged.master_path), sqlite.immediate(connection):
            pass
        sqlite.set_busy_timeout(connection, 0.0)
        sqlite.shrink_wal(connection)
        with held_by_another(merged.master_path, 3.0), pytest.raises(sqlite.BUSY), sqlite.immediate(connection):
            pass


WAITS = [float("nan"), float("inf"), 10**400, -(10**400), 1e12, "5", True, None]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: f"{wait!r:.9}")
def test_what_is_no_time_to_wait_is_refused_before_anything_is_done(merged: edgeshard.Store, wait: Any) -> None:
    for call in (
        merged.merge,
        merged.init,
        merged.confirm_clock,
        partial(merged.prune, keep_rows=1),
        partial(merged.prune, keep_rows=1, dry_run=True),
        partial(merged.accept_loss, why="a test"),
        partial(merged.erase, "agent_data", "1"),
        partial(merged.erase, "agent_data", "1", dry_run=True),
        partial(merged.merge, dry_run=True),
        partial(merged.confirm_clock, dry_run=True),
    ):
        with pytest.raises(ConfigurationError, match="lock_wait must be a number of seconds up to 300000000, or -1"):
            call(lock_wait=wait)
    assert [*range(ROWS)] == numbers(merged)
