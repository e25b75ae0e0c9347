"""``edgeshard clock``: whether rows may be deleted by what the clock shows, and confirm that they may."""

from __future__ import annotations

import argparse
import shlex

from edgeshard.cli import arguments, confirm, exits, output
from edgeshard.errors import printable
from edgeshard.reports import ClockReport
from edgeshard.store import Store

SUMMARY = "Report whether this machine's clock is trusted for deleting rows by age, or confirm it."

_EPILOG = """\
Rows are deleted by age, for good, so no single reading of the clock decides that. If the clock goes ahead, as after a
year in which the device was off, or because it is wrong, this awaits confirmation: no row becomes older by it, and new
rows count as arriving at the later time. It is confirmed by itself once the clock has stayed there for ten days, in
which the machine was on, or was merged on each day. --confirm confirms it now: rows that arrived before become older by
that time. If the clock is right now, and was wrong when these rows arrived, do not confirm it, but wait.

If the clock is behind the time that the store has counted, because it was wrong for longer than that, --confirm moves
that time back. No row becomes older or younger by this.

examples:
  %(prog)s data
  %(prog)s data --confirm --dry-run
  %(prog)s data --confirm

exit codes:
  0 done, or nothing awaits confirmation                  1 failed; also if the master is damaged
  2 wrong usage                                           3 the clock awaits confirmation, or that was not given
  74 input/output error, or no space                      75 a merger is at work, or the master is locked
  77 not permitted
  78 there is no such folder, no master in it, or the clock was never set
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="the clock is right, and the time by which it went ahead has really passed",
    )
    arguments.add_dry_run(parser)
    confirm.add_yes(parser)
    arguments.add_json(parser)
    arguments.add_lock_wait(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Report, or confirm."""
    store = arguments.store_with_master(options)
    if not options.confirm:
        return _print(store, store.clock(), options)
    planned = store.confirm_clock(dry_run=True)
    if not options.dry_run:
        question = f"The clock shows {planned.wall.isoformat(timespec='seconds')}, and {planned.effect}. Is that right?"
        if not confirm.is_confirmed(options, question):
            return exits.INCOMPLETE
        planned = store.confirm_clock(lock_wait=options.lock_wait)
    return _print(store, planned, options)


def _print(store: Store, report: ClockReport, options: argparse.Namespace) -> int:
    text = str(report)
    if not report.complete:
        text += printable(f": `edgeshard clock {shlex.quote(str(store.root))} --confirm`")
    output.print_report(report, text, as_json=options.json)
    return exits.report_code(complete=report.complete)
