"""Make a file appear under its name complete, or not at all. Snapshots and bundles are made this way.

    1  create and lock TARGET.new; a leftover of a killed command is removed first
    2  write it
    3  make it durable
    4  link it to TARGET, or rename it to replace an existing TARGET    <- the commit point
    5  make the folder durable, and remove TARGET.new

If the process is killed before 4, TARGET does not exist, or is the old file. The lock of TARGET.new ends with the
process, so the next command may remove it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgeshard.errors import ConfigurationError, StorageBusyError
from edgeshard.files import modes, paths
from edgeshard.files.folders import sync_folder


def resolve_target(target: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file to be made, with symbolic links resolved in its folder but not in its name."""
    return os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(target))), os.path.basename(target))


@contextlib.contextmanager
def staged(path: str, master_path: Path, action: str, *, force: bool) -> Iterator[str]:
    """Yield the path of an empty file that the block fills and closes; then publish it as `path`.

    Args:
        path: its final path, from `resolve_target`.
        master_path: the store's master, which it must not replace.
        action: what is being done, for errors.
        force: replace an existing file.

    Raises:
        ConfigurationError: the file exists already, or its folder does not.
        StorageBusyError: another command is making this file.
    """
    _check_target(path, master_path, action, force=force)
    with _claimed(path + paths.UNFINISHED, action) as unfinished:
        yield unfinished
        if not publish(unfinished, path, replace=force):
            raise _exists(path, action)


def _check_target(path: str, master_path: Path, action: str, *, force: bool) -> None:
    """Check the target before anything is copied, which may take minutes."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):  # it may be on a medium that is not mounted
        raise ConfigurationError(action, path, f"there is no folder {folder}; make it, or mount its medium")
    if os.path.isdir(path):
        raise ConfigurationError(action, path, "it is a folder; name the file to make in it")
    if os.path.lexists(path):
        if os.path.exists(path) and os.path.samefile(path, master_path):
            raise ConfigurationError(action, path, "it is the master itself; choose another name")
        if not force:
            raise _exists(path, action)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ConfigurationError(action, path, "it is not a regular file, and is not replaced; choose another name")
    for suffix in (paths.WAL, paths.JOURNAL):
        # SQLite would take it for the new file's, and write pages of another database into the new file
        if os.path.lexists(path + suffix):
            cause = (
                f"there is a {os.path.basename(path)}{suffix} next to it: something has a database of this name open, "
                "or died with it; choose another name, or remove both"
            )
            raise ConfigurationError(action, path, cause)


def _exists(path: str, action: str) -> ConfigurationError:
    return ConfigurationError(action, path, "this file exists already; choose another name, or use --force")


@contextlib.contextmanager
def _claimed(unfinished: str, action: str) -> Iterator[str]:
    """Create an empty file that is locked while the block runs, and removed after it.

    The lock is flock's, on a descriptor of its own. SQLite's POSIX locks are independent of it.

    Raises:
        StorageBusyError: another process holds it.
    """
    _remove_leftover(unfinished, action)
    try:
        handle = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, modes.FILE)
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
    """Lock the file; refuse if another process locked, renamed or removed it since it was opened."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(unfinished, action) from error
    if not _is_at(handle, unfinished):
        raise _busy(unfinished, action)


def _is_at(handle: int, path: str) -> bool:
    """Return whether the open file is the one that has this name."""
    return os.path.lexists(path) and os.path.samestat(os.fstat(handle), os.lstat(path))


def _busy(unfinished: str, action: str) -> StorageBusyError:
    return StorageBusyError(
        action, unfinished, "another command is making this file; wait for it, or choose another name"
    )


def _remove(unfinished: str) -> None:
    for name in (unfinished, *paths.side_files(unfinished)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def publish(unfinished: str, path: str, *, replace: bool = False) -> bool:
    """Give a complete file its final name, durably, so that no one ever sees half of it under that name.

    Args:
        unfinished: the file, which no process has open any more. It may keep this name too; the caller removes it.
        path: its final path, in the same folder.
        replace: whether to replace an existing file.

    Returns:
        False if the path exists already and is not to be replaced.
    """
    with open(unfinished, "rb+") as file:
        os.fsync(file.fileno())
    if replace:
        os.rename(unfinished, path)
    else:
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return False
        except PermissionError:  # a file system without links, such as FAT
            if os.path.lexists(path):
                return False
            os.rename(unfinished, path)
    sync_folder(os.path.dirname(path))
    return True
