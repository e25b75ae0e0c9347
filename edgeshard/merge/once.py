"""One merge, or a preview of it, under the locks that keep mergers out of each other's way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.files import folders, paths, store_folder
from edgeshard.master import database
from edgeshard.merge import locks
from edgeshard.merge.dry_run import dry_run
from edgeshard.merge.merge_pass import Progress
from edgeshard.merge.merger import Merger
from edgeshard.reports import MergeReport
from edgeshard.retention import store_rules
from edgeshard.retention.store_rules import Retention
from edgeshard.sources import attach


def merge(
    root: Path,
    sources: Iterable[str | os.PathLike[str]] = (),
    *,
    keep_empty: bool = False,
    alongside_watcher: bool = False,
    lock_wait_s: float = 0.0,
    prune: Retention = store_rules.NONE,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> MergeReport:
    """Merge a store's shards, and any other edgeshard databases, into the store's master.

    Args:
        root: the store's folder.
        sources: masters, shards or copies to merge as well; they are only read.
        keep_empty: keep the shards of agents that have ended.
        alongside_watcher: merge between the passes of a merger that watches the store. Without this, and without
            sources, the store is left to that merger.
        lock_wait_s: how long to wait for another merger, in seconds; -1 waits forever. A watcher at work is not waited
            for.
        prune: the rules by which to prune the master after the merge; if that fails, the report says so.
        should_stop: called after each shard, and while waiting; once it returns True the merge ends, with what it has
            committed.
        progress: called after each commit.

    Raises:
        ConfigurationError: the folder of the shards is a link that leads nowhere or back to itself, the master is not
            a file, or an argument is not valid.
        StoreWatchedError: a watcher merges the store's rows.
        WatcherStalledError: a watcher has the store for itself, and merges nothing.
        MergeInProgressError: another merger works on this master.
        StorageError: the master itself cannot be read or written. What was committed stays.
    """
    began = time.monotonic()
    named = attach.named_sources(sources)
    _ensure_usable(root)
    folders.make_folder(root)
    if not named and not alongside_watcher:
        locks.await_no_watcher(root, lock_wait_s, should_stop, cache(lambda: preview(root).rows > 0))
        lock_wait_s = lock_wait_s if lock_wait_s < 0 else max(0.0, lock_wait_s - (time.monotonic() - began))
    held = locks.merge_lock(root, lock_wait_s, should_stop)
    if held is None:
        return MergeReport(stopped=True)
    try:
        merger = Merger(root, keep_empty=keep_empty, should_stop=should_stop, prune=prune)
        report = merger.run(named, progress=progress)
        merger.close()
    finally:
        held.release()
    report = attrs.evolve(report, seconds=time.monotonic() - began)
    if prune and not report.stopped:
        from edgeshard.retention import scheduler  # slow to import, and needed only if there are rules

        merge_lock = partial(locks.merge_lock_held, root, sqlite.BUSY_TIMEOUT_S)
        result = scheduler.prune_once(paths.master(root), prune, merge_lock=merge_lock, should_stop=should_stop)
        report = result.add_to_report(report)
    return report


def _ensure_usable(root: Path) -> None:
    """Refuse a store whose parts are not where they should be, before anything is created in it.

    Raises:
        ConfigurationError: the folder of the shards is a link that leads nowhere or back to itself, or the master is
            not a file.
        DamagedError: the master's file cannot be a database.
    """
    store_folder.resolve_shards(root)
    database.find_master(paths.master(root), "merge into")


def preview(
    root: Path,
    sources: Iterable[str | os.PathLike[str]] = (),
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> MergeReport:
    """Report what a merge would do, and do nothing.

    Args:
        root: the store's folder.
        sources: other databases to merge as well.
        should_stop: called after each shard; once it returns True the report covers those before it.

    Raises:
        ConfigurationError: the folder of the shards is a link that leads nowhere or back to itself.
        StorageError: the master or the folder cannot be read.
    """
    shards = store_folder.resolve_shards(root)
    return dry_run(paths.master(root), shards, attach.named_sources(sources), should_stop)
