"""``edgeshard forget-peer``: forget a hub or a server that will never return."""

from __future__ import annotations

import argparse

from edgeshard.cli import arguments, confirm, exits, output
from edgeshard.reports import ForgetPeerReport

SUMMARY = "Forget a hub or a server that gave a receipt and will never return: deletions no longer wait for it."

_EPILOG = """\
Keyed tables keep the record of a deletion (a tombstone) until each database with a receipt knows of it. A database that
is gone for good would keep them for ever. What forgetting it permits is shown first.

No rule with --only-pushed or --only-receipted deletes rows any more because it holds them. If it returns all the same,
confirm it as at first (`edgeshard receipt --trust`, or a push). Keys that were deleted here and not there may then be
back once its rows are merged.

ID is printed by `edgeshard status`; its first 6 or more digits are enough.

examples:
  %(prog)s data 5e0c11d2 --dry-run     what that permits
  %(prog)s data 5e0c11d2 --yes

exit codes:
  0 done                             1 failed, or not confirmed          2 wrong usage
  74 input/output error, or no space                75 the master is locked, or a receipt of it is being recorded
  77 not permitted                   78 there is no such store, no master in it, or no receipt of such a database
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("database", metavar="ID", type=arguments.name, help="the id of the database; see below")
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    confirm.add_yes(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Forget the peer, once the user has confirmed what that permits."""
    store = arguments.store_with_master(options)
    report = store.forget_peer(options.database, dry_run=True)
    if not options.dry_run:
        if not confirm.is_confirmed(options, _question(report)):
            return exits.FAILED
        report = store.forget_peer(report.database)
    output.print_report(report, str(report), as_json=options.json)
    return exits.DONE


def _question(report: ForgetPeerReport) -> str:
    counted = ", ".join(
        (
            f"tombstones that wait for it only and may then be pruned: {report.tombstones:,}",
            f"rows that no other peer is known to hold, which no rule prunes because of it any more: {report.rows:,}",
            f"rows that it says it has and that never came here: {report.claimed:,}",
        )
    )
    return f"Forget {report.kind} database {report.database} for good ({counted})?"
