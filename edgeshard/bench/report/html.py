"""The report as one self-contained HTML page with tables and plots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from html import escape
from typing import Final

from edgeshard.bench.costs.curve import Curve
from edgeshard.bench.goals.goal import Outcome
from edgeshard.bench.machine import Machine
from edgeshard.bench.report import goals_table, plots, tables
from edgeshard.bench.report.tables import Kind, Table
from edgeshard.bench.report.verdict import question, verdict
from edgeshard.bench.summary import Summary
from edgeshard.bench.units import duration

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #222; background: #fbfaf8;
  max-width: 1320px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .2rem; }
p { max-width: 75ch; } .machine { color: #666; font-size: .85rem; max-width: none; }
.noisy { background: #fff3cd; border-left: 4px solid #e0a800; padding: .5rem .8rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1rem; margin: 1rem 0; }
.legend { max-width: none; font-size: .88rem; margin: .8rem 0 0; } .legend span { margin-right: 1.3rem;
  white-space: nowrap; } .legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 50%;
  margin-right: .4rem; vertical-align: -.08rem; }
.plots figure { margin: 0; background: #fff; border: 1px solid #e7e4df; border-radius: 8px; padding: .4rem; }
.plots svg { width: 100%; height: auto; display: block; }
.inner { overflow-x: auto; } .inner th, .inner td { padding: .2rem .5rem; }
.scroll { overflow-x: auto; background: #fff; border: 1px solid #e7e4df; border-radius: 8px; }
table { border-collapse: collapse; font-size: .83rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .28rem .32rem; text-align: right; white-space: nowrap; }
th { color: #666; font-weight: 600; border-bottom: 1px solid #ccc; white-space: normal; vertical-align: bottom; }
.text th, .text td { text-align: left; white-space: normal; }
small { color: #777; font-size: .9em; } .verdict { font-size: 1.1rem; } .goals td:first-child { white-space: normal; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; } td:nth-child(2) { white-space: normal; }
tr.first td { border-top: 2px solid #cfcac2; } tr.ours td { background: #fdf1ec; } td.wrong { color: #b00020;
  font-weight: 700; } td.none { white-space: normal; color: #777; text-align: left; }
ul { padding-left: 1.1rem; color: #555; font-size: .88rem; } code { font-size: .9em; }
"""


def page(
    machine: Machine,
    command: str,
    summaries: Sequence[Summary],
    curves: Sequence[Curve] = (),
    outcomes: Sequence[Outcome] = (),
) -> str:
    """Return the page.

    Args:
        machine: the machine of the run.
        command: the command line of the run.
        summaries: the results of the systems.
        curves: edgeshard's own cost curves.
        outcomes: what was measured for the goals.
    """
    title = escape(question(summaries, outcomes))
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f"<p class=verdict>{escape(verdict(summaries, outcomes))}</p>",
        f"<p class=machine>{escape(str(machine))}<br><code>{escape(command)}</code></p>",
        *_warning(machine),
        *(_goals(outcomes) if outcomes else ()),
        *(part for kind, members in tables.by_kind(summaries).items() for part in _section(kind, members)),
        *(_curves(curves) if curves else ()),
        "<h2>What each system guarantees</h2>",
        *_guarantees(tables.guarantees(summaries)),
        "<h2>What the columns mean</h2>",
        f"<ul>{_items(tables.NOTES)}</ul>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _warning(machine: Machine) -> Iterator[str]:
    if not machine.is_quiet:
        yield (
            "<p class=noisy>Other programs kept this machine busy when the run began "
            f"(load {machine.load:.1f} on {machine.processors} processors). Do not rely on the figures.</p>"
        )


def _goals(outcomes: Sequence[Outcome]) -> Iterator[str]:
    heads, body = goals_table.goals_table(outcomes)
    yield f"<h2>{escape(goals_table.TITLE)}</h2><div class=scroll><table class=goals><thead><tr>"
    yield "".join(f"<th>{escape(head)}</th>" for head in heads)
    yield "</tr></thead><tbody>"
    for row in body:
        css_class = "first" if row[0] else ""
        last = "wrong" if row[-1] == "NO" else ""
        cells = [*(f"<td>{_cell(cell)}</td>" for cell in row[:-1]), f'<td class="{last}">{escape(row[-1])}</td>']
        yield f'<tr class="{css_class}">{"".join(cells)}</tr>'
    yield f"</tbody></table></div><ul>{_items(goals_table.NOTES)}</ul>"


def _section(kind: Kind, summaries: Sequence[Summary]) -> Iterator[str]:
    yield f"<h2>{escape(str(kind))}</h2>"
    yield f"<p>In this class, {tables.SURVIVES[kind.durability]}.</p>"
    measured = [summary for summary in summaries if summary.rounds]
    agent_counts = {summary.workload.agents for summary in measured}
    drawn = _plots_over_agents(measured) if len(agent_counts) > 1 else _plots_of_one_workload(measured)
    yield _legend(dict.fromkeys(summary.system for summary in measured))
    yield "<div class=plots>" + "".join(f"<figure>{plot}</figure>" for plot in drawn if plot) + "</div>"
    yield _result_table(summaries)


def _legend(names: Iterable[str]) -> str:
    items = (
        f"<span><i style='background:{plots.color_of(name, index)}'></i>{escape(tables.title_of(name))}</span>"
        for index, name in enumerate(names)
    )
    return f"<p class=legend>{''.join(items)}</p>"


def _plots_over_agents(summaries: Sequence[Summary]) -> Iterator[str]:
    for title, name, better, format_value in (
        ("Rows per second", "rows_per_s", plots.HIGHER, _integer),
        ("Commit, median", "commit_p50_s", plots.LOWER, duration),
        ("Commit, 99th percentile", "commit_p99_s", plots.LOWER, duration),
        ("Commit, worst", "commit_worst_s", plots.LOWER, duration),
    ):
        points: dict[str, list[tuple[float, float]]] = {}
        for summary in summaries:
            points.setdefault(summary.system, []).append((summary.workload.agents, summary.figures[name].median))
        yield plots.line_plot(title, "agents", better, points, format_value)


def _plots_of_one_workload(summaries: Sequence[Summary]) -> Iterator[str]:
    if not summaries:
        return
    agents = summaries[0].workload.agents
    rates = {summary.system: summary.figures["rows_per_s"].median for summary in summaries}
    yield plots.bar_plot(f"Rows per second, {agents} agents", rates, _integer)
    names = ("commit_p50_s", "commit_p99_s", "commit_p999_s", "commit_worst_s")
    percentiles = {summary.system: [summary.figures[name].median for name in names] for summary in summaries}
    yield plots.percentile_plot(f"Commit, {agents} agents", ("p50", "p99", "p99.9", "worst"), percentiles)


def _curves(curves: Sequence[Curve]) -> Iterator[str]:
    yield "<h2>edgeshard's own costs, and how they grow</h2><div class=plots>"
    for curve in curves:
        points = {label: [(x, figure.median) for x, figure in line] for label, line in curve.lines.items()}
        better = plots.HIGHER if curve.unit == "1/s" else plots.LOWER
        format_value = partial(tables.curve_value, unit=curve.unit)
        plot = plots.line_plot(curve.title, curve.x_title, better, points, format_value)
        yield f"<figure>{_legend(points)}{plot}{_curve_table(tables.curve_table(curve))}</figure>"
    yield "</div>"


def _curve_table(table: Table) -> str:
    heads, body = table
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body)
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    return f"<div class=inner><table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table></div>"


def _integer(value: float) -> str:
    return f"{value:,.0f}"


def _result_table(summaries: Sequence[Summary]) -> str:
    columns = tables.result_columns(summaries)
    body = []
    previous_agents = summaries[0].workload.agents
    for summary in summaries:
        classes = ["first"] if summary.workload.agents != previous_agents else []
        classes += ["ours"] if summary.system == "edgeshard" else []
        previous_agents = summary.workload.agents
        cells = tables.result_cells(summary, columns)
        body.append(f'<tr class="{" ".join(classes)}">{"".join(_result_cells(summary, cells))}</tr>')
    heads = "".join(f"<th>{escape(head).replace('/', '/<wbr>')}</th>" for head, _ in columns)
    return f"<div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def _result_cells(summary: Summary, cells: Sequence[str]) -> Iterator[str]:
    """Yield the cells of a line. If nothing was measured, the reason takes the place of all figures."""
    figures = cells[:-1] if summary.rounds else cells[:2]
    for cell in figures:
        yield f"<td>{_cell(cell)}</td>"
    css_class = "wrong" if not summary.is_sound else "none" if summary.trouble else ""
    yield f'<td class="{css_class}" colspan={len(cells) - len(figures)}>{escape(cells[-1])}</td>'


def _cell(cell: str) -> str:
    """Return the content of a cell, with its range in a line of its own: so a table fits into a narrow window."""
    text, bracket, spread = cell.partition(" (")
    return f"{escape(text)}<br><small>{escape(spread.rstrip(')'))}</small>" if bracket else escape(cell)


def _guarantees(table: Table) -> Iterator[str]:
    heads, body = table
    yield "<div class=scroll><table class=text><thead><tr>"
    yield "".join(f"<th>{escape(head)}</th>" for head in heads)
    yield "</tr></thead><tbody>"
    for row in body:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _items(notes: str) -> str:
    items = notes.replace("\n  ", " ").split("\n")
    return "".join(f"<li>{escape(item.removeprefix('* '))}</li>" for item in items)
