"""Draw charts as self-contained SVG: no script, no link, no web font. The only user of pygal, which is an extra.

A chart for a file of its own, or a page that is always light, has fixed colours (`PAPER`). One for a page that may be
dark takes its colours from the page's custom properties (`PAGE`), so that it changes with them.
"""

from __future__ import annotations

import html
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from edgeshard.errors import ConfigurationError

Format = Callable[[float], str]


@attrs.frozen
class Theme:
    """The colours of a chart, besides those of its values: CSS colours."""

    text: str
    faint: str
    grid: str


PAPER: Final = Theme("#222", "#999", "#e4e4e4")

PAGE: Final = Theme("var(--text)", "var(--faint)", "var(--grid)")

#: The width and height of a chart in its own units; it fills the width that it gets.
_PLOT: Final = (620, 400)

_COLUMNS: Final = (380, 220)

#: The height of a bar, and of what is above and below all bars.
_BAR_HEIGHT: Final = 21

_BARS_MARGIN: Final = 50

_FONT: Final = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"


@attrs.frozen
class Series:
    """Values of one colour.

    Attributes:
        values: a value for each column or bar; None or 0 is not drawn.
        colour: a CSS colour.
    """

    values: Sequence[float | None]
    colour: str


# -- charts whose columns or bars add up -------------------------------------------------------------------------------


def stacked_columns(
    title: str, labels: Sequence[str], shown: Sequence[str], series: Sequence[Series], to_text: Format
) -> str:
    """Draw columns over a horizontal axis, with the values of several series on top of one another.

    Args:
        title: what the chart shows, for those who do not see it.
        labels: a label of each column; all differ.
        shown: the labels that are shown.
        series: the values, the lowest first.
        to_text: formats a value of the vertical axis.
    """
    chart = _new("StackedBar", PAGE, _COLUMNS, [each.colour for each in series])
    chart.config(spacing=6, max_scale=5, show_minor_x_labels=False, x_labels_major=list(shown), margin_right=14)
    chart.x_labels = list(labels)
    chart.value_formatter = to_text
    _add(chart, series)
    return _svg(chart, title)


def stacked_bars(title: str, labels: Sequence[str], series: Sequence[Series], to_text: Format | None) -> str:
    """Draw horizontal bars, the first one at the top, with the values of several series after one another.

    Args:
        title: what the chart shows, for those who do not see it.
        labels: a label of each bar.
        series: the values, the leftmost first.
        to_text: formats a value of the horizontal axis; None: it has no labels.
    """
    size = (_COLUMNS[0], _BARS_MARGIN + _BAR_HEIGHT * len(labels))
    chart = _new("HorizontalStackedBar", PAGE, size, [each.colour for each in series])
    chart.config(spacing=4, max_scale=3, margin_right=24)
    chart.x_labels = list(labels)[::-1]  # pygal draws the first one at the bottom
    if to_text is None:
        chart.config(show_x_labels=False, show_x_guides=False, show_y_guides=False)
    else:
        chart.value_formatter = to_text
    _add(chart, [attrs.evolve(each, values=each.values[::-1]) for each in series])
    return _svg(chart, title)


def _add(chart: Any, series: Iterable[Series]) -> None:
    for each in series:
        chart.add("", [value or None for value in each.values])


# -- charts with a title, for a file or a light page -------------------------------------------------------------------


def logarithmic_lines(
    title: str,
    x_title: str,
    y_title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    colours: Mapping[str, str],
    x_to_text: Format,
    to_text: Format,
) -> str:
    """Draw lines over two logarithmic axes.

    Args:
        title: what the plot shows.
        x_title: what the x axis counts.
        y_title: what is written along the y axis.
        lines: x and y of each point, all above 0, by the name of the line.
        colours: CSS colours of the lines.
        x_to_text: formats a value of the x axis.
        to_text: formats a value of the y axis.
    """
    chart = _plot("XY", title, [colours[name] for name in lines], logarithmic=True, x_title=x_title, y_title=y_title)
    chart.x_labels = _ticks_at(sorted({x for points in lines.values() for x, _ in points}))
    chart.x_value_formatter = x_to_text
    _set_decades(chart, [y for points in lines.values() for _, y in points], to_text)
    for points in lines.values():
        chart.add("", list(points))
    return _svg(chart)


def logarithmic_steps(title: str, y_title: str, labels: Sequence[str], lines: Sequence[Series], to_text: Format) -> str:
    """Draw lines over labelled steps, such as percentiles, with a logarithmic y axis and a title along it."""
    chart = _plot("Line", title, [line.colour for line in lines], logarithmic=True, y_title=y_title)
    chart.x_labels = list(labels)
    _set_decades(chart, [value for line in lines for value in line.values if value], to_text)
    for line in lines:
        chart.add("", list(line.values))
    return _svg(chart)


def bars(title: str, x_title: str, values: Sequence[tuple[str, float, str]], to_text: Format) -> str:
    """Draw a horizontal bar for each (label, value, colour), starting at 0, and a title below the axis."""
    chart = _plot("HorizontalBar", title, ["none"], max_scale=5, x_title=x_title)
    # one series, so that each bar has a label; pygal draws the first one at the bottom
    chart.x_labels = [f"{label}: {to_text(value)}" for label, value, _ in values[::-1]]
    chart.value_formatter = to_text
    chart.add("", [{"value": value, "color": colour} for _, value, colour in values[::-1]])
    return _svg(chart)


def _plot(kind: str, title: str, colours: Sequence[str], **options: Any) -> Any:
    chart = _new(kind, PAPER, _PLOT, colours)
    chart.config(title=title, margin=12, margin_right=36, dots_size=3.5, show_minor_x_labels=True, **options)
    return chart


def _set_decades(chart: Any, values: Sequence[float], to_text: Format) -> None:
    """Label the powers of ten that enclose these values."""
    decades = _decades(values)
    chart.y_labels = [{"value": value, "label": to_text(value).replace(".0 ", " ")} for value in decades]
    chart.range = (decades[0], decades[-1] * 1.001)  # pygal drops a label at the very top
    chart.value_formatter = to_text


def _ticks_at(values: Sequence[float]) -> list[float]:
    """Return the labelled values: all if they are few, otherwise the powers of ten."""
    return list(values) if len(values) <= 8 else _decades(values)


def _decades(values: Iterable[float]) -> list[float]:
    """Return the powers of ten that enclose positive values."""
    logarithms = [math.log10(value) for value in values]
    return [10.0**power for power in range(math.floor(min(logarithms)), math.ceil(max(logarithms)) + 1)]


# -- pygal ------------------------------------------------------------------------------------------------------------


def ensure_installed() -> None:
    """Raise an error unless charts can be drawn.

    Raises:
        ConfigurationError: pygal is not installed.
    """
    _pygal()


def _pygal() -> Any:
    try:
        import pygal  # 0.2 s, and most commands draw nothing
    except ImportError as error:
        cause = "pygal is not installed; install it with: pip install 'edgeshard[report]'"
        raise ConfigurationError("draw charts", "", cause) from error
    # it installs an import hook for its plug-ins, of an old kind: Python 3.11 warns about it at each later import
    sys.meta_path[:] = [hook for hook in sys.meta_path if not isinstance(hook, pygal.PluginImportFixer)]
    return pygal


def _new(kind: str, theme: Theme, size: tuple[int, int], colours: Sequence[str]) -> Any:
    pygal = _pygal()
    style = pygal.style.Style(
        background="transparent",
        plot_background="transparent",
        foreground=theme.text,
        foreground_strong=theme.text,
        foreground_subtle=theme.faint,
        guide_stroke_color=theme.grid,
        major_guide_stroke_color=theme.grid,
        guide_stroke_dasharray="none",
        major_guide_stroke_dasharray="none",
        font_family=_FONT,
        title_font_size=15,
        label_font_size=12,
        major_label_font_size=12,
        value_font_size=11,
        opacity=".9",
        transition="none",
        stroke_width="2",
        colors=tuple(colours),
    )
    return getattr(pygal, kind)(
        style=style,
        width=size[0],
        height=size[1],
        js=(),
        disable_xml_declaration=True,
        show_legend=False,  # the page has it
        margin=6,
        truncate_label=-1,
    )


def _svg(chart: Any, title: str = "") -> str:
    """Render the chart, without the parts that only pygal's script uses, and with a title for those who cannot see it.

    Args:
        chart: the chart.
        title: what it shows, unless the chart has a visible title.
    """
    text: str = chart.render(is_unicode=True)
    text = re.sub(r"<!--.*?-->|<script.*?</script>|<desc.*?</desc>|<title>.*?</title>", "", text, flags=re.DOTALL)
    if not title:
        return text
    return re.sub(r"^(<svg [^>]*)>", lambda found: f'{found[1]} role="img"><title>{html.escape(title)}</title>', text)
