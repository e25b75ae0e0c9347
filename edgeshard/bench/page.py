"""The report as one HTML file that needs nothing from elsewhere: tables, and plots that are drawn in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from html import escape
from typing import Final

from edgeshard.bench import markdown, plots
from edgeshard.bench.machine import Machine
from edgeshard.bench.markdown import Kind, duration
from edgeshard.bench.scaling import Curve
from edgeshard.bench.summary import Line

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
th, td { padding: .28rem .6rem; text-align: right; white-space: nowrap; }
th { color: #666; font-weight: 600; border-bottom: 1px solid #ccc; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr.first td { border-top: 2px solid #cfcac2; } tr.ours td { background: #fdf1ec; } td.wrong { color: #b00020;
  font-weight: 700; } td.none { white-space: normal; color: #777; text-align: left; }
ul { padding-left: 1.1rem; color: #555; font-size: .88rem; } code { font-size: .9em; }
"""


def page(where: Machine, command: str, lines: Sequence[Line], curves: Sequence[Curve] = ()) -> str:
    """The report.

    Args:
        where: the machine.
        command: the command that measured.
        lines: what was found of the systems.
        curves: what was found of edgeshard itself.
    """
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>edgeshard, measured</title><style>{_STYLE}</style></head><body>",
        "<h1>What many agents write, and where</h1>",
        f"<p class=machine>{escape(str(where))}<br><code>{escape(command)}</code></p>",
        *_warning(where),
        *(part for kind, members in markdown.by_kind(lines).items() for part in _section(kind, members)),
        *(_curves(curves) if curves else ()),
        "<h2>What each system guarantees</h2>",
        *_guarantees(lines),
        "<h2>What the columns mean</h2>",
        f"<ul>{_notes()}</ul>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _warning(where: Machine) -> Iterator[str]:
    if not where.is_quiet:
        yield (
            "<p class=noisy>Other programs kept this machine busy when the run began "
            f"(load {where.load:.1f} on {where.processors} processors). Do not rely on the figures.</p>"
        )


def _section(kind: Kind, lines: Sequence[Line]) -> Iterator[str]:
    yield f"<h2>{escape(str(kind))}</h2>"
    yield f"<p>In this class {markdown.SURVIVES[kind.durability]}.</p>"
    measured = [line for line in lines if line.rounds]
    counts = {line.workload.agents for line in measured}
    drawn = _over_agents(measured) if len(counts) > 1 else _of_one_count(measured)
    yield _legend(dict.fromkeys(line.system for line in measured))
    yield "<div class=plots>" + "".join(f"<figure>{plot}</figure>" for plot in drawn if plot) + "</div>"
    yield _table(lines)


def _legend(names: Iterable[str]) -> str:
    items = (
        f"<span><i style='background:{plots.colour_of(name, place)}'></i>{escape(plots.title_of(name))}</span>"
        for place, name in enumerate(names)
    )
    return f"<p class=legend>{''.join(items)}</p>"


def _over_agents(lines: Sequence[Line]) -> Iterator[str]:
    """Plots of what changes with the number of agents."""
    for title, name, form in (
        ("Rows a second", "rows_per_s", _number),
        ("Commit, median", "commit_p50_s", duration),
        ("Commit, 99th percentile", "commit_p99_s", duration),
        ("Commit, worst", "commit_worst_s", duration),
    ):
        points: dict[str, list[tuple[float, float]]] = {}
        for line in lines:
            points.setdefault(line.system, []).append((line.workload.agents, line.figures[name].median))
        yield plots.against(title, "agents", points, form)


def _of_one_count(lines: Sequence[Line]) -> Iterator[str]:
    """Plots of one workload."""
    if not lines:
        return
    agents = lines[0].workload.agents
    yield plots.bars(
        f"Rows a second, {agents} agents", {line.system: line.figures["rows_per_s"].median for line in lines}, _number
    )
    names = ("commit_p50_s", "commit_p99_s", "commit_p999_s", "commit_worst_s")
    profiles = {line.system: [line.figures[name].median for name in names] for line in lines}
    yield plots.profile(f"Commit, {agents} agents", ("p50", "p99", "p99.9", "worst"), profiles)


def _curves(curves: Sequence[Curve]) -> Iterator[str]:
    yield "<h2>edgeshard's own costs, and how they grow</h2><div class=plots>"
    for curve in curves:
        points = {name: [(x, figure.median) for x, figure in line] for name, line in curve.lines.items()}
        plot = plots.against(curve.title, curve.x_title, points, partial(markdown.value, unit=curve.unit))
        heads, body = markdown.cells_of_curve(curve)
        yield f"<figure>{_legend(points)}{plot}{_grid(heads, body)}</figure>"
    yield "</div>"


def _grid(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body)
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    return f"<div class=inner><table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table></div>"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _table(lines: Sequence[Line]) -> str:
    columns = markdown.columns_of(lines)
    body = []
    before = None
    for line in lines:
        kinds = [name for name, holds in (("first", before is not None and before != line.workload.agents),) if holds]
        kinds += ["ours"] if line.system == "edgeshard" else []
        before = line.workload.agents
        cells = markdown.cells_of(line, columns)
        body.append(f'<tr class="{" ".join(kinds)}">{"".join(_cells(line, cells))}</tr>')
    heads = "".join(f"<th>{escape(head)}</th>" for head, _ in columns)
    return f"<div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def _cells(line: Line, cells: Sequence[str]) -> Iterator[str]:
    for cell in cells[:-1]:
        yield f"<td>{escape(cell)}</td>"
    kind = "" if not line.trouble and line.account.is_exact else "none" if not line.is_failure else "wrong"
    yield f'<td class="{kind if line.account.is_exact else "wrong"}">{escape(cells[-1])}</td>'


def _guarantees(lines: Iterable[Line]) -> Iterator[str]:
    lines = list(lines)
    heads, body = markdown.guarantees_of(
        dict.fromkeys(line.system for line in lines), dict.fromkeys(line.workload.durability for line in lines)
    )
    yield "<div class=scroll><table><thead><tr>"
    yield "".join(f"<th style='text-align:left'>{escape(head)}</th>" for head in heads)
    yield "</tr></thead><tbody>"
    for row in body:
        yield "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _notes() -> str:
    items = markdown.NOTES.replace("\n  ", " ").split("\n")
    return "".join(f"<li>{escape(item.removeprefix('* '))}</li>" for item in items)
