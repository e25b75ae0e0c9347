"""A copy of the live master, whole or not at all.

    1  TARGET.new is made and locked; one that a killed snapshot left is removed first
    2  the master's pages are copied into it, from one read transaction
    3  it is made a database without WAL, and durable
    4  it is linked to TARGET, or renamed where that is to be replaced    <- the commit point
    5  the folder is made durable, and TARGET.new removed

Killed before 4, there is no TARGET, or the old one; TARGET.new is nobody's, for its lock died with its owner.

Mergers write while the copy is made. Their commits stay in the master's log until the copy is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeshard import database, master
from edgeshard.errors import ConfigurationError, StorageBusyError

_ACTION = "snapshot to"
_SIDE_FILES = ("-wal", "-shm", "-journal")


def snapshot(
    master_path: Path,
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the master into a file of its own; see `Store.snapshot`."""
    path = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(target))), os.path.basename(target))
    connection = master.open_master(master_path, writable=False)
    try:
        with database.explained(_ACTION, path):
            _check_target(path, master_path, force=force)
            with _claimed(path + ".new") as made:
                database.back_up(connection, made, progress)
                if not database.publish(made, path, replace=force):
                    raise _taken(path)
    finally:
        connection.close()


def _check_target(path: str, master_path: Path, *, force: bool) -> None:
    """Before anything is copied: a snapshot may take minutes."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):  # it may be a medium that is not mounted
        raise ConfigurationError(_ACTION, path, f"there is no folder {folder}; make it, or mount its medium")
    if os.path.isdir(path):
        raise ConfigurationError(_ACTION, path, "it is a folder; name the file to make in it")
    if os.path.lexists(path):
        if os.path.exists(path) and os.path.samefile(path, master_path):
            raise ConfigurationError(_ACTION, path, "it is the master itself")
        if not force:
            raise _taken(path)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ConfigurationError(_ACTION, path, "it is not a regular file, and not replaced")
    for suffix in ("-wal", "-journal"):
        # SQLite would take it for the copy's, and put another database's pages into it
        if os.path.lexists(path + suffix):
            cause = f"there is a {os.path.basename(path)}{suffix} beside it: something has a database of this name open"
            raise ConfigurationError(_ACTION, path, f"{cause}, or died with it; choose another name, or remove both")


def _taken(path: str) -> ConfigurationError:
    return ConfigurationError(_ACTION, path, "there is such a file already; choose another name, or use --force")


@contextlib.contextmanager
def _claimed(made: str) -> Iterator[str]:
    """An empty file that is locked while the block runs, and gone after it.

    The lock is flock's, on a descriptor of its own: SQLite's locks are others, and do not meet it.

    Raises:
        StorageBusyError: somebody else has it.
    """
    _remove_leftover(made)
    try:
        handle = os.open(made, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError as error:
        raise _busy(made) from error
    try:
        _lock(handle, made)
        try:
            yield made
        finally:
            if _is_at(handle, made):
                _remove(made)
    finally:
        os.close(handle)


def _remove_leftover(made: str) -> None:
    try:
        handle = os.open(made, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        _lock(handle, made)
        _remove(made)
    finally:
        os.close(handle)


def _lock(handle: int, made: str) -> None:
    """Lock the file, unless somebody else has locked it, or has renamed or removed it since it was opened."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(made) from error
    if not _is_at(handle, made):
        raise _busy(made)


def _is_at(handle: int, path: str) -> bool:
    """Whether the open file is the one of this name."""
    return os.path.lexists(path) and os.path.samestat(os.fstat(handle), os.lstat(path))


def _busy(made: str) -> StorageBusyError:
    return StorageBusyError(_ACTION, made, "another snapshot is making this file; wait for it, or choose another name")


def _remove(made: str) -> None:
    for name in (made, *(made + suffix for suffix in _SIDE_FILES)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
