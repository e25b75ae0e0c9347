"""The printed report: Markdown tables, one for each kind of workload."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgeshard.bench.costs.curve import Curve
from edgeshard.bench.goals.goal import Outcome
from edgeshard.bench.machine import Machine
from edgeshard.bench.report import goals_table, tables
from edgeshard.bench.report.verdict import question, verdict
from edgeshard.bench.summary import Summary


def report(
    machine: Machine, summaries: Sequence[Summary], curves: Sequence[Curve] = (), outcomes: Sequence[Outcome] = ()
) -> str:
    """Return the whole report: the question, the answer, the machine, the goals, all tables, and the curves."""
    answer = verdict(summaries, outcomes)
    parts = [f"## {question(summaries, outcomes)}", *([answer] if answer else []), str(machine)]
    if outcomes:
        parts.append(goals_section(outcomes))
    if summaries:
        parts += [*result_sections(summaries), grid(*tables.guarantees(summaries)), tables.NOTES]
    return "\n\n".join([*parts, *map(curve_section, curves)])


def result_sections(summaries: Iterable[Summary]) -> Iterator[str]:
    """Yield one table with a heading for each kind of workload."""
    for kind, members in tables.by_kind(summaries).items():
        rounds = max(summary.rounds for summary in members)
        length = members[0].workload.length_s
        times = "one round" if rounds == 1 else f"medians of {rounds} rounds (lowest to highest)"
        survives = f"In this class, {tables.SURVIVES[kind.durability]}"
        columns = tables.result_columns(members)
        body = [tables.result_cells(summary, columns) for summary in members]
        yield f"### {kind}\n\n{survives}; {times} of {length:g} s.\n\n{grid([head for head, _ in columns], body)}"


def goals_section(outcomes: Iterable[Outcome]) -> str:
    """Return the goals as a table with a heading."""
    return f"### {goals_table.TITLE}\n\n{grid(*goals_table.goals_table(outcomes))}\n\n{goals_table.NOTES}"


def curve_section(curve: Curve) -> str:
    """Return a curve as a table with a heading."""
    return f"### {curve.title}\n\n{grid(*tables.curve_table(curve))}"


def grid(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with padded columns: the first two aligned left, the others right."""
    widths = [max(len(row[column]) for row in (heads, *body)) for column in range(len(heads))]

    def row(cells: Sequence[str]) -> str:
        cells = [cell.replace("|", "/") for cell in cells]  # the text of an error may contain anything
        padded = (
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < 2 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([row(heads), row(rule), *map(row, body)])
