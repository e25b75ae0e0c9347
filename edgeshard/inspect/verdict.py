"""Judge a store by its status report: find the problems, of which the verdict follows.

    red       needs attention now: rows are missing, damaged, quarantined or blocked, were deleted by hand, or cannot be
              written; or are pending while the watcher is stalled; or deletions wait for the clock to be confirmed
    yellow    needs attention soon, or may: rows are pending and no merger is at work, or pending for too long; shards
              cannot be read by whoever asks; the disk
              budget is nearly used up; a clock is doubtful; a receipt does not count yet; PostgreSQL rejected rows
    green     all rows are merged, or have been pending only briefly and a merger is alive

A merger is alive if one watches the store, or if a merge brought rows within `MERGER_RECENT_S`: a cron job that merges
every few minutes is a merger, too. A merge that finds nothing to do leaves no trace, so a store without pending rows is
green without any sign of a merger: nothing is there to be merged. So is a store without rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeshard import units
from edgeshard.reports import BudgetStatus, Level, Problem, StatusReport

#: A merge within so many seconds shows that a merger is alive, even if none watches.
MERGER_RECENT_S: Final = 900.0

#: Rows may be pending for so many seconds while a merger is alive. An age that is only an upper bound does not count.
PENDING_MAX_S: Final = 900.0

#: The part of the disk budget that may be in use.
BUDGET_HIGH: Final = 0.8

#: How far this machine's clock may go ahead of the trusted time, in seconds: more than a night.
CLOCK_AHEAD_MAX_S: Final = 86_400.0

#: Gaps that one line names.
_GAPS_MAX: Final = 3


def find_problems(report: StatusReport) -> tuple[Problem, ...]:
    """Return what needs attention, red before yellow. The problems that the report has already do not matter."""
    found = (
        *_of_master(report),
        *_of_shards(report),
        *_of_permissions(report),
        *_of_budget(report),
        *_of_clocks(report),
        *_of_merger(report),
        *_of_receipts(report),
        *_of_pushes(report),
    )
    return tuple(sorted(found, key=lambda problem: problem.level != "red"))


def _of_master(report: StatusReport) -> Iterator[Problem]:
    master = report.master
    if master.damage:
        text = f"the master is damaged, and gets no more rows: {master.damage}"
        yield Problem("damaged-master", "red", text)
    if master.gaps:
        agents = sorted({gap.agent for gap in report.gaps})
        rows = f"{units.count(master.missing_rows, 'row')} missing in {units.count(master.gaps, 'gap')}"
        gaps = "; ".join(map(str, report.gaps[:_GAPS_MAX])) + ("; and more" if len(report.gaps) > _GAPS_MAX else "")
        yield Problem("missing", "red", f"{rows}: {gaps}", agent=agents[0] if len(agents) == 1 else "")
    if report.unnamed:
        yield Problem("missing-unnamed", "red", report.unnamed)
    if report.states.by_hand:
        rows = units.count(report.states.by_hand, "row")
        yield Problem("deleted-by-hand", "red", f"{rows} of the master deleted by hand, with another program")


def _of_shards(report: StatusReport) -> Iterator[Problem]:
    for shard in report.shards:
        if shard.reason and not shard.denied_to:
            text = f"shard {shard.name} is quarantined: {shard.reason}"
            yield Problem("quarantined", "red", text, shard=shard.name, agent=shard.agent or "")
    for shard in report.shards:
        for each in shard.blocked:
            text = f"{units.count(each.rows, 'row')} of table {each.table} blocked in shard {shard.name}: {each.reason}"
            yield Problem("blocked", "red", text, shard=shard.name, agent=shard.agent or "", table=each.table)


def _of_permissions(report: StatusReport) -> Iterator[Problem]:
    """Find shards that somebody may not read. That says nothing of the shards, unless it is the merger."""
    for shard in report.shards:
        if shard.denied_to == "merger":
            text = f"the merger has no permission for shard {shard.name}: {shard.reason}"
            yield Problem("unreadable", "red", text, shard=shard.name, agent=shard.agent or "")
    denied = [shard for shard in report.shards if shard.denied_to == "user"]
    if denied:
        first = denied[0]
        shards = f"shard {first.name}" if len(denied) == 1 else f"{len(denied):,} shards"
        text = f"{shards} cannot be read by this user, so pending rows there are not counted: {first.reason}"
        yield Problem("unreadable", "yellow", text, shard=first.name, agent=first.agent or "")


def _of_budget(report: StatusReport) -> Iterator[Problem]:
    budget = report.budget
    if budget is None:
        return
    left = f"{units.size(max(0, budget.left_bytes))} left for writers"
    used = f"{units.size(budget.used_bytes)} of {units.size(budget.limit_bytes)} used, {left}"
    if budget.is_full:
        yield Problem("budget-full", "red", f"the disk budget is full: {used}")
    elif _is_high(budget):
        yield Problem("budget-high", "yellow", f"the disk budget is nearly used up: {used}")


def _is_high(budget: BudgetStatus) -> bool:
    """Return whether a budget is nearly used up. One that drops the oldest rows is meant to be."""
    is_high = budget.is_nearly_full or budget.used_bytes > BUDGET_HIGH * budget.limit_bytes
    return budget.on_full == "error" and is_high


def _of_clocks(report: StatusReport) -> Iterator[Problem]:
    clock = report.clock
    if clock is not None and clock.awaits_confirmation:
        yield Problem("clock-unconfirmed", "red", str(clock))
    elif clock is not None and clock.ahead_s > CLOCK_AHEAD_MAX_S:
        yield Problem("clock-doubtful", "yellow", str(clock))
    for item in report.master.clocks_ahead:
        text = (
            f"agent {item.agent!r} has changes of table {item.table} with timestamps {units.duration(item.ahead_s)} "
            "ahead, which win over other changes of the same keys until then"
        )
        yield Problem("agent-clock-ahead", "yellow", text, agent=item.agent, table=item.table)


def _of_merger(report: StatusReport) -> Iterator[Problem]:
    watcher = report.watcher
    if watcher is not None and watcher.is_stalled:
        # what another merger does meanwhile does not show that this one goes on
        level: Level = "red" if report.pending_rows else "yellow"
        yield Problem("watcher-stalled", level, f"{watcher}; {report.pending}")
        return
    merge = report.merge
    if merge is not None and report.pending_rows and merge.is_stalled:
        yield Problem("merge-stalled", "red", f"{merge}; {report.pending}")
        return
    is_recent = report.merged_s_ago is not None and report.merged_s_ago <= MERGER_RECENT_S
    if report.watching is False and merge is None and not is_recent:
        if report.pending_rows:
            yield Problem("no-merger", "yellow", f"{report.pending}; {report.merger}")
        return
    # rows that cannot be merged are a problem of their own
    ages = {
        shard.name: shard.oldest_age_s
        for shard in report.shards
        if shard.oldest_age_s is not None and not shard.oldest_is_bound and not shard.blocked and not shard.reason
    }
    late = {name: age_s for name, age_s in ages.items() if age_s > PENDING_MAX_S}
    if late:
        oldest = max(late, key=lambda name: late[name])
        shards = units.count(len(late), "shard")
        text = f"rows of {shards} pending for too long, the oldest in {oldest} for {units.duration(late[oldest])}"
        yield Problem("pending", "yellow", f"{text}; {report.merger}", shard=oldest)


def _of_receipts(report: StatusReport) -> Iterator[Problem]:
    for peer in report.peers:
        if peer.trusted_at is None:
            text = f"the receipt of {peer.kind} database {peer.database} does not count: that database is not confirmed"
            yield Problem("receipt-unconfirmed", "yellow", text, database=peer.database)


def _of_pushes(report: StatusReport) -> Iterator[Problem]:
    if report.rejected_rows:
        text = f"{units.count(report.rejected_rows, 'row')} rejected by PostgreSQL: they are here, and not there"
        yield Problem("rejected", "yellow", text)
