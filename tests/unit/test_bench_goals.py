"""The goals of ``python -m edgeshard.bench --goals``: what is reached, and how it is shown."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeshard.bench import options
from edgeshard.bench.goals.bare_copy import divide
from edgeshard.bench.goals.cost import OURS
from edgeshard.bench.goals.goal import GOALS, Goal, outcomes
from edgeshard.bench.goals.registry import BATCHES, COSTS
from edgeshard.bench.goals.second_copy import COMPARED_WITH, SECOND_COPY
from edgeshard.bench.plan import goal_contests
from edgeshard.bench.report import markdown
from edgeshard.bench.report.goals_table import goals_table
from edgeshard.bench.samples import FIGURES, Key, Samples, workload_label
from edgeshard.bench.systems import SYSTEMS
from tests.support.project import PROJECT

RATE = Goal("Work", "work", "rows_per_s", "postgres", 2.0, is_of_ratio=True)
TIME = Goal("Start", "start", "cpu_s", "bare", 0.5, is_of_ratio=False)
SHOWN = Goal("Start", "start", "memory_bytes", "bare", None, is_of_ratio=False)
REACHABLE = Goal("Work", "work", "rows_per_s", "postgres", None, is_of_ratio=True, contestant=SECOND_COPY)


def made(goal: Goal, ours: dict[int, float], other: dict[int, float]) -> Samples:
    found: Samples = {Key(goal.workload, goal.contestant, goal.figure): ours}
    return {**found, Key(goal.workload, goal.other, goal.figure): other} if other else found


@pytest.mark.parametrize(
    ("goal", "ours", "other", "is_reached"),
    [
        (RATE, {0: 20.0, 1: 40.0, 2: 60.0}, {0: 10.0, 1: 20.0, 2: 30.0}, True),  # exactly
        (RATE, {0: 20.0, 1: 40.0, 2: 59.0}, {0: 11.0, 1: 21.0, 2: 30.0}, False),
        (TIME, {0: 0.5}, {0: 0.1}, True),
        (TIME, {0: 0.6}, {0: 9.9}, False),
        (TIME, {0: 0.4}, {}, True),  # the limit is for the figure: nothing else is needed
        (SHOWN, {0: 1.0}, {0: 1.0}, None),
    ],
)
def test_a_goal_is_reached_by_the_median(
    goal: Goal, ours: dict[int, float], other: dict[int, float], is_reached: bool | None
) -> None:
    (outcome,) = outcomes(made(goal, ours, other), [goal])
    assert is_reached is outcome.is_reached


def test_ratios_are_of_the_same_round() -> None:
    (outcome,) = outcomes(made(RATE, {0: 10.0, 2: 90.0}, {0: 10.0, 1: 5.0, 2: 30.0}), [RATE])
    assert outcome.ratio is not None
    assert (1.0, 3.0) == (outcome.ratio.low, outcome.ratio.high)


def test_what_was_not_measured_has_no_outcome() -> None:
    assert [] == outcomes({}, GOALS)
    assert [] == outcomes(made(RATE, {0: 1.0}, {}), [RATE])
    assert [] == outcomes(made(RATE, {0: 1.0}, {1: 1.0}), [RATE])


def test_the_table_names_each_workload_once_and_says_which_goals_are_missed() -> None:
    found = {**made(RATE, {0: 20.0}, {0: 20.0}), **made(TIME, {0: 0.1}, {0: 0.2}), **made(SHOWN, {0: 1e6}, {0: 1e6})}
    found |= made(REACHABLE, {0: 30.0}, {0: 20.0})
    heads, body = goals_table(outcomes(found, [RATE, REACHABLE, TIME, SHOWN]))
    assert {len(heads)} == {len(row) for row in body}
    assert [
        ["Work", "rows/s", "20", "PostgreSQL", "20", "1.00", "≥ 2.00 times", "NO"],
        ["", "rows/s, second copy alone", "30", "PostgreSQL", "20", "1.50", "-", "-"],
        ["Start", "processor time", "100 ms", "bare", "200 ms", "0.50", "≤ 500 ms", "yes"],
        ["", "memory", "1 MB", "bare", "1 MB", "1.00", "-", "-"],
    ] == body
    assert markdown.goals_section(outcomes(found, [RATE])).startswith("### What edgeshard costs")


def test_each_goal_is_for_something_that_is_measured() -> None:
    contests = {workload_label(workload): systems for workload, systems in goal_contests(tuple(SYSTEMS)).items()}
    plan = options.plan_from_options(options.parser().parse_args(["--goals"]))
    second_copies = {workload_label(workload) for workload in plan.second_copies}
    for goal in GOALS:
        assert goal.figure in FIGURES
        if goal.workload in COSTS:
            continue
        assert goal.contestant == OURS or goal.workload in second_copies
        assert "edgeshard" in contests[goal.workload]
        assert goal.other in contests[goal.workload]
    assert {*contests, *COSTS} == {goal.workload for goal in GOALS}


def test_the_limit_of_each_batch_is_shown_below_its_goal_and_compared_with_the_same_system() -> None:
    shown = [(goal, GOALS[number - 1]) for number, goal in enumerate(GOALS) if goal.contestant == SECOND_COPY]
    assert list(map(workload_label, BATCHES.values())) == [goal.workload for goal, _ in shown]
    for goal, above in shown:
        assert (OURS, goal.workload, goal.figure, goal.other) == (
            above.contestant,
            above.workload,
            above.figure,
            COMPARED_WITH,
        )
        assert above.limit is not None
        assert above.other == COMPARED_WITH


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 50))
def test_rows_are_divided_into_full_transactions(files: int, rows: int, transaction_rows: int) -> None:
    found = list(divide(files, rows, transaction_rows))
    copied = [(file, row) for parts in found for file, first, last in parts for row in range(first, last + 1)]
    assert [(file, row) for file in range(files) for row in range(1, rows + 1)] == copied
    sizes = [sum(last - first + 1 for _, first, last in parts) for parts in found]
    assert {transaction_rows} >= set(sizes[:-1])
    assert sizes[-1] <= transaction_rows


def test_the_benchmark_measures_other_versions_too_with_what_all_of_them_have() -> None:
    """With ``--goals`` it is put next to another version of edgeshard; only the curves may use more of this one."""
    folder = PROJECT / "edgeshard" / "bench"
    curves = {"backlog", "bytes_written", "growth", "plain_sqlite", "throughput"}
    used = set()
    for path in folder.rglob("*.py"):
        if path.parent.name == "costs" and path.stem in curves:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("edgeshard.bench"):
                used |= {f"{node.module}.{name.name}" for name in node.names if node.module.startswith("edgeshard")}
            if isinstance(node, ast.Import):
                used |= {name.name for name in node.names if name.name.startswith("edgeshard")}
    assert used == {
        "edgeshard.charts",
        "edgeshard.format",
        "edgeshard.shard.shard.Shard",
        "edgeshard.sqlite.BUSY",
        "edgeshard.sqlite.Connection",
        "edgeshard.store.Store",
    }
