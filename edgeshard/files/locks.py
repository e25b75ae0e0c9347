"""Lock files: take one, or ask whether another process holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from filelock import FileLock, Timeout

from edgeshard.files.os_errors import explain_os_error


def lock(path: Path, wait_s: float = 0.0) -> FileLock | None:
    """Take the lock file at `path`; None where somebody else holds it for `wait_s` seconds (-1: for ever).

    Raises:
        AccessError, StorageIOError: the lock file cannot be made or locked.
    """
    # the soft fallback would be a lock that outlives its holder's death; an object for each thread would be none
    held = FileLock(path, timeout=wait_s, fallback_to_soft=False, thread_local=False, mode=0o600)
    try:
        held.acquire(poll_interval=0.01)
    except Timeout:
        return None
    except OSError as error:
        raise explain_os_error(error, "lock", path) from error
    return held


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Whether somebody holds the lock file at `path`. Asks for a shared lock for an instant, and makes no file.

    Raises:
        AccessError, StorageIOError: nobody may tell us.
    """
    try:
        # not blocking: whoever opens a FIFO of this name would wait for its writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise explain_os_error(error, "look at lock", path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing it is not enough where a fork has copied it meanwhile
    except BlockingIOError:
        return True
    except OSError as error:
        raise explain_os_error(error, "look at lock", path) from error
    finally:
        os.close(handle)
    return False
