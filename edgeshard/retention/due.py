"""Decide when to prune again a store that a merger watches. Pure functions over small values.

A prune that finds nothing to do costs some milliseconds and two fsyncs. So it does not follow each pass of a merge, and
never runs in a store in which nothing happens and no row becomes too old.
"""

from __future__ import annotations

import math

import attrs

from edgeshard.files.fingerprint import State
from edgeshard.reports import PruneReport
from edgeshard.retention.rules import Rules

#: The least time between the end of a prune and the next one, in seconds ...
MIN_INTERVAL_S = 60.0

#: ... if the file has grown beyond the size rule by more than this factor ...
MIN_INTERVAL_OVER_SIZE_S, OVER_SIZE = 10.0, 1.02

#: ... and for rules by age: this fraction of the age, at most an hour.
AGE_FRACTION, MAX_INTERVAL_BY_AGE_S = 0.01, 3_600.0

#: For the rule that forgets streams: a day, as their age is known to the month.
FORGET_INTERVAL_S = 86_400.0

#: After a prune that found only rows to keep, prunes take at most this fraction of the time.
FRUITLESS_FRACTION = 0.01


@attrs.frozen
class MasterState:
    """The master at one moment.

    Attributes:
        at: the time by the monotonic clock, in seconds.
        clock_s: the time by the clock that nobody can set, and that goes on during a suspend, in seconds.
        state: the fingerprint of the master's files.
        file_bytes: the size of the master's file.
    """

    at: float
    clock_s: float
    state: State
    file_bytes: int


@attrs.frozen
class LastRun:
    """How the last prune by a rule ended.

    Attributes:
        at: when it ended, by the monotonic clock.
        report: what it did; None if it failed.
        state: the fingerprint of the master's files after it.
        next_age_s: when the next rows become too old, by the same clock as `MasterState.clock_s`.
    """

    at: float
    report: PruneReport | None = None
    state: State = ()
    next_age_s: float = -math.inf


def is_due(rules: Rules, last: LastRun | None, now: MasterState, slowness: float = 1.0) -> bool:
    """Return whether a prune by these rules may find something to do, and enough time has passed since the last one.

    Args:
        rules: the rules of the prune.
        last: how the last prune by them ended; None if there was none.
        now: the state of the master.
        slowness: the factor by which the usual intervals are lengthened.
    """
    if last is None:
        return True
    elapsed_s = (now.at - last.at) / slowness
    if last.report is None:
        return elapsed_s >= MIN_INTERVAL_S
    if rules.forget_after_s is not None and elapsed_s >= FORGET_INTERVAL_S:
        return True
    if elapsed_s < _rest_s(last.report):
        return False
    return (
        _has_old_rows(rules, last, now, elapsed_s)
        or _is_too_large(rules, last.report, now, elapsed_s)
        or (elapsed_s >= MIN_INTERVAL_S and _depends_on_changes(rules) and now.state != last.state)
    )


def _rest_s(report: PruneReport) -> float:
    return 0.0 if report.rows else report.seconds / FRUITLESS_FRACTION


def _has_old_rows(rules: Rules, last: LastRun, now: MasterState, elapsed_s: float) -> bool:
    if not rules.ages_s:
        return False
    interval_s = max(MIN_INTERVAL_S, min(MAX_INTERVAL_BY_AGE_S, min(rules.ages_s) * AGE_FRACTION))
    return elapsed_s >= interval_s and now.clock_s >= last.next_age_s


def _is_too_large(rules: Rules, report: PruneReport, now: MasterState, elapsed_s: float) -> bool:
    """Return whether the size rule is urgent; never if the last prune could not make the file fit."""
    if rules.max_bytes is None or not report.fits or not report.can_shrink:
        return False
    return elapsed_s >= MIN_INTERVAL_OVER_SIZE_S and now.file_bytes > rules.max_bytes * OVER_SIZE


def _depends_on_changes(rules: Rules) -> bool:
    """Return whether new rows or a new receipt can make a prune due; for rules by age alone, only time can."""
    return rules.keep_rows is not None or rules.max_bytes is not None or rules.peer_kinds is not None
