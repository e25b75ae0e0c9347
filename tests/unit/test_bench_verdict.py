"""What a report of ``python -m edgeshard.bench`` says first."""

from __future__ import annotations

import attrs
import pytest

from edgeshard.bench.goals.goal import Goal, Outcome
from edgeshard.bench.report.verdict import question, verdict
from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.spread import Spread
from edgeshard.bench.summary import Summary
from edgeshard.bench.workload import Workload

ONE, HUNDRED, PACED = Workload("process", 1), Workload("process", 100), Workload("process", 100, rate=5.0)


def line(system: str, rate: float, workload: Workload = HUNDRED, width: float = 0.01) -> Summary:
    figures = {
        "rows_per_s": Spread(rate, rate * (1 - width), rate * (1 + width)),
        "commit_p99_s": Spread(0.001, 0.001, 0.001),
    }
    return Summary(workload, system, 3, figures, RowCheck(10))


def test_it_names_who_stored_the_most_under_the_workload_with_the_most_agents() -> None:
    said = verdict(
        [line("postgres", 900, ONE), line("edgeshard", 800, ONE), line("postgres", 10), line("edgeshard", 30)]
    )
    assert (
        'With 100 agents, unlimited rate, 1 row per commit, 100 B per row (class process), "edgeshard" stored the most '
        'rows: 30 per second, 3.0 times as many as "PostgreSQL", which came second. 99 % of its commits took at most '
        "1.0 ms. edgeshard stored the most under 1 of 2 workloads at an unlimited rate, and 0.89 times as many as the "
        'first under the others ("PostgreSQL"). Every acknowledged row was found, once and unchanged.'
    ) == said


def test_it_says_so_if_another_one_is_first_and_if_the_first_two_are_too_close() -> None:
    other = verdict([line("edgeshard", 10), line("postgres", 30)])
    assert '"PostgreSQL" stored the most rows: 30 per second, 3.0 times as many as "edgeshard"' in other
    close = verdict([line("edgeshard", 100, width=0.1), line("postgres", 99)])
    assert (
        '"edgeshard" stored the most rows: 100 per second, too close to "PostgreSQL" (99) to tell them apart' in close
    )


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"row_check": RowCheck(10, lost=1)}, 'Rows were LOST, DOUBLED or CHANGED by: "PostgreSQL".'),
        ({"is_failure": True, "trouble": "failed: x"}, 'FAILED: "PostgreSQL".'),
    ],
)
def test_a_system_that_fails_or_loses_rows_is_named_and_not_the_first(bad: dict[str, object], said: str) -> None:
    row_check, is_failure = bad.get("row_check", RowCheck(10)), bool(bad.get("is_failure"))
    assert isinstance(row_check, RowCheck)
    broken = attrs.evolve(line("postgres", 99), row_check=row_check, is_failure=is_failure)
    found = verdict([broken, line("edgeshard", 10), line("queue", 9)])
    assert '"edgeshard" stored the most' in found
    assert said in found
    assert ("Every acknowledged row was found" in found) == is_failure


def test_workloads_with_a_fixed_rate_or_one_system_have_no_first() -> None:
    assert "Every acknowledged row was found, once and unchanged." == verdict(
        [line("postgres", 10, PACED), line("edgeshard", 30, PACED), line("edgeshard", 30)]
    )
    assert "" == verdict([attrs.evolve(line("queue", 1), rounds=0, figures={}, row_check=RowCheck(0))])
    assert "" == verdict([])


def test_it_counts_the_goals_that_are_reached() -> None:
    goals = [Goal("a", "a", "cpu_s", "", limit, is_of_ratio=False) for limit in (1.0, 3.0, None)]
    outcomes = [Outcome(goal, Spread(2.0, 2.0, 2.0), None, None) for goal in goals]
    assert "1 of 2 goals are reached." == verdict([], outcomes)


def test_the_title_is_what_was_asked() -> None:
    assert question([line("a", 1, ONE)]).startswith("How many rows per second can 1 agent store,")
    assert question([line("a", 1)]).startswith("How many rows per second can 100 agents store,")
    assert question([line("a", 1, ONE), line("a", 1)]).startswith("How many rows per second can 1 to 100 agents store,")
    assert question([]) == "What does edgeshard cost, and how do its costs grow?"
