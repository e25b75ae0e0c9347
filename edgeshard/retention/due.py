"""When a merger that watches a store should prune it again. Pure functions over small values.

A prune that finds nothing to do costs some milliseconds and two fsyncs: it is not made after each pass, and never for
a store in which nothing happens and nothing becomes too old.
"""

from __future__ import annotations

import math

import attrs

from edgeshard.files.fingerprint import State
from edgeshard.reports import PruneReport
from edgeshard.retention.rules import Rules

#: Between the end of a prune and the next, in seconds, at the least, ...
LEAST_S = 60.0

#: ... and where the file has grown past its size by more than a part of it meanwhile, ...
LEAST_OVER_SIZE_S, OVER_SIZE = 10.0, 1.02

#: ... and by age: a hundredth of that, and an hour at the most.
AGE_PART, AGE_MOST_S = 0.01, 3_600.0

#: Where a prune finds only rows that it must keep back, looking for others takes no more than this part of the time.
IN_VAIN_PART = 0.01


@attrs.frozen
class Look:
    """How things stand.

    Attributes:
        at: the time, in seconds that only grow (monotonic).
        clock_s: the time, in seconds since 1970, which may be set back.
        state: which state the master's files are in.
        file_bytes: the size of the master's file.
    """

    at: float
    clock_s: float
    state: State
    file_bytes: int


@attrs.frozen
class Past:
    """How the last prune by a rule left things.

    Attributes:
        at: when it ended (monotonic).
        report: what it did; None where it failed.
        state: in which state it left the master's files.
        next_age_s: when the next rows become too old, in seconds since 1970.
    """

    at: float
    report: PruneReport | None = None
    state: State = ()
    next_age_s: float = -math.inf


def is_due(rules: Rules, past: Past | None, look: Look, slowness: float = 1.0) -> bool:
    """Whether a prune by `rules` may find something to do, and it is time for it.

    Args:
        rules: what it would follow.
        past: how the last one left things.
        look: how they stand.
        slowness: by how much longer than usual to wait.
    """
    if past is None:
        return True
    waited_s = (look.at - past.at) / slowness
    if past.report is None:
        return waited_s >= LEAST_S
    if waited_s < _rest_s(past.report):
        return False
    return (
        _is_too_old(rules, past, look, waited_s)
        or _is_too_large(rules, past.report, look, waited_s)
        or (waited_s >= LEAST_S and _heeds_changes(rules) and look.state != past.state)
    )


def _rest_s(report: PruneReport) -> float:
    return 0.0 if report.rows else report.seconds / IN_VAIN_PART


def _is_too_old(rules: Rules, past: Past, look: Look, waited_s: float) -> bool:
    if not rules.ages_s:
        return False
    wait_s = max(LEAST_S, min(AGE_MOST_S, min(rules.ages_s) * AGE_PART))
    return waited_s >= wait_s and look.clock_s >= past.next_age_s


def _is_too_large(rules: Rules, report: PruneReport, look: Look, waited_s: float) -> bool:
    """Whether it cannot wait; not where the last prune was of no help."""
    if rules.max_bytes is None or not report.fits or not report.can_shrink:
        return False
    return waited_s >= LEAST_OVER_SIZE_S and look.file_bytes > rules.max_bytes * OVER_SIZE


def _heeds_changes(rules: Rules) -> bool:
    """Whether new rows, or a new receipt, can be a reason; by age alone only time is one."""
    return rules.keep_rows is not None or rules.max_bytes is not None or rules.kinds is not None
