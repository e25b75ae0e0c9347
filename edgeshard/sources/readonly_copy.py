"""A WAL database on a medium that cannot be written: read from a private copy of it and of its log.

SQLite needs files beside a WAL database, and says that it cannot open one where it can make none. What the log holds
must not be missed, so ``immutable=1`` is no way. Where the log is there, both files are copied into a folder of our own
and read there. Where there is none, nobody can tell whether the database is complete (its last user closed it) or a
copy that was made without its log: it is refused.

The copy is made only where no other process has the database open (SQLite would have its ``-shm`` beside it, and read
it without our help), and counts only if neither file changed meanwhile.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from edgeshard import sqlite
from edgeshard.errors import AccessError, DiskFullError, EdgeshardError, StorageBusyError
from edgeshard.files import locks, paths, scan

_ACTION = "read database"

_PREFIX = "carried-"

#: What is left free on the disk that takes the copy, in bytes.
_SPARE_BYTES = 16 << 20

_NO_LOG = (
    "it is a WAL database on a medium that cannot be written, and its log (-wal) is not beside it: as it is, it may "
    "lack rows. Copy the -wal as well, or bring a snapshot or a bundle (`edgeshard snapshot`, `edgeshard export`). If "
    "you know that whoever had it open has closed it, copy it to a folder that can be written, and merge it from there"
)


def is_needed(error: Exception, path: str) -> bool:
    """Whether a database could not be attached because SQLite can make no files beside it."""
    if not sqlite.needs_files_beside(error) or os.access(os.path.dirname(path), os.W_OK):
        return False
    with sqlite.translate_errors(_ACTION, path):
        return os.access(path, os.R_OK) and sqlite.header_says_wal(path)


@contextlib.contextmanager
def copied(path: str, room: str) -> Iterator[str]:
    """A copy of a database and its log, there while the block runs.

    Args:
        path: the database.
        room: the folder that takes the copy; "": the system's for what is temporary.

    Raises:
        AccessError: its log is not beside it.
        DiskFullError: there is no room for the copy.
        StorageBusyError: it changed while it was copied.
        StorageIOError: it cannot be read, or the copy not be written.
    """
    import tempfile  # it brings all that packs archives, and most merges have no use for it

    if not os.path.exists(paths.wal(path)):
        raise AccessError(_ACTION, path, _NO_LOG)
    room = room or tempfile.gettempdir()
    with sqlite.translate_errors(_ACTION, path):
        _sweep(room)
        _ensure_room(path, room)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=room) as folder:
            held = locks.lock(Path(folder) / "lock")
            try:
                made = os.path.join(os.path.realpath(folder), "database.db")
                _copy(path, made)
                yield made
            finally:
                if held is not None:
                    held.release()


def _ensure_room(path: str, room: str) -> None:
    needed = os.path.getsize(path) + os.path.getsize(paths.wal(path)) + _SPARE_BYTES
    found = os.statvfs(room)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        cause = f"reading it from a medium that cannot be written takes a copy, of {needed:,} bytes with some to spare"
        raise DiskFullError(_ACTION, path, f"{cause}, and {room} has {free:,} left; make room there")


def _copy(path: str, made: str) -> None:
    before = scan.find_database(path)
    for suffix in ("", paths.WAL):
        with open(made + suffix, "xb") as file:
            for chunk in sqlite.read_raw(path + suffix):
                file.write(chunk)
    if before is None or before.defect or scan.find_database(path) != before or os.path.exists(path + paths.SHM):
        raise StorageBusyError(_ACTION, path, "somebody changed or opened it while it was copied; merge it again")


def _sweep(room: str) -> None:
    """Remove the copies of those who were killed: each holds a lock in its folder while it lives."""
    import shutil

    for folder in glob.glob(os.path.join(glob.escape(room), f"{_PREFIX}*")):
        with contextlib.suppress(EdgeshardError):  # it went meanwhile, or is somebody else's
            held = locks.lock(Path(folder) / "lock")
            if held is not None:
                shutil.rmtree(folder, ignore_errors=True)
                held.release()
