"""Is the watcher of a store at work, or a merge? It may be stopped, or hang, and hold its lock all the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeshard.files import lock_holder, lock_pulse, paths
from edgeshard.reports import MergeStatus, WatcherStatus

#: A watcher is stuck if it has not finished a pass for so many times the interval at which it checks all shards.
_RESCANS_MAX: Final = 3


def find_watcher(root: Path, has_pending: Callable[[], bool]) -> WatcherStatus | None:
    """Return the watcher that holds ``watch.lock``, or None if it is not known that a watcher holds it.

    Args:
        root: the store's folder.
        has_pending: returns whether the store has rows to merge; called only if the watcher's last pass was long ago.
    """
    path = paths.watch_lock(root)
    holder, beat = lock_holder.find_holder(path), lock_pulse.last_beat(path)
    if holder is None and beat is None:
        return None
    return WatcherStatus(
        pid=None if holder is None else holder.pid,
        since=None if holder is None else holder.since,
        pass_age_s=None if beat is None else beat.age_s,
        rescan_s=None if beat is None else beat.rescan_s,
        is_stopped=holder is not None and holder.is_stopped,
        is_stuck=beat is not None and beat.age_s > _RESCANS_MAX * beat.rescan_s and has_pending(),
    )


def find_merge(root: Path) -> MergeStatus:
    """Return what is known of the process that holds ``merge.lock``, which is locked."""
    path, master = paths.merge_lock(root), paths.master(root)
    pid, beat = lock_holder.find_owner(path), lock_pulse.last_beat(path)
    committed_at = max(_changed_at(file) for file in (master, paths.wal(master)))
    return MergeStatus(
        pid=pid,
        is_stopped=pid is not None and lock_holder.is_stopped(pid),
        idle_s=None if beat is None else min(beat.age_s, max(0.0, time.time() - committed_at)),
    )


def _changed_at(path: str | Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # it is not there
        return 0.0
