"""One merge, under the locks that keep mergers out of each other's way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from edgeshard.files import folders
from edgeshard.merge import locks
from edgeshard.merge.dry_run import dry_run
from edgeshard.merge.merger import Merger, Progress
from edgeshard.reports import MergeReport
from edgeshard.retention import store_rules
from edgeshard.retention.store_rules import Retention
from edgeshard.sources import attach


def merge(
    root: Path,
    sources: Iterable[str | os.PathLike[str]] = (),
    *,
    keep_empty: bool = False,
    beside_watcher: bool = False,
    lock_wait_s: float = 0.0,
    prune: Retention = store_rules.NONE,
    stopping: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> MergeReport:
    """Merge a store's shards, and any other databases of ours, into the store's master.

    Args:
        root: the store's folder.
        sources: masters, shards or copies to merge as well; they are only read.
        keep_empty: leave the shards of agents that are gone.
        beside_watcher: merge between the passes of a merger that watches the store. Without this, and without
            sources, such a merger is one at work.
        lock_wait_s: how long to wait for another merger, in seconds; -1 for ever.
        prune: what goes from the master once that is done; what goes wrong with it is in the report, and not raised.
        stopping: asked after each shard, and while waiting; once it says yes the merge ends, with what it committed.
        progress: called as the work goes on.

    Raises:
        MergeInProgressError: another merger works on this master, or watches it.
        StorageError: the master itself cannot be read or written. What was committed stays.
    """
    began = time.monotonic()
    named = [attach.run_for_path(path) for path in sources]
    folders.make_folder(root)
    if not named and not beside_watcher:
        locks.await_no_watcher(root, lock_wait_s, stopping)
        lock_wait_s = lock_wait_s if lock_wait_s < 0 else max(0.0, lock_wait_s - (time.monotonic() - began))
    held = locks.merge_lock(root, lock_wait_s, stopping)
    if held is None:
        return MergeReport(stopped=True)
    try:
        merger = Merger(root, keep_empty=keep_empty, stopping=stopping, prune=prune)
        report = merger.run(named, progress=progress)
        merger.close()
    finally:
        held.release()
    report = attrs.evolve(report, seconds=time.monotonic() - began)
    return _pruned(report, root, prune, stopping) if prune and not report.stopped else report


def _pruned(report: MergeReport, root: Path, prune: Retention, stopping: Callable[[], bool]) -> MergeReport:
    from edgeshard.retention import scheduler  # whoever never prunes need not wait for it

    return scheduler.prune_once(root / "master.db", prune, should_stop=stopping).add_to_report(report)


def preview(root: Path, sources: Iterable[str | os.PathLike[str]] = ()) -> MergeReport:
    """Say what a merge would do, and do nothing.

    Raises:
        StorageError: the master or the folder cannot be read.
    """
    shards = Path(os.path.realpath(root / "shards"))
    return dry_run(root / "master.db", shards, map(attach.run_for_path, sources))
