"""The two locks of mergers, and waiting for them so that a request to stop is heard.

``merge.lock`` is held for a pass. ``watch.lock`` is held for as long as a merger watches the store: a merge that cron
starts beside it has nothing to do. Both are for efficiency only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from edgeshard.errors import MergeInProgressError
from edgeshard.files import locks, paths

logger = logging.getLogger("edgeshard.merge")

_T = TypeVar("_T")

#: How long to wait between two looks whether to stop, in seconds.
_SLICE_S = 0.1

#: Somebody who only asks whether the store is watched holds its lock for less than this, in seconds.
_PROBE_S = 0.3

#: After how long somebody who waits says so, in seconds.
_SAY_S = 10.0


def merge_lock(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> FileLock | None:
    """Take ``merge.lock``; None where it was asked to stop meanwhile.

    Args:
        root: the store's folder.
        wait_s: how long to wait for another merger, in seconds; -1 for ever.
        should_stop: asked now and then whether to give up.

    Raises:
        MergeInProgressError: another merger has it for all that time.
        AccessError, StorageIOError: the lock file cannot be made or locked.
    """
    return _await(
        root, wait_s, should_stop, lambda left_s: locks.lock(paths.merge_lock(root), left_s), "is at work on it"
    )


def watch_lock(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> FileLock | None:
    """Take ``watch.lock``; see `merge_lock`."""
    wait_s = max(wait_s, _PROBE_S) if wait_s >= 0 else wait_s
    return _await(root, wait_s, should_stop, lambda left_s: locks.lock(paths.watch_lock(root), left_s), "watches it")


def await_no_watcher(root: Path, wait_s: float, should_stop: Callable[[], bool]) -> None:
    """Wait until nobody watches the store; see `merge_lock`."""

    def is_free(left_s: float) -> bool | None:
        if not locks.is_locked(paths.watch_lock(root)):
            return True
        time.sleep(left_s)
        return None

    _await(root, wait_s, should_stop, is_free, "watches it, and merges what comes")


def _await(
    root: Path, wait_s: float, should_stop: Callable[[], bool], attempt: Callable[[float], _T | None], doing: str
) -> _T | None:
    began = time.monotonic()
    deadline = began + wait_s
    said = False
    while True:
        left_s = deadline - time.monotonic() if wait_s >= 0 else _SLICE_S
        got = attempt(max(0.0, min(left_s, _SLICE_S)))
        if got is not None or should_stop():
            return got
        if not said and time.monotonic() > began + _SAY_S:
            said = True
            logger.warning("waiting for another merger, which %s: %s", doing, root)
        if left_s <= 0:
            raise MergeInProgressError(
                "merge into", paths.master(root), f"another merger {doing}; wait, or use --lock-wait"
            )
