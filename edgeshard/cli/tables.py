"""``edgeshard tables``: which tables a store's master has, what is in them, and their columns."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence

from edgeshard import units
from edgeshard.cli import arguments, exits, output
from edgeshard.errors import printable
from edgeshard.reports import TableInfo, TablesReport
from edgeshard.store import shorten_text

SUMMARY = "List the record tables of a store's master: rows, agents, first and last arrival, size, columns."

_EPILOG = """\
Arrivals are when the first and the last of the rows that are there came into this master, to the minute, in UTC. The
size is that of the table and its indexes. To count the rows, each table is read once. `edgeshard help tables` describes
the types of columns. Each table also has a view that names the agent of each row, such as reading_with_agent.

examples:
  %(prog)s data
  %(prog)s data --schema                 the SQL of each table, its indexes and its view
  %(prog)s data --internal               edgeshard's own tables, too
  %(prog)s data --json | jq -r '.tables[] | [.name, .rows, .size_bytes] | @tsv'

exit codes:
  0 done                                 1 failed                    2 wrong usage
  65 the master is damaged               74 input/output error       75 the master is locked
  77 not permitted                       78 there is no such store, or no master in it
"""

#: The fewest columns for the name of a table.
_NAME_MIN = 10

#: The columns that a narrow line does without, the first one first.
_DISPENSABLE = ("agents", "first", "size")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("--schema", action="store_true", help="print the SQL of each table, its indexes and its view")
    parser.add_argument("--internal", action="store_true", help="also list edgeshard's own tables")
    arguments.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List the tables."""
    report = arguments.store_with_master(options).tables(internal=options.internal)
    text = "" if options.json else "\n".join(_schema(report) if options.schema else _lines(report))
    output.print_report(report, text, as_json=options.json)
    return exits.DONE


def _schema(report: TablesReport) -> list[str]:
    """Return the SQL of all tables, which can be run as it is."""
    statements = [sql for table in report.tables for sql in table.sql]
    return [printable(line) for sql in statements for line in f"{sql};".split("\n")]


def _lines(report: TablesReport) -> list[str]:
    if not report.tables:
        return ["there are no tables yet"]
    width = output.columns()
    internal = [table for table in report.tables if table.is_internal]
    records = [table for table in report.tables if not table.is_internal]
    lines = _record_tables(records, width) if records else []
    if internal:
        lines += _internal_tables(internal, width)
    for table in report.tables:
        columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
        lines += output.paragraph(f"{table.name}: {columns}", width, "  ", "")
    return lines


def _record_tables(tables: Sequence[TableInfo], width: int) -> list[str]:
    cells = _cells(tables, "first arrival", "last arrival", "%Y-%m-%d %H:%M")
    if _room(cells, width) < _NAME_MIN:
        cells = _cells(tables, "first", "last", "%Y-%m-%d")
    for name in _DISPENSABLE:
        if _room(cells, width) < _NAME_MIN:
            del cells[name]
    return _draw(tables, cells, width)


def _cells(tables: Sequence[TableInfo], first: str, last: str, form: str) -> dict[str, list[str]]:
    """Return the cells of each column but the first, by its title; times have the form that strftime takes."""
    return {
        "rows": [f"{table.rows:,}" for table in tables],
        "agents": [f"{table.agents:,}" for table in tables],
        first: [_time(table.first_at, form) for table in tables],
        last: [_time(table.last_at, form) for table in tables],
        "size": [_size(table) for table in tables],
    }


def _internal_tables(tables: Sequence[TableInfo], width: int) -> list[str]:
    return _draw(
        tables, {"rows": [f"{table.rows:,}" for table in tables], "size": [_size(table) for table in tables]}, width
    )


def _room(cells: dict[str, list[str]], width: int) -> int:
    return output.room_for_names([max(map(len, (name, *texts))) for name, texts in cells.items()], width)


def _draw(tables: Sequence[TableInfo], cells: dict[str, list[str]], width: int) -> list[str]:
    room = max(_NAME_MIN, _room(cells, width))
    names = [shorten_text(output.text(table.name), room) for table in tables]
    aligned = [output.aligned(name, texts) for name, texts in cells.items()]
    rows = [list(row) for row in zip(names, *aligned, strict=True)]
    return output.table(("table", *cells), rows, width).splitlines()


def _size(table: TableInfo) -> str:
    return "?" if table.size_bytes is None else units.size(table.size_bytes)


def _time(at: datetime.datetime | None, form: str) -> str:
    return "" if at is None else at.strftime(form)
