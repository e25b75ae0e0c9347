"""Plots, as SVG that needs nothing from elsewhere: no script, no style, no font."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pygal
from pygal.style import Style

from edgeshard.bench.markdown import duration

#: One colour a system, in each plot; ours stands out. Told apart also by those who see no red or no green.
COLOURS: Final = {
    "sqlite-default": "#9a9a9a",
    "sqlite-tuned": "#e69f00",
    "queue": "#cc79a7",
    "postgres": "#0072b2",
    "edgeshard": "#d1380f",
    "hybrid-postgres": "#56b4e9",
    "hybrid-edgeshard": "#f0956f",
}
_OTHER: Final = ("#d1380f", "#0072b2", "#e69f00", "#9a9a9a")
_FONT: Final = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_SIZE: Final = (620, 400)

#: x and y of each point, by the name of the line.
Lines = Mapping[str, Sequence[tuple[float, float]]]


def against(title: str, x_title: str, lines: Lines, form: Callable[[float], str]) -> str:
    """Lines over two logarithmic axes.

    Args:
        title: what is shown.
        x_title: what the horizontal axis counts.
        lines: the points; those that are not above 0 are left out.
        form: how a value of the vertical axis is written.
    """
    kept = {name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    chart = pygal.XY(logarithmic=True, x_title=x_title, **_settings(title, kept))
    chart.x_labels = _ticks_at(sorted({x for points in kept.values() for x, _ in points}))
    chart.x_value_formatter = _plain
    chart.y_labels = _decades([y for points in kept.values() for _, y in points])
    chart.value_formatter = form
    for name, points in kept.items():
        chart.add(_title_of(name), points, stroke_style={"width": 3 if name == "edgeshard" else 2})
    return _svg(chart)


def bars(title: str, values: Mapping[str, float], form: Callable[[float], str]) -> str:
    """A bar for each system, from 0."""
    chart = pygal.HorizontalBar(
        print_values=True, print_values_position="top", **{**_settings(title, values), "show_legend": True}
    )
    chart.value_formatter = form
    chart.show_y_labels = False
    for name, value in values.items():
        chart.add(_title_of(name), [value])
    return _svg(chart)


def profile(title: str, heads: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """Times by how many commits took no longer, over a logarithmic axis."""
    chart = pygal.Line(logarithmic=True, **_settings(title, lines))
    chart.x_labels = list(heads)
    chart.y_labels = _decades([value for values in lines.values() for value in values])
    chart.value_formatter = duration
    for name, values in lines.items():
        chart.add(_title_of(name), list(values), stroke_style={"width": 3 if name == "edgeshard" else 2})
    return _svg(chart)


def _title_of(name: str) -> str:
    from edgeshard.bench.systems import SYSTEMS

    return SYSTEMS[name].title if name in SYSTEMS else name


def _settings(title: str, names: Iterable[str]) -> dict[str, Any]:
    colours = tuple(COLOURS.get(name, _OTHER[place % len(_OTHER)]) for place, name in enumerate(names))
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
        colors=colours,
    )
    return {
        "title": title,
        "style": style,
        "width": _SIZE[0],
        "height": _SIZE[1],
        "js": (),
        "disable_xml_declaration": True,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "legend_box_size": 10,
        "dots_size": 3.5,
        "margin": 12,
        "show_minor_x_labels": True,
        "truncate_legend": -1,
    }


def _ticks_at(values: Sequence[float]) -> list[float]:
    """At which of the values to write a label: all where they are few, else each power of ten."""
    return list(values) if len(values) <= 8 else _decades(values)


def _decades(values: Iterable[float]) -> list[float]:
    """The powers of ten around values that are above 0."""
    logarithms = [math.log10(value) for value in values]
    return [10.0**power for power in range(math.floor(min(logarithms)), math.ceil(max(logarithms)) + 1)]


def _plain(value: float) -> str:
    return f"{value:,.0f}"


def _svg(chart: Any) -> str:
    """The picture, without the names that pygal gives to it: ids are unique in a page, and it links to nothing."""
    text: str = chart.render(is_unicode=True)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
