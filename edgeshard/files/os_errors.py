"""Translate the operating system's errors into edgeshard's."""

from __future__ import annotations

import errno
import os

from edgeshard.errors import AccessError, DiskFullError, StorageError, StorageIOError


def explain_os_error(error: OSError, action: str, path: str | os.PathLike[str]) -> StorageError:
    """Return our error for one of the operating system's."""
    cause = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessError(action, path, f"permission denied, or a read-only medium ({cause})")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(action, path, f"the disk is full ({cause})")
    return StorageIOError(action, path, cause)


def explain_lock_error(error: OSError, action: str, path: str | os.PathLike[str]) -> StorageError:
    """Return our error for one that flock() raised, or a call that opens a lock file and then locks it."""
    if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        cause = error.strerror or str(error)
        return StorageIOError(action, path, f"{cause}; edgeshard needs a file system with flock()")
    return explain_os_error(error, action, path)
