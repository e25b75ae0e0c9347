"""``edgeshard erase``: delete rows for good, in the master and pending ones, so that no copy brings them back."""

from __future__ import annotations

import argparse

from edgeshard import units
from edgeshard.cli import arguments, confirm, exits, output

SUMMARY = "Erase rows for good, in the master and pending ones: no copy brings them back into this store."

_EPILOG = """\
What is pending is merged first. The rows are deleted from the master, and their addresses recorded in erased.json.
Other databases keep their copies: the report names those that hold some, as their receipts say. Run it there, too.
Snapshots, bundles and backups have them as well. `edgeshard help manual-changes` says what else may have copies.

The condition is SQL over the columns of the table, as after WHERE; it can only read.

examples:
  %(prog)s data reading --where "sensor = 'inlet' and at < '2026'" --dry-run
  %(prog)s data agent_data --where "data ->> '$.user' = 'ada'"
  %(prog)s data agent_data --where "agent_id = 'door-3'" --yes --json

exit codes:
  0 done, also if there was nothing to erase       1 failed, not confirmed, or SQLite refused the SQL   2 wrong usage
  3 done, but shards could not be examined (see status), or another program keeps the master's WAL in use
  74 input/output error, or no space               75 a merger is at work (--lock-wait), or the master is locked
  77 not permitted                                 78 there is no such folder, no master in it, or no such table
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("table", metavar="TABLE", type=arguments.name, help="the table; its history is meant as well")
    parser.add_argument("--where", required=True, type=arguments.name, metavar="SQL", help="which rows: a condition")
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    confirm.add_yes(parser)
    arguments.add_lock_wait(parser)
    interrupted = "interrupted; what was begun is completed by the next merge"
    parser.set_defaults(run=run, interrupted=interrupted)


def run(options: argparse.Namespace) -> int:
    """Erase, once the user has confirmed it."""
    store = arguments.store_with_master(options)
    report = store.erase(options.table, options.where, dry_run=True)
    if not options.dry_run:
        more = f", and those among {units.count(report.pending, 'pending row')}" if report.pending else ""
        question = f"Erase {units.count(report.rows, 'row')} of table {options.table} for good{more}?"
        if not confirm.is_confirmed(options, question):
            return exits.FAILED
        report = store.erase(options.table, options.where, lock_wait=options.lock_wait)
    output.print_report(report, str(report), as_json=options.json)
    return exits.report_code(complete=report.complete)
