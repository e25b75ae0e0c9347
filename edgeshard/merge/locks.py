"""Take the two locks that keep mergers of one store apart; a request to stop ends the wait for them.

``merge.lock`` is held for one pass of a merger, and for each transaction in which a prune deletes rows or gives pages
back to the disk; its bookkeeping (`edgeshard.retention.bookkeeping`) takes only SQLite's lock. ``watch.lock`` is held
for as long as a merger watches the store: a merge that cron starts meanwhile has nothing to do, unless that watcher is
stalled.

Mergers would be safe next to each other without these locks, and next to prunes: that is SQLite's work. But whoever
replaces the master, as a restore does, or does something in several transactions, as an erasure does, keeps both out
with ``merge.lock``.

A holder at work is waited for. One that is stopped, or has committed nothing for long, may never release the lock, so
nobody waits for it without limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast

from filelock import FileLock

from edgeshard.errors import ConfigurationError, MergeInProgressError, StoreWatchedError, WatcherStalledError, quoted
from edgeshard.files import lock_holder, lock_pulse, locks, paths
from edgeshard.log_fields import fields
from edgeshard.merge import liveness
from edgeshard.options import MAX_INTERVAL_S
from edgeshard.reports import WatcherStatus

logger = logging.getLogger("edgeshard.merge")

_T = TypeVar("_T")

#: How long to wait before asking again whether to stop, in seconds.
_SLICE_S = 0.1

#: A process that only asks whether the store is watched holds its lock for less than this, and one that has begun to
#: watch it has left its note by then, in seconds.
_PROBE_S = 0.3

#: A prune holds the lock for one transaction at a time, of some 20 ms on a fast disk, and rests in between, in seconds.
#: Whoever does not want to wait for another merger waits at least for that.
_PRUNE_STEP_S = 0.5

#: After how long a wait is logged, in seconds.
_LOG_AFTER_S = 10.0

#: How often one that waits without limit asks whether the holder is at work, in seconds.
_CHECK_S = 1.0


class MergeLock:
    """``merge.lock``, held by this process, which other processes are told since when.

    Args:
        path: the lock file.
        held: its lock.
    """

    def __init__(self, path: Path, held: FileLock) -> None:
        self._held = held
        self._pulse = lock_pulse.Pulse(path, 0.0)

    def release(self) -> None:
        """Release it."""
        self._pulse.end()
        self._held.release()


def merge_lock(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> MergeLock | None:
    """Take ``merge.lock``, or return None if `should_stop` returned True meanwhile.

    Args:
        root: the store's folder.
        wait_s: how long to wait for another merger, in seconds; -1 waits for as long as that one is at work.
        should_stop: called now and then; returns whether to stop waiting.

    Raises:
        WatcherStalledError: the merger that has it is stopped, or commits nothing: at once if the wait has no limit,
            else after that time.
        MergeInProgressError: another merger held it for all that time.
        AccessError, StorageIOError: the lock file cannot be made or locked.
    """
    path = paths.merge_lock(root)
    held = _lock(
        root,
        path,
        wait_s,
        _PRUNE_STEP_S,
        should_stop,
        lambda: _stalled_merge(root) or _refusal(root, path, "is working on it", wait_s),
        lambda: _stalled_merge(root),
    )
    return None if held is None else MergeLock(path, held)


@contextlib.contextmanager
def merge_lock_held(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> Iterator[bool]:
    """Hold ``merge.lock`` in the block, and yield whether it was taken; see `merge_lock`."""
    held = merge_lock(root, wait_s, should_stop)
    try:
        yield held is not None
    finally:
        if held is not None:
            held.release()


def watch_lock(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> FileLock | None:
    """Take ``watch.lock``; see `merge_lock`."""
    path = paths.watch_lock(root)
    return _lock(root, path, wait_s, _PROBE_S, should_stop, lambda: _refusal(root, path, "watches it", wait_s))


def _lock(
    root: Path,
    path: Path,
    wait_s: float,
    least_s: float,
    should_stop: Callable[[], bool],
    refusal: Callable[[], MergeInProgressError],
    find_stall: Callable[[], MergeInProgressError | None] = lambda: None,
) -> FileLock | None:
    """Take a lock file; see `merge_lock`.

    Args:
        root: the store's folder.
        path: the lock file.
        wait_s: how long to wait, in seconds; -1 waits forever.
        least_s: how long to wait at least.
        should_stop: called now and then; returns whether to stop waiting.
        refusal: see `_wait_for`.
        find_stall: see `_wait_for`.
    """
    check_wait(root, wait_s)
    return _wait_for(
        root,
        wait_s if wait_s < 0 else max(wait_s, least_s),
        should_stop,
        lambda left_s: locks.lock(path, left_s),
        refusal,
        find_stall,
    )


def await_no_watcher(
    root: Path, wait_s: float, should_stop: Callable[[], bool], has_pending: Callable[[], bool]
) -> None:
    """Wait until nobody has the store for itself; a watcher that is at work is not waited for.

    Args:
        root: the store's folder.
        wait_s: see `merge_lock`.
        should_stop: see `merge_lock`.
        has_pending: see `liveness.find_watcher`.

    Raises:
        StoreWatchedError: a watcher merges the store's rows.
        WatcherStalledError: a watcher had the store for itself for all that time, and merged nothing.
        MergeInProgressError: another process had the store for itself for all that time, such as a restore.
        AccessError, StorageIOError: it cannot be determined.
    """
    path = paths.watch_lock(root)
    check_wait(root, wait_s)
    watcher: WatcherStatus | None = None

    def is_free(left_s: float) -> bool | None:
        nonlocal watcher
        if not locks.is_locked(path):
            return True
        watcher = liveness.find_watcher(root, has_pending)
        if watcher is not None and not watcher.is_stalled:
            advice = "to see all rows written so far, use query(sql, fresh=True) or merge_now()"
            raise StoreWatchedError("merge into", paths.master(root), f"{watcher}; {advice}", watcher.pid)
        time.sleep(left_s)
        return None

    def refusal() -> MergeInProgressError:
        if watcher is None:
            return _refusal(root, path, "watches it", wait_s)
        advice = (
            _let_go_on(watcher.pid) if watcher.is_stopped else "its log says why; restart it, or end it and merge again"
        )
        return WatcherStalledError("merge into", paths.master(root), f"{watcher}; {advice}")

    _wait_for(root, wait_s if wait_s < 0 else max(wait_s, _PROBE_S), should_stop, is_free, refusal)


def check_wait(root: Path, wait_s: object) -> None:
    """Refuse what is not a time to wait for a lock.

    Raises:
        ConfigurationError: it is not a number, or too large.
    """
    is_number = isinstance(wait_s, (int, float)) and not isinstance(wait_s, bool)
    if not (is_number and -MAX_INTERVAL_S <= cast("float", wait_s) <= MAX_INTERVAL_S):  # nor is NaN
        cause = (
            f"lock_wait must be a number of seconds up to {MAX_INTERVAL_S:.0f}, or -1 to wait forever, got "
            f"{quoted(wait_s)}"
        )
        raise ConfigurationError("wait for lock of", paths.master(root), cause)


def _wait_for(
    root: Path,
    wait_s: float,
    should_stop: Callable[[], bool],
    attempt: Callable[[float], _T | None],
    refusal: Callable[[], MergeInProgressError],
    find_stall: Callable[[], MergeInProgressError | None] = lambda: None,
) -> _T | None:
    """Attempt something until it succeeds; return None if it should stop.

    Args:
        root: the store's folder, for the log.
        wait_s: for how long to try, in seconds; -1 tries forever.
        should_stop: called after each attempt.
        attempt: tries for at most this many seconds, and returns None if it failed.
        refusal: makes the error that is raised if it did not succeed in that time.
        find_stall: called now and then if it tries forever; returns the error that ends that, or None.
    """
    began = time.monotonic()
    deadline, check_at = began + wait_s, began + _CHECK_S
    is_logged = False
    while True:
        left_s = deadline - time.monotonic() if wait_s >= 0 else _SLICE_S
        got = attempt(max(0.0, min(left_s, _SLICE_S)))
        if got is not None or should_stop():
            return got
        if wait_s < 0 and time.monotonic() >= check_at:
            check_at = time.monotonic() + _CHECK_S
            if (stall := find_stall()) is not None:
                raise stall
        if not is_logged and time.monotonic() > began + _LOG_AFTER_S:
            is_logged = True
            logger.warning("waiting for another merger: %s", root, extra=fields(store=root))
        if left_s <= 0:
            raise refusal()


def _stalled_merge(root: Path) -> WatcherStalledError | None:
    """Return the error for whoever waits for ``merge.lock`` while its holder is not at work, or None if it is."""
    merge = liveness.find_merge(root)
    # in this process, another thread has it, which runs as this one does
    if merge.pid == os.getpid() or not merge.is_stalled:
        return None
    end = "end it" if merge.pid is None else f"end it (kill {merge.pid})"
    advice = _let_go_on(merge.pid) if merge.is_stopped else f"if it hangs, {end}: what it committed stays; try again"
    return WatcherStalledError("merge into", paths.master(root), f"{merge}; {advice}")


def _let_go_on(pid: int | None) -> str:
    return f"let it go on (kill -CONT {pid}), or end it (kill -KILL {pid}) and merge again"


def _owner(path: Path) -> str:
    pid = lock_holder.find_owner(path)
    return "" if pid is None else f" (process {pid})"


def _refusal(root: Path, path: Path, doing: str, waited_s: float) -> MergeInProgressError:
    """Return the error for whoever did not get a lock.

    Args:
        root: the store's folder.
        path: the lock file.
        doing: what the other merger does.
        waited_s: for how long the caller wanted to wait, in seconds.
    """
    holder = lock_holder.find_holder(path)
    who = f" ({holder.describe()})" if holder is not None else _owner(path)
    advice = "try again later" if waited_s else "try again later, or wait for it with lock_wait=seconds"
    return MergeInProgressError("merge into", paths.master(root), f"another merger {doing}{who}; {advice}")
