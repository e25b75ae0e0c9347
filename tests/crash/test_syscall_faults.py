"""Let some of all system calls fail, and repeat what the full sweep once found."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.budget.quotas import QuotaRecord
from edgeshard.errors import (
    AccessError,
    ConfigurationError,
    DamagedError,
    DiskFullError,
    ShardPoisonedError,
    StorageBusyError,
    StorageError,
    StorageIOError,
)
from edgeshard.exchange import import_state
from edgeshard.files import atomic_file, paths, scan
from edgeshard.inspect import salvage
from edgeshard.master import replaced
from edgeshard.merge import reap
from edgeshard.shard.shard import Shard
from edgeshard.sources import identity
from edgeshard.sqlite import guards, maintenance
from tests.crash.syscall_faults.command import sweep
from tests.support import ordinary
from tests.support.forms import short_and_full
from tests.support.stores import numbers, shard_path


# the full sweep of the campaign has about 243,000 points
@pytest.mark.parametrize("every", short_and_full("15013", "997"))
def test_whichever_call_fails_nothing_is_lost_or_doubled_and_each_error_is_one_of_ours(every: str) -> None:
    done = sweep("--every", every)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert " 0 violations" in done.stdout.splitlines()[-1]


# all of these 468 points, because no other kind of fault reaches every statement
@pytest.mark.parametrize("every", short_and_full("31", "1"))
def test_whichever_statement_of_a_writer_fails_each_error_is_one_of_ours(every: str) -> None:
    scenarios = [f"--scenario={name}" for name in ("write", "open_and_write", "close")]
    done = sweep("--kind", "statement", *scenarios, "--every", every)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert " 0 violations" in done.stdout.splitlines()[-1]


# -- what the sweep found ---------------------------------------------------------------------------------------------


class Failing:
    """Executes like a handle, but raises for statements that begin with some SQL, at most so many times."""

    def __init__(
        self, handle: edgeshard.Shard, begins_with: str, error: type[Exception], times: float = math.inf
    ) -> None:
        self._real: Any = handle._execute
        self._begins_with = begins_with
        self._error = error
        self._times = times

    def __call__(self, sql: str, *arguments: Any) -> Any:
        if sql.startswith(self._begins_with) and self._times:
            self._times -= 1
            raise self._error
        return self._real(sql, *arguments)


def test_a_block_that_could_not_be_undone_is_not_committed_with_the_outer_one(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = shard._execute
        with pytest.raises(edgeshard.EdgeshardError), shard.transaction():
            shard.write({"n": 2})
            shard._execute = Failing(shard, "ROLLBACK TO", apsw.NoMemError)  # type: ignore[assignment]
            with pytest.raises(StorageError), shard.transaction():
                shard.write({"n": 3})
                raise KeyError
            shard._execute = real
        shard.write({"n": 4})
    store.merge()
    assert [1, 4] == numbers(store)


def test_a_transaction_that_could_not_be_undone_says_so_by_an_error_of_ours(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        shard._execute = Failing(shard, "ROLLBACK", apsw.IOError)  # type: ignore[assignment]
        with pytest.raises(StorageIOError, match="undo transaction"), shard.transaction():
            shard.write({"n": 2})
            raise KeyError
        with pytest.raises(ShardPoisonedError):
            shard.write({"n": 3})
    store.merge()
    assert [1] == numbers(store)


def test_a_block_that_could_not_be_ended_is_undone_and_says_so_by_an_error_of_ours(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with shard.transaction():
            shard.write({"n": 2})
            shard._execute = Failing(shard, "RELEASE", apsw.NoMemError, times=1)  # type: ignore[assignment]
            with pytest.raises(StorageError, match="end transaction"), shard.transaction():
                shard.write({"n": 3})
        shard.write({"n": 4})
    store.merge()
    assert [1, 2, 4] == numbers(store)


@pytest.mark.parametrize("error", [apsw.NoMemError, apsw.BusyError, apsw.FullError])
@pytest.mark.parametrize("step", ["sqlite.set_synchronous", "shard.wal_limit.WalLimit.begin"])
@pytest.mark.parametrize("is_new", [False, True])
def test_settings_that_cannot_be_made_after_a_commit_never_say_that_nothing_was_written(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, is_new: bool, step: str, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error

    if not is_new:
        with store.shard("agent") as shard:
            shard.write({"n": 1})
    with store.shard("agent") as shard:
        with monkeypatch.context() as patch, pytest.raises(StorageError) as caught:
            patch.setattr(f"edgeshard.{step}", fail)
            shard.write({"n": 2})
        assert type(caught.value) is StorageError
        with pytest.raises(ShardPoisonedError):
            shard.write({"n": 3})
    store.merge()
    assert [2] == numbers(store)[-1:]


@pytest.mark.parametrize("error", [apsw.NoMemError, apsw.FullError])
def test_a_handle_whose_file_was_made_and_not_set_up_closes_it(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error

    shard = store.shard("agent")
    with monkeypatch.context() as patch, pytest.raises(StorageError) as caught:
        patch.setattr("edgeshard.shard.wal_limit.WalLimit.begin", fail)
        shard.write({"n": 1})
    shard.close()
    open_files = {os.path.basename(os.path.realpath(entry.path)) for entry in os.scandir("/proc/self/fd")}
    assert set() == {name for name in open_files if name.startswith("agent.db")}, caught.value
    store.merge()
    assert [1] == numbers(store)


def test_a_limit_of_the_wal_that_cannot_follow_is_an_error_of_ours_and_tried_again(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise apsw.NoMemError

    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with monkeypatch.context() as patch, pytest.raises(StorageError, match="check shard"):
            patch.setattr("edgeshard.shard.wal_limit.WalLimit.follow", fail)
            shard.write({"n": 2})
        shard.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)


def test_a_row_that_found_the_log_locked_is_refused_and_the_handle_goes_on(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        real = shard._execute
        shard._execute = Failing(shard, "INSERT", apsw.ProtocolError)  # type: ignore[assignment]
        with pytest.raises(StorageBusyError):
            shard.write({"n": 2})
        shard._execute = real
        assert 2 == shard.write({"n": 3})
    store.merge()
    assert [1, 3] == numbers(store)


def test_a_commit_after_which_the_files_cannot_be_looked_at_is_a_commit(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **options: Any) -> os.stat_result:
        raise OSError(5, "Input/output error")

    with store.shard("agent") as shard:
        shard.write({"n": 0})
    with store.shard("agent") as shard:
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", refuse)
            assert 1 == shard.write({"n": 1})
            shard._upkeep_at = shard._check_at = 0.0
            assert 2 == shard.write({"n": 2})
            shard._upkeep_at = shard._check_at = 0.0
        assert 3 == shard.write({"n": 3})
        shard._upkeep_at = shard._check_at = 0.0
        shard_path(store, "agent").with_name("agent.db-wal").rename(store.root / "elsewhere")
        with pytest.raises(ShardPoisonedError, match="moved"):
            shard.write({"n": 4})
    store.merge()


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError, apsw.CantOpenError])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_commit_after_which_the_budgets_checkpoint_fails_is_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], rows: int
) -> None:
    def fail(connection: apsw.Connection) -> None:
        failures.append(error)
        raise error

    failures: list[type[Exception]] = []
    store = edgeshard.Store(tmp_path / "data", max_bytes="2M")
    with store.shard("agent") as shard:
        monkeypatch.setattr(sqlite, "checkpoint_in_hook", fail)
        for n in range(0, 100, rows):
            if rows == 1:
                shard.write({"n": n, "x": "x" * 300})
            else:
                shard.write_many({"n": n + k, "x": "x" * 300} for k in range(rows))
    store.merge()
    assert (True, list(range(100))) == (len(failures) > 0, numbers(store))


@pytest.mark.parametrize("name", ["take", "hold"])
def test_a_commit_after_which_the_quota_cannot_be_recorded_is_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(record: QuotaRecord, total_bytes: int) -> None:
        raise StorageIOError("write quota to", str(tmp_path), "injected")

    store = edgeshard.Store(tmp_path / "data", max_bytes="2M")
    with store.shard("agent") as shard:
        shard.write({"n": -1})
        shard.write({"n": 0})
        with monkeypatch.context() as patch:
            patch.setattr(QuotaRecord, name, fail)
            expected = pytest.raises(StorageIOError) if name == "hold" else contextlib.nullcontext()
            with expected:
                shard.write_many({"n": n} for n in (1, 2))
            with pytest.raises(StorageIOError):  # the next one renews the quota before it writes
                shard.write_many({"n": n} for n in (3, 4))
        shard.write_many({"n": n} for n in (5, 6))
    store.merge()
    assert ([-1, 0, 5, 6] if name == "hold" else [-1, 0, 1, 2, 5, 6]) == numbers(store)
    assert store.verify().ok


def test_a_database_whose_making_met_a_full_disk_is_not_there(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise apsw.FullError

    for name, make in (("truncate_wal", store.init), ("_fill", lambda: store.shard("agent"))):
        with monkeypatch.context() as patch:
            patch.setattr(maintenance, name, fail)
            with pytest.raises(DiskFullError):
                make()
    assert not store.master_path.exists()
    assert ["agent.lock"] == os.listdir(store.root / "shards")
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    assert [1] == numbers(store)


def test_a_dry_run_that_may_not_look_at_the_master_says_so(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **options: Any) -> os.stat_result:
        raise OSError(5, "Input/output error")

    def refuse_master(path: Any, **options: Any) -> os.stat_result:
        return refuse(path) if os.fspath(path) == str(store.master_path) else stat(path, **options)

    stat = os.stat
    store.init()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse_master)
        patch.setattr(os, "lstat", refuse_master)
        with pytest.raises(StorageIOError, match=re.escape(str(store.master_path))):
            store.merge(dry_run=True)
    monkeypatch.setattr(os, "lstat", refuse)
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(StorageIOError, match=re.escape(str(store.root))):
        store.merge(dry_run=True)


def test_one_failure_to_read_a_shard_does_not_set_it_aside_for_good_and_damage_is_read_twice_only(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        looks.append(1)
        raise DamagedError("read database", "agent.db", "the database is damaged")

    looks: list[int] = []
    monkeypatch.setattr(scan, "FRESH_S", -1.0)  # trust what was seen at once
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    for lasting, expected in ((False, 1), (True, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(identity, "open_source", fail)
            for _ in range(3 if lasting else 1):
                assert 1 == len(store.merge().quarantined)
        assert expected == len(looks)
        if not lasting:
            assert (1, ()) == (store.merge(keep_empty=True).rows, store.merge(keep_empty=True).quarantined)
            with store.shard("agent") as shard:
                shard.write({"n": 2})


def test_an_empty_database_in_memory_that_cannot_be_made_is_an_error_of_ours(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: apsw.Connection) -> None:
        if not connection.filename:
            failed.append(1)
            raise apsw.NoMemError
        restrict(connection)

    failed: list[int] = []
    restrict = guards.restrict
    reference = tmp_path / "patterns.db"
    ordinary.run(reference, "CREATE TABLE patterns(n)")
    store.shard("agent").close()
    with store.shard("agent") as shard:
        monkeypatch.setattr(guards, "restrict", fail)
        uses: list[Callable[[], object]] = [
            lambda: store.query("SELECT 1"),
            lambda: store.describe_query("SELECT 1"),
            lambda: list(store.read(edgeshard.AgentData)),
            store.status,
            lambda: store.merge(dry_run=True),
            lambda: shard.query("SELECT 1"),
            lambda: list(shard.read(edgeshard.AgentData)),
            lambda: store.shard("other", reference={"patterns": reference}),
        ]
        for use in uses:
            with pytest.raises(StorageError, match="memory") as caught:
                use()
            assert caught.value.path
    assert len(uses) == len(failed)


def test_an_import_that_failed_keeps_no_file_open_as_long_as_its_error_lives(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        errors.append(StorageIOError("write to", "store", "injected"))  # as a handle keeps what made it unusable
        raise errors[0]

    errors: list[StorageIOError] = []
    lines = tmp_path / "lines.ndjson"
    lines.write_text('{"n": 1}\n')
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "write_many", fail)
        assert ["injected" in reason for reason in store.import_(lines).files[0].errors] == [True]
    assert str(lines) not in {os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd")}
    assert 1 == store.import_(lines).rows


def _import(store: edgeshard.Store, path: Path) -> None:
    """Import a file, and raise what the report says if that failed: a failure of the storage, or a mistake of a user."""
    for reason in store.import_(path).files[0].errors:
        raise StorageIOError("import", str(path), reason) if "no such file" not in reason else AssertionError(reason)


def _check_target(store: edgeshard.Store, path: Path) -> None:
    try:
        atomic_file._check_target(str(path), store.master_path, "export to", force=True)
    except ConfigurationError as error:
        raise AssertionError(error) from error


def _lock(store: edgeshard.Store) -> Path:
    return shard_path(store, "agent").with_suffix(".lock")


def _refuse_looks(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let each look at a file of this name fail."""

    def refuse(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(path: Any, **options: Any) -> os.stat_result:
            if not isinstance(path, int) and os.path.basename(os.fspath(path)) == name:
                raise OSError(errno.EIO, "Input/output error", path)
            return real(path, **options)

        return look

    patch.setattr(os, "stat", refuse(os.stat))
    patch.setattr(os, "lstat", refuse(os.lstat))


#: Each looks whether a file is there, and is named after what would happen if it took an error for "no".
LOOKS: dict[str, tuple[str, Callable[[edgeshard.Store], object]]] = {
    "import rows again": ("agent.db", lambda store: import_state.load(store.root, "agent")),
    "call a file that is there missing": ("lines.ndjson", lambda store: _import(store, store.root / "lines.ndjson")),
    "remove the lock of a shard": ("agent.db", lambda store: reap.remove_leftovers(_lock(store), ())),
    "leave a WAL to the next master": (
        "master.db-wal",
        lambda store: replaced.move_side_files(store.master_path, store.root / "kept.db"),
    ),
    "leave a WAL unsynced": ("master.db-wal", lambda store: sqlite.sync_file(str(store.master_path))),
    "salvage without the WAL": (
        "agent.db-wal",
        lambda store: salvage._open_file(contextlib.ExitStack(), paths.wal(shard_path(store, "agent"))),
    ),
    "replace a master": (
        "master.db",
        lambda store: atomic_file._rename_if_free(str(_lock(store)), str(store.master_path)),
    ),
    "call a folder missing": ("shards", lambda store: _check_target(store, shard_path(store, "bundle"))),
    "replace the master by a bundle": ("master.db", lambda store: _check_target(store, store.master_path)),
}


@pytest.mark.parametrize(("name", "look"), LOOKS.values(), ids=LOOKS)
def test_a_file_that_cannot_be_looked_at_is_not_taken_for_one_that_is_not_there(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, name: str, look: Callable[[edgeshard.Store], object]
) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge(keep_empty=True)
    with store.shard("agent") as shard:
        shard.write({"n": 2})
    (store.root / "lines.ndjson").write_text('{"n": 3}\n')
    reader = sqlite.connect(str(store.master_path), writable=True)
    try:
        sqlite.scalar(reader, "SELECT count(*) FROM agent_data")  # there is a WAL as long as it is open
        before = store.master_path.stat().st_ino
        with monkeypatch.context() as patch, pytest.raises((StorageIOError, OSError)):
            _refuse_looks(patch, name)
            look(store)
        assert before == store.master_path.stat().st_ino
        assert shard_path(store, "agent").exists() == _lock(store).exists()
    finally:
        reader.close()
    store.merge()
    assert [1, 2] == numbers(store)


def test_a_file_is_not_taken_for_a_renamed_one_because_that_cannot_be_looked_at(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old.ndjson", tmp_path / "new.ndjson"
    old.write_text('{"n": 1}\n')
    assert 1 == store.import_(old, agent="a").rows
    new.write_text('{"n": 1}\n{"n": 2}\n')
    with monkeypatch.context() as patch:
        _refuse_looks(patch, old.name)
        report = store.import_(new, agent="a")
    assert (0, [str(old)]) == (report.rows, re.findall(f"{tmp_path}/old[^:]*", report.files[0].tables[0].error))
    assert (2, "") == ((again := store.import_(new, agent="a")).rows, again.files[0].tables[0].continues)
    assert (0, [1, 1, 2]) == (store.import_(old, agent="a").rows, numbers(store))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_snapshot_of_another_programs_database_that_cannot_be_ended_is_an_error_of_ours(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def connect(path: str, busy_timeout_s: float) -> apsw.Connection:
        connection = real(path, busy_timeout_s)
        connection.exec_trace = trace
        return connection

    def trace(_: object, sql: str, __: object) -> bool:
        if sql == "ROLLBACK":
            raise apsw.NoMemError
        return True

    real = sqlite.connect_untrusted
    plant = tmp_path / "plant.db"
    statements = [f"PRAGMA journal_mode={mode}", "CREATE TABLE readings(n int)", "INSERT INTO readings VALUES (1)"]
    ordinary.run(plant, *statements)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "connect_untrusted", connect)
        report = store.import_(plant)
    # while a batch is written, writers need not wait for the snapshot of a rollback journal
    assert [mode == "delete"] == ["memory" in table.error for table in report.files[0].tables]
    assert (1, True) == (report.rows + (again := store.import_(plant)).rows, again.complete)


def test_a_salvage_that_may_not_delete_its_copy_says_so(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, **options: Any) -> None:
        if os.path.basename(os.fspath(path)).startswith("rescued.db"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        unlink(path, **options)

    unlink = os.unlink
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    with monkeypatch.context() as patch, pytest.raises(AccessError):
        patch.setattr(os, "unlink", refuse)
        store.salvage(shard_path(store, "agent"))
    assert 1 == store.salvage(shard_path(store, "agent")).rows
    assert [] == list(store.root.glob("salvage-*"))
