"""Translate the operating system's errors into edgeshard's."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from typing import Final

from edgeshard.errors import AccessError, DiskFullError, OutOfDescriptorsError, StorageError, StorageIOError

#: What the system says if the process, or the machine, has no file descriptor left.
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

#: Pipes, of two descriptors each, that can be made where a database can be opened, which takes three: the file, its WAL
#: and its shared memory.
_PIPES: Final = 2

_OWN_DESCRIPTORS: Final = "/dev/fd"


def explain_os_error(error: OSError, action: str, path: str | os.PathLike[str]) -> StorageError:
    """Return our error for one of the operating system's."""
    cause = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessError(action, path, f"permission denied, or a read-only medium ({cause})")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(action, path, f"the disk is full ({cause})")
    if error.errno in _NO_DESCRIPTOR:
        return out_of_descriptors(action, path)
    return StorageIOError(action, path, cause)


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
