"""Draw the plots of a report. Each system has one colour in all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edgeshard import charts
from edgeshard.bench.report.tables import title_of
from edgeshard.bench.units import duration, number

#: edgeshard's colour stands out. The colours suit colour-blind readers.
COLORS: Final = {
    "sqlite-default": "#9a9a9a",
    "sqlite-tuned": "#e69f00",
    "sqlite-flock": "#b8860b",
    "sqlite-fair": "#f0c75e",
    "turso": "#44aa99",
    "turso-threads": "#009e73",
    "queue": "#cc79a7",
    "postgres": "#0072b2",
    "edgeshard": "#d1380f",
    "hybrid-postgres": "#56b4e9",
    "hybrid-edgeshard": "#f0956f",
}
_OTHER_COLORS: Final = ("#d1380f", "#0072b2", "#e69f00", "#9a9a9a")

#: x and y of each point, by the label of the line.
Points = Mapping[str, Sequence[tuple[float, float]]]


#: What is written along the axis of the figures.
HIGHER: Final = "higher is better"
LOWER: Final = "lower is better"


def line_plot(title: str, x_title: str, y_title: str, lines: Points, format_value: Callable[[float], str]) -> str:
    """Draw lines over two logarithmic axes, or return "" if there is no point to draw.

    Args:
        title: what the plot shows.
        x_title: what the x axis counts.
        y_title: `HIGHER` or `LOWER`.
        lines: the points; only those above 0 are drawn.
        format_value: formats a value of the y axis.
    """
    kept = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    colors = {name: color_of(name, index) for index, name in enumerate(kept)}
    return charts.logarithmic_lines(title, x_title, y_title, kept, colors, number, format_value)


def bar_plot(title: str, values: Mapping[str, float], format_value: Callable[[float], str]) -> str:
    """Draw one bar per system, starting at 0, of a figure of which more is better."""
    found = [(title_of(name), value, color_of(name, 0)) for name, value in values.items()]
    return charts.bars(title, HIGHER, found, format_value)


def percentile_plot(title: str, heads: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """Draw durations, of which less is better, over their percentiles, with a logarithmic y axis."""
    series = [charts.Series(values, color_of(name, index)) for index, (name, values) in enumerate(lines.items())]
    return charts.logarithmic_steps(title, LOWER, heads, series, duration)


def color_of(name: str, index: int) -> str:
    """Return the color of a line: a system's own, or one chosen by the line's index from 0."""
    return COLORS.get(name, _OTHER_COLORS[index % len(_OTHER_COLORS)])
