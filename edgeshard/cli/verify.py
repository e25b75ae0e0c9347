"""``edgeshard verify``: is anything missing, or damaged?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from edgeshard.cli import arguments, exits, output
from edgeshard.errors import DamagedError, printable
from edgeshard.reports import OLDER_MASTER, OTHER_MASTER, PEER, PRUNED, REPLACED, UNKNOWN, Gap, Loss, VerifyReport
from edgeshard.store import Store

SUMMARY = "Check a store's master: SQLite's integrity, every row against its address, and which rows are missing."

_EPILOG = """\
It checks the address of every row of the master, and changes none. --deep also reads every value and each index.
Writers and mergers may work meanwhile. If the master is damaged, merges refuse it from then on, and leave the rows in
the shards, until a verify finds it sound or a snapshot is restored.

examples:
  %(prog)s data
  %(prog)s data --json | jq .gaps
  %(prog)s data --deep                 once a month, and if you suspect a disk

exit codes:
  0 all well                        1 failed            2 wrong usage
  3 rows are missing; each gap is listed, and closes once the database that has its rows is merged. Or rows were
    deleted by hand, which are listed, too. `edgeshard accept-loss` accepts either
  65 the master is damaged, or contradicts itself       74 input/output error
  77 not permitted                  78 there is no such store, or no master in it
"""

_COLUMNS = ("agent", "stream", "first missing", "last missing", "rows", "where they are")

_WHERE = {
    OLDER_MASTER: "this master held them before an older copy of it was restored",
    REPLACED: "the replaced master",
    UNKNOWN: "unknown",
}
_BY_HAND = "deleted from this master by hand"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    arguments.add_json(parser)
    parser.add_argument("--deep", action="store_true", help="also read every value and each index")
    arguments.add_quiet(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check the master, and report what was found."""
    report = _verify(arguments.store_with_master(options), deep=options.deep)
    output.print_report(report, _text(report), as_json=options.json, quiet=options.quiet and report.ok)
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
    return "\n".join([str(report), *errors, *_table(rows)])


def missing_rows(losses: Sequence[Loss]) -> list[str]:
    """Return the lines of a table of missing rows; [] if none are missing."""
    return _table([_row(loss.gap, _where(loss)) for loss in losses])


def _table(rows: list[list[str | int]]) -> list[str]:
    return output.table(_COLUMNS, rows).splitlines() if rows else []


def _row(gap: Gap, where: str) -> list[str | int]:
    return [printable(gap.agent), gap.stream, gap.first, gap.last, len(gap), where]


def _where(loss: Loss) -> str:
    if loss.cause == PEER:
        what = "database" if loss.kind == "edgeshard" else f"{printable(loss.kind)} database"
        return f"{what} {loss.database} holds them"
    if loss.cause == PRUNED:
        return f"master {loss.database} pruned them"
    return f"master {loss.database}" if loss.cause == OTHER_MASTER else _WHERE[loss.cause]
