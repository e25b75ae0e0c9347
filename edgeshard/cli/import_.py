"""``edgeshard import``: import SQLite databases, NDJSON and CSV files of other programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from edgeshard.cli import arguments, confirm, exits, output
from edgeshard.errors import printable
from edgeshard.reports import ImportedFile, ImportedTable, ImportReport
from edgeshard.store import Store
from edgeshard.units import count

SUMMARY = "Import SQLite databases, NDJSON and CSV files of other programs; again and again, each row once."

_EPILOG = """\
What a file is, is decided by its content. The files are only read, also while their programs write to them. The rows of
a file become those of an agent with the file's name (without its ending), and are merged at the end.

A table of a SQLite database becomes a table with the same name and columns. A table agent_data with the columns
agent_id, timestamp and data (JSON objects) becomes dicts in agent_data that keep their time. Lines of NDJSON and CSV
become dicts in agent_data, or in --table.

Repeat it, and only new rows are imported: those with a higher INTEGER PRIMARY KEY; those that follow the imported rows
of another table, or of NDJSON and CSV, as long as these are unchanged. Otherwise the file or table is refused, with the
reason. `edgeshard help importing` says which changes are not noticed. A file is known again by its agent and its name,
in whichever folder it is; or, if it was renamed, by its rows.

As with any agent, the first import makes the store; on a terminal this asks before, unless --yes is given.

examples:
  %(prog)s data agent_shards/*.db                 one SQLite file per process
  %(prog)s data app.db --table readings           one of its tables
  %(prog)s data /var/log/app.log.1 /var/log/app.log --agent app
                                                  a log that is rotated: first the older file
  %(prog)s data export.csv --agent till-3 --table sales --dry-run

exit codes:
  0 done, also with nothing new        1 failed, or not confirmed       2 wrong usage
  3 done, but a file or a table was refused, or is read up to a row that is named; or rows were passed over or are
    pending
  65 the master is damaged             74 input/output error, or no space
  75 another merger is at work, and does not end
  77 not permitted                     78 there can be no such store, or another wrong setting
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", type=arguments.name, help="the files to import")
    parser.add_argument("--agent", metavar="NAME", type=arguments.name, help="the agent (default: the file's name)")
    parser.add_argument(
        "--table",
        metavar="T",
        type=arguments.name,
        help="of NDJSON and CSV: the table of the rows (default: agent_data); of a SQLite database: the table to "
        "import (default: all), or the name for its only table",
    )
    confirm.add_yes(parser)
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    arguments.add_quiet(parser)
    parser.set_defaults(run=run, interrupted="interrupted; what was committed stays, the next import continues")


def run(options: argparse.Namespace) -> int:
    """Import the files, and report what was imported."""
    store = Store(options.root)
    is_new = not store.exists()
    if not confirm.may_make(options, store):
        return exits.FAILED
    report = store.import_(options.files, agent=options.agent, table=options.table, dry_run=options.dry_run)
    for line in _problems(report):
        output.print_error(f"edgeshard import: {line}")
    made = [f"made the store {store.root}"] if is_new and store.exists() else []
    output.print_report(report, _text(made, report), as_json=options.json, quiet=options.quiet)
    return exits.report_code(complete=report.complete)


def _problems(report: ImportReport) -> Iterator[str]:
    for file in report.files:
        yield from file.errors
        for table in file.tables:
            yield from (f"import {file.path}: table {table.table}: {note}" for note in table.notes)
    if report.pending:
        yield f"the rows are in shards, and not all of them in the master yet: {report.pending}"


def _text(made: list[str], report: ImportReport) -> str:
    lines = [line for file in report.files for line in _file_lines(file, dry_run=report.dry_run)]
    return "\n".join(map(printable, [*made, *lines, str(report)]))


def _file_lines(file: ImportedFile, *, dry_run: bool) -> Iterator[str]:
    for table in file.tables:
        yield f"{file.path}: agent {file.agent}, table {table.table}: {_counted(table, dry_run=dry_run)}"
    if file.left_out:
        yield f"{file.path}: left out: {', '.join(file.left_out)}"


def _counted(table: ImportedTable, *, dry_run: bool) -> str:
    parts = [f"{count(table.rows, 'row')} {'to import' if dry_run else 'imported'}"]
    if table.known:
        parts.append(f"{table.known:,} before" + (f" from {table.continues}" if table.continues else ""))
    if table.unfinished_line:
        parts.append(f"line {table.unfinished_line:,} has no end yet, and is left for the next import")
    if table.error:
        parts.append("then refused" if table.rows else "refused")
    return ", ".join(parts)
