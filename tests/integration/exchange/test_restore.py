"""A snapshot is put in the place of the master: whole or not at all, and what is missing then is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, DamagedError, FormatError, MergeInProgressError, StorageBusyError
from edgeshard.reports import OLDER_MASTER, PEER, REPLACED
from tests.support.damaged_masters import DAMAGE, damage
from tests.support.processes import command
from tests.support.stores import new_store, numbers, shard_path


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in ns)


def files(store: edgeshard.Store) -> list[str]:
    """Return the names of the files next to the master."""
    return sorted(path.name for path in store.root.iterdir() if path.is_file() and path.suffix != ".lock")


@pytest.fixture
def snapshot(store: edgeshard.Store, tmp_path: Path) -> Path:
    """A snapshot with the row 1; afterwards 2 to 4 were merged, and their shards removed; and 5 is pending."""
    write(store, "a", 1)
    store.merge()
    store.snapshot(tmp_path / "older.db")
    write(store, "a", 2, 3)
    write(store, "b", 4)
    assert 2 == store.merge().removed
    write(store, "c", 5)
    return tmp_path / "older.db"


def test_a_restore_names_what_is_missing_and_the_replaced_master_has_it(store: edgeshard.Store, snapshot: Path) -> None:
    report = store.restore(snapshot)
    assert (False, 3, 1, True) == (report.complete, report.missing_rows, report.rows, report.is_replaced_readable)
    assert [("a", 1, 2), ("b", 1, 1)] == [(gap.agent, gap.first, gap.last) for gap in report.gaps]
    assert {REPLACED} == {loss.cause for loss in report.losses}
    assert {Path(report.replaced).name, "master.db", "removed-shards.db"} == set(files(store))
    assert report.gaps == store.verify(deep=True).gaps
    assert {OLDER_MASTER} == {loss.cause for loss in store.verify().losses}
    merged = store.merge()
    assert (1, report.gaps, [1, 5]) == (merged.rows, merged.gaps, numbers(store))
    assert 3 == store.merge([report.replaced]).rows
    assert (True, [1, 2, 3, 4, 5]) == (store.verify(deep=True).ok, numbers(store))


def test_the_command_says_what_is_missing_and_how_to_take_it_back(store: edgeshard.Store, snapshot: Path) -> None:
    done = command("restore", store.root, snapshot, "--yes")
    assert (3, "") == (done.returncode, done.stderr)
    line = next(line for line in done.stdout.splitlines() if "take them back with" in line)
    back = line.partition(": edgeshard ")[2].split()
    assert 0 == command(*back).returncode
    assert [1, 2, 3, 4, 5] == numbers(store)
    store.snapshot(snapshot, force=True)
    done = command("restore", store.root, snapshot, "--json")
    assert (0, True, 5) == (done.returncode, json.loads(done.stdout)["complete"], json.loads(done.stdout)["rows"])


def test_a_dry_run_reports_the_same_and_changes_nothing(store: edgeshard.Store, snapshot: Path) -> None:
    before = files(store), numbers(store), store.verify()
    report = store.restore(snapshot, dry_run=True)
    assert (True, "", 3) == (report.dry_run, report.replaced, report.missing_rows)
    assert before == (files(store), numbers(store), store.verify())
    assert 3 == command("restore", store.root, snapshot, "--dry-run").returncode
    assert before == (files(store), numbers(store), store.verify())
    assert report.gaps == store.restore(snapshot).gaps


def test_rows_that_live_shards_truncated_are_named(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        store.merge()
        store.snapshot(tmp_path / "older.db")
        shard.write_many([{"n": 2}, {"n": 3}])
        store.merge()
        report = store.restore(tmp_path / "older.db")
        assert [("a", 2, 3)] == [(gap.agent, gap.first, gap.last) for gap in report.gaps]
        shard.write({"n": 4})
    assert report.gaps == store.merge().gaps
    assert [1, 4] == numbers(store)


def test_a_snapshot_put_back_by_hand_names_what_live_shards_truncated_before_any_merge(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        store.merge()
        store.snapshot(tmp_path / "older.db")
        shard.write_many([{"n": 2}, {"n": 3}])
        store.merge()
        for path in store.root.glob("master.db*"):
            path.unlink()
        shutil.copyfile(tmp_path / "older.db", store.master_path)
        verified = store.verify()
        assert [("a", 2, 3)] == [(gap.agent, gap.first, gap.last) for gap in verified.gaps]
        assert [OLDER_MASTER] == [loss.cause for loss in verified.losses]
        assert (verified.gaps, verified.gaps) == (store.status().gaps, store.merge(dry_run=True).gaps)
        assert verified.gaps == store.merge().gaps


@pytest.mark.parametrize("is_retired", [False, True])
def test_who_has_the_missing_rows_is_said_by_the_receipts_of_the_replaced_master(
    store: edgeshard.Store, snapshot: Path, tmp_path: Path, is_retired: bool
) -> None:
    hub = new_store(tmp_path / "hub")
    hub.merge([store.master_path])
    store.receipt(hub.ranges(), trust=True)
    store.merge()
    if not is_retired:  # a stream retires once its shard is gone, and with it what receipts say of it
        write(store, "a", 6)
        write(store, "b", 7)
    store.prune(keep_rows=1)
    report = store.restore(snapshot)
    assert {OLDER_MASTER if is_retired else PEER} == {
        loss.cause for loss in report.losses if loss.gap.agent in ("a", "b")
    }
    assert [hub.status().master.database] == [peer.database for peer in report.peers]
    store.merge([hub.master_path])
    assert [1, 2, 3, 4] == numbers(store)[:4]


# -- what is refused --------------------------------------------------------------------------------------------------

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute(sys.argv[2]).fetchall()
print("holds", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held_open(path: Path, statement: str) -> Iterator[None]:
    """Have another process open a database, run a statement, and keep it open."""
    command = [sys.executable, "-c", _HOLD, str(path), statement]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "holds\n" == process.stdout.readline()
        yield
        process.communicate("\n")


@pytest.mark.parametrize("statement", ["select * from agent_data", "begin immediate"])
def test_a_master_that_another_process_has_open_is_not_replaced(
    store: edgeshard.Store, snapshot: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeshard.exchange.restore._BUSY_TIMEOUT_S", 0.05)
    store.query("select 1")
    with held_open(store.master_path, statement), pytest.raises(StorageBusyError, match="has it open"):
        store.restore(snapshot)
    assert [1, 2, 3, 4] == numbers(store)
    assert 3 == store.restore(snapshot).missing_rows


def test_a_store_that_a_merger_watches_is_not_restored(store: edgeshard.Store, snapshot: Path) -> None:
    with store.watching():
        with pytest.raises(MergeInProgressError, match="stop it"):
            store.restore(snapshot)
        assert 75 == command("restore", store.root, snapshot).returncode
    assert [1, 2, 3, 4, 5] == numbers(store)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_snapshot_replaces_nothing(store: edgeshard.Store, snapshot: Path, kind: str) -> None:
    copy = edgeshard.Store(snapshot.parent / "copy")
    copy.root.mkdir()
    shutil.copyfile(snapshot, copy.master_path)
    damage(copy, kind)
    before = files(store)
    with pytest.raises(DamagedError, match="name an earlier snapshot"):
        store.restore(copy.master_path)
    assert 65 == command("restore", store.root, copy.master_path).returncode
    assert (before, [1, 2, 3, 4]) == (files(store), numbers(store))
    assert store.merge().complete, "it was taken for damage of the master"


def test_what_is_no_snapshot_of_this_master_is_refused(store: edgeshard.Store, snapshot: Path, tmp_path: Path) -> None:
    other = edgeshard.Store(tmp_path / "other")
    write(other, "a", 9)
    other.merge()
    other.snapshot(tmp_path / "others.db")
    store.export(tmp_path / "bundle.db")
    for path, error in (
        (tmp_path / "others.db", ConfigurationError),
        (tmp_path / "nowhere.db", ConfigurationError),
        (tmp_path, ConfigurationError),
        (store.master_path, ConfigurationError),
        (tmp_path / "bundle.db", FormatError),
        (shard_path(store, "c"), FormatError),
    ):
        with pytest.raises(error):
            store.restore(path)
    assert 78 == command("restore", store.root, tmp_path / "others.db").returncode
    assert 78 == command("restore", tmp_path / "typo", snapshot).returncode
    assert not (tmp_path / "typo").exists()
    assert [1, 2, 3, 4] == numbers(store)


def test_a_master_that_is_a_symbolic_link_is_not_replaced(store: edgeshard.Store, snapshot: Path) -> None:
    elsewhere = store.root.parent / "elsewhere.db"
    os.rename(store.master_path, elsewhere)
    store.master_path.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        store.restore(snapshot)
    assert store.master_path.is_symlink()


# -- masters in any state ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*DAMAGE, "no database", "empty", "a WAL that cannot be used"])
def test_a_damaged_master_is_replaced_and_kept(store: edgeshard.Store, snapshot: Path, state: str) -> None:
    if state in DAMAGE:
        damage(store, state)
    elif state == "a WAL that cannot be used":
        wal = Path(f"{store.master_path}-wal")
        wal.write_bytes(b"x" * 100_000)
        store.master_path.write_bytes(b"y" * 100_000)
    else:
        store.master_path.write_bytes(b"" if state == "empty" else b"z" * 8192)
    before = store.master_path.read_bytes()
    report = store.restore(snapshot)
    assert [("a", 1, 2), ("b", 1, 1)] == [(gap.agent, gap.first, gap.last) for gap in report.gaps]
    kept = Path(report.replaced)
    assert len(before) == len(kept.read_bytes())
    assert before == kept.read_bytes() or state in DAMAGE
    assert Path(f"{kept}-wal").exists() == (state == "a WAL that cannot be used")
    assert not Path(f"{store.master_path}-wal").exists()
    assert (1, [1, 5]) == (store.merge().rows, numbers(store))
    assert store.verify(deep=True).errors == ()


def test_a_damaged_master_is_forgotten_with_its_replacement(store: edgeshard.Store, snapshot: Path) -> None:
    damage(store, "row")
    assert store.verify().errors
    with pytest.raises(DamagedError, match="edgeshard restore"):
        store.merge()
    store.restore(snapshot)
    assert (1, [1, 5]) == (store.merge().rows, numbers(store))
    assert "master-damaged.json" not in files(store)


@pytest.mark.parametrize("left", ["nothing", "a WAL"])
def test_a_snapshot_takes_the_place_of_a_master_that_is_gone(store: edgeshard.Store, snapshot: Path, left: str) -> None:
    store.master_path.unlink()
    wal = Path(f"{store.master_path}-wal")
    if left == "a WAL":
        wal.write_bytes(b"w" * 5000)
    report = store.restore(snapshot)
    assert (3, left == "a WAL") == (report.missing_rows, bool(report.replaced))
    if left == "a WAL":
        assert b"w" * 5000 == Path(f"{report.replaced}-wal").read_bytes()
    assert (False, 1, [1, 5]) == (wal.exists(), store.merge().rows, numbers(store))


def test_what_is_only_in_the_wal_of_the_old_master_is_kept_with_it(store: edgeshard.Store, snapshot: Path) -> None:
    # a process dies with the master open: its last commits are in the WAL alone
    code = (
        "import os, sys, apsw; c = apsw.Connection(sys.argv[1]); c.wal_autocheckpoint(0); "
        "c.execute('create table mine(a); insert into mine values (7)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.master_path)], check=True)
    assert Path(f"{store.master_path}-wal").stat().st_size > 0
    kept = store.restore(snapshot).replaced
    assert not Path(f"{kept}-wal").exists()
    connection = apsw.Connection(kept)
    assert [(7,)] == connection.execute("select a from mine").fetchall()
    connection.close()
    assert not store.query("select 1 from sqlite_schema where name = 'mine'")


def test_without_hard_links_the_old_master_is_copied(
    store: edgeshard.Store, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    report = store.restore(snapshot)
    assert 3 == store.merge([report.replaced]).rows - 1
    assert [1, 2, 3, 4, 5] == numbers(store)
