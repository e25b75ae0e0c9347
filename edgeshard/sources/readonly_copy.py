"""Read a WAL database on a read-only medium, from a private copy of the database and its WAL.

SQLite needs to make files next to a WAL database, and cannot open one where it may not. ``immutable=1`` would open it,
but miss the rows in the WAL. So if the WAL is there, both files are copied into a folder of ours and read there. If
there is none, the database is refused: it may be complete, because its last user closed it, or it may be a copy that
was made without its WAL.

The copy is made only if no other process has the database open (its ``-shm`` would be there, and SQLite could read it
without a copy). It counts only if neither file changed while it was made.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.errors import AccessError, DiskFullError, EdgeshardError, StorageBusyError
from edgeshard.files import locks, paths, scan

_ACTION: Final = "read database"

_FOLDER_PREFIX: Final = "readonly-copy-"

#: Bytes that stay free on the disk with the copy.
_SPARE_BYTES = 16 << 20

_NO_WAL: Final = (
    "it is a WAL database on a read-only medium, and its WAL (-wal) is not next to it, so rows may be missing. Copy "
    "the -wal file there as well, or bring a snapshot or a bundle (`edgeshard snapshot`, `edgeshard export`). If you "
    "know that the process that had it open has closed it, copy it to a writable folder, and merge it from there"
)


def is_needed(error: Exception, path: str) -> bool:
    """Return whether a database could not be attached because SQLite can make no files next to it."""
    if not sqlite.cannot_make_side_files(error) or os.access(os.path.dirname(path), os.W_OK):
        return False
    with sqlite.translate_errors(_ACTION, path):
        return os.access(path, os.R_OK) and sqlite.header_says_wal(path)


@contextlib.contextmanager
def copied(path: str, folder: str) -> Iterator[str]:
    """Copy a database and its WAL, and yield the path of the copy, which is removed at the end of the block.

    Args:
        path: the database.
        folder: where to make the copy; "" for the system's folder for temporary files.

    Raises:
        AccessError: its WAL is not next to it.
        DiskFullError: there is not enough free space for the copy.
        StorageBusyError: it changed while it was copied.
        StorageIOError: it cannot be read, or the copy cannot be written.
    """
    import tempfile  # it imports the archive modules, and most merges do not need it

    if not os.path.exists(paths.wal(path)):
        raise AccessError(_ACTION, path, _NO_WAL)
    folder = folder or tempfile.gettempdir()
    with sqlite.translate_errors(_ACTION, path):
        _remove_leftovers(folder)
        _check_free_space(path, folder)
        with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=folder) as private:
            held = locks.lock(Path(private) / "lock")
            try:
                copy = os.path.join(os.path.realpath(private), "database.db")
                _copy(path, copy)
                yield copy
            finally:
                if held is not None:
                    held.release()


def _check_free_space(path: str, folder: str) -> None:
    needed = os.path.getsize(path) + os.path.getsize(paths.wal(path)) + _SPARE_BYTES
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        cause = (
            f"a database on a read-only medium is read from a copy, which needs {needed:,} bytes, with some to spare, "
            f"and {folder} has {free:,} free; free some space there"
        )
        raise DiskFullError(_ACTION, path, cause)


def _copy(path: str, copy: str) -> None:
    before = scan.find_database(path)
    for suffix in ("", paths.WAL):
        with open(copy + suffix, "xb") as file:
            for chunk in sqlite.read_raw(path + suffix):
                file.write(chunk)
    if before is None or before.defect or scan.find_database(path) != before or os.path.exists(path + paths.SHM):
        raise StorageBusyError(_ACTION, path, "another process changed or opened it while it was copied; merge again")


def _remove_leftovers(folder: str) -> None:
    """Remove the copies of processes that were killed. Each process holds the lock in its copy's folder."""
    import shutil

    for private in glob.glob(os.path.join(glob.escape(folder), f"{_FOLDER_PREFIX}*")):
        with contextlib.suppress(EdgeshardError):  # it has been removed meanwhile, or belongs to another user
            held = locks.lock(Path(private) / "lock")
            if held is not None:
                shutil.rmtree(private, ignore_errors=True)
                held.release()
