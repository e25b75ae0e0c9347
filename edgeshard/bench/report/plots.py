"""Draw plots as self-contained SVG: no script, no external style, no web font."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pygal
from pygal.style import Style

from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.units import duration, number

# pygal installs an import hook for its plug-ins, of an old kind: Python 3.11 warns about it at each later import
sys.meta_path[:] = [hook for hook in sys.meta_path if not isinstance(hook, pygal.PluginImportFixer)]

#: Each system has one color in all plots. edgeshard's stands out. The colors suit color-blind readers.
COLORS: Final = {
    "sqlite-default": "#9a9a9a",
    "sqlite-tuned": "#e69f00",
    "queue": "#cc79a7",
    "postgres": "#0072b2",
    "edgeshard": "#d1380f",
    "hybrid-postgres": "#56b4e9",
    "hybrid-edgeshard": "#f0956f",
}
_OTHER_COLORS: Final = ("#d1380f", "#0072b2", "#e69f00", "#9a9a9a")
_FONT: Final = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_SIZE: Final = (620, 400)

#: x and y of each point, by the label of the line.
Points = Mapping[str, Sequence[tuple[float, float]]]


def line_plot(title: str, x_title: str, lines: Points, format_value: Callable[[float], str]) -> str:
    """Draw lines over two logarithmic axes, or return "" if there is no point to draw.

    Args:
        title: what the plot shows.
        x_title: what the x axis counts.
        lines: the points; only those above 0 are drawn.
        format_value: formats a value of the y axis.
    """
    kept = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    chart = pygal.XY(logarithmic=True, x_title=x_title, **_settings(title, kept))
    chart.x_labels = _ticks_at(sorted({x for points in kept.values() for x, _ in points}))
    chart.x_value_formatter = number
    _set_y_axis(chart, [y for points in kept.values() for _, y in points], format_value)
    for name, points in kept.items():
        chart.add(name, points)
    return _svg(chart)


def bar_plot(title: str, values: Mapping[str, float], format_value: Callable[[float], str]) -> str:
    """Draw one bar per system, starting at 0."""
    # one series, so that each bar has a label; pygal draws the first one at the bottom
    names = list(values)[::-1]
    chart = pygal.HorizontalBar(max_scale=5, **_settings(title, [""]))
    chart.x_labels = [f"{title_of(name)}: {format_value(values[name])}" for name in names]
    chart.value_formatter = format_value
    chart.add("", [{"value": values[name], "color": color_of(name, 0)} for name in names])
    return _svg(chart)


def percentile_plot(title: str, heads: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """Draw durations over their percentiles, with a logarithmic y axis."""
    chart = pygal.Line(logarithmic=True, **_settings(title, lines))
    chart.x_labels = list(heads)
    _set_y_axis(chart, [value for values in lines.values() for value in values], duration)
    for name, values in lines.items():
        chart.add(name, list(values))
    return _svg(chart)


def title_of(name: str) -> str:
    """Return the label of a line in the legend."""
    return SYSTEMS[name].title if name in SYSTEMS else name


def color_of(name: str, index: int) -> str:
    """Return the color of a line: a system's own, or one chosen by the line's index from 0."""
    return COLORS.get(name, _OTHER_COLORS[index % len(_OTHER_COLORS)])


def _set_y_axis(chart: Any, values: Sequence[float], format_value: Callable[[float], str]) -> None:
    decades = _decades(values)
    chart.y_labels = [{"value": value, "label": format_value(value).replace(".0 ", " ")} for value in decades]
    chart.range = (decades[0], decades[-1] * 1.001)  # pygal drops a label at the very top
    chart.value_formatter = format_value


def _settings(title: str, names: Iterable[str]) -> dict[str, Any]:
    colors = tuple(color_of(name, index) for index, name in enumerate(names))
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="#333",
        foreground_strong="#111",
        foreground_subtle="#999",
        guide_stroke_color="#e4e4e4",
        major_guide_stroke_color="#e4e4e4",
        guide_stroke_dasharray="none",
        major_guide_stroke_dasharray="none",
        font_family=_FONT,
        title_font_size=15,
        label_font_size=11,
        major_label_font_size=11,
        legend_font_size=12,
        value_font_size=11,
        opacity=".9",
        transition="none",
        stroke_width="2",
        colors=colors,
    )
    return {
        "title": title,
        "style": style,
        "width": _SIZE[0],
        "height": _SIZE[1],
        "js": (),
        "disable_xml_declaration": True,
        "show_legend": False,  # the page has one legend for all plots of a section
        "dots_size": 3.5,
        "margin": 12,
        "margin_right": 36,
        "show_minor_x_labels": True,
        "truncate_label": -1,
    }


def _ticks_at(values: Sequence[float]) -> list[float]:
    """Return the labeled values: all if they are few, otherwise the powers of ten."""
    return list(values) if len(values) <= 8 else _decades(values)


def _decades(values: Iterable[float]) -> list[float]:
    """Return the powers of ten that enclose positive values."""
    logarithms = [math.log10(value) for value in values]
    return [10.0**power for power in range(math.floor(min(logarithms)), math.ceil(max(logarithms)) + 1)]


def _svg(chart: Any) -> str:
    """Render the chart, without the parts that only pygal's script uses."""
    text: str = chart.render(is_unicode=True)
    return re.sub(r"<!--.*?-->|<script.*?</script>|<desc.*?</desc>|<title>.*?</title>", "", text, flags=re.DOTALL)
