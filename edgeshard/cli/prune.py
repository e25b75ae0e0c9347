"""``edgeshard prune``: old rows go from the master, and the disk stays flat."""

from __future__ import annotations

import argparse
import json
import signal

from edgeshard import sqlite
from edgeshard.cli import arguments, exits, pruning, signals, terminal
from edgeshard.reports import PruneReport
from edgeshard.retention import rules

SUMMARY = "Delete old rows from a store's master by rule, for good, while writers and mergers work."

_EPILOG = """\
Each rule that is given holds afterwards, as far as rows may go. Rows of one transaction go together, or stay. Nothing
that was pruned comes back with a later copy of a shard or a master, and `verify` tells it from what is lost.

Deletions of tables with a key go by --deletions-older-than alone: once this grace period is over, nothing older can
come of any stream that is known, and every database with a receipt knows of them. What stays is counted, and why.

Each run of rows that goes leaves a note of some 120 bytes, which is much where --table takes every second small row.
Later merges fill the room that it leaves in the file; --max-bytes and --shrink give it back to the disk.

examples:
  %(prog)s data --deletions-older-than 90d
  %(prog)s data --older-than 30d --dry-run        what would go?
  %(prog)s data --keep-rows 1000000 --table reading
  15 3 * * *  %(prog)s /srv/data --older-than 30d --max-bytes 2G -q     in a crontab
  %(prog)s data --max-bytes 500M --only-pushed    nothing that PostgreSQL does not hold

exit codes:
  0 done, also with nothing to do, or where rows were kept back
  1 failed; also where the master is damaged, or contradicts itself: see verify          2 wrong usage
  3 the master still takes more than --max-bytes
  74 input/output error, or no room                       75 somebody holds it locked (--lock-wait)
  77 not permitted                  78 there is no such folder, no master in it, or no such table
  130 interrupted by Ctrl-C: what was pruned by then stays so
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    pruning.add_rules(parser, "--")
    parser.add_argument("--shrink", action="store_true", help="give all free room in the file back to the disk")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument(
        "--lock-wait",
        type=arguments.seconds,
        default=sqlite.BUSY_TIMEOUT_S,
        metavar="S",
        help="wait up to S seconds in each step for whoever holds the master locked (default: 60)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well; errors still")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    interrupted = "interrupted; what was pruned stays so, the next prune goes on"
    parser.set_defaults(run=run, interrupted=interrupted, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Prune, and say what was done."""
    asked = pruning.asked_of(options)
    if asked.is_empty and not options.shrink:
        wanted = "one of --older-than, --keep-rows, --max-bytes, --deletions-older-than and --shrink is wanted"
        options.usage_error(wanted)
    with signals.stop_on_signals() as stop:
        report = _prune(options, asked, stop)
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not (options.quiet and report.fits):
        print(report)
    if stop.by == signal.SIGINT:
        raise KeyboardInterrupt
    return exits.DONE if report.fits else exits.INCOMPLETE


def _prune(options: argparse.Namespace, asked: rules.Rules, stop: signals.Stop) -> PruneReport:
    from edgeshard.retention import prune

    store = arguments.store_with_master(options)
    with terminal.progress("rows pruned", quiet=options.quiet) as progress:
        return prune.prune(
            store.master_path,
            asked,
            shrink=options.shrink,
            dry_run=options.dry_run,
            lock_wait_s=options.lock_wait,
            should_stop=stop.is_asked,
            progress=progress,
        )
