"""Make an empty store, for merges and readers that run before the first agent, and for hubs that have no agents.

1. Make the folder, with those above it, and the lock file of mergers in it; take that lock.
2. Make the folder of the shards. *This makes the folder a store.*
3. Make the master, complete or not at all.

If it is killed before 2, the folder is not a store, and the next attempt continues; later, the store is complete with
the first merge.
"""

from __future__ import annotations

from pathlib import Path

from edgeshard.files import folders, paths, store_folder
from edgeshard.master import database
from edgeshard.merge import locks
from edgeshard.reports import InitReport


def make_master(root: Path, lock_wait_s: float) -> None:
    """Make the master of a store unless it has one, while no merger does so.

    Args:
        root: the store's folder.
        lock_wait_s: how long to wait for another process at work on it, in seconds; -1 waits forever.

    Raises:
        ConfigurationError, DamagedError: it has something else in its place.
        MergeInProgressError: another process was at work for all that time.
        StorageError: it cannot be made.
    """
    path = paths.master(root)
    if database.find_master(path, "make master") is None:
        with locks.merge_lock_held(root, lock_wait_s, lambda: False):
            database.ensure_master(path)


def init_store(root: Path, given: Path, *, dry_run: bool, lock_wait_s: float) -> InitReport:
    """Make a store unless it exists; see `Store.init`.

    Args:
        root: its folder, with symbolic links resolved.
        given: the same path as the user gave it, absolute.
        dry_run: only report.
        lock_wait_s: how long to wait for another process at work on it, in seconds; -1 waits forever.
    """
    if store_folder.is_store(root):
        return InitReport(str(root), created=False, dry_run=dry_run)
    store_folder.ensure_can_become_store(root, given)
    if dry_run:
        return InitReport(str(root), created=True, dry_run=True)
    folders.make_folder(root)
    with locks.merge_lock_held(root, lock_wait_s, lambda: False):
        created = not store_folder.is_store(root)  # another process may have been faster
        if created:
            folders.make_folder(paths.shards(root), root)
            database.ensure_master(paths.master(root))
    return InitReport(str(root), created=created)
