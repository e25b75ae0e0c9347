"""``edgeshard verify``: is anything missing, or damaged?"""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, exits, output
from edgeshard.errors import DamagedError, printable
from edgeshard.reports import OLDER_MASTER, OTHER_MASTER, PEER, PRUNED, UNKNOWN, Gap, Loss, VerifyReport
from edgeshard.store import Store

SUMMARY = "Check a store's master: SQLite's integrity, every row against its address, and which rows are missing."

_EPILOG = """\
It checks the address of every row of the master, and changes nothing. --deep also reads every value and each index.
Writers and mergers may work meanwhile.

examples:
  %(prog)s data
  %(prog)s data --json | jq .gaps
  %(prog)s data --deep                 once a month, and if you suspect a disk

exit codes:
  0 all well                        1 failed            2 wrong usage
  3 rows are missing; each gap is listed, and closes once the database that has its rows is merged. Or rows were
    deleted by hand, which are listed, too. `edgeshard accept-loss` accepts either
  65 the master is damaged, or contradicts itself       74 input/output error
  77 not permitted                  78 there is no such folder, or no master in it
"""

_COLUMNS = ("agent", "stream", "first missing", "last missing", "rows", "where they are")

_BY_HAND = "deleted from this master by hand"

_WHERE = {OLDER_MASTER: "this master held them before an older copy of it was restored", UNKNOWN: "unknown"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    arguments.add_json(parser)
    parser.add_argument("--deep", action="store_true", help="also read every value and each index")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check the master, and report what was found."""
    report = _verify(arguments.store_with_master(options), deep=options.deep)
    output.print_report(report, _text(report), as_json=options.json)
    if report.errors:
        return exits.DATA_ERROR
    return exits.report_code(complete=report.ok)


def _verify(store: Store, *, deep: bool) -> VerifyReport:
    try:
        return store.verify(deep=deep)
    except DamagedError as error:  # a failure for other verbs; here it is the answer
        return VerifyReport(0, 0, (str(error),), ())


def _text(report: VerifyReport) -> str:
    errors = [printable(f"error: {error}") for error in report.errors]
    rows = [_row(loss.gap, _where(loss)) for loss in report.losses]
    rows += [_row(gap, _BY_HAND) for gap in report.by_hand]
    rows += [_row(each.gap, printable(f"written off on {each.at[:10]}: {each.why}")) for each in report.accepted]
    missing = output.table(_COLUMNS, rows) if rows else ""
    return "\n".join([str(report), *errors, *missing.splitlines()])


def _row(gap: Gap, where: str) -> list[str | int]:
    return [printable(gap.agent), gap.stream, gap.first, gap.last, len(gap), where]


def _where(loss: Loss) -> str:
    if loss.cause == PEER:
        what = "database" if loss.kind == "edgeshard" else f"{printable(loss.kind)} database"
        return f"{what} {loss.database} holds them"
    if loss.cause == PRUNED:
        return f"master {loss.database} pruned them"
    return f"master {loss.database}" if loss.cause == OTHER_MASTER else _WHERE[loss.cause]
