"""The table and the plot of the project's README, from a run with ``--goals``: rows per second of a hundred agents."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from edgeshard.bench.goals.cost import OURS
from edgeshard.bench.goals.registry import MANY_AGENTS
from edgeshard.bench.report.plots import color_of
from edgeshard.bench.report.tables import title_of
from edgeshard.bench.summary import Summary
from edgeshard.bench.units import duration

#: The first line of the table.
TABLE_HEAD: Final = "| system | rows/s in the final database | edgeshard stores | 99 % of writes take at most |"

#: How many systems the table has; the plot has all.
_TABLE_ROWS: Final = 5

_WIDTH: Final = 800
_LEFT: Final = 250
_LONGEST: Final = 460
_BAR_HEIGHT: Final = 26
_BAR_STEP: Final = 37


def ranked(summaries: Sequence[Summary]) -> list[Summary]:
    """Return the systems that hold every row of a hundred agents, the one with the most rows per second first.

    Raises:
        ValueError: edgeshard is not among them: this is not a run with ``--goals``.
    """
    found = [one for one in summaries if one.workload == MANY_AGENTS and one.rounds and one.is_sound]
    if OURS not in {one.system for one in found}:
        raise ValueError(f"the run has no sound figures of {OURS} for {MANY_AGENTS}; make one with --goals")
    return sorted(found, key=_rate, reverse=True)


def _rate(summary: Summary) -> float:
    return summary.figures["rows_per_s"].median


def table(summaries: Sequence[Summary]) -> str:
    """Return the table of the README: those with the most rows per second."""
    systems = ranked(summaries)
    (ours,) = [_rate(one) for one in systems if one.system == OURS]
    systems = [one for number, one in enumerate(systems) if number < _TABLE_ROWS or one.system == OURS]
    lines = [TABLE_HEAD, "|---|---|---|---|"]
    for one in systems:
        is_ours = one.system == OURS
        name = f"**{OURS}**" if is_ours else title_of(one.system)
        times = "" if is_ours else f"{_times(ours / _rate(one))} times as many"
        lines.append(
            f"| {name} | {_rate(one):,.0f} |{f' {times} ' if times else ' '}| "
            f"{duration(one.figures['commit_p99_s'].median)} |"
        )
    return "\n".join(lines)


def _times(ratio: float) -> str:
    if ratio < 1:
        return f"{ratio:.2g}"
    return f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def throughput_svg(summaries: Sequence[Summary], processors: int) -> str:
    """Return the plot of the README: a bar per system. It has no style sheet, so that every viewer shows it.

    Args:
        summaries: the summaries of a run.
        processors: how many processors it used.
    """
    systems = ranked(summaries)
    height = 55 + _BAR_STEP * len(systems)
    most = _rate(systems[0])
    font = "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\""
    title = f"Rows per second that 100 agents store (more is better), in commits of one row, on {processors} processors"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {font}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{_WIDTH // 2}" y="26" font-size="15" text-anchor="middle" fill="#111">{title}</text>',
    ]
    for number, one in enumerate(systems):
        top = 48 + _BAR_STEP * number
        length = max(1.5, _LONGEST * _rate(one) / most)
        color = color_of(one.system, 0)
        text = 'fill="#333" font-weight="bold"' if one.system == OURS else 'fill="#333"'
        parts += [
            f'<text x="{_LEFT - 10}" y="{top + 18}" text-anchor="end" {text}>{escape(title_of(one.system))}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR_HEIGHT}" fill="{color}"/>',
            f'<text x="{_LEFT + length + 8:.1f}" y="{top + 18}" {text}>{_rate(one):,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
