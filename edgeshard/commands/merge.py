"""``edgeshard merge``: one merge, quiet enough for cron."""

from __future__ import annotations

import argparse
import json

from edgeshard import database, exits
from edgeshard.commands import arguments, terminal
from edgeshard.report import MergeReport

SUMMARY = "Copy the rows of all shards of a store into its master, exactly once, and truncate the shards."

_EPILOG = """\
examples:
  %(prog)s data                          merge the shards in data/shards into data/master.db
  %(prog)s data --from /media/usb/master.db
                                         bring another device's rows in as well
  */5 * * * *  %(prog)s /srv/data -q     in a crontab: every five minutes, silent when all is well

exit codes:
  0 done, also with nothing to do     1 failed            2 wrong usage
  3 done, but something was set aside or is missing       74 input/output error, or no room
  75 another merger is at work        77 not permitted    78 wrong configuration
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="DB",
        nargs="+",
        action="extend",
        default=[],
        help="other databases of edgeshard to merge as well (masters, shards, copies); they are only read",
    )
    parser.add_argument("--keep-empty", action="store_true", help="leave the empty shards of agents that are gone")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument(
        "--lock-wait",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="wait up to S seconds for another merger (default: 0)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well; errors still")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    interrupted = "interrupted; what was committed stays, the rest is merged next time"
    parser.set_defaults(run=run, verb="merge", interrupted=interrupted)


def run(options: argparse.Namespace) -> int:
    """Merge once, and say what was done."""
    report = _merge(options)
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not (options.quiet and report.complete):
        print(report)
    return exits.DONE if report.complete else exits.INCOMPLETE


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _merge(options: argparse.Namespace) -> MergeReport:
    store = arguments.store_of(options)
    with database.explained("merge", str(store.root)):
        is_empty = not (store.root / "shards").exists() and not store.master_path.exists()
    if is_empty and not options.sources:
        return MergeReport(dry_run=options.dry_run)
    progress = terminal.progress("rows merged", quiet=options.quiet)
    report = store.merge(
        options.sources,
        dry_run=options.dry_run,
        keep_empty=options.keep_empty,
        lock_wait=options.lock_wait,
        progress=progress,
    )
    if progress is not None:
        progress.end()
    return report
