"""A store's own rules, followed after its merges: once, or beside a merger that watches, in a thread of its own.

A prune works in steps of some milliseconds and lets mergers in between them; in the merger's own thread it would keep
rows waiting for as long as it takes, which for the first prune of a large master is minutes. What goes wrong with it is
logged and reported, and takes nothing from the merge: its rows are in the master.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import scan
from edgeshard.master import arrivals, catalog, database
from edgeshard.reports import MergeReport, PruneReport, combine_prunes
from edgeshard.retention import prune
from edgeshard.retention.due import Look, Past, is_due
from edgeshard.retention.rules import Rules
from edgeshard.retention.store_rules import Retention

logger = logging.getLogger("edgeshard.prune")

#: How long a step waits for whoever holds the master locked before the prune is left for later, in seconds.
_LOCK_WAIT_S = 5.0


@attrs.frozen
class Kept:
    """What was done for a store's rules.

    Attributes:
        report: what was pruned; None where nothing was tried.
        problem: why some of it failed, or "".
    """

    report: PruneReport | None = None
    problem: str = ""

    def told(self, report: MergeReport) -> MergeReport:
        """The report of a merge, with this."""
        reports = [each for each in (report.pruned, self.report) if each is not None]
        problems = [each for each in (report.prune_error, self.problem) if each]
        return attrs.evolve(report, pruned=combine_prunes(reports), prune_error="; ".join(problems))


def keep(
    path: Path,
    retention: Retention,
    *,
    lock_wait_s: float = sqlite.BUSY_TIMEOUT_S,
    should_stop: Callable[[], bool] = lambda: False,
) -> Kept:
    """Prune a master by each rule, once."""
    done = [_follow(path, rules, lock_wait_s, should_stop) for rules in retention.rules if not should_stop()]
    return _summed(done)


def _follow(path: Path, rules: Rules, lock_wait_s: float, should_stop: Callable[[], bool]) -> Kept:
    try:
        if rules.table is not None and not _has_table(path, rules.table):
            return Kept(PruneReport())  # no row of it has come yet
        report = prune.prune(path, rules, lock_wait_s=lock_wait_s, should_stop=should_stop)
    except EdgeshardError as error:
        logger.warning("what was merged stays so, but old rows could not be pruned: %s", error)
        return Kept(problem=str(error))
    if report.rows or not report.fits:
        logger.log(logging.INFO if report.fits else logging.WARNING, "%s: %s", path, report)
    return Kept(report)


def _summed(done: list[Kept]) -> Kept:
    reports = [kept.report for kept in done if kept.report is not None]
    return Kept(combine_prunes(reports), "; ".join(kept.problem for kept in done if kept.problem))


def _has_table(path: Path, table: str) -> bool:
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("prune", path):
            return table.lower() in {name.lower() for name in catalog.record_tables(connection)}
    finally:
        connection.close()


class Keeper:
    """Follows a store's rules while a merger watches it: now and then, in a thread, one prune at a time.

    Args:
        path: the master.
        retention: the rules.
        slowness: by how much longer than usual to wait between two prunes.
    """

    def __init__(self, path: Path, retention: Retention, slowness: float = 1.0) -> None:
        self._path = path
        self._slowness = slowness
        self._pasts: dict[Rules, Past | None] = dict.fromkeys(retention.rules)
        self._closing = False
        self._thread: threading.Thread | None = None
        self._done: list[Kept] = []
        self._failure: BaseException | None = None

    def told(self, report: MergeReport) -> MergeReport:
        """The report of a pass, with what was pruned since the last one; a prune that is due begins.

        Raises:
            BaseException: what a prune ended with, where that was something that nobody foresaw.
        """
        if not self._pasts or self.is_at_work:
            return report
        done, self._done = self._done, []
        self._raise_failure()
        self._begin()
        return _summed(done).told(report) if done else report

    @property
    def is_at_work(self) -> bool:
        """Whether a prune goes on."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the prune that goes on is done."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """End a prune that goes on after its step; the next one goes on.

        Raises:
            BaseException: what it ended with, where that was something that nobody foresaw.
        """
        self._closing = True
        self.wait()
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _begin(self) -> None:
        look = self._look()
        due = [rules for rules, past in self._pasts.items() if is_due(rules, past, look, self._slowness)]
        if due and not self._closing:
            self._thread = threading.Thread(target=self._run, args=(due,), name="edgeshard prune", daemon=True)
            self._thread.start()

    def _run(self, due: list[Rules]) -> None:
        try:
            for rules in due:
                if not self._closing:
                    kept = _follow(self._path, rules, _LOCK_WAIT_S, lambda: self._closing)
                    self._done.append(kept)
                    self._pasts[rules] = self._past(rules, kept)
        except BaseException as error:
            logger.error("a prune ended: %r", error)
            self._failure = error

    def _past(self, rules: Rules, kept: Kept) -> Past:
        if kept.report is None:
            return Past(time.monotonic())
        try:
            next_age_s = min((_next_age_s(self._path, age_s) for age_s in rules.ages_s), default=0.0)
        except EdgeshardError as error:
            logger.warning("when rows of %s become too old is unknown: %s", self._path, error)
            return Past(time.monotonic())
        look = self._look()
        return Past(look.at, kept.report, look.state, next_age_s)

    def _look(self) -> Look:
        file = scan.find_database(str(self._path))
        state = () if file is None else file.state
        return Look(time.monotonic(), time.time(), state, 0 if file is None else file.file_bytes)


def _next_age_s(path: Path, older_than_s: float) -> float:
    """When the next rows become too old, in seconds since 1970."""
    now_s = time.time()
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("prune", path):
            came_s = arrivals.oldest_since(connection, now_s - older_than_s)
    finally:
        connection.close()
    return (now_s if came_s is None else came_s) + older_than_s + arrivals.RESOLUTION_S
