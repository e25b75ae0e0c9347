"""Read a WAL database on a read-only medium, from a private copy of the database and its WAL.

SQLite needs to make files next to a WAL database, and cannot open one where it may not. ``immutable=1`` would open it,
but miss the rows in the WAL. So if the WAL is there, both files are copied into a folder of ours and read there. If
there is none, the database is refused: it may be complete, because its last user closed it, or it may be a copy that
was made without its WAL.

The folder's name has our prefix and a random part. A marker in it holds that name, and is locked while the copy is
used. A killed process leaves its folder, and the next process that makes a copy in the same place removes it: only a
folder of such a name, whose marker has that content and is not locked, and in it only the files that we make.

The copy is made only if no other process has the database open (its ``-shm`` would be there, and SQLite could read it
without a copy). It counts only if neither file changed while it was made.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from typing import Final

from edgeshard import sqlite, units
from edgeshard.errors import AccessError, DiskFullError, StorageBusyError, StorageError
from edgeshard.files import fingerprint, folders, locks, modes, paths, scan

logger = logging.getLogger("edgeshard.sources")

_ACTION: Final = "read database"

_FOLDER_PREFIX: Final = "edgeshard-readonly-copy-"

_FOLDER_NAME: Final = re.compile(_FOLDER_PREFIX + "[0-9a-f]{16}")

#: The files in such a folder. The marker holds the folder's name; it is the last to be removed.
_COPY: Final = "database.db"
_MARKER: Final = "edgeshard-readonly-copy.lock"
_FILES: Final = (_COPY, *paths.side_files(_COPY), _MARKER)

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
        with _private_folder(folder) as private:
            copy = os.path.join(private, _COPY)
            _copy(path, copy)
            yield copy


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


@contextlib.contextmanager
def _private_folder(parent: str) -> Iterator[str]:
    """Make a folder that is marked as ours while the block runs, and remove it after it."""
    private = os.path.join(os.path.realpath(parent), f"{_FOLDER_PREFIX}{secrets.token_hex(8)}")
    modes.create_private_folder(private)
    with contextlib.ExitStack() as cleanup:
        folder = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        cleanup.callback(os.close, folder)
        cleanup.callback(_remove, private, folder)
        marker = modes.create_file(os.path.join(private, _MARKER))
        cleanup.callback(os.close, marker)
        locks.lock_open_file(marker, os.path.join(private, _MARKER))  # nobody else locks it before it has its content
        os.write(marker, _marker_of(private))
        # a power cut must not leave a large copy that is not marked
        os.fsync(marker)
        folders.sync_folder(private)
        yield private


def _remove_leftovers(parent: str) -> None:
    """Remove the copies of processes that were killed, where we may."""
    try:
        for name in sorted(filter(_FOLDER_NAME.fullmatch, os.listdir(parent))):
            _remove_leftover(os.path.join(parent, name))
    except OSError as error:  # this folder cannot be listed, but a copy may still be made in it
        logger.debug("cannot look for leftovers in %s: %s", parent, error)


def _remove_leftover(private: str) -> None:
    with contextlib.ExitStack() as cleanup:
        try:
            # by descriptors, so that nobody can put a link to another folder in its place meanwhile
            folder = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            cleanup.callback(os.close, folder)
            # O_NONBLOCK: opening a FIFO of this name would wait for its reader
            marker = os.open(_MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            cleanup.callback(os.close, marker)
            is_marked = stat.S_ISREG(os.fstat(marker).st_mode) and os.pread(marker, 1_000, 0) == _marker_of(private)
            if is_marked and locks.lock_open_file(marker, os.path.join(private, _MARKER)):
                _remove(private, folder)
        except (OSError, StorageError) as error:  # it has no marker, or belongs to another user
            logger.debug("left %s: %s", private, error)


def _marker_of(private: str) -> bytes:
    return os.fsencode(os.path.basename(private))


def _remove(private: str, folder: int) -> None:
    """Remove a folder of ours, which is open as `folder`; if somebody put another file into it, that file stays."""
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
    try:
        os.rmdir(private)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise
