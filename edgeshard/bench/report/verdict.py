"""What a report says first: what was asked, and the answer in a sentence or two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from edgeshard.bench.goals.cost import OURS
from edgeshard.bench.goals.goal import Outcome
from edgeshard.bench.report.tables import title_of
from edgeshard.bench.spread import Spread
from edgeshard.bench.summary import Summary
from edgeshard.bench.units import duration
from edgeshard.bench.workload import Workload

_OWN_COSTS: Final = "What does edgeshard cost, and how do its costs grow?"


def question(summaries: Sequence[Summary], outcomes: Sequence[Outcome] = ()) -> str:
    """Return what a run asks: the title of its report."""
    if not summaries:
        return _OWN_COSTS
    counts = sorted({summary.workload.agents for summary in summaries})
    agents = "1 agent" if counts == [1] else f"{counts[0]} agents" if len(counts) == 1 else f"{_range(counts)} agents"
    title = f"How many rows per second can {agents} store, and how long does a commit take?"
    return f"{title} What does edgeshard cost?" if outcomes else title


def _range(counts: Sequence[int]) -> str:
    return f"{counts[0]} to {counts[-1]}"


def verdict(summaries: Sequence[Summary], outcomes: Sequence[Outcome] = ()) -> str:
    """Return the answer, or "" if nothing was measured."""
    return " ".join([*_contests(summaries), *_goals(outcomes), *_rows(summaries)])


@attrs.frozen
class _Contest:
    """The systems under one workload, the one with the most rows per second first."""

    workload: Workload
    ranked: list[Summary]

    @property
    def first(self) -> Summary:
        return self.ranked[0]

    @property
    def is_clear(self) -> bool:
        """Whether the first was ahead of the second in all rounds."""
        return len(self.ranked) > 1 and _rate(self.first).low > _rate(self.ranked[1]).high


def _rate(summary: Summary) -> Spread:
    return summary.figures["rows_per_s"]


def _contests(summaries: Sequence[Summary]) -> Iterator[str]:
    """Say who stored the most of the first workload with the most agents, and where edgeshard was first."""
    ranked = list(_ranked(summaries))
    if not ranked:
        return
    yield _main_sentence(max(ranked, key=lambda contest: contest.workload.agents))
    with_ours = [contest for contest in ranked if OURS in {one.system for one in contest.ranked}]
    if len(with_ours) > 1:
        yield _count_sentence(with_ours)


def _ranked(summaries: Sequence[Summary]) -> Iterator[_Contest]:
    """Yield the workloads without a fixed rate under which at least two sound systems were measured."""
    for workload in dict.fromkeys(summary.workload for summary in summaries if summary.workload.rate is None):
        sound = [one for one in summaries if one.workload == workload and one.rounds and one.is_sound]
        if len(sound) > 1:
            yield _Contest(workload, sorted(sound, key=lambda one: _rate(one).median, reverse=True))


def _main_sentence(contest: _Contest) -> str:
    first, second = contest.ranked[:2]
    times = _rate(first).median / _rate(second).median
    lead = f"{times:.1f} times as many as {_quoted(second)}, which came second"
    if not contest.is_clear:
        lead = f"too close to {_quoted(second)} ({_rate(second).median:,.0f}) to tell them apart"
    p99 = duration(first.figures["commit_p99_s"].median)
    return (
        f"With {contest.workload} (class {contest.workload.durability}), {_quoted(first)} stored the most rows: "
        f"{_rate(first).median:,.0f} per second, {lead}. 99 % of its commits took at most {p99}."
    )


def _quoted(summary: Summary) -> str:
    return f'"{title_of(summary.system)}"'


def _count_sentence(contests: Sequence[_Contest]) -> str:
    won = sum(contest.first.system == OURS for contest in contests)
    sentence = f"edgeshard stored the most under {won} of {len(contests)} workloads at an unlimited rate"
    behind = [
        (_rate(one).median / _rate(contest.first).median, _quoted(contest.first))
        for contest in contests
        for one in contest.ranked
        if one.system == OURS and contest.first.system != OURS
    ]
    if not behind:
        return f"{sentence}."
    least, most = min(behind)[0], max(behind)[0]
    ratios = f"{least:.2f}" if f"{least:.2f}" == f"{most:.2f}" else f"{least:.2f} to {most:.2f}"
    names = " or ".join(dict.fromkeys(name for _, name in behind))
    return f"{sentence}, and {ratios} times as many as the first under the others ({names})."


def _goals(outcomes: Sequence[Outcome]) -> Iterator[str]:
    limited = [outcome for outcome in outcomes if outcome.is_reached is not None]
    if limited:
        yield f"{sum(outcome.is_reached is True for outcome in limited)} of {len(limited)} goals are reached."


def _rows(summaries: Sequence[Summary]) -> Iterator[str]:
    measured = [summary for summary in summaries if summary.rounds]
    wrong = dict.fromkeys(_quoted(summary) for summary in measured if not summary.row_check.is_exact)
    failed = dict.fromkeys(_quoted(summary) for summary in summaries if summary.is_failure)
    if wrong:
        yield f"Rows were LOST, DOUBLED or CHANGED by: {', '.join(wrong)}."
    elif measured:
        yield "Every acknowledged row was found, once and unchanged."
    if failed:
        yield f"FAILED: {', '.join(failed)}."
