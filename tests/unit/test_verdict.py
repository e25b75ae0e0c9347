"""The verdict on a store: which reports are green, yellow and red, and what to do about each problem."""

from __future__ import annotations

import datetime
import shlex
import typing
from pathlib import Path
from typing import Any

import attrs
import pytest

from edgeshard import cli
from edgeshard.cli import next_steps
from edgeshard.inspect import verdict
from edgeshard.reports import (
    Blocked,
    BudgetStatus,
    ClockAhead,
    ClockReport,
    Gap,
    Level,
    MasterStatus,
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


#: What a user may put in the place of words in capitals.
VALUES = {"AGE": "30d", "SIZE": "2G"}

STOPPED = WatcherStatus(4711, AT, 5.0, 30.0, is_stopped=True, is_stuck=False)

PEER = PeerStatus("aa" * 16, "edgeshard", AT, AT)

#: One report for each kind of problem, and how bad it is.
PROBLEMS: dict[ProblemKind, tuple[Level, StatusReport]] = {
    "damaged-master": ("red", judged(master={"damage": "SQLite finds: page 3"})),
    "quarantined": ("red", judged(shard(reason="it is not a SQLite database", pending_rows=None))),
    "missing": ("red", judged(master={"gaps": 1, "missing_rows": 2}, gaps=(Gap("pump", "ab", 1, 2),))),
    "missing-unnamed": ("red", judged(unnamed="rows may be missing")),
    "deleted-by-hand": ("red", judged(states=RowStates(present=9, by_hand=1))),
    "blocked": ("red", judged(waiting(5, blocked=(Blocked("pump.db", "reading", 3, "it has another type"),)))),
    "budget-full": ("red", judged(budget=budget(9_900_000, left=0))),
    "clock-unconfirmed": ("red", judged(clock=ClockReport(AT, AT, 9e6, 3, 9e5, awaits_confirmation=True))),
    "watcher-stalled": ("red", judged(waiting(1), watching=False, watcher=STOPPED)),
    "no-merger": ("yellow", judged(waiting(1), watching=False, merged_s_ago=901)),
    "pending": ("yellow", judged(waiting(901))),
    "budget-high": ("yellow", judged(budget=budget(8_000_001))),
    "clock-doubtful": ("yellow", judged(clock=ClockReport(AT, AT, 86_401.0))),
    "agent-clock-ahead": ("yellow", judged(master={"clocks_ahead": (ClockAhead("pump", "last", 9e5),)})),
    "receipt-unconfirmed": ("yellow", judged(peers=(PEER, attrs.evolve(PEER, trusted_at=None)))),
}


def test_each_kind_of_problem_has_a_report() -> None:
    assert set(typing.get_args(ProblemKind)) == set(PROBLEMS)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_decides_the_verdict_and_only_red_is_incomplete(kind: ProblemKind) -> None:
    level, report = PROBLEMS[kind]
    assert [(kind, level)] == [(problem.kind, problem.level) for problem in report.problems]
    assert (level, level != "red") == (report.verdict, report.complete)
    assert report.problems[0].text in str(report)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_each_problem_has_a_command_for_this_store(kind: ProblemKind) -> None:
    _, report = PROBLEMS[kind]
    root = Path("/srv/my data")
    for command in next_steps.next_step(report.problems[0], report, root).commands:
        program, *words = [VALUES.get(word, word) for word in shlex.split(command)]
        assert program in ("edgeshard", "mv", "kill")
        assert program == "kill" or any(word.startswith(str(root)) for word in words)
        if program == "edgeshard":
            assert words[0] == cli.parse(words).verb


@pytest.mark.parametrize(
    ("name", "report"),
    {
        "an empty store": judged(watching=False, merged_s_ago=None, states=RowStates()),
        "all rows merged by a watcher": judged(shard()),
        "all rows merged, a merger nowhere to be seen": judged(shard(alive=False), watching=False, merged_s_ago=9e6),
        "pending briefly, with a watcher that has merged nothing yet": judged(waiting(30), merged_s_ago=None),
        "pending between two merges by cron": judged(waiting(600), watching=False, merged_s_ago=900),
        "an age that is only a bound": judged(waiting(9e6, oldest_is_bound=True)),
        "whether a merger watches is unknown": judged(waiting(600), watching=None, merged_s_ago=None),
        "four fifths of the budget": judged(budget=budget(8_000_000)),
        "a budget that drops the oldest rows": judged(budget=budget(9_000_000, on_full="drop-oldest")),
        "a clock that a night put ahead": judged(clock=ClockReport(AT, AT, 86_400.0)),
        "a confirmed receipt": judged(peers=(PEER,)),
    }.items(),
)
def test_what_is_well_is_green(name: str, report: StatusReport) -> None:
    assert ("green", (), True) == (report.verdict, report.problems, report.complete), name
    assert str(report).startswith("green: all is well")


def test_rows_that_cannot_be_merged_are_not_reported_as_pending_too() -> None:
    blocked = Blocked("pump.db", "reading", 3, "it has another type")
    assert ["blocked"] == [problem.kind for problem in judged(waiting(9e6, blocked=(blocked,))).problems]


def test_a_stalled_watcher_is_yellow_as_long_as_nothing_is_pending() -> None:
    stuck = attrs.evolve(STOPPED, is_stopped=False, is_stuck=True)
    for watcher, command in ((STOPPED, "kill -CONT 4711"), (stuck, "kill 4711")):
        report = judged(shard(), watching=False, watcher=watcher)
        (problem,) = report.problems
        assert ("watcher-stalled", "yellow") == (problem.kind, report.verdict)
        assert (command,) == next_steps.next_step(problem, report, Path("data")).commands


def test_red_problems_come_first() -> None:
    report = judged(waiting(1), shard(reason="x", pending_rows=None), watching=False, merged_s_ago=None)
    assert ["quarantined", "no-merger"] == [problem.kind for problem in report.problems]
    assert "red: something is wrong: 2 problems: " in str(report)


def test_commands_are_quoted_and_printable() -> None:
    report = judged(shard(name="a'b\x1b[2J.db", reason="x"))
    salvage, move = next_steps.next_step(report.problems[0], report, Path("/d")).commands
    assert (r"edgeshard salvage /d $'/d/shards/a\'b\u001b[2J.db'", r"mv $'/d/shards/a\'b\u001b[2J.db'* /var/tmp/") == (
        salvage,
        move,
    )
