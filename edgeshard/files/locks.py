"""Lock files: take one, or ask whether another process holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

from edgeshard.files import modes
from edgeshard.files.os_errors import explain_lock_error, explain_os_error

if TYPE_CHECKING:
    from filelock import FileLock

#: Another user of the store's group may have just made the file, and be about to let the group use it.
_ATTEMPTS, _ATTEMPT_INTERVAL_S = 3, 0.005


def lock(path: str | os.PathLike[str], wait_s: float = 0.0) -> FileLock | None:
    """Take the lock file at `path`; return None if another process holds it for `wait_s` seconds (-1: wait forever).

    Raises:
        AccessError, StorageIOError: the lock file cannot be made or locked.
    """
    from filelock import FileLock, Timeout  # 17 ms, which a reader need not wait for; writers and mergers load it

    for attempt in range(_ATTEMPTS):
        try:
            with contextlib.suppress(FileExistsError):
                if not os.path.lexists(path):
                    os.close(modes.create_file(path))
            # no soft fallback: such a lock would outlive its holder. Not thread-local, or threads would not share it
            held = FileLock(
                path, timeout=wait_s, fallback_to_soft=False, thread_local=False, mode=modes.first_mode(path)
            )
            held.acquire(poll_interval=0.01)
        except Timeout:
            break
        except PermissionError as error:
            if attempt + 1 == _ATTEMPTS:
                raise explain_lock_error(error, "lock", path) from error
            time.sleep(_ATTEMPT_INTERVAL_S)
        except OSError as error:
            raise explain_lock_error(error, "lock", path) from error
        else:
            return held
    return None


def lock_at_once(path: str) -> int | None:
    """Take the lock file at `path` if it is free; return a descriptor for `release`, or None if it is not.

    It is the same lock as that of `lock`, for callers that take many locks for a moment: FileLock needs three times as
    long.

    Raises:
        AccessError, StorageIOError: the lock file cannot be made or locked.
    """
    try:
        with contextlib.suppress(FileExistsError):
            if not os.path.lexists(path):
                os.close(modes.create_file(path))
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # another process has just removed it
        return None
    except OSError as error:
        raise explain_lock_error(error, "lock", path) from error
    try:
        if lock_open_file(handle, path):
            if os.fstat(handle).st_nlink:  # otherwise its last holder has removed it
                return handle
            unlock_open_file(handle)
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def release(handle: int) -> None:
    """Release a lock that `lock_at_once` took."""
    unlock_open_file(handle)
    os.close(handle)


def lock_open_file(handle: int, path: str | os.PathLike[str]) -> bool:
    """Lock an open file until it is closed; return False if another process, or another descriptor, holds its lock.

    This is flock's lock, which SQLite's POSIX locks are independent of.

    Args:
        handle: the file's descriptor.
        path: what to name in errors.

    Raises:
        AccessError, StorageIOError: it cannot be locked.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise explain_lock_error(error, "lock", path) from error
    return True


def lock_in_turn(opened: int, path: str | os.PathLike[str], wait_s: float) -> int | None:
    """Wait for the lock that `lock_open_file` takes; return a descriptor that holds it, or None if one holder keeps it.

    It gives up once the lock has not changed hands for `wait_s` seconds. On a slow machine many processes may queue for
    longer than that, although each has the lock only for a moment: so whoever takes it sets the file's time of change
    (`os.utime`), by which those who wait see that the queue moves.

    The kernel gives it to those who wait, one after the other; of many who ask again and again, some never get it, and
    all take processor time from the one who has it. No system call waits for a lock for a limited time, so a thread
    waits here, for as long as a holder that was stopped keeps it.

    Args:
        opened: a descriptor of the file, which stays unlocked.
        path: where the file is.
        wait_s: for how long one holder is waited for, in seconds.

    Raises:
        AccessError, StorageIOError: the file cannot be opened or locked.
    """
    waiting = _Waiting(path)
    try:
        waiting.start()
        last_taken = os.fstat(opened).st_mtime_ns
        while not waiting.answered.wait(wait_s) and last_taken != (last_taken := os.fstat(opened).st_mtime_ns):
            pass
    except BaseException:  # such as Ctrl-C: it must not get the lock later, and keep it until the process ends
        found = waiting.end()
        if isinstance(found, int):
            os.close(found)
        raise
    found = waiting.end()
    if isinstance(found, OSError):
        raise explain_lock_error(found, "lock", path) from found
    return found


class _Waiting:
    """A thread that waits for the lock of a file.

    Args:
        path: the file.

    Attributes:
        answered: set once it has the lock, or failed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.answered = threading.Event()
        self._path = path
        self._decided = threading.Lock()
        self._found: int | OSError | None = None
        self._is_abandoned = False

    def start(self) -> None:
        """Start it."""
        threading.Thread(target=self._run, name="edgeshard-lock", daemon=True).start()

    def end(self) -> int | OSError | None:
        """Return a descriptor that holds the lock, or the error; None if it still waits: then it keeps nothing."""
        with self._decided:
            self._is_abandoned = self._found is None
            return self._found

    def _run(self) -> None:
        found = self._lock()
        with self._decided:
            if not self._is_abandoned:
                self._found = found
            elif isinstance(found, int):
                os.close(found)
        self.answered.set()

    def _lock(self) -> int | OSError:
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            return error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            os.close(handle)
            return error
        return handle


def unlock_open_file(handle: int) -> None:
    """Release the lock of an open file. Closing it is not enough if a fork has copied the descriptor meanwhile."""
    fcntl.flock(handle, fcntl.LOCK_UN)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Return whether a process holds the lock file at `path`.

    This takes a shared lock for an instant, and creates no file.

    Raises:
        AccessError, StorageIOError: it cannot be determined.
    """
    try:
        # O_NONBLOCK: opening a FIFO of this name would wait for a writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise explain_os_error(error, "check lock", path) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        unlock_open_file(handle)
    except BlockingIOError:
        return True
    except OSError as error:
        raise explain_lock_error(error, "check lock", path) from error
    finally:
        os.close(handle)
    return False
