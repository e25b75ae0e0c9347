"""Prune a master: follow each rule, window by window, give pages back to the disk, and report.

Crash safety of all this: the docstring of `edgeshard.retention`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from edgeshard import sqlite
from edgeshard.budget import reserve, usage
from edgeshard.budget.policy import Budget
from edgeshard.master import arrivals, catalog, database, extents, identity, receipts, store_clock
from edgeshard.master.write_stats import Meter
from edgeshard.reports import PrunableTable, PruneReport
from edgeshard.retention import bookkeeping, by_hand, drop_table, refresh, row_rules, sizes, tombstones
from edgeshard.retention import shrink as shrinking
from edgeshard.retention.deletable import DeletableSeqs
from edgeshard.retention.pace import Pace
from edgeshard.retention.progress import ProgressCallback, PruneProgress
from edgeshard.retention.rules import BUDGET, Rules
from edgeshard.retention.run import MergeLock, PruneRun, StoppedError, held_by_caller
from edgeshard.retention.scope import find_scope
from edgeshard.sqlite import Connection, quote

_R = TypeVar("_R")


class _CallerError(BaseException):
    """An error of a caller's function; it passes by all that explains errors of the database."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _as_callers(function: Callable[..., _R]) -> Callable[..., _R]:
    """Wrap a caller's function, whose ValueError, say, would be taken for damage in the master."""

    def call(*arguments: Any) -> _R:
        try:
            return function(*arguments)
        except Exception as error:
            raise _CallerError(error) from error

    return call


def prune(
    path: Path,
    rules: Rules,
    *,
    shrink: bool = False,
    dry_run: bool = False,
    lock_wait_s: float = sqlite.BUSY_TIMEOUT_S,
    merge_lock: MergeLock = held_by_caller,
    should_stop: Callable[[], bool] = lambda: False,
    progress: ProgressCallback | None = None,
) -> PruneReport:
    """Delete rows of a master by rule.

    Args:
        path: the master.
        rules: which rows to delete.
        shrink: give all free pages back to the disk; without this, only as many as `Rules.max_bytes` requires, or as
            writers lack of the disk budget.
        dry_run: report what would be done, and change nothing.
        lock_wait_s: how long each transaction waits for another process that has the master locked, in seconds; -1
            waits forever.
        merge_lock: keeps mergers out of each transaction that deletes rows; a dry run does not need it.
        should_stop: called after each transaction, and while waiting for a merger; once it returns True, the prune
            ends, and what it committed stays.
        progress: called after each transaction.

    Raises:
        ConfigurationError: there is no such table, or the rules do not apply to it.
        MergeInProgressError: `merge_lock` could not be taken. What was committed stays.
        StorageError: the master cannot be read or written. What was committed stays.
    """
    began, meter = time.monotonic(), Meter()
    should_stop, progress = _as_callers(should_stop), progress and _as_callers(progress)
    budget = None if dry_run else usage.load_budget(path.parent)
    connection = database.open_master(path, writable=not dry_run)
    try:
        with database.translate_errors("prune", path), _space(path.parent, budget):
            sqlite.set_busy_timeout(connection, lock_wait_s)
            wal_pages = None
            if not dry_run:
                # sizes are measured in the database, so nothing of it may still be in the WAL
                sqlite.shrink_wal(connection)
                wal_pages = None if budget is None else shrinking.limit_wal(connection, budget)
                by_hand.settle(connection, path)
            run, tables = _begin(
                connection, path, rules, should_stop, PruneProgress(progress), wal_pages, merge_lock, dry_run
            )
            fits, shrunk_bytes = True, 0
            with meter.running(), contextlib.suppress(StoppedError):
                fits = _follow_rules(run, tables)
                _tidy(run)
                shrunk_bytes = 0 if dry_run else _give_space_back(run, meter, budget, everything=shrink)
            report = _report(run, shrunk_bytes, fits=fits)
    except _CallerError as error:
        raise error.error from None
    finally:
        connection.close()
    if report.rows and not dry_run:
        refresh.run(path.parent)
    return attrs.evolve(report, seconds=time.monotonic() - began)


def _space(root: Path, budget: Budget | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if budget is None else reserve.for_deleting(root, budget)


def _begin(
    connection: Connection,
    path: Path,
    rules: Rules,
    should_stop: Callable[[], bool],
    progress: PruneProgress,
    wal_pages: int | None,
    merge_lock: MergeLock,
    dry_run: bool,
) -> tuple[PruneRun, Sequence[str]]:
    """Return the prune, and the keyed tables whose tombstones it may delete."""
    with sqlite.read_snapshot(connection):
        scope, tombstone_tables = find_scope(connection, path, rules)
        row_bytes = sqlite.used_bytes(connection) / max(1, extents.row_count(connection))
    # without a rule by age, the time does not matter
    clock = store_clock.now(connection) if dry_run or not rules.ages_s else store_clock.observe_if_news(connection)
    pace = Pace(connection, str(path), wal_pages, is_for_budget=rules.size_reason == BUDGET)
    run = PruneRun(
        connection,
        str(path),
        rules,
        scope,
        clock,
        DeletableSeqs(rules),
        pace,
        progress,
        row_bytes,
        dry_run,
        should_stop,
        merge_lock,
    )
    return run, tombstone_tables


def _follow_rules(run: PruneRun, tombstone_tables: Sequence[str]) -> bool:
    """Follow each rule; return whether the master then has the size that the rules allow."""
    if run.rules.drops_table:
        drop_table.drop_table(run)
        return True
    position = row_rules.delete_old_rows(run)
    tombstones.collect(run, tombstone_tables)
    if run.rules.max_bytes is None or run.is_stopping():
        return True
    return row_rules.shrink_to(run, position, run.rules.max_bytes)


def _tidy(run: PruneRun) -> None:
    """Retire streams of which no row is left, and forget the oldest of those that have retired."""
    if not run.dry_run:
        bookkeeping.retire_all(run)
    budget = usage.load_budget(Path(run.path).parent)
    bookkeeping.forget(run, None if budget is None else budget.max_bytes)


def _give_space_back(run: PruneRun, meter: Meter, budget: Budget | None, *, everything: bool) -> int:
    """Give pages back to the disk, and forget when the deleted rows arrived.

    Returns:
        By how many bytes the file shrank.
    """
    connection = run.connection
    before = sizes.file_bytes(connection)
    if sqlite.is_incremental(connection):
        shrinking.give_pages_back(run, budget, everything=everything)
    if run.progress.rows:
        has_more = True
        while has_more:
            with run.transaction():
                has_more = arrivals.forget_before(connection, _oldest_id(connection))
                if not has_more:
                    meter.record(connection, sizes.wal_bytes(run.path))  # only the checkpoint of the WAL follows
    sqlite.shrink_wal(connection)
    return max(0, before - sizes.file_bytes(connection))


def _oldest_id(connection: Connection) -> int:
    sql = "SELECT _id FROM {} ORDER BY _id LIMIT 1"
    ids = [sqlite.scalar(connection, sql.format(quote(name))) for name in catalog.record_tables(connection)]
    return min((row_id for row_id in ids if row_id is not None), default=identity.next_id(connection))


def _report(run: PruneRun, shrunk_bytes: int, *, fits: bool) -> PruneReport:
    connection, progress = run.connection, run.progress
    wal_bytes = sizes.wal_bytes(run.path)
    return PruneReport(
        rows=progress.rows,
        tables=tuple(_prunable(run)),
        by_reason=dict(progress.by_reason),
        kept_back=progress.kept_back,
        tombstones_behind=progress.behind,
        behind=tuple(sorted(progress.hold_reasons.behind)),
        tombstones_unheard=progress.unheard,
        unheard=tuple(sorted(progress.hold_reasons.unheard)),
        awaiting=_awaiting(run),
        retired_streams=progress.retired,
        forgotten_streams=progress.forgotten,
        unconfirmed=progress.unconfirmed,
        used_bytes=sqlite.used_bytes(connection) + wal_bytes,
        file_bytes=sizes.file_bytes(connection),
        wal_bytes=wal_bytes,
        free_bytes=sizes.free_bytes(connection),
        shrunk_bytes=shrunk_bytes,
        can_shrink=sqlite.is_incremental(connection),
        fits=fits,
        dry_run=run.dry_run,
        stopped=run.stopped,
    )


def _prunable(run: PruneRun) -> Iterator[PrunableTable]:
    """Yield what a dry run would delete of each table. The size is the rows' part of that of the table."""
    connection = run.connection
    indexes = sqlite.index_names(connection)
    for name, found in sorted(run.progress.tables.items()):
        rows, freed_bytes = found.rows, found.rows * run.row_bytes
        if sqlite.has_statistics():
            total = sqlite.scalar(connection, f"SELECT count(*) FROM {quote(name)}")
            freed_bytes = sqlite.tree_bytes(connection, [name, *indexes.get(name, ())]) * rows / max(1, total)
        oldest, newest = (arrivals.time_of_row(connection, row_id) for row_id in (found.first_id, found.last_id))
        yield PrunableTable(name, rows, oldest, newest, int(freed_bytes))


def _awaiting(run: PruneRun) -> tuple[str, ...]:
    """Return the ids of databases whose receipts would have counted if somebody had confirmed them."""
    kinds = run.rules.peer_kinds
    if kinds is None or not run.progress.kept_back:
        return ()
    return tuple(sorted(peer.database_id.hex() for peer in receipts.awaiting(run.connection) if peer.kind in kinds))
