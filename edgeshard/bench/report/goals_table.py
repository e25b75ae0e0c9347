"""Show what edgeshard costs where it used to be slower than others, next to its goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edgeshard.bench.goals.cost import OURS
from edgeshard.bench.goals.goal import Goal, Outcome
from edgeshard.bench.report.tables import NONE, Table, title_of
from edgeshard.bench.samples import FIGURES
from edgeshard.bench.spread import Spread

TITLE: Final = "What edgeshard costs where it used to be slower than others"
_HEADS: Final = ("workload", "figure", "measured", "compared with", "its figure", "ratio", "goal", "reached")

NOTES: Final = """\
* Every figure is the median of the rounds (lowest to highest). measured: edgeshard's figure, or that of whatever the
  column "figure" names. ratio: that figure divided by the other's of the same round; goal: for the ratio if it says
  "times", otherwise for the figure.
* second copy alone: what a merger does at least, and nothing else. The rows are in one file for each agent already;
  SQLite copies them into one database, with a commit to the disk and a checkpoint after each 32 MB."""


def goals_table(outcomes: Iterable[Outcome]) -> Table:
    """Return the goals whose figures were measured; a workload that continues has an empty first cell."""
    body: list[list[str]] = []
    previous = ""
    for outcome in outcomes:
        goal = outcome.goal
        body.append(["" if goal.title == previous else goal.title, *_cells(outcome)])
        previous = goal.title
    return list(_HEADS), body


def _cells(outcome: Outcome) -> Sequence[str]:
    goal = outcome.goal
    format_value = FIGURES[goal.figure].format_value
    return (
        _figure(goal),
        _spread(outcome.measured, format_value),
        NONE if outcome.other is None else title_of(goal.other),
        NONE if outcome.other is None else _spread(outcome.other, format_value),
        NONE if outcome.ratio is None else _spread(outcome.ratio, _ratio),
        _goal(goal),
        {True: "yes", False: "NO", None: NONE}[outcome.is_reached],
    )


def _figure(goal: Goal) -> str:
    title = FIGURES[goal.figure].title
    return title if goal.contestant == OURS else f"{title}, {title_of(goal.contestant)}"


def _spread(figure: Spread, format_value: Callable[[float], str]) -> str:
    median, low, high = map(format_value, (figure.median, figure.low, figure.high))
    return median if median == low == high else f"{median} ({low} to {high})"


def _goal(goal: Goal) -> str:
    if goal.limit is None:
        return NONE
    text = f"{_ratio(goal.limit)} times" if goal.is_of_ratio else FIGURES[goal.figure].format_value(goal.limit)
    return f"{'≥' if goal.is_least else '≤'} {text}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
