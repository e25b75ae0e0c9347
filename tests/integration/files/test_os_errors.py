"""Errors of the operating system and of SQLite: each names its true cause, the object, and the next step."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import (
    AccessError,
    DiskFullError,
    EdgeshardError,
    OutOfDescriptorsError,
    StorageBusyError,
    StorageError,
    StorageIOError,
)
from edgeshard.files import locks, os_errors
from tests.support.stores import numbers
from tests.support.users import User, as_root, run_as

OWNER, STRANGER, GROUP = 54_420, 54_421, 54_422


@pytest.mark.parametrize(
    ("number", "class_", "words"),
    [
        ("EACCES", AccessError, "getfacl"),
        ("EPERM", AccessError, "lsattr"),
        ("EROFS", AccessError, "read-only medium"),
        ("ENOSPC", DiskFullError, "free some space"),
        ("EDQUOT", DiskFullError, "quota of user"),
        ("EMFILE", OutOfDescriptorsError, "ulimit -n"),
        ("ENFILE", OutOfDescriptorsError, "ulimit -n"),
        ("EIO", StorageIOError, "dmesg"),
        ("ENOMEM", StorageError, "memory"),
        ("ELOOP", StorageIOError, "symbolic link"),
        ("ENOTDIR", StorageIOError, "not a folder"),
        ("EISDIR", StorageIOError, "it is a folder"),
        ("ENAMETOOLONG", StorageIOError, "shorter path"),
        ("ENOENT", StorageIOError, "check the path"),
        ("EEXIST", StorageIOError, "move it away"),
        ("ENOTEMPTY", StorageIOError, "move them away"),
        ("ESTALE", StorageIOError, "mount it again"),
        ("ENOTCONN", StorageIOError, "mount it again"),
        ("ENODEV", StorageIOError, "connect it"),
        ("ENXIO", StorageIOError, "check the device"),
        ("EFBIG", StorageIOError, "ulimit -f"),
        ("EBUSY", StorageBusyError, "fuser"),
        ("ETXTBSY", StorageBusyError, "fuser"),
    ],
)
def test_each_error_of_the_system_has_a_cause_and_a_next_step(
    number: str, class_: type[StorageError], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "data"
    error = os_errors.explain_os_error(OSError(getattr(errno, number), "text"), "open it", path)
    assert class_ is type(error)
    assert words in error.cause
    assert str(error).startswith(f"open it {path}: ")


def test_an_error_that_is_not_listed_keeps_the_systems_words(tmp_path: Path) -> None:
    for number in errno.errorcode:
        error = os_errors.explain_os_error(OSError(number, os.strerror(number)), "open it", tmp_path)
        assert str(error).startswith(f"open it {tmp_path}: ")
        assert len(error.cause) > 5


_DEVICE = "dmesg"
_EXTENDED = {
    apsw.SQLITE_IOERR_GETTEMPPATH: "SQLITE_TMPDIR",
    apsw.SQLITE_CANTOPEN_NOTEMPDIR: "SQLITE_TMPDIR",
    apsw.SQLITE_IOERR_LOCK: "lost a lock",
    apsw.SQLITE_IOERR_RDLOCK: "lost a lock",
    apsw.SQLITE_IOERR_UNLOCK: "lost a lock",
    apsw.SQLITE_IOERR_SHMLOCK: "lost a lock",
    apsw.SQLITE_IOERR_CHECKRESERVEDLOCK: "lost a lock",
    apsw.SQLITE_IOERR_SHMOPEN: "-shm",
    apsw.SQLITE_IOERR_SHMSIZE: "-shm",
    apsw.SQLITE_IOERR_SHMMAP: "-shm",
    apsw.SQLITE_IOERR_NOMEM: "memory",
    apsw.SQLITE_IOERR_READ: _DEVICE,
    apsw.SQLITE_IOERR_WRITE: _DEVICE,
    apsw.SQLITE_IOERR_FSYNC: _DEVICE,
    apsw.SQLITE_IOERR_DIR_FSYNC: _DEVICE,
    apsw.SQLITE_IOERR_TRUNCATE: _DEVICE,
    apsw.SQLITE_IOERR_FSTAT: _DEVICE,
    apsw.SQLITE_IOERR_CORRUPTFS: _DEVICE,
    apsw.SQLITE_IOERR_SHORT_READ: "truncated",
    apsw.SQLITE_IOERR_DELETE: "removed",
    apsw.SQLITE_IOERR_DELETE_NOENT: "removed",
    apsw.SQLITE_CANTOPEN_SYMLINK: "symbolic link",
    apsw.SQLITE_CANTOPEN_ISDIR: "folder",
    apsw.SQLITE_CANTOPEN_FULLPATH: "shorter path",
    apsw.SQLITE_READONLY_DBMOVED: "replaced",
}


@pytest.mark.parametrize("code", _EXTENDED, ids=lambda code: apsw.mapping_extended_result_codes[code])
def test_the_extended_code_of_sqlite_says_which_call_failed(code: int, tmp_path: Path) -> None:
    error = sqlite.explain(apsw.exception_for(code), "open it", str(tmp_path / "x.db"))
    assert isinstance(error, StorageError)
    assert _EXTENDED[code] in error.cause


# -- real conditions --------------------------------------------------------------------------------------------------


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system with megabytes of space that holds a few dozen files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=16m,nr_inodes=40,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def use_up_inodes(disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        for n in range(100):
            (disk / f"file{n}").touch()


@as_root
def test_exhausted_inodes_are_named_while_bytes_are_free(few_inodes: Path) -> None:
    store = edgeshard.Store(few_inodes / "data")
    with store.shard("a") as shard:
        shard.write({"n": 1})
        use_up_inodes(few_inodes)
        with pytest.raises(DiskFullError, match="no inodes left"):  # of a lock file, by the system
            store.shard("b")
    with pytest.raises(DiskFullError, match="no inodes left"):  # of the master
        store.merge()
    use_up_inodes(few_inodes / "data")  # closing the shard gave two back
    with pytest.raises(DiskFullError, match="no inodes left"), store.shard("a") as shard:  # of the WAL, by SQLite
        shard.write({"n": 2})
    for file in few_inodes.rglob("file*"):
        file.unlink()
    store.merge()
    assert 1 in numbers(store)


@as_root
def test_a_denied_user_learns_the_owner_the_mode_and_the_own_name() -> None:
    def attempt(store: edgeshard.Store) -> list[str]:
        found = []
        for call in (lambda: store.shard("a"), store.merge, store.status, lambda: store.query("select 1")):
            try:
                call()
            except AccessError as error:
                found.append(str(error))
        return found

    with tempfile.TemporaryDirectory() as outer:  # pytest's folders are root's alone
        os.chmod(outer, 0o711)
        store = edgeshard.Store(Path(outer) / "data")
        store.root.mkdir(0o700)
        os.chown(store.root, OWNER, GROUP)
        with store.shard("a") as shard:
            shard.write({"n": 1})
        store.merge(keep_empty=True)
        denied = {f"user {STRANGER} may not enter": 0o700}
        for mode, expected in ((0o700, denied), (0o755, {"may not": 0o600})):
            store.root.chmod(mode)
            (store.root / "shards").chmod(mode)
            for file in store.root.rglob("*.*"):
                file.chmod(0o600)
            told = run_as(User(STRANGER, STRANGER), lambda: attempt(store))
            assert 4 == len(told)
            for message in told:
                for words, shown in expected.items():
                    assert words in message
                    assert f"user {STRANGER} may not" in message
                    assert f"belongs to user {OWNER} and group {GROUP} and has mode {shown:04o}" in message
                    assert f"sudo -u '#{OWNER}'" in message


@pytest.mark.parametrize("name", ["shards/a.db", "shards/a.lock", "master.db", "merge.lock"])
def test_a_symbolic_link_is_named_where_none_is_accepted(name: str, store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    store.merge(keep_empty=True)
    (store.root / name).rename(tmp_path / "elsewhere")
    (store.root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EdgeshardError, match="symbolic link"):
        if name.startswith("shards"):
            store.shard("a")
        else:
            store.merge()


def test_a_lost_lock_is_taken_again(store: edgeshard.Store, caplog: pytest.LogCaptureFixture) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        lock = store.root / "shards" / "a.lock"
        lock.unlink()
        assert not locks.is_locked(lock)
        shard.sync()
        assert locks.is_locked(lock)
        assert "was removed or replaced while the shard was open" in caplog.text
        shard.write({"n": 2})
    assert not locks.is_locked(lock)
    caplog.clear()
    with store.shard("a") as shard, caplog.at_level(logging.WARNING):
        shard.sync()
    assert "" == caplog.text


def test_a_lock_that_another_handle_took_meanwhile_is_named_once(
    store: edgeshard.Store, caplog: pytest.LogCaptureFixture
) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
        lock = store.root / "shards" / "a.lock"
        lock.unlink()
        with store.shard("a") as other:
            other.write({"n": 2})
            for _ in range(3):
                shard.sync()
            assert 1 == caplog.text.count("another handle has opened the shard")
        shard.sync()
        assert locks.is_locked(lock)  # again
        shard.write({"n": 3})
    store.merge()
    assert [1, 2, 3] == numbers(store)
