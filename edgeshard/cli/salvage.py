"""``edgeshard salvage``: what can still be read of a damaged shard."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from edgeshard.cli import arguments, exits

if TYPE_CHECKING:
    from edgeshard.inspect.salvage import SalvageReport


SUMMARY = "Bring what can still be read of a damaged shard into a store's master, each row once."

_EPILOG = """\
The shard is only read, and stays as it is: move it away afterwards, so that merges no longer report it. Stop its agent
first. Rows that the master has already are not doubled, and it does no harm to do it again, or on a copy of the shard.

It looks at every page for itself, and takes the rows that are whole. What is known to have existed and is in no master
is named as a gap. What a bit that changed within a value was before, nobody can know.

examples:
  %(prog)s data data/shards/boiler-room.db
  %(prog)s data /media/usb/boiler-room.db --json | jq .gaps

exit codes:
  0 all that is known of it is in the master     1 failed     2 wrong usage
  3 rows are missing; each gap is named          65 nothing of it can be read
  74 input/output error, or no room              75 its agent has it open
  77 not permitted                               78 there is no such folder, or no such file
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("shard", metavar="SHARD", type=arguments.name, help="the damaged file, with its -wal beside it")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run, interrupted="interrupted; the shard is as it was, and what was merged stays")


def run(options: argparse.Namespace) -> int:
    """Salvage, and say what was found."""
    report = arguments.store_of(options).salvage(options.shard)
    print(json.dumps(report.as_dict()) if options.json else _lines(report))
    if not report.readable:
        return exits.DATA_ERROR
    return exits.DONE if report.complete else exits.INCOMPLETE


def _lines(report: SalvageReport) -> str:
    gaps = [
        f"missing: rows {gap.first} to {gap.last} of stream {gap.stream} of agent {gap.agent!r}" for gap in report.gaps
    ]
    return "\n".join([str(report), *gaps])
