"""``python -m edgeshard.merge`` as cron and people run it: in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import edgeshard
from edgeshard.files import locks
from tests.support.processes import merge_command
from tests.support.stores import new_store, numbers, shard_path


@pytest.fixture
def filled(store: edgeshard.Store) -> edgeshard.Store:
    """A store with three rows in a shard."""
    with store.shard("agent") as shard:
        shard.write_many([{"n": n} for n in range(3)])
    return store


def test_one_line_of_result_and_nothing_else(filled: edgeshard.Store) -> None:
    done = merge_command(filled.root)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("merged 3 rows from 1 shard, truncated 3, in ")
    assert 1 == done.stdout.count("\n")
    assert [0, 1, 2] == numbers(filled)


def test_quiet_prints_nothing_where_all_is_well(filled: edgeshard.Store) -> None:
    done = merge_command(filled.root, "-q")
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_json_is_one_object(filled: edgeshard.Store) -> None:
    report = json.loads(merge_command(filled.root, "--json").stdout)
    assert {"rows": 3, "truncated": 3, "shards": 1, "quarantined": [], "gaps": []} == {
        key: report[key] for key in ("rows", "truncated", "shards", "quarantined", "gaps")
    }
    assert report["seconds"] > 0


def test_nothing_to_do_is_done(filled: edgeshard.Store, tmp_path: Path) -> None:
    merge_command(filled.root)
    assert 0 == merge_command(filled.root).returncode
    assert 0 == merge_command(new_store(tmp_path / "empty").root).returncode


def test_a_dry_run_does_nothing(filled: edgeshard.Store) -> None:
    done = merge_command(filled.root, "--dry-run")
    assert (0, True) == (
        done.returncode,
        done.stdout.startswith("would merge 3 rows from 1 shard, would truncate 3, in "),
    )
    assert not filled.master_path.exists()


def test_other_databases_are_merged_with_from(filled: edgeshard.Store, tmp_path: Path) -> None:
    merge_command(filled.root)
    with filled.shard("agent") as shard:
        shard.write({"n": 3})
    done = merge_command(tmp_path / "data", "--keep-empty", "--from", filled.master_path)
    assert 0 == done.returncode
    hub = new_store(tmp_path / "hub")
    done = merge_command(hub.root, "--from", filled.master_path, "--from", shard_path(filled, "agent"))
    assert (0, [0, 1, 2, 3]) == (done.returncode, numbers(hub)), done.stderr


def test_what_is_set_aside_is_named_and_exits_3(filled: edgeshard.Store) -> None:
    shard_path(filled, "bad").write_bytes(b"garbage" * 1000)
    done = merge_command(filled.root, "-q")
    assert 3 == done.returncode
    assert "merged 3 rows" in done.stdout
    assert "1 database quarantined" in done.stdout
    done = merge_command(filled.root)
    assert 3 == done.returncode
    assert "bad.db" in done.stderr
    assert "not a SQLite database" in done.stderr
    assert "bad.db" in json.loads(merge_command(filled.root, "--json").stdout)["quarantined"][0]["path"]


def test_missing_rows_exit_3(filled: edgeshard.Store, tmp_path: Path) -> None:
    merge_command(filled.root, "--keep-empty")
    hub = new_store(tmp_path / "hub")
    done = merge_command(hub.root, "--from", shard_path(filled, "agent"))
    assert 3 == done.returncode
    assert "3 rows missing in 1 gap" in done.stdout
    assert "is missing rows 1 to 3" in done.stderr


@pytest.mark.slow
def test_a_held_lock_exits_75_at_once_or_waits(filled: edgeshard.Store) -> None:
    held = locks.lock(filled.root / "merge.lock")
    assert held is not None
    assert 75 == merge_command(filled.root).returncode
    assert 75 == merge_command(filled.root, "--lock-wait", "0.2").returncode
    waiting = subprocess.Popen([sys.executable, "-m", "edgeshard.merge", filled.root, "--lock-wait", "60"])
    held.release()
    assert 0 == waiting.wait(60)
    assert [0, 1, 2] == numbers(filled)


def test_wrong_usage_exits_2(filled: edgeshard.Store) -> None:
    assert 2 == merge_command().returncode
    assert 2 == merge_command(filled.root, "--nonsense").returncode
    assert 2 == merge_command(filled.root, "--lock-wait", "soon").returncode
    assert 2 == merge_command(filled.root, "--lock-wait", "nan").returncode


def test_a_folder_that_is_not_there_exits_78_and_is_not_made(tmp_path: Path) -> None:
    done = merge_command(tmp_path / "typo")
    assert (78, True) == (done.returncode, "no such folder" in done.stderr)
    assert not (tmp_path / "typo").exists()


def test_a_master_that_is_damaged_exits_65_and_loses_nothing(filled: edgeshard.Store) -> None:
    filled.master_path.write_bytes(b"garbage\0" * 1000)
    done = merge_command(filled.root)
    assert (65, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert "master.db" in done.stderr
    filled.master_path.unlink()
    assert 0 == merge_command(filled.root).returncode
    assert [0, 1, 2] == numbers(filled)


def test_a_file_where_a_folder_belongs_exits_74(filled: edgeshard.Store) -> None:
    filled.merge()
    for path in (filled.root / "shards").iterdir():
        path.unlink()
    (filled.root / "shards").rmdir()
    (filled.root / "shards").write_text("")
    done = merge_command(filled.root)
    assert 74 == done.returncode, done.stderr


def test_help_shows_examples_and_exit_codes() -> None:
    done = merge_command("--help")
    assert 0 == done.returncode
    assert "crontab" in done.stdout
    assert "75 another merger" in done.stdout


def test_progress_is_shown_on_a_terminal_where_the_work_is_long(filled: edgeshard.Store) -> None:
    ours, theirs = pty.openpty()
    slow = (
        "import sys\n"
        "from edgeshard.cli import main_of_merge, output\n"
        "calls = iter(range(0, 10**6, 2))\n"
        "class Clock:\n"
        "    monotonic = staticmethod(lambda: next(calls))\n"
        "output.time = Clock\n"
        "sys.exit(main_of_merge(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", slow, filled.root], stderr=theirs, stdout=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 1000).decode()
    os.close(ours)
    assert 0 == done.returncode
    assert "3 of 3 rows merged" in shown
