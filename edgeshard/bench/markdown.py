"""The tables, in Markdown: one for each kind of workload, so that no two durabilities are ever in one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from edgeshard.bench.figures import Figure
from edgeshard.bench.scaling import Curve
from edgeshard.bench.summary import Line
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import Workload, size

SURVIVES: Final = {
    "process": "what is acknowledged survives a kill of the process",
    "power": "what is acknowledged survives a power cut",
}

#: Stands for a figure that does not apply, or of which nothing is known.
NONE: Final = "-"

Column = tuple[str, Callable[[Line], str]]


@attrs.frozen
class Kind:
    """Workloads that differ in nothing but the number of agents, and so share a table and a plot."""

    durability: str
    rate: float | None
    commit_rows: int
    payload_bytes: int

    @classmethod
    def of(cls, workload: Workload) -> Kind:
        """The kind of a workload."""
        return cls(workload.durability, workload.rate, workload.commit_rows, workload.payload_bytes)

    def __str__(self) -> str:
        pace = "as fast as they can" if self.rate is None else f"{self.rate:g} rows/s offered by each agent"
        commit = "a row a commit" if self.commit_rows == 1 else f"{self.commit_rows} rows a commit"
        return f"{self.durability}: {pace}, {commit}, {size(self.payload_bytes)} a row"


def by_kind(lines: Iterable[Line]) -> dict[Kind, list[Line]]:
    """Lines, each with those it may be compared to."""
    found: dict[Kind, list[Line]] = {}
    for line in lines:
        found.setdefault(Kind.of(line.workload), []).append(line)
    return found


def tables(lines: Iterable[Line]) -> Iterator[str]:
    """The tables, each with a heading."""
    for kind, members in by_kind(lines).items():
        rounds = max(line.rounds for line in members)
        length = members[0].workload.length_s
        times = "one round" if rounds == 1 else f"medians of {rounds} rounds (lowest to highest)"
        yield f"### {kind}\n\nIn this class {SURVIVES[kind.durability]}; {times} of {length:g} s.\n\n{table(members)}"


def table(lines: Sequence[Line]) -> str:
    """One table."""
    columns = columns_of(lines)
    return grid([head for head, _ in columns], [cells_of(line, columns) for line in lines])


def grid(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned: the first two to the left."""
    widths = [max(len(row[place]) for row in (heads, *body)) for place in range(len(heads))]

    def row(cells: Sequence[str]) -> str:
        cells = [cell.replace("|", "/") for cell in cells]  # an error's text may have anything
        padded = (
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if place < 2 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([row(heads), row(rule), *map(row, body)])


def columns_of(lines: Sequence[Line]) -> list[Column]:
    """The columns for lines of one kind."""
    return list(_columns(paced=lines[0].workload.rate is not None))


def _columns(*, paced: bool) -> Iterator[Column]:
    yield "agents", lambda line: str(line.workload.agents)
    yield "system", lambda line: SYSTEMS[line.system].title
    if paced:
        yield "on pace", lambda line: _count(line, "agents_on_pace")
    yield "rows/s", _rate
    for head, name in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999")):
        yield head, _time_of(f"commit_{name}_s")
    yield "worst", lambda line: duration(line.figures["commit_worst_s"].high)
    if paced:
        yield "stale p50", _time_of("stale_p50_s")
        yield "stale worst", _time_of("stale_worst_s")
    yield "CPU s/10⁶", lambda line: _plain(line, "cpu_s_per_million_rows", "{:.1f}")
    yield "written/payload", lambda line: _plain(line, "written_bytes_per_payload_byte", "{:.1f}")
    yield "memory", lambda line: _bytes(line, "memory_bytes")
    yield "disk", lambda line: _bytes(line, "disk_bytes")
    yield "rows there", lambda line: str(line.account)


def cells_of(line: Line, columns: Sequence[Column]) -> list[str]:
    """A line of a table."""
    if line.rounds:
        cells = [cell(line) for _, cell in columns]
        if line.trouble:
            cells[-1] = line.trouble
        return cells
    first = [cell(line) for _, cell in columns[:2]]
    return [*first, *(NONE for _ in columns[2:-1]), line.trouble]


def _rate(line: Line) -> str:
    figure = line.figures["rows_per_s"]
    spread = f" ({figure.low:,.0f} to {figure.high:,.0f})" if line.rounds > 1 else ""
    return f"{figure.median:,.0f}{spread}"


def _time_of(name: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        figure = line.figures.get(name)
        return NONE if figure is None else duration(figure.median)

    return cell


def duration(seconds: float) -> str:
    """A time as people say it, with about two digits."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            value = seconds * factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.1f} s"


def _figure(line: Line, name: str) -> Figure | None:
    return line.figures.get(name)


def _plain(line: Line, name: str, form: str) -> str:
    figure = _figure(line, name)
    return NONE if figure is None else form.format(figure.median)


def _count(line: Line, name: str) -> str:
    figure = _figure(line, name)
    return NONE if figure is None else f"{figure.median:.0f} of {line.workload.agents}"


def _bytes(line: Line, name: str) -> str:
    figure = _figure(line, name)
    return NONE if figure is None else size(figure.median)


def guarantees(systems: Iterable[str], durabilities: Iterable[str]) -> str:
    """What each system gives for each durability, in its own terms, as a table."""
    return grid(*guarantees_of(systems, durabilities))


def guarantees_of(systems: Iterable[str], durabilities: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """The head and the body of that table."""
    classes = list(durabilities)
    body = [[SYSTEMS[name].title, *(SYSTEMS[name].guarantee[one] for one in classes)] for name in systems]
    return ["system", *classes], body


def curve(found: Curve) -> str:
    """A curve as a table, with a heading."""
    return f"### {found.title}\n\n{grid(*cells_of_curve(found))}"


def cells_of_curve(found: Curve) -> tuple[list[str], list[list[str]]]:
    """Its head and its body; where there are a cost and a peer, their ratio comes last."""
    names = list(found.lines)
    points = [dict(points) for points in found.lines.values()]
    has_ratio = found.name in ("write", "merge", "wear") and len(points) == 2
    body = []
    for x in points[0]:
        figures = [line[x] for line in points]
        cells = [plain(x), *(_spread(figure, found.unit) for figure in figures)]
        if has_ratio:
            cells.append(f"{figures[0].median / figures[1].median:.2f}")
        body.append(cells)
    return [found.x_title, *names, *(["ratio"] if has_ratio else [])], body


def plain(number: float) -> str:
    """A number without a unit: 0.1, 10,000,000."""
    return f"{number:g}" if number % 1 else f"{number:,.0f}"


def value(number: float, unit: str) -> str:
    """A figure of a curve."""
    return duration(number) if unit == "s" else f"{number:,.0f}"


def _spread(figure: Figure, unit: str) -> str:
    return f"{value(figure.median, unit)} ({value(figure.low, unit)} to {value(figure.high, unit)})"


NOTES: Final = """\
* rows/s: until every row was in the final database (for edgeshard the master, for the queue its SQLite).
* p50 to worst: one commit as its agent waits for it, with all that was refused and tried again; worst of all rounds.
* on pace: agents that wrote at least 99 % of what they offered, in time. stale: how old a row was when a reader, who
  looks every 10 ms, first saw it.
* CPU s/10⁶: processor seconds a million rows, of agents, servers and mergers. written/payload: bytes that were
  written to the disk from a sync before to a sync after (the device's counter, so everybody's), a byte of payload.
* memory: of all processes of the system, shared pages once (PSS). disk: what is left when it is stopped.
* rows there: each acknowledged row was read back and compared: all, or how many were lost, doubled or changed."""
