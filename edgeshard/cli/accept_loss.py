"""``edgeshard accept-loss``: record that rows which are missing, or were deleted by hand, will never come."""

from __future__ import annotations

import argparse

from edgeshard import units
from edgeshard.cli import arguments, confirm, exits, output
from edgeshard.reports import AcceptLossReport

SUMMARY = (
    "Accept that missing rows are lost, and that rows were deleted by hand: they are no longer reported as missing."
)

_EPILOG = """\
`edgeshard verify` lists the rows, and who may have them: merge those databases first. What is accepted is recorded
as written off, with the reason; `verify` lists it separately. If the rows arrive later all the same, they are merged.

examples:
  %(prog)s data --dry-run --why "which rows?"
  %(prog)s data --agent door-3 --why "its SD card broke on 3 May"
  %(prog)s data --stream 5e0c11d2 --seqs 73-82 --why "deleted at the customer's request" --yes

exit codes:
  0 done, also if there was nothing to accept        1 failed, or not confirmed            2 wrong usage
  74 input/output error, or no space                 75 a merger is at work (--lock-wait), or the master is locked
  77 not permitted       78 there is no such folder, no master in it, or no such agent or stream
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("--agent", type=arguments.name, help="only rows of this agent")
    parser.add_argument(
        "--stream", type=arguments.name, metavar="ID", help="only rows of the stream with this id, or its first digits"
    )
    parser.add_argument("--seqs", metavar="A-B", help="only the rows A to B of one stream")
    parser.add_argument("--why", required=True, type=arguments.name, metavar="TEXT", help="the reason, for the record")
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    confirm.add_yes(parser)
    arguments.add_lock_wait(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Accept the loss, once the user has confirmed how many rows that are."""
    store = arguments.store_with_master(options)

    def accept_loss(*, dry_run: bool) -> AcceptLossReport:
        return store.accept_loss(
            why=options.why,
            agent=options.agent,
            stream=options.stream,
            seqs=options.seqs,
            dry_run=dry_run,
            lock_wait=options.lock_wait,
        )

    report = accept_loss(dry_run=True)
    if report.rows and not confirm.is_confirmed(options, f"Accept the loss of {units.count(report.rows, 'row')}?"):
        return exits.FAILED
    if not options.dry_run:
        report = accept_loss(dry_run=False)
    output.print_report(report, _text(report), as_json=options.json)
    return exits.DONE


def _text(report: AcceptLossReport) -> str:
    return "\n".join([str(report), *map(str, report.gaps)])
