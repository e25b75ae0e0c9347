"""``edgeshard verify``: is anything missing, or damaged?"""

from __future__ import annotations

import argparse
import json

from edgeshard.cli import arguments, drawing, exits
from edgeshard.errors import DamagedError
from edgeshard.inspect.verify import OLDER_MASTER, OTHER_MASTER, PEER, PRUNED, UNKNOWN, Loss, VerifyReport
from edgeshard.master.receipts import EDGESHARD
from edgeshard.store import Store

SUMMARY = "Check a store's master: SQLite's integrity, every row against its address, and which rows are missing."

_EPILOG = """\
It looks at the address of every row of the master, and changes nothing. --deep reads every value and each index as
well. Writers and mergers may work meanwhile.

examples:
  %(prog)s data
  %(prog)s data --json | jq .gaps
  %(prog)s data --deep                 once a month, and where a disk is suspected

exit codes:
  0 all well                        1 failed            2 wrong usage
  3 rows are missing; each gap is named, and filled once the database that has them is merged
  65 the master is damaged, or contradicts itself       74 input/output error
  77 not permitted                  78 there is no such folder, or no master in it
"""

_COLUMNS = ("agent", "stream", "first missing", "last missing", "rows", "where they went")

_WHERE = {OLDER_MASTER: "this master, before an older copy of it was put back", UNKNOWN: "unknown"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument("--deep", action="store_true", help="read every value and each index as well")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check the master, and say what was found."""
    report = _verify(arguments.store_with_master(options), deep=options.deep)
    print(json.dumps(report.as_dict()) if options.json else _lines(report))
    if report.errors:
        return exits.DATA_ERROR
    return exits.DONE if report.ok else exits.INCOMPLETE


def _verify(store: Store, *, deep: bool) -> VerifyReport:
    try:
        return store.verify(deep=deep)
    except DamagedError as error:  # what another command fails on is here what was asked for
        return VerifyReport(0, 0, (str(error),), ())


def _lines(report: VerifyReport) -> str:
    errors = [f"error: {error}" for error in report.errors]
    missing = drawing.table(_COLUMNS, [_row(loss) for loss in report.losses]) if report.losses else ""
    return "\n".join([str(report), *errors, *missing.splitlines()])


def _row(loss: Loss) -> list[str | int]:
    gap = loss.gap
    return [drawing.printable(gap.agent), gap.stream, gap.first, gap.last, len(gap), _where(loss)]


def _where(loss: Loss) -> str:
    if loss.cause == PEER:
        what = "database" if loss.kind == EDGESHARD else f"{drawing.printable(loss.kind)} database"
        return f"{what} {loss.database} holds them"
    if loss.cause == PRUNED:
        return f"master {loss.database} pruned them"
    return f"master {loss.database}" if loss.cause == OTHER_MASTER else _WHERE[loss.cause]
