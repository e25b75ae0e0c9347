"""Follow a store's own rules after its merges: once, or in a thread next to a merger that watches the store.

A prune works in transactions of some milliseconds, and mergers get in between. In the merger's own thread it would keep
rows pending for as long as it takes, which for the first prune of a large master is minutes. If a prune fails, that is
logged and reported, and does not affect the merge: its rows are in the master.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import scan
from edgeshard.log_fields import fields
from edgeshard.master import arrivals, catalog, database, store_clock
from edgeshard.records import machine_clock
from edgeshard.reports import MergeReport, PruneReport, combine_prunes
from edgeshard.retention import prune
from edgeshard.retention.due import LastRun, MasterState, is_due
from edgeshard.retention.rules import Rules
from edgeshard.retention.run import MergeLock, held_by_caller
from edgeshard.retention.store_rules import Retention

logger = logging.getLogger("edgeshard.prune")

#: How long a transaction waits while another process has the master locked, in seconds; then the prune is postponed.
_LOCK_WAIT_S = 5.0


#: How long to wait for the next prune by age at most while the clock awaits confirmation, in seconds.
_UNCONFIRMED_WAIT_S = 3_600.0


@attrs.frozen
class RetentionResult:
    """What was pruned by a store's rules.

    Attributes:
        report: what was pruned; None if nothing was tried.
        error: why some of it failed, or "".
    """

    report: PruneReport | None = None
    error: str = ""

    def add_to_report(self, report: MergeReport) -> MergeReport:
        """Return the report of a merge, extended by this."""
        reports = [each for each in (report.pruned, self.report) if each is not None]
        errors = [each for each in (report.prune_error, self.error) if each]
        return attrs.evolve(report, pruned=combine_prunes(reports), prune_error="; ".join(errors))


def prune_once(
    path: Path,
    retention: Retention,
    *,
    lock_wait_s: float = sqlite.BUSY_TIMEOUT_S,
    merge_lock: MergeLock = held_by_caller,
    should_stop: Callable[[], bool] = lambda: False,
) -> RetentionResult:
    """Prune a master by each rule of its store; see `prune.prune`."""
    return _combine(
        [_prune(path, rules, lock_wait_s, merge_lock, should_stop) for rules in retention.rules if not should_stop()]
    )


def _prune(
    path: Path, rules: Rules, lock_wait_s: float, merge_lock: MergeLock, should_stop: Callable[[], bool]
) -> RetentionResult:
    try:
        if rules.table is not None and not _has_table(path, rules.table):
            return RetentionResult(PruneReport())  # no row of it has arrived yet
        report = prune.prune(path, rules, lock_wait_s=lock_wait_s, merge_lock=merge_lock, should_stop=should_stop)
    except EdgeshardError as error:
        logger.warning(
            "rows were merged, but old rows could not be pruned: %s",
            error,
            extra=fields(file=path, state="prune failed", error=error),
        )
        return RetentionResult(error=str(error))
    if report.rows or not report.fits:
        logger.log(
            logging.INFO if report.fits else logging.WARNING,
            "%s: %s",
            path,
            report,
            extra=fields(file=path, rows=report.rows, seconds=report.seconds),
        )
    return RetentionResult(report)


def _combine(results: Sequence[RetentionResult]) -> RetentionResult:
    reports = [result.report for result in results if result.report is not None]
    return RetentionResult(combine_prunes(reports), "; ".join(result.error for result in results if result.error))


def _has_table(path: Path, table: str) -> bool:
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("prune", path):
            return table.lower() in {name.lower() for name in catalog.record_tables(connection)}
    finally:
        connection.close()


class PruneScheduler:
    """Prunes a store by its rules while a merger watches it: when it is due, in a thread, one prune at a time.

    Args:
        path: the master.
        retention: the rules.
        merge_lock: keeps mergers out of each transaction that deletes rows.
        slowness: the factor by which the usual interval between two prunes is lengthened.
    """

    def __init__(self, path: Path, retention: Retention, merge_lock: MergeLock, slowness: float = 1.0) -> None:
        self._path = path
        self._merge_lock = merge_lock
        self._slowness = slowness
        self._last_runs: dict[Rules, LastRun | None] = dict.fromkeys(retention.rules)
        self._closing = False
        self._thread: threading.Thread | None = None
        self._results: list[RetentionResult] = []
        self._failure: BaseException | None = None

    def add_to_report(self, report: MergeReport) -> MergeReport:
        """Return the report of a merge, extended by what was pruned since the last one; start a prune if one is due.

        Raises:
            BaseException: the last prune ended with this unexpected error.
        """
        if not self._last_runs or self.is_running:
            return report
        results, self._results = self._results, []
        self._raise_failure()
        self._start_if_due()
        return _combine(results).add_to_report(report) if results else report

    @property
    def is_running(self) -> bool:
        """Whether a prune is at work."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the current prune has ended."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """End the current prune after its transaction; the next prune continues.

        Raises:
            BaseException: it ended with this unexpected error.
        """
        self._closing = True
        self.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _start_if_due(self) -> None:
        now = self._measure()
        due = [rules for rules, last in self._last_runs.items() if is_due(rules, last, now, self._slowness)]
        if due and not self._closing:
            self._thread = threading.Thread(target=self._run, args=(due,), name="edgeshard prune", daemon=True)
            self._thread.start()

    def _run(self, due: list[Rules]) -> None:
        try:
            for rules in due:
                if not self._closing:
                    result = _prune(self._path, rules, _LOCK_WAIT_S, self._merge_lock, lambda: self._closing)
                    self._results.append(result)
                    self._last_runs[rules] = self._last_run(rules, result)
        except BaseException as error:
            logger.error(
                "a prune ended with an unexpected error: %r", error, extra=fields(file=self._path, error=error)
            )
            self._failure = error

    def _last_run(self, rules: Rules, result: RetentionResult) -> LastRun:
        if result.report is None:
            return LastRun(time.monotonic())
        try:
            next_age_s = min((_next_age_s(self._path, age_s) for age_s in rules.ages_s), default=0.0)
        except EdgeshardError as error:
            logger.warning(
                "cannot find out when rows of %s become too old: %s",
                self._path,
                error,
                extra=fields(file=self._path, error=error),
            )
            return LastRun(time.monotonic())
        now = self._measure()
        return LastRun(now.at, result.report, now.state, next_age_s)

    def _measure(self) -> MasterState:
        file = scan.find_database(str(self._path))
        state = () if file is None else file.state
        clock_s = machine_clock.boottime_s()
        return MasterState(time.monotonic(), clock_s, state, 0 if file is None else file.file_bytes)


def _next_age_s(path: Path, older_than_s: float) -> float:
    """Return when the next rows become too old, in seconds by the clock that nobody can set.

    While a jump of the wall clock waits for confirmation, that is at most an hour from now: somebody may confirm it.
    """
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("prune", path), sqlite.read_snapshot(connection):
            clock = store_clock.now(connection)
            arrived_s = arrivals.oldest_since(connection, clock.trusted_s - older_than_s)
    finally:
        connection.close()
    wait_s = (0.0 if arrived_s is None else arrived_s - clock.trusted_s) + older_than_s + arrivals.RESOLUTION_S
    return clock.boottime_s + (min(wait_s, _UNCONFIRMED_WAIT_S) if clock.jumps else wait_s)
