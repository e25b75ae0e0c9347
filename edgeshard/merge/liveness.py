"""Is the watcher of a store at work? It may be stopped, or fail at each pass, and hold its lock all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeshard.files import lock_holder, paths, watcher_pulse
from edgeshard.reports import WatcherStatus

#: A watcher is stuck if it has not finished a pass for so many times the interval at which it checks all shards.
_RESCANS_MAX: Final = 3


def find_watcher(root: Path, has_pending: Callable[[], bool]) -> WatcherStatus | None:
    """Return the watcher that holds ``watch.lock``, or None if it is not known that a watcher holds it.

    Args:
        root: the store's folder.
        has_pending: returns whether the store has rows to merge; called only if the watcher's last pass was long ago.
    """
    path = paths.watch_lock(root)
    holder, beat = lock_holder.find_holder(path), watcher_pulse.last_beat(path)
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
