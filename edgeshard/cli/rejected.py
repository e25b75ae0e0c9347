"""``edgeshard rejected``: list the rows that PostgreSQL rejected, with the reasons, or dismiss them."""

from __future__ import annotations

import argparse

from edgeshard import units
from edgeshard.cli import arguments, confirm, exits, output
from edgeshard.errors import printable
from edgeshard.reports import RejectedReport
from edgeshard.store import REJECTED_LIMIT

SUMMARY = "List the rows that PostgreSQL rejected in pushes, with the reasons; or dismiss them."

_EPILOG = """\
Rejected rows stay in the master, and pushes leave them out; all others are pushed. Let the agents write what PostgreSQL
can store, or change the table there, and try them again: `edgeshard push STORE DSN --retry-rejected`. U+0000 and halves
of surrogate pairs can be replaced: `edgeshard push STORE DSN --on-invalid replace`.

examples:
  %(prog)s data
  %(prog)s data --json --limit 1000000        the address of each range of rows
  %(prog)s data --dismiss --why "test rows of the first week"

exit codes:
  0 no rows are rejected, or all are dismissed       1 failed, or not confirmed            2 wrong usage
  3 rows are rejected
  65 the master is damaged                           74 input/output error, or no space
  75 the master is locked                            77 not permitted
  78 there is no such store, or no master in it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument(
        "--limit",
        type=arguments.count,
        default=REJECTED_LIMIT,
        metavar="N",
        help="list at most N ranges of rows (default: %(default)s); all are counted",
    )
    parser.add_argument("--dismiss", action="store_true", help="never push these rows; they stay in the master")
    parser.add_argument("--why", type=arguments.name, metavar="TEXT", help="with --dismiss: the reason, for the record")
    parser.add_argument(
        "--table", type=arguments.name, metavar="NAME", help="with --dismiss: only rows rejected because of this table"
    )
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    confirm.add_yes(parser)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """List or dismiss, once the user has confirmed how many rows that are."""
    store = arguments.store_with_master(options)
    if not options.dismiss:
        for name in ("why", "table", "dry_run"):
            if getattr(options, name):
                options.usage_error(f"argument --{name.replace('_', '-')}: requires --dismiss")
        report = store.rejected(limit=options.limit)
    else:
        if options.why is None:
            options.usage_error("argument --dismiss: requires --why")
        table = options.table or ""
        report = store.dismiss_rejected(why=options.why, table=table, dry_run=True)
        question = f"Dismiss {units.count(report.rows, 'rejected row')}, so that no push brings them?"
        if report.rows and not confirm.is_confirmed(options, question):
            return exits.FAILED
        if not options.dry_run:
            report = store.dismiss_rejected(why=options.why, table=table)
    # a table of a hundred thousand ranges takes half a minute
    output.print_report(report, "" if options.json else _text(report), as_json=options.json)
    return exits.report_code(complete=report.complete)


def _text(report: RejectedReport) -> str:
    lines = [str(report), *(f"  {item}" for item in (*report.rejected, *report.dismissed))]
    listed = [item for item in report.ranges if not item.is_dismissed]
    if listed:
        names = ("agent", "stream", "seqs", "because of", "kind", "table", "column")
        rows = [
            (
                printable(item.agent),
                item.stream,
                f"{item.first}-{item.last}",
                item.seq,
                item.kind,
                printable(item.table),
                printable(item.column),
            )
            for item in listed
        ]
        lines += ["", output.table(names, rows)]
        more = sum(item.ranges for item in report.rejected) - len(listed)
        if more > 0:
            lines.append(f"and {units.count(more, 'more range')} (--limit)")
    return "\n".join(lines)
