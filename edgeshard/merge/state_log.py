"""Log what changes in a store as it is merged: each thing once when it begins, and once when it ends.

A pass finds the same quarantined shards and the same gaps as the pass before it. Only what differs from the last pass
is logged, so that a service can run for months and its log shows what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import attrs

from edgeshard.errors import printable
from edgeshard.log_fields import fields
from edgeshard.reports import Blocked, ClockReport, Gap, Quarantined

logger = logging.getLogger("edgeshard.merge")


class StateLog:
    """What was logged of a store, and has not ended since.

    Args:
        root: the store's folder.
        path: its master.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._quarantined: dict[str, str] = {}  # the reason, by path
        self._blocked: set[Blocked] = set()
        self._gaps: set[Gap] = set()
        self._is_budget_full = False
        self._is_clock_in_doubt = False

    def note_databases(self, quarantined: Iterable[Quarantined], blocked: Iterable[Blocked]) -> None:
        """Log each database that is quarantined or recovers, and each table whose rows are blocked or no longer are."""
        found = {each.path: each for each in quarantined}
        reasons = {path: each.reason for path, each in found.items()}
        # whose rows may grow with each pass
        conflicts = {attrs.evolve(each, rows=0) for each in blocked}
        for each in sorted(conflicts - self._blocked, key=attrs.astuple):
            extra = fields(store=self._root, shard=each.path, table=each.table, state="blocked")
            text = "rows of table %s in %s are blocked: %s"
            logger.warning(text, each.table, printable(each.path), printable(each.reason), extra=extra)
        for path, reason in reasons.items():
            if self._quarantined.get(path) != reason:
                is_denied = found[path].is_denied
                extra = fields(store=self._root, shard=path, state="unreadable" if is_denied else "quarantined")
                what = "no permission for" if is_denied else "quarantined"
                logger.warning("%s %s: %s", what, printable(path), printable(reason), extra=extra)
        for path in self._quarantined.keys() - reasons.keys():
            extra = fields(store=self._root, shard=path, state="recovered")
            logger.warning("%s is no longer quarantined", printable(path), extra=extra)
        still_blocked = {(each.path, each.table) for each in conflicts}
        for path, table in sorted({(each.path, each.table) for each in self._blocked} - still_blocked):
            extra = fields(store=self._root, shard=path, table=table, state="unblocked")
            logger.warning("rows of table %s in %s are no longer blocked", table, printable(path), extra=extra)
        self._quarantined, self._blocked = reasons, conflicts

    def note_gaps(self, gaps: Iterable[Gap]) -> None:
        """Log each gap, and that there are none any more."""
        found = set(gaps)
        for gap in sorted(found - self._gaps, key=attrs.astuple):
            extra = fields(store=self._root, agent=gap.agent, rows=len(gap), state="missing")
            text = "%s is missing rows %d to %d of stream %s of agent %r"
            logger.warning(text, self._path, gap.first, gap.last, gap.stream, gap.agent, extra=extra)
        if self._gaps and not found:
            extra = fields(store=self._root, state="none missing")
            logger.warning("%s is no longer missing any rows", self._path, extra=extra)
        self._gaps = found

    def note_budget(self, why_full: str) -> None:
        """Log that the disk budget is full, so that writers are refused, or that it no longer is.

        Args:
            why_full: what uses it, in words; "" if it is not full.
        """
        if why_full and not self._is_budget_full:
            text = "the disk budget of %s is full, writers are refused: %s"
            logger.warning(text, self._root, why_full, extra=fields(store=self._root, state="budget full"))
        elif self._is_budget_full and not why_full:
            text = "the disk budget of %s is no longer full"
            logger.warning(text, self._root, extra=fields(store=self._root, state="budget free"))
        self._is_budget_full = bool(why_full)

    def note_clock(self, clock: ClockReport) -> None:
        """Log that deletions wait for the clock to be confirmed, or that they no longer do."""
        is_in_doubt = not clock.complete
        if is_in_doubt and not self._is_clock_in_doubt:
            logger.warning("%s: %s", self._root, clock, extra=fields(store=self._root, state="clock in doubt"))
        elif self._is_clock_in_doubt and not is_in_doubt:
            text = "%s: the clock no longer awaits confirmation"
            logger.warning(text, self._root, extra=fields(store=self._root, state="clock trusted"))
        self._is_clock_in_doubt = is_in_doubt
