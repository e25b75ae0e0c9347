"""The contents of all tables, as heads and cells: results of systems, their guarantees, and cost curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from edgeshard.bench.costs.curve import Curve
from edgeshard.bench.spread import Spread
from edgeshard.bench.summary import Summary
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.units import duration, number, size
from edgeshard.bench.workload import Workload, rows_per_commit

SURVIVES: Final = {
    "process": "acknowledged rows survive a kill of the process",
    "power": "acknowledged rows survive a power cut",
}

#: The cell of a figure that does not apply or is unknown.
NONE: Final = "-"

#: A column's head, and the function that makes its cell.
Column = tuple[str, Callable[[Summary], str]]
#: Heads and rows of a table.
Table = tuple[list[str], list[list[str]]]


@attrs.frozen
class Kind:
    """Workloads that differ only in the number of agents, and so share a table and a plot.

    In particular, workloads with different durability never share one.
    """

    durability: str
    rate: float | None
    commit_rows: int
    payload_bytes: int

    @classmethod
    def from_workload(cls, workload: Workload) -> Kind:
        """Return the kind of a workload."""
        return cls(workload.durability, workload.rate, workload.commit_rows, workload.payload_bytes)

    def __str__(self) -> str:
        rate = "unlimited rate" if self.rate is None else f"{self.rate:g} rows/s offered per agent"
        return f"{self.durability}: {rate}, {rows_per_commit(self.commit_rows)}, {size(self.payload_bytes)} per row"


def title_of(contestant: str) -> str:
    """Return what a system, or whatever else edgeshard is compared with, is called in tables."""
    return SYSTEMS[contestant].title if contestant in SYSTEMS else contestant


def by_kind(summaries: Iterable[Summary]) -> dict[Kind, list[Summary]]:
    """Group summaries that may be compared with each other."""
    found: dict[Kind, list[Summary]] = {}
    for summary in summaries:
        found.setdefault(Kind.from_workload(summary.workload), []).append(summary)
    return found


def result_columns(summaries: Sequence[Summary]) -> list[Column]:
    """Return the columns for summaries of one kind."""
    return list(_columns(has_rate=summaries[0].workload.rate is not None))


def _columns(*, has_rate: bool) -> Iterator[Column]:
    yield "agents", lambda summary: str(summary.workload.agents)
    yield "system", lambda summary: SYSTEMS[summary.system].title
    if has_rate:
        yield "on pace", _agents_on_pace
    yield "rows/s", _rows_per_s
    for head, name in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999")):
        yield head, _cell(f"commit_{name}_s", duration)
    yield "worst", lambda summary: duration(summary.figures["commit_worst_s"].high)
    if has_rate:
        yield "stale p50", _cell("stale_p50_s", duration)
        yield "stale worst", _cell("stale_worst_s", duration)
    yield "CPU s/10⁶", _cell("cpu_s_per_million_rows", "{:.1f}".format)
    yield "written/payload", _cell("written_bytes_per_payload_byte", "{:.1f}".format)
    yield "memory", _cell("memory_bytes", size)
    yield "disk", _cell("disk_bytes", size)
    yield "rows found", lambda summary: str(summary.row_check)


def _cell(name: str, format_value: Callable[[float], str]) -> Callable[[Summary], str]:
    """Return the function that formats the median of a figure."""

    def cell(summary: Summary) -> str:
        figure = summary.figures.get(name)
        return NONE if figure is None else format_value(figure.median)

    return cell


def _rows_per_s(summary: Summary) -> str:
    figure = summary.figures["rows_per_s"]
    spread = f" ({figure.low:,.0f} to {figure.high:,.0f})" if summary.rounds > 1 else ""
    return f"{figure.median:,.0f}{spread}"


def _agents_on_pace(summary: Summary) -> str:
    figure = summary.figures.get("agents_on_pace")
    return NONE if figure is None else f"{figure.median:.0f} of {summary.workload.agents}"


def result_cells(summary: Summary, columns: Sequence[Column]) -> list[str]:
    """Return the cells of a summary. If it has trouble, the last cell says which."""
    if summary.rounds:
        cells = [cell(summary) for _, cell in columns]
        if summary.trouble:
            cells[-1] = summary.trouble
        return cells
    first = [cell(summary) for _, cell in columns[:2]]
    return [*first, *(NONE for _ in columns[2:-1]), summary.trouble]


def guarantees(summaries: Iterable[Summary]) -> Table:
    """Return which settings of each system provide each durability."""
    summaries = list(summaries)
    systems = dict.fromkeys(summary.system for summary in summaries)
    durabilities = list(dict.fromkeys(summary.workload.durability for summary in summaries))
    body = [[SYSTEMS[name].title, *(SYSTEMS[name].guarantee[one] for one in durabilities)] for name in systems]
    return ["system", *durabilities], body


def curve_table(curve: Curve) -> Table:
    """Return the points of a curve; the last column is the ratio of cost and baseline if the curve has both."""
    labels = list(curve.lines)
    lines = [dict(points) for points in curve.lines.values()]
    has_ratio = curve.name in ("write", "merge", "wear") and len(lines) == 2
    body = []
    for x in lines[0]:
        figures = [line[x] for line in lines]
        cells = [number(x), *(_format_spread(figure, curve.unit) for figure in figures)]
        if has_ratio:
            cells.append(f"{figures[0].median / figures[1].median:.2f}")
        body.append(cells)
    return [curve.x_title, *labels, *(["ratio"] if has_ratio else [])], body


def curve_value(value: float, unit: str) -> str:
    """Format a figure of a curve."""
    return duration(value) if unit == "s" else f"{value:,.0f}"


def _format_spread(figure: Spread, unit: str) -> str:
    median, low, high = (curve_value(value, unit) for value in (figure.median, figure.low, figure.high))
    return f"{median} ({low} to {high})"


#: What the columns mean, one item per line of a Markdown list.
NOTES: Final = """\
* rows/s: until every row was in the final database (edgeshard: the master; queue: its SQLite database).
* p50 to worst: how long an agent waits for one commit, including refused attempts; worst is the worst of all rounds.
* on pace: agents that wrote at least 99 % of the rows they offered, in time. stale: age of a row when a reader that
  polls every 10 ms first saw it.
* CPU s/10⁶: processor seconds per million rows, for agents, servers and mergers together. written/payload: bytes
  written to the disk per byte of payload, from a sync before to a sync after (the device's counter, for all processes).
* memory: of all processes of the system; shared pages count once (PSS). disk: size of its files after it was stopped.
* rows found: every acknowledged row was read back and compared: all, or how many were lost, doubled or changed."""
