"""``edgeshard verify``: is anything missing, or damaged?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from edgeshard import units
from edgeshard.cli import arguments, exits, next_steps, output
from edgeshard.errors import DamagedError, printable
from edgeshard.reports import Gap, Loss, VerifyReport
from edgeshard.store import Store

SUMMARY = "Check a store's master: SQLite's integrity, every row against its address, and which rows are missing."

_EPILOG = """\
It checks the address of every row of the master, and changes none. --deep also reads every value and each index.
Writers and mergers may work meanwhile. What it finds is followed by what to do, as commands to paste (in JSON:
"findings", with "advice" and "next"). If the master is damaged, merges refuse it from then on, and leave the rows in
the shards, until a verify finds it sound or a snapshot is restored.

examples:
  %(prog)s data
  %(prog)s data --json | jq .gaps
  %(prog)s data --deep                 once a month, and if you suspect a disk
  %(prog)s data --against postgresql://            does PostgreSQL still have what was pushed? PGHOST ... name it
  %(prog)s data --against postgresql:// --deep     and does it have the same values?

exit codes:
  0 all well                        1 failed            2 wrong usage
  3 rows are missing; each gap is listed, and closes once the database that has its rows is merged. Or rows were
    deleted by hand, which are listed, too. `edgeshard accept-loss` accepts either. With --against: rows differ there
  65 the master is damaged, or contradicts itself       74 input/output error
  69 with --against: PostgreSQL is unavailable          77 not permitted
  78 there is no such store, or no master in it; with --against: no such database, or nothing was pushed to it
"""

_COLUMNS = ("agent", "stream", "first missing", "last missing", "rows", "where they are")

_BY_HAND = "deleted from this master by hand"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    arguments.add_json(parser)
    parser.add_argument("--deep", action="store_true", help="also read every value and each index")
    parser.add_argument(
        "--against",
        type=arguments.name,
        metavar="DSN",
        help="compare the rows of this PostgreSQL database with the master's, instead of checking the master",
    )
    arguments.add_quiet(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check the master, and report what was found."""
    store = arguments.store_with_master(options)
    if options.against is not None:
        return _compare(store, options)
    report = _verify(store, deep=options.deep)
    root = Path(options.root)
    if options.json:
        found = [finding.as_dict() for finding in next_steps.findings(report, root.resolve())]
        print(output.to_json(report.as_dict() | {"findings": found}))
    elif not (options.quiet and report.ok):
        print(_text(report, root))
        if store.has_shards():
            print(f"This is the master. For the shards, run `{next_steps.command('status', root)}`")
    if report.errors:
        return exits.DATA_ERROR
    return exits.report_code(complete=report.ok)


def _compare(store: Store, options: argparse.Namespace) -> int:
    report = store.verify_against(options.against, deep=options.deep)
    listed = sum(map(len, report.differences))
    more = sum(report.counts.values()) - listed
    lines = [str(report), *map(str, report.differences), *([f"and {units.count(more, 'more row')}"] if more else [])]
    output.print_report(report, "\n".join(lines), as_json=options.json, quiet=options.quiet and report.ok)
    return exits.report_code(complete=report.ok)


def _verify(store: Store, *, deep: bool) -> VerifyReport:
    try:
        return store.verify(deep=deep)
    except DamagedError as error:  # a failure for other verbs; here it is the answer
        return VerifyReport(0, 0, (str(error),), ())


def _text(report: VerifyReport, root: Path) -> str:
    errors = [printable(f"error: {error}") for error in report.errors]
    rows = [_row(loss.gap, next_steps.where(loss.cause, loss.database, loss.kind)) for loss in report.losses]
    rows += [_row(gap, _BY_HAND) for gap in report.by_hand]
    rows += [_row(each.gap, printable(f"written off on {each.at[:10]}: {each.why}")) for each in report.accepted]
    width = output.columns()
    steps = [line for finding in next_steps.findings(report, root) for line in _finding(finding, width)]
    return "\n".join([str(report), *errors, *_table(rows), *steps])


def _finding(finding: next_steps.Finding, width: int) -> list[str]:
    return ["", *output.paragraph(finding.text, width, "  ", ""), *finding.step.lines(width)]


def missing_rows(losses: Sequence[Loss]) -> list[str]:
    """Return the lines of a table of missing rows; [] if none are missing."""
    return _table([_row(loss.gap, next_steps.where(loss.cause, loss.database, loss.kind)) for loss in losses])


def _table(rows: list[list[str | int]]) -> list[str]:
    return output.table(_COLUMNS, rows).splitlines() if rows else []


def _row(gap: Gap, where: str) -> list[str | int]:
    return [printable(gap.agent), gap.stream, gap.first, gap.last, len(gap), where]
