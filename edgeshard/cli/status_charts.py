"""The charts of the status page, each with what it means and its values as a table."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

import attrs

from edgeshard import charts, units
from edgeshard.charts import Series
from edgeshard.errors import printable
from edgeshard.reports import Activity, AgentRows, Arrivals, Gap, ShardStatus, StatusReport

#: Shards in the charts of what is pending, and agents with gaps.
_BARS_MAX: Final = 12

#: Rows of a table.
_ROWS_MAX: Final = 100

#: Characters of a name next to a bar, and in a legend or a table.
_BAR_NAME: Final = 16

NAME_CHARS: Final = 40

#: How wide a gap is drawn at least, as a share of its line.
_GAP_SHARE_MIN: Final = 0.012

#: Gaps of an agent that are drawn one by one.
_GAPS_DRAWN: Final = 12

#: The page's colours, for agents by their rank.
COLOURS: Final = tuple(f"var(--series-{number})" for number in range(8))

_OTHERS: Final = "var(--faint)"

_HELD: Final = "var(--grid)"

_MISSING: Final = "var(--red)"


@attrs.frozen
class Table:
    """A table: its columns, its rows, and how many rows more there are."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    more: int = 0


@attrs.frozen
class Figure:
    """A part of the page.

    Attributes:
        title: what it shows.
        note: what that means exactly.
        svg: the chart, or "" if there is nothing to draw; then `note` says why.
        legend: (name, colour) of each series, unless the chart has labels.
        table: the chart's values.
    """

    title: str
    note: str
    svg: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    table: Table | None = None


def figures(status: StatusReport, activity: Activity) -> list[Figure]:
    """Return all figures of the page."""
    colours = _colours(activity.last_day)
    return [
        *([_gaps(status.gaps, activity)] if status.gaps else []),
        _arrivals("Rows per minute, last hour", "minute", activity.last_hour, colours, label_every=10),
        _arrivals("Rows per minute, last 24 hours", "half hour", activity.last_day, colours, label_every=8),
        _pending(status.shards),
        *([_staleness(status.shards)] if status.pending_rows else []),
        _size(status),
        _written(activity),
    ]


def short(name: str, length: int = NAME_CHARS) -> str:
    """Return a name that fits, cut in the middle, with printable characters only."""
    text = printable(name)
    keep = length - 1
    return text if len(text) <= length else f"{text[: keep - keep // 2]}…{text[-(keep // 2) :]}"


# -- rows that arrived ------------------------------------------------------------------------------------------------


def _colours(found: Arrivals | None) -> dict[str, str]:
    """Return the colours of the busiest agents."""
    return {} if found is None else dict(zip((agent.agent for agent in found.agents), COLOURS, strict=False))


def _arrivals(title: str, period: str, found: Arrivals | None, known: Mapping[str, str], label_every: int) -> Figure:
    """Return the rows of a time; agents have the colours that are known, and others those that are left."""
    if found is None:
        return Figure(title, "No arrival is recorded: nothing was merged yet, or this machine's clock was never set.")
    if not found.total:
        return Figure(title, "No rows arrived in the master.")
    agents = [*found.agents]
    if found.other_agents:
        agents.append(AgentRows(units.count(found.other_agents, "other agent"), found.other_rows))
    names = [short(agent.agent) for agent in agents]
    taken = {known[agent.agent] for agent in found.agents if agent.agent in known}
    left = iter([colour for colour in COLOURS if colour not in taken])
    colours = [known.get(agent.agent) or next(left) for agent in found.agents]
    colours += [_OTHERS] if found.other_agents else []
    times = [found.begins_at + datetime.timedelta(seconds=found.period_s * n) for n in range(len(agents[0].rows))]
    labels = [time.strftime("%H:%M") for time in times]
    minutes = found.period_s / 60
    note = (
        f"By the {period} in which rows arrived in the master (UTC), which is when they were merged, not written. "
        f"Exact to about a minute. The last {period} is not over yet. Rows that were pruned since are not counted."
    )
    busy = [n for n in range(len(labels)) if any(agent.rows[n] for agent in agents)]
    rows = [(labels[n], *(_number(agent.rows[n] / minutes) for agent in agents)) for n in reversed(busy)]
    return Figure(
        title,
        note,
        charts.stacked_columns(
            f"{title}, by agent: {units.count(found.total, 'row')} in all",
            labels,
            labels[::label_every],
            [
                Series([rows / minutes for rows in agent.rows], colour)
                for agent, colour in zip(agents, colours, strict=True)
            ],
            _number,
        ),
        tuple(
            (f"{name}: {units.count(agent.total, 'row')}", colour)
            for name, agent, colour in zip(names, agents, colours, strict=True)
        ),
        Table(("time (UTC)", *names), rows),
    )


def _number(value: float) -> str:
    """Format a number in few characters: "0.43", "12", "3,400", "1.2 M"."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:.3g} M"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


# -- what is pending --------------------------------------------------------------------------------------------------


def _pending(shards: Sequence[ShardStatus]) -> Figure:
    note, nothing = "Rows in the shards that the master does not hold.", "No rows are pending."
    unknown = sum(shard.pending_rows is None for shard in shards)
    if unknown:
        aside = f" {units.count(unknown, 'shard')} could not be read: see the table of shards."
        note, nothing = note + aside, nothing + aside
    return _bars(
        "Pending rows by shard", "pending rows", note, shards, lambda shard: shard.pending_rows, _number, nothing
    )


def _staleness(shards: Sequence[ShardStatus]) -> Figure:
    note = "For how long the oldest pending row of a shard has been pending, at most."
    nothing = "No row has been pending for as long as a second."
    return _bars(
        "Staleness by shard",
        "oldest pending row",
        note,
        shards,
        lambda shard: int(shard.oldest_age_s or 0),
        units.duration,
        nothing,
    )


def _bars(
    title: str,
    column: str,
    note: str,
    shards: Sequence[ShardStatus],
    value_of: Callable[[ShardStatus], float | None],
    to_text: charts.Format,
    nothing: str,
) -> Figure:
    """Return the bars of the shards with the highest values, or say that there are none."""
    values = [(shard, value) for shard in shards if (value := value_of(shard))]
    values.sort(key=lambda each: -each[1])
    if not values:
        return Figure(title, nothing)
    drawn = values[:_BARS_MAX]
    if len(values) > len(drawn):
        note += f" The highest {len(drawn)} of {len(values)}."
    labels = [f"{short(name_of(shard), _BAR_NAME)}: {to_text(value)}" for shard, value in drawn]
    series = [Series([value for _, value in drawn], COLOURS[0])]
    rows = [(short(name_of(shard)), to_text(value)) for shard, value in values[:_ROWS_MAX]]
    return Figure(
        title,
        note,
        charts.stacked_bars(f"{title}: {units.count(len(values), 'shard')}", labels, series, to_text),
        table=Table(("agent", column), rows, len(values) - len(rows)),
    )


def name_of(shard: ShardStatus) -> str:
    """Return the agent's name, or the file's if it is unknown."""
    return shard.name if shard.agent is None else shard.agent


# -- size -------------------------------------------------------------------------------------------------------------


def _size(status: StatusReport) -> Figure:
    title, space, budget = "Size", status.space, status.budget
    master, wal = units.size(status.master.size_bytes), units.size(status.master.wal_bytes)
    note = f"The master is {master} and its WAL {wal}; the whole store is {units.size(space.total_bytes)}."
    if budget is None:
        note += " It has no disk budget."
    else:
        used, limit = units.size(budget.used_bytes), units.size(budget.limit_bytes)
        note += f" {used} of a disk budget of {limit} are used; when it is full: {budget.on_full}."
        if budget.limit_bytes < budget.max_bytes:
            note += f" The disk has no more; the budget is {units.size(budget.max_bytes)}."
    parts = [
        ("rows and indexes", space.rows_bytes + (space.indexes_bytes or 0)),
        ("bookkeeping", space.bookkeeping_bytes),
        ("free pages", space.free_bytes),
        ("the master's WAL", space.master_wal_bytes),
        ("shards", space.shards_bytes),
        ("WALs of shards", space.shard_wals_bytes),
        ("other files", space.other_bytes),
    ]
    parts = [(name, count) for name, count in parts if count]
    if not parts:
        return Figure(title, note)
    bars = [f"store: {units.size(space.total_bytes)}"]
    if budget is not None:
        bars.append(f"budget: {units.size(budget.limit_bytes)}")
    series = [
        Series([count, *([None] if budget else [])], colour) for (_, count), colour in zip(parts, COLOURS, strict=False)
    ]
    if budget is not None:
        series.append(Series([None, budget.limit_bytes], _OTHERS))
    legend = tuple(
        (f"{name}: {units.size(count)}", colour) for (name, count), colour in zip(parts, COLOURS, strict=False)
    )
    rows = [(name, units.size(count)) for name, count in parts]
    rows += [("budget", units.size(budget.limit_bytes))] if budget else []
    svg = charts.stacked_bars("Size of the store by kind, and its budget", bars, series, units.size)
    return Figure(title, note, svg, legend, Table(("kind", "size"), rows))


def _written(activity: Activity) -> Figure:
    title = "Bytes written per day"
    if not activity.days:
        return Figure(title, "Nothing is recorded yet.")
    note = "To shards and master (UTC days), as far as SQLite wrote them; flash writes more. Today's are not complete."
    labels = [day.day[5:] for day in activity.days]
    every = max(1, len(labels) // 5)
    svg = charts.stacked_columns(
        title, labels, labels[::every], [Series([day.bytes for day in activity.days], COLOURS[0])], units.size
    )
    rows = [(day.day, units.size(day.bytes), f"{day.rows:,}") for day in reversed(activity.days)]
    return Figure(title, note, svg, table=Table(("day", "written", "rows merged"), rows))


# -- gaps -------------------------------------------------------------------------------------------------------------


def _gaps(gaps: Sequence[Gap], activity: Activity) -> Figure:
    by_agent = [(agent, list(found)) for agent, found in groupby(gaps, key=lambda gap: gap.agent)]
    by_agent.sort(key=lambda each: -sum(map(len, each[1])))
    drawn = by_agent[:_BARS_MAX]
    note = (
        "One line per agent: its streams that lack rows, from their first row to the last that is known to exist. "
        f"Missing rows are red, and wide enough to be seen; after {_GAPS_DRAWN} gaps, the last one stands for the rest."
    )
    if len(by_agent) > len(drawn):
        note += f" The {len(drawn)} agents with the most missing rows, of {len(by_agent)}."
    lines = [line_of_gaps(found, activity) for _, found in drawn]
    series = [
        Series([line[n] if n < len(line) else None for line in lines], _MISSING if n % 2 else _HELD)
        for n in range(max(map(len, lines)))
    ]
    labels = [f"{short(agent, _BAR_NAME)}: {_number(sum(map(len, found)))}" for agent, found in drawn]
    rows = [
        (short(gap.agent), f"{gap.first:,} to {gap.last:,}", f"{len(gap):,}", gap.stream) for gap in gaps[:_ROWS_MAX]
    ]
    return Figure(
        "Gaps",
        note,
        charts.stacked_bars(f"Missing rows of {units.count(len(by_agent), 'agent')}", labels, series, None),
        table=Table(("agent", "seqs", "rows", "stream"), rows, len(gaps) - len(rows)),
    )


def line_of_gaps(gaps: Iterable[Gap], activity: Activity) -> list[float]:
    """Return an agent's line as shares of it: rows that are there, rows that are missing, rows that are there ..."""
    parts: list[float] = [0.0]
    for stream, found in groupby(gaps, key=lambda gap: gap.stream):
        seq = 0
        for gap in found:
            parts[-1] += gap.first - 1 - seq
            parts += [float(len(gap)), 0.0]
            seq = gap.last
        parts[-1] += max(0, activity.last_seqs.get(stream, seq) - seq)
    drawn, rest = parts[: 2 * _GAPS_DRAWN], parts[2 * _GAPS_DRAWN :]
    drawn += [sum(rest[::2]), sum(rest[1::2])] if len(rest) > 1 else rest
    wide = [max(part, _GAP_SHARE_MIN * sum(drawn)) if n % 2 else part for n, part in enumerate(drawn)]
    return [part / sum(wide) for part in wide]
