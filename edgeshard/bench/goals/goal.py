"""What edgeshard is to cost where it used to be slower than others, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from edgeshard.bench.goals.cost import OURS
from edgeshard.bench.goals.many_shards import BARE_COPY
from edgeshard.bench.goals.processes import BARE_PYTHON
from edgeshard.bench.goals.registry import BATCHES, COSTS, MANY_AGENTS
from edgeshard.bench.goals.second_copy import COMPARED_WITH, SECOND_COPY
from edgeshard.bench.samples import FIGURES, Key, Samples, workload_label
from edgeshard.bench.spread import Spread
from edgeshard.bench.workload import Workload


@attrs.frozen
class Goal:
    """A limit for a figure of edgeshard, or for its ratio to another contestant's; or a comparison to show next to it.

    Attributes:
        title: what is measured.
        workload: the workload, as in `samples.Key`.
        figure: the figure, as in `samples.FIGURES`. Its direction says whether the limit is the least or the most.
        other: the contestant that edgeshard is compared with; "" if there is none.
        limit: the limit; None if the comparison is only shown.
        is_of_ratio: whether the limit is for the ratio, rather than for edgeshard's figure.
        contestant: whose figure it is, if it is not edgeshard's: then it shows what can be reached.
    """

    title: str
    workload: str
    figure: str
    other: str
    limit: float | None
    is_of_ratio: bool
    contestant: str = OURS

    @property
    def is_least(self) -> bool:
        """Whether the limit is the least that reaches the goal, rather than the most."""
        return FIGURES[self.figure].is_higher_better


@attrs.frozen
class Outcome:
    """What a run measured for a goal.

    Attributes:
        goal: the goal.
        measured: the figure, mostly edgeshard's.
        other: that of the contestant it is compared with, if the goal names one.
        ratio: the figure divided by the other's of the same round.
    """

    goal: Goal
    measured: Spread
    other: Spread | None
    ratio: Spread | None

    @property
    def is_reached(self) -> bool | None:
        """Whether the median reaches the goal, or None if there is no limit."""
        goal = self.goal
        limited = self.ratio if goal.is_of_ratio else self.measured
        if goal.limit is None or limited is None:
            return None
        return limited.median >= goal.limit if goal.is_least else limited.median <= goal.limit


def _of_system(
    workload: Workload, figure: str, other: str, limit: float | None = None, *, is_of_ratio: bool = True
) -> Goal:
    return Goal(str(workload), workload_label(workload), figure, other, limit, is_of_ratio)


def _limit_of(workload: Workload) -> Goal:
    """Return the comparison that shows what edgeshard can reach at most under a workload."""
    return Goal(
        str(workload),
        workload_label(workload),
        "rows_per_s",
        COMPARED_WITH,
        None,
        is_of_ratio=True,
        contestant=SECOND_COPY,
    )


def _of_cost(name: str, figure: str, other: str, limit: float, *, is_of_ratio: bool = False) -> Goal:
    return Goal(COSTS[name].title, name, figure, other, limit, is_of_ratio)


GOALS: Final = (
    _of_system(MANY_AGENTS, "rows_per_s", "sqlite-tuned", 3.0),
    _of_system(MANY_AGENTS, "commit_p99_s", "sqlite-tuned", 1 / 500),
    _of_system(MANY_AGENTS, "rows_per_s", "postgres"),
    _of_system(BATCHES[100], "rows_per_s", "sqlite-tuned", 1.3),
    _limit_of(BATCHES[100]),
    _of_system(BATCHES[100], "rows_per_s", "postgres"),
    _of_system(BATCHES[1_000], "rows_per_s", "sqlite-tuned", 0.9),
    _limit_of(BATCHES[1_000]),
    _of_system(BATCHES[1_000], "rows_per_s", "postgres", 1.0),
    _of_system(BATCHES[10_000], "rows_per_s", "sqlite-tuned", 0.7),
    _limit_of(BATCHES[10_000]),
    _of_system(BATCHES[10_000], "rows_per_s", "postgres", 1.3),
    _of_system(BATCHES[10_000], "written_bytes_per_payload_byte", "sqlite-tuned", 3.2, is_of_ratio=False),
    _of_system(BATCHES[10_000], "written_bytes_per_payload_byte", "postgres"),
    _of_cost("full-shards", "rows_per_s", BARE_COPY, 0.65, is_of_ratio=True),
    _of_cost("live-shards", "cpu_s", "", 0.6e-3),
    _of_cost("ended-agents", "wall_s", "", 0.9e-3),
    _of_cost("import", "cpu_s", BARE_PYTHON, 0.09),
    _of_cost("import", "memory_bytes", BARE_PYTHON, 20e6),
    _of_cost("idle-merge", "wall_s", BARE_PYTHON, 0.15),
    _of_cost("new-shard", "wall_s", "", 3e-3),
    _of_cost("existing-shard", "wall_s", "", 1.5e-3),
)


def outcomes(samples: Samples, goals: Iterable[Goal] = GOALS) -> list[Outcome]:
    """Return the outcome of each goal whose figures a run has."""
    found = (_outcome(goal, samples) for goal in goals)
    return [outcome for outcome in found if outcome is not None]


def _outcome(goal: Goal, samples: Samples) -> Outcome | None:
    measured = samples.get(Key(goal.workload, goal.contestant, goal.figure), {})
    other = samples.get(Key(goal.workload, goal.other, goal.figure), {})
    ratios = [measured[number] / other[number] for number in measured if number in other]
    if ratios:
        spreads = map(Spread.from_values, (measured.values(), other.values(), ratios))
        return Outcome(goal, *spreads)
    if measured and goal.limit is not None and not goal.is_of_ratio:
        return Outcome(goal, Spread.from_values(measured.values()), None, None)
    return None
