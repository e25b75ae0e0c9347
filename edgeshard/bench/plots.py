"""Plots, as SVG that needs nothing from elsewhere: no script, no style, no font."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pygal
from pygal.style import Style

from edgeshard.bench.markdown import duration, plain
from edgeshard.bench.systems import SYSTEMS

# pygal leaves a hook for its plug-ins, of a kind of which Python 3.11 warns at each import from then on
sys.meta_path[:] = [hook for hook in sys.meta_path if not isinstance(hook, pygal.PluginImportFixer)]

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
    chart.x_value_formatter = plain
    _set_heights(chart, [y for points in kept.values() for _, y in points], form)
    for name, points in kept.items():
        chart.add(name, points)
    return _svg(chart)


def bars(title: str, values: Mapping[str, float], form: Callable[[float], str]) -> str:
    """A bar for each system, from 0."""
    # bars of one series have a label each; the first is drawn at the bottom
    names = list(values)[::-1]
    chart = pygal.HorizontalBar(max_scale=5, **_settings(title, [""]))
    chart.x_labels = [f"{title_of(name)}: {form(values[name])}" for name in names]
    chart.value_formatter = form
    chart.add("", [{"value": values[name], "color": colour_of(name, 0)} for name in names])
    return _svg(chart)


def profile(title: str, heads: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """Times by how many commits took no longer, over a logarithmic axis."""
    chart = pygal.Line(logarithmic=True, **_settings(title, lines))
    chart.x_labels = list(heads)
    _set_heights(chart, [value for values in lines.values() for value in values], duration)
    for name, values in lines.items():
        chart.add(name, list(values))
    return _svg(chart)


def title_of(name: str) -> str:
    """What a line is called in the legend."""
    return SYSTEMS[name].title if name in SYSTEMS else name


def colour_of(name: str, place: int) -> str:
    """In which colour it is drawn: a system in its own in each plot, another line by its place, from 0."""
    return COLOURS.get(name, _OTHER[place % len(_OTHER)])


def _set_heights(chart: Any, values: Sequence[float], form: Callable[[float], str]) -> None:
    decades = _decades(values)
    chart.y_labels = [{"value": value, "label": form(value).replace(".0 ", " ")} for value in decades]
    chart.range = (decades[0], decades[-1] * 1.001)  # pygal leaves out a label at the very top
    chart.value_formatter = form


def _settings(title: str, names: Iterable[str]) -> dict[str, Any]:
    colours = tuple(colour_of(name, place) for place, name in enumerate(names))
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
        colors=colours,
    )
    return {
        "title": title,
        "style": style,
        "width": _SIZE[0],
        "height": _SIZE[1],
        "js": (),
        "disable_xml_declaration": True,
        "show_legend": False,  # the page has one for all plots of a section
        "dots_size": 3.5,
        "margin": 12,
        "margin_right": 36,
        "show_minor_x_labels": True,
        "truncate_label": -1,
    }


def _ticks_at(values: Sequence[float]) -> list[float]:
    """At which of the values to write a label: all where they are few, else each power of ten."""
    return list(values) if len(values) <= 8 else _decades(values)


def _decades(values: Iterable[float]) -> list[float]:
    """The powers of ten around values that are above 0."""
    logarithms = [math.log10(value) for value in values]
    return [10.0**power for power in range(math.floor(min(logarithms)), math.ceil(max(logarithms)) + 1)]


def _svg(chart: Any) -> str:
    """The picture, without what serves pygal's script, which is not there."""
    text: str = chart.render(is_unicode=True)
    return re.sub(r"<!--.*?-->|<script.*?</script>|<desc.*?</desc>|<title>.*?</title>", "", text, flags=re.DOTALL)
