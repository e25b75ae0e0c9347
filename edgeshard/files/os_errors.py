"""Translate the operating system's errors into edgeshard's."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import Final

from edgeshard.errors import (
    AccessError,
    DiskFullError,
    OutOfDescriptorsError,
    StorageBusyError,
    StorageError,
    StorageIOError,
)
from edgeshard.files import access

#: What the system says if the process, or the machine, has no file descriptor left.
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

#: Pipes, of two descriptors each, that can be made where a database can be opened, which takes three: the file, its WAL
#: and its shared memory.
_PIPES: Final = 2

_OWN_DESCRIPTORS: Final = "/dev/fd"


#: The causes of errors that are the file system's or the path's, each with the next step.
_CAUSES: Final = {
    errno.EIO: "the device or its file system failed to read or write; look at dmesg, the cable and the disk's health",
    errno.ELOOP: "it is, or leads through, a symbolic link where none is followed, or one that leads back to itself; "
    "give the path of the file itself, or correct the link",
    errno.ENOTDIR: "a part of its path is a file and not a folder; check the path",
    errno.EISDIR: "it is a folder where a file is expected; move it away, or check the path",
    errno.ENAMETOOLONG: "its name, or its whole path, is longer than the file system permits; choose a shorter path",
    errno.ENOENT: "it, or the folder it is in, does not exist, or was removed meanwhile; check the path, and try again",
    errno.EEXIST: "something else has this name already; move it away, or choose another path",
    errno.ENOTEMPTY: "there are files of others in it; move them away",
    errno.ESTALE: "the server of its network file system replaced or removed it; mount it again, and keep stores on a "
    "local disk",
    errno.ENOTCONN: "the program that serves its file system has ended; mount it again",
    errno.ENODEV: "its device is not there any more; connect it, and mount it again",
    errno.ENXIO: "its device is not there any more, or it is a socket or a pipe; check the device and the path",
    errno.EFBIG: "it would be larger than this process or the file system permits (`ulimit -f`); raise the limit, or "
    "move the store to another file system",
    errno.ETXTBSY: "another program uses it (`fuser -v`); end that program, and try again",
    errno.EBUSY: "another program, or the system, uses it (`fuser -v`); end that program, and try again",
}


def explain_os_error(error: OSError, action: str, path: str | os.PathLike[str]) -> StorageError:
    """Return our error for one of the operating system's."""
    failed = _failed_path(error, path)
    number, cause = error.errno, error.strerror or str(error)
    if number == errno.EROFS or (number in (errno.EACCES, errno.EPERM) and access.is_read_only(failed)):
        return AccessError(action, path, access.explain_read_only())
    if number in (errno.EACCES, errno.EPERM):
        return AccessError(action, path, access.explain_denied(failed, named=path))
    if number in _FULL:
        return disk_full(action, path, failed, is_quota=number == errno.EDQUOT)
    if number in _NO_DESCRIPTOR:
        return out_of_descriptors(action, path)
    if number == errno.ENOMEM:
        return StorageError(action, path, f"there is not enough memory ({cause}); end other programs, and try again")
    if number in (errno.EBUSY, errno.ETXTBSY):
        return StorageBusyError(action, path, _CAUSES[number])
    return StorageIOError(action, path, f"{_CAUSES[number]} ({cause})" if number in _CAUSES else cause)


def _failed_path(error: OSError, path: str | os.PathLike[str]) -> str:
    """Return the path that the system call failed on, if the error names one: it may be another than `path`."""
    named = error.filename2 if error.filename2 is not None else error.filename
    return os.fsdecode(named) if isinstance(named, (str, bytes, os.PathLike)) and named else os.fspath(path)


#: What the system says if a disk, or a user's share of it, is full.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def disk_full(
    action: str, path: str | os.PathLike[str], failed: str | os.PathLike[str], *, is_quota: bool = False
) -> DiskFullError:
    """Return the error of a file that cannot be made or become larger.

    Args:
        action: what was being done.
        path: to what.
        failed: the file.
        is_quota: whether it is known to be the user's quota, and not the disk.
    """
    if is_quota:
        user = access.user_name(os.geteuid())
        cause = f"the disk quota of user {user} is used up; free some space, or raise it (`quota`)"
    elif has_no_inodes(failed):
        cause = (
            "its file system has no inodes left for further files, although it has space (`df -i`); remove files that "
            "are not needed, or make the file system with more inodes"
        )
    else:
        cause = "the disk is full; free some space (`df`), and try again"
    return DiskFullError(action, path, cause)


def has_no_inodes(path: str | os.PathLike[str]) -> bool:
    """Return whether the file system of a path can hold no further file, though it has space for bytes."""
    found = _file_system_of(path)
    # some file systems do not count their inodes: they have none in total
    return found is not None and found.f_files > 0 and found.f_favail == 0 and found.f_bavail > 0


def has_no_space(path: str | os.PathLike[str]) -> bool:
    """Return whether the file system of a path has no space for further pages."""
    found = _file_system_of(path)
    return found is not None and found.f_blocks > 0 and found.f_bavail * found.f_frsize < _PAGES_BYTES


#: What SQLite needs to make the index of a WAL, in bytes.
_PAGES_BYTES: Final = 32 << 10


def _file_system_of(path: str | os.PathLike[str]) -> os.statvfs_result | None:
    for each in (os.fspath(path), os.path.dirname(os.path.abspath(path))):
        try:
            return os.statvfs(each)
        except OSError:
            continue
    return None


def out_of_descriptors(action: str, path: str | os.PathLike[str]) -> OutOfDescriptorsError:
    """Return the error of a file that cannot be opened because too many others are open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    cause = (
        f"too many files are open: this process may have {limit} descriptors. Raise the limit (`ulimit -n`, or "
        "LimitNOFILE= of a systemd unit), and try again"
    )
    return OutOfDescriptorsError(action, path, cause)


def is_out_of_descriptors() -> bool:
    """Return whether no further database can be opened. (SQLite says only that it cannot open one.)"""
    with contextlib.ExitStack() as pipes:
        try:
            for _ in range(_PIPES):
                for end in os.pipe():
                    pipes.callback(os.close, end)
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                return True
            raise
    return False


def free_descriptors() -> int | None:
    """Return how many more files this process may open, or None if it cannot be determined."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return limit - len(os.listdir(_OWN_DESCRIPTORS))
    except OSError as error:
        return 0 if error.errno in _NO_DESCRIPTOR else None


def explain_lock_error(error: OSError, action: str, path: str | os.PathLike[str]) -> StorageError:
    """Return our error for one that flock() raised, or a call that opens a lock file and then locks it."""
    if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        cause = error.strerror or str(error)
        return StorageIOError(action, path, f"{cause}; edgeshard needs a file system with flock()")
    return explain_os_error(error, action, path)
