"""Status reports with their problems, made without a store: one for each kind of problem."""

from __future__ import annotations

import datetime
from typing import Any

import attrs

from edgeshard.inspect import verdict
from edgeshard.reports import (
    Blocked,
    BudgetStatus,
    ClockAhead,
    ClockReport,
    Gap,
    Level,
    MasterStatus,
    MergeStatus,
    PeerStatus,
    ProblemKind,
    RowStates,
    ShardStatus,
    StatusReport,
    WatcherStatus,
)

AT = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


def ago(seconds: float) -> datetime.datetime:
    return AT - datetime.timedelta(seconds=seconds)


def shard(**changes: Any) -> ShardStatus:
    plain = ShardStatus("pump.db", "pump", True, 0, None, False, 4096, ago(5), "")
    return attrs.evolve(plain, **changes)


def waiting(age_s: float, **changes: Any) -> ShardStatus:
    return shard(pending_rows=3, oldest_age_s=age_s, **changes)


def judged(
    *shards: ShardStatus,
    watching: bool | None = True,
    merged_s_ago: float | None = 5.0,
    states: RowStates | None = None,
    master: dict[str, Any] | None = None,
    **changes: Any,
) -> StatusReport:
    """A report with its problems."""
    pending = sum(each.pending_rows or 0 for each in shards)
    merged_at = None if merged_s_ago is None else ago(merged_s_ago)
    found = StatusReport(
        AT,
        watching,
        MasterStatus("data/master.db", exists=True, merged_at=merged_at, **(master or {})),
        shards,
        states=states or RowStates(present=9, pending=pending),
        **changes,
    )
    return attrs.evolve(found, problems=verdict.find_problems(found))


def budget(used: int, *, on_full: str = "error", left: int = 1_000_000) -> BudgetStatus:
    return BudgetStatus(10_000_000, on_full, 10_000_000, used, 0, left_bytes=left, is_full=left <= 0)


STOPPED = WatcherStatus(4711, AT, 5.0, 30.0, is_stopped=True, is_stuck=False)

PEER = PeerStatus("aa" * 16, "edgeshard", AT, AT)

#: One report for each kind of problem, and how bad it is.
PROBLEMS: dict[ProblemKind, tuple[Level, StatusReport]] = {
    "damaged-master": ("red", judged(master={"damage": "SQLite finds: page 3"})),
    "quarantined": ("red", judged(shard(reason="it is not a SQLite database", pending_rows=None))),
    "unreadable": ("yellow", judged(shard(reason="permission denied", denied_to="user", pending_rows=None))),
    "missing": ("red", judged(master={"gaps": 1, "missing_rows": 2}, gaps=(Gap("pump", "ab", 1, 2),))),
    "missing-unnamed": ("red", judged(unnamed="rows may be missing")),
    "deleted-by-hand": ("red", judged(states=RowStates(present=9, by_hand=1))),
    "blocked": ("red", judged(waiting(5, blocked=(Blocked("pump.db", "reading", 3, "it has another type"),)))),
    "budget-full": ("red", judged(budget=budget(9_900_000, left=0))),
    "clock-unconfirmed": ("red", judged(clock=ClockReport(AT, AT, 9e6, 3, 9e5, awaits_confirmation=True))),
    "watcher-stalled": ("red", judged(waiting(1), watching=False, watcher=STOPPED)),
    "merge-stalled": ("red", judged(waiting(1), watching=False, merge=MergeStatus(4711, False, 301.0))),
    "no-merger": ("yellow", judged(waiting(1), watching=False, merged_s_ago=901)),
    "pending": ("yellow", judged(waiting(901))),
    "budget-high": ("yellow", judged(budget=budget(8_000_001))),
    "clock-doubtful": ("yellow", judged(clock=ClockReport(AT, AT, 86_401.0))),
    "agent-clock-ahead": ("yellow", judged(master={"clocks_ahead": (ClockAhead("pump", "last", 9e5),)})),
    "rejected": ("yellow", judged(rejected_rows=3)),
    "receipt-unconfirmed": ("yellow", judged(peers=(PEER, attrs.evolve(PEER, trusted_at=None)))),
}
