"""Read a WAL database on a read-only medium, from a private copy of the database and its WAL.

SQLite needs to make files next to a WAL database, and cannot open one where it may not. ``immutable=1`` would open it,
but miss the rows in the WAL. So if the WAL is there, both files are copied into a private folder and read there. If
there is none, the database is refused: it may be complete, because its last user closed it, or it may be a copy that
was made without its WAL.

The copy is made only if no other process has the database open (its ``-shm`` would be there, and SQLite could read it
without a copy). It counts only if neither file changed while it was made.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Final

from edgeshard import sqlite, units
from edgeshard.errors import AccessError, DiskFullError, StorageBusyError
from edgeshard.files import fingerprint, modes, paths, private_folder, scan

logger = logging.getLogger("edgeshard.sources")

_ACTION: Final = "read database"

#: With a marker: a copy may be made in the system's folder for temporary files, where others make files as well.
_FOLDERS: Final = private_folder.PrivateFolders(
    "edgeshard-readonly-copy-", "database.db", marker="edgeshard-readonly-copy.lock"
)

#: Bytes that stay free on the disk with the copy.
_SPARE_BYTES = 16 << 20

_NO_WAL: Final = (
    "it is a WAL database on a read-only medium, and its WAL (-wal) is not next to it, so rows may be missing. Copy "
    "the -wal file there as well, or bring a snapshot or a bundle (Store.snapshot, Store.export). If you "
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

    folder = folder or tempfile.gettempdir()
    with sqlite.translate_errors(_ACTION, path):
        if not fingerprint.exists(paths.wal(path)):
            raise AccessError(_ACTION, path, _NO_WAL)
        _remove_leftovers(folder)
        _check_free_space(path, folder)
        with _FOLDERS.make(folder) as copy:
            _copy(path, copy)
            yield copy


def _remove_leftovers(folder: str) -> None:
    try:
        _FOLDERS.remove_leftovers(folder)
    except OSError as error:  # a copy may still be made there
        logger.debug("cannot remove leftovers in %s: %s", folder, error)


def _check_free_space(path: str, folder: str) -> None:
    needed = os.path.getsize(path) + os.path.getsize(paths.wal(path)) + _SPARE_BYTES
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if needed > free:
        cause = (
            f"a database on a read-only medium is read from a copy, which needs {units.size_at_least(needed)}, with "
            f"some to spare, and {folder} has {units.size(free)} free; free some space there"
        )
        raise DiskFullError(_ACTION, path, cause)


def _copy(path: str, copy: str) -> None:
    before = scan.find_database(path)
    for suffix in ("", paths.WAL):
        with open(modes.create_file(copy + suffix), "wb") as file:
            for chunk in sqlite.read_raw(path + suffix):
                file.write(chunk)
    if before is None or before.defect or scan.find_database(path) != before or fingerprint.exists(path + paths.SHM):
        raise StorageBusyError(_ACTION, path, "another process changed or opened it while it was copied; merge again")
