"""Follow the rules for rows: by age, by count, and by size. Each deletes the oldest rows that may be deleted."""

from __future__ import annotations

from typing import Final

from edgeshard import sqlite
from edgeshard.master import extents, identity
from edgeshard.retention import id_bounds, rules, sizes, window
from edgeshard.retention.run import PruneRun

#: The fewest rows of a transaction when a size has nearly been reached: no more than necessary are deleted.
_MIN_ROWS_NEAR_SIZE: Final = 10


def delete_old_rows(run: PruneRun) -> int:
    """Delete the rows that are too old by the trusted time, and then those that are too many.

    Returns:
        The id from which on rows are left that a later rule may delete.
    """
    position = 1
    if run.rules.older_than_s is not None:
        with sqlite.read_snapshot(run.connection):
            bound = id_bounds.bound_by_age(run.connection, run.clock.trusted_s - run.rules.older_than_s)
            run.progress.unconfirmed = id_bounds.rows_unconfirmed(run.connection, run.clock, run.rules.older_than_s)
        position = _delete_below(run, rules.OLDER_THAN, position, bound)
    if run.rules.keep_rows is not None:
        with sqlite.read_snapshot(run.connection):
            bound = id_bounds.bound_by_count(run.connection, run.scope, run.rules.keep_rows)
        position = _delete_below(run, rules.KEEP_ROWS, position, bound)
    return position


def shrink_to(run: PruneRun, position: int, max_bytes: int) -> bool:
    """Delete the oldest rows from `position` on until the master and its WAL are no larger than `max_bytes`.

    Returns:
        Whether they are.
    """
    # a WAL that a long read keeps from being emptied must not be a reason to delete everything
    target = max(max_bytes - sizes.wal_bytes(run.path), max_bytes // 2)

    def excess_bytes() -> int:
        freed = run.progress.rows * run.row_bytes if run.dry_run else 0
        return int(sqlite.used_bytes(run.connection) - freed) - target

    def is_enough() -> bool:
        excess = excess_bytes()
        excess_rows = int(excess / max(1.0, run.row_bytes))
        run.pace.window_rows = min(run.pace.window_rows, max(_MIN_ROWS_NEAR_SIZE, excess_rows))
        return excess <= 0

    if run.progress.callback is not None and excess_bytes() > 0:
        run.progress.expected_rows = run.progress.rows + int(excess_bytes() / max(1.0, run.row_bytes))
    bound = identity.next_id(run.connection)
    window.prune_windows(run, run.scope, run.rules.size_reason, position, bound, window.AllRows(), is_enough)
    return excess_bytes() <= 0


def _delete_below(run: PruneRun, reason: str, position: int, bound: int) -> int:
    if run.progress.callback is not None:
        expected = extents.row_count_below(run.connection, bound)
        run.progress.expected_rows = max(run.progress.expected_rows, expected)
    return window.prune_windows(run, run.scope, reason, position, bound, window.AllRows())
