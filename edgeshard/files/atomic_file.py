"""A file that appears under its name whole, or not at all: what snapshots and bundles are made by.

    1  TARGET.new is made and locked; one that a killed command left is removed first
    2  it is written
    3  it is made durable
    4  it is linked to TARGET, or renamed where that is to be replaced    <- the commit point
    5  the folder is made durable, and TARGET.new removed

Killed before 4, there is no TARGET, or the old one; TARGET.new is nobody's, for its lock died with its owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgeshard.errors import ConfigurationError, StorageBusyError
from edgeshard.files.folders import sync_folder

_SIDE_FILES = ("-wal", "-shm", "-journal")


def resolved(target: str | os.PathLike[str]) -> str:
    """The absolute path of a file to make, with the links of its folder followed."""
    return os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(target))), os.path.basename(target))


@contextlib.contextmanager
def made(path: str, master_path: Path, action: str, *, force: bool) -> Iterator[str]:
    """An empty file, to be filled and closed in the block; at its end it gets its name.

    Args:
        path: its name then, as `resolved` gives it.
        master_path: what it must not replace.
        action: what is being done, for errors.
        force: replace a file that has this name.

    Raises:
        ConfigurationError: there is such a file already, or no such folder.
        StorageBusyError: somebody else is making this very file.
    """
    _check_target(path, master_path, action, force=force)
    with _claimed(path + ".new", action) as unfinished:
        yield unfinished
        if not publish(unfinished, path, replace=force):
            raise _taken(path, action)


def _check_target(path: str, master_path: Path, action: str, *, force: bool) -> None:
    """Before anything is copied: that may take minutes."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):  # it may be a medium that is not mounted
        raise ConfigurationError(action, path, f"there is no folder {folder}; make it, or mount its medium")
    if os.path.isdir(path):
        raise ConfigurationError(action, path, "it is a folder; name the file to make in it")
    if os.path.lexists(path):
        if os.path.exists(path) and os.path.samefile(path, master_path):
            raise ConfigurationError(action, path, "it is the master itself")
        if not force:
            raise _taken(path, action)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ConfigurationError(action, path, "it is not a regular file, and not replaced")
    for suffix in ("-wal", "-journal"):
        # SQLite would take it for the copy's, and put another database's pages into it
        if os.path.lexists(path + suffix):
            cause = f"there is a {os.path.basename(path)}{suffix} beside it: something has a database of this name open"
            raise ConfigurationError(action, path, f"{cause}, or died with it; choose another name, or remove both")


def _taken(path: str, action: str) -> ConfigurationError:
    return ConfigurationError(action, path, "there is such a file already; choose another name, or use --force")


@contextlib.contextmanager
def _claimed(unfinished: str, action: str) -> Iterator[str]:
    """An empty file that is locked while the block runs, and gone after it.

    The lock is flock's, on a descriptor of its own: SQLite's locks are others, and do not meet it.

    Raises:
        StorageBusyError: somebody else has it.
    """
    _remove_leftover(unfinished, action)
    try:
        handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError as error:
        raise _busy(unfinished, action) from error
    try:
        _lock(handle, unfinished, action)
        try:
            yield unfinished
        finally:
            if _is_at(handle, unfinished):
                _remove(unfinished)
    finally:
        os.close(handle)


def _remove_leftover(unfinished: str, action: str) -> None:
    try:
        handle = os.open(unfinished, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        _lock(handle, unfinished, action)
        _remove(unfinished)
    finally:
        os.close(handle)


def _lock(handle: int, unfinished: str, action: str) -> None:
    """Lock the file, unless somebody else has locked it, or has renamed or removed it since it was opened."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(unfinished, action) from error
    if not _is_at(handle, unfinished):
        raise _busy(unfinished, action)


def _is_at(handle: int, path: str) -> bool:
    """Whether the open file is the one of this name."""
    return os.path.lexists(path) and os.path.samestat(os.fstat(handle), os.lstat(path))


def _busy(unfinished: str, action: str) -> StorageBusyError:
    return StorageBusyError(
        action, unfinished, "another command is making this file; wait for it, or choose another name"
    )


def _remove(unfinished: str) -> None:
    for name in (unfinished, *(unfinished + suffix for suffix in _SIDE_FILES)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def publish(made: str, path: str, *, replace: bool = False) -> bool:
    """Give a finished file its name, both durably, so that nobody ever sees half of it under that name.

    Args:
        made: the file, which nobody has open any more. It may keep this name as well: the caller removes that.
        path: its name from now on, in the same folder.
        replace: whether it takes the place of what has that name.

    Returns:
        False where something has that name and is not to be replaced.
    """
    with open(made, "rb+") as file:
        os.fsync(file.fileno())
    if replace:
        os.rename(made, path)
    else:
        try:
            os.link(made, path)
        except FileExistsError:
            return False
        except PermissionError:  # a file system without links, such as FAT
            if os.path.lexists(path):
                return False
            os.rename(made, path)
    sync_folder(os.path.dirname(path))
    return True
