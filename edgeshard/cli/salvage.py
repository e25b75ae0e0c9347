"""``edgeshard salvage``: rescue what can still be read of a damaged shard."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edgeshard.cli import arguments, exits, next_steps, output
from edgeshard.reports import SalvageReport

SUMMARY = "Bring what can still be read of a damaged shard into a store's master, each row once."

_EPILOG = """\
The shard is only read, and stays as it is: move it away afterwards, so that merges no longer report it. Stop its agent
first. Rows that the master has already are not duplicated, so you can repeat it, or run it on a copy of the shard.

It reads every page on its own, and takes the rows that are whole. Rows that are known to have existed and are in no
master are listed as gaps. If the end of the file is cut off, it says how many pages are missing, and exits 3. If a bit
flipped inside a value, the original value is lost, and nothing shows it.

examples:
  %(prog)s data data/shards/boiler-room.db
  %(prog)s data /media/usb/boiler-room.db --json | jq .gaps

exit codes:
  0 all rows that are known of are in the master     1 failed     2 wrong usage
  3 rows or pages are missing                    65 nothing in it can be read
  74 input/output error, or no space             75 its agent has it open
  77 not permitted                               78 there is no such store, or no such file
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("shard", metavar="SHARD", type=arguments.name, help="the damaged file; its -wal is next to it")
    arguments.add_json(parser)
    parser.set_defaults(run=run, interrupted="interrupted; the shard is unchanged, and what was merged stays")


def run(options: argparse.Namespace) -> int:
    """Salvage, and report what was found."""
    report = arguments.store_of(options).salvage(options.shard)
    output.print_report(report, _text(report, Path(options.root)), as_json=options.json)
    if not report.readable:
        return exits.DATA_ERROR
    return exits.report_code(complete=report.complete)


def _text(report: SalvageReport, root: Path) -> str:
    lines = [str(report), *(f"missing: {gap}" for gap in report.gaps)]
    if report.readable and os.path.dirname(os.path.realpath(report.path)) == os.path.realpath(root / "shards"):
        lines.append(f"Now move the shard away: {next_steps.move_away(report.path)}")
    return "\n".join(lines)
