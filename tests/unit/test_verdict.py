"""The verdict on a store: which reports are green, yellow and red, and what to do about each problem."""

from __future__ import annotations

import re
import shlex
import typing
from pathlib import Path

import attrs
import pytest

from edgeshard import cli
from edgeshard.cli import next_steps
from edgeshard.inspect import verdict
from edgeshard.reports import Blocked, ClockReport, ProblemKind, RowStates, StatusReport
from tests.support.status_reports import AT, PEER, PROBLEMS, STOPPED, budget, judged, shard, waiting

#: What a user may put in the place of words in capitals.
VALUES = {"AGE": "30d", "SIZE": "2G"}


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
        assert program in ("edgeshard", "mv", "kill", "ls")
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
    assert (
        r"edgeshard salvage /d $'/d/shards/a\'b\u001b[2J.db'",
        r"mv -v $'/d/shards/a\'b\u001b[2J.db'* " + '"$(mktemp -d /var/tmp/XXXXXX)"',
    ) == (
        salvage,
        move,
    )


def test_the_guide_explains_each_kind_of_problem_with_its_level() -> None:
    guide = Path(verdict.__file__).parents[1] / "docs" / "troubleshooting.md"
    section = guide.read_text().partition("## Problems that status names\n")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| (red|yellow)", section, re.MULTILINE))
    assert listed == {kind: level for kind, (level, _) in PROBLEMS.items()}
