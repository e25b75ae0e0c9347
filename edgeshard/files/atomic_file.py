"""Make a file appear under its name complete, or not at all. Snapshots and bundles are made this way.

    1  create and lock TARGET.edgeshard-XXXXXXXX.new, where the X are random; remove what killed commands left
    2  write it
    3  make it durable
    4  link it to TARGET, or rename it to replace an existing TARGET    <- the commit point
    5  make the folder durable, and remove the other name

If the process is killed before 4, TARGET does not exist, or is the old file. The lock ends with the process, so the
next command for TARGET removes the unfinished file. It does so only if the file's name is one that we make, no process
holds its lock, and its content is what we write: a file that a user gave such a name stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard import format
from edgeshard.errors import ConfigurationError, StorageBusyError
from edgeshard.files import fingerprint, folders, locks, modes, paths, targets

#: What link() says where there are no hard links: EPERM on FAT, ENOSYS, EOPNOTSUPP or EXDEV on file systems in user
#: space and network folders, EMLINK where a file may have one name, EACCES where a security policy forbids them.
_NO_LINKS: Final = frozenset(
    (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, errno.EMLINK)
)

#: How long to wait for the lock of a folder, in seconds. Other processes of edgeshard hold it for microseconds.
_LOCK_WAIT_S: Final = 5.0

#: How a database begins, and where its header has the application_id (https://sqlite.org/fileformat2.html, 1.3).
_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_APPLICATION_ID: Final = slice(68, 72)


@contextlib.contextmanager
def staged(target: str | os.PathLike[str], master_path: Path, action: str, *, force: bool) -> Iterator[str]:
    """Yield the path of an empty file that the block fills and closes; then publish it as `target`.

    Args:
        target: its final path, as the user gave it.
        master_path: the store's master. Of this store, and of any other, nothing is replaced.
        action: what is being done, for errors.
        force: replace an existing file.

    Raises:
        ConfigurationError: the file exists already, its folder does not, or it is a part of a store.
        StorageBusyError: another command is making this file.
    """
    path = targets.resolve_target(target)
    _check_target(target, master_path, action, force=force)
    with _claimed(path, action) as unfinished:
        yield unfinished
        if not publish(unfinished, path, replace=force):
            raise _exists(path, action)


def _check_target(target: str | os.PathLike[str], master_path: Path, action: str, *, force: bool) -> None:
    """Check the target before anything is copied, which may take minutes."""
    path = targets.resolve_target(target)
    try:
        path.encode()
    except UnicodeEncodeError as error:
        cause = "its path is not valid UTF-8, which SQLite needs; choose another name"
        raise ConfigurationError(action, path, cause) from error
    folder = os.path.dirname(path)
    if not stat.S_ISDIR(fingerprint.mode(folder)):  # it may be on a medium that is not mounted
        raise ConfigurationError(action, path, f"there is no folder {folder}; make it, or mount its medium")
    targets.ensure_free_for_user(target, master_path.parent, action)
    if not force and fingerprint.exists(path):
        raise _exists(path, action)
    for suffix in (paths.WAL, paths.JOURNAL):
        # SQLite would take it for the new file's, and write pages of another database into the new file
        if fingerprint.exists(path + suffix):
            cause = (
                f"there is a {os.path.basename(path)}{suffix} next to it: something has a database of this name open, "
                "or died with it; choose another name, or remove both"
            )
            raise ConfigurationError(action, path, cause)


def _exists(path: str, action: str) -> ConfigurationError:
    return ConfigurationError(action, path, "this file exists already; choose another name, or replace it with force")


@contextlib.contextmanager
def _claimed(path: str, action: str) -> Iterator[str]:
    """Create an empty file next to `path` that is locked while the block runs, and removed after it.

    Raises:
        StorageBusyError: another command is making the same file.
    """
    _remove_leftovers(path, "", action)  # first: they may fill the disk
    unfinished = paths.unfinished(path, secrets.token_hex(4))
    handle = modes.create_file(unfinished, in_store=False)
    try:
        try:
            # another command takes the lock first if it takes this file for a leftover, and removes it
            if not locks.lock_open_file(handle, unfinished) or not _is_at(handle, unfinished):
                raise _busy(path, action)
            # again, so that of two commands that begin at the same time at least one sees the other's lock
            _remove_leftovers(path, unfinished, action)
            yield unfinished
        finally:
            if _is_at(handle, unfinished):
                remove_unfinished(unfinished)
    finally:
        os.close(handle)


def _remove_leftovers(path: str, own: str, action: str) -> None:
    """Remove what killed commands left of the same file.

    Raises:
        StorageBusyError: a command is making it.
    """
    folder, target = os.path.split(path)
    for name in sorted(os.listdir(folder)):
        left = os.path.join(folder, name)
        if left == own or not paths.is_unfinished(name, target):
            continue
        try:
            # O_NONBLOCK: opening a FIFO of this name would wait for its reader
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                raise
            continue
        try:
            if not _is_ours(handle):
                continue
            if not locks.lock_open_file(handle, left):
                raise _busy(path, action)
            if _is_at(handle, left):
                remove_unfinished(left)
        finally:
            os.close(handle)


#: Errors of opening a file that is not ours: it was removed meanwhile, or is another user's, a link, a folder, a socket
#: or a device.
_NOT_OURS: Final = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)


def _is_ours(handle: int) -> bool:
    """Return whether the content of a file is that of an unfinished one: a database of ours, or not begun.

    SQLite may write the first page last. Until then, the file is empty, or begins with zeros.
    """
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        return False
    header = os.pread(handle, _HEADER_BYTES, 0)
    is_database = header.startswith(_MAGIC) and header[_APPLICATION_ID] == format.APPLICATION_ID.to_bytes(4)
    return is_database or not any(header)


def _is_at(handle: int, path: str) -> bool:
    """Return whether the open file is the one that has this name."""
    return os.path.lexists(path) and os.path.samestat(os.fstat(handle), os.lstat(path))


def _busy(path: str, action: str) -> StorageBusyError:
    return StorageBusyError(action, path, "another command is making this file; wait for it, or choose another name")


def remove_unfinished(unfinished: str) -> None:
    """Remove an unfinished file, and what SQLite has next to it, as far as they are there."""
    for name in (unfinished, *paths.side_files(unfinished)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def publish(unfinished: str, path: str, *, replace: bool = False, levels: int = 1) -> bool:
    """Give a complete file its final name, durably, so that no one ever sees half of it under that name.

    Args:
        unfinished: the file, which no process has open any more. It may keep this name too; the caller removes it.
        path: its final path, in the same folder.
        replace: whether to replace an existing file.
        levels: how many folders to sync; more than 1 if those above may have been made by a process that died since.

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
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _rename_if_free(unfinished, path):
                return False
    folder = os.path.dirname(path)
    folders.sync_folder(folder)
    if levels > 1:
        folders.sync_path(os.path.dirname(folder), levels - 1)
    return True


def link(path: str | os.PathLike[str], name: str | os.PathLike[str]) -> bool:
    """Give a file a second name in the same folder; return False where there are no hard links.

    Raises:
        OSError: it cannot be done for another reason, such as that the name is taken.
    """
    try:
        os.link(path, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _rename_if_free(unfinished: str, path: str) -> bool:
    """Rename a file where there are no hard links; return False if the new name is taken.

    rename() would replace a file that another process publishes between our look and the rename. Not all callers hold a
    lock: of two processes that make the master, one could replace the other's, which may have rows already. On such a
    file system all of them come here, so a lock of the folder keeps them apart. Other programs do not take it; they
    would have to make a file of this very name within these microseconds.

    Raises:
        StorageBusyError: another program keeps the folder locked.
    """
    parent = os.path.dirname(path)
    folder = os.open(parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while not locks.lock_open_file(folder, parent):
            if time.monotonic() > deadline:  # such as cron, by the command `flock FOLDER`
                cause = (
                    f"another program keeps the folder {parent} locked (flock); let it lock a file of its own instead"
                )
                raise StorageBusyError("make file", path, cause)
            time.sleep(0.001)
        try:
            if fingerprint.exists(path):
                return False
            os.rename(unfinished, path)
            return True
        finally:
            locks.unlock_open_file(folder)
    finally:
        os.close(folder)
