"""``edgeshard merge``: one merge, quiet enough for cron."""

from __future__ import annotations

import argparse
import json
import signal

from edgeshard import sqlite
from edgeshard.budget.policy import ON_FULL
from edgeshard.cli import arguments, exits, pruning, signals, terminal
from edgeshard.merge import once
from edgeshard.merge.service import OBSERVERS
from edgeshard.reports import MergeReport
from edgeshard.shard import write_profile

SUMMARY = "Copy the rows of all shards of a store into its master, exactly once, and truncate the shards."

_EPILOG = """\
examples:
  %(prog)s data                          merge the shards in data/shards into data/master.db
  %(prog)s data --from /media/usb/master.db
                                         bring another device's rows in as well
  %(prog)s data --watch -v             go on merging what comes; under systemd see examples/systemd
  %(prog)s data --watch --prune-older-than 30d --prune-only-pushed
                                         and old rows go from the master, once PostgreSQL holds them
  %(prog)s data --watch --max-bytes 500M --on-full drop-oldest
                                         keep the whole store below 500 MB from now on
  */5 * * * *  %(prog)s /srv/data -q     in a crontab: every five minutes, silent when all is well

exit codes:
  0 done, also with nothing to do     1 failed            2 wrong usage
  3 done, but something was set aside or is missing, or --prune-... failed, or the master stays too large
  74 input/output error, or no room (--max-bytes)
  75 another merger is at work        77 not permitted    78 wrong configuration
  130 interrupted by Ctrl-C (watching: by a second one; the first ends it with 0)
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
        help="other databases of edgeshard to merge as well (masters, shards, bundles, copies); they are only read",
    )
    parser.add_argument("--watch", action="store_true", help="merge what comes, until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--interval",
        type=arguments.some_seconds,
        metavar="S",
        help="watching: merge at most every S seconds; a first row after a quiet time at once (default: 1; --wear low: "
        "60)",
    )
    parser.add_argument(
        "--rescan",
        type=arguments.some_seconds,
        metavar="S",
        help="watching: look at all shards every S seconds, whatever the file system tells (default: 30; --wear low: "
        "600)",
    )
    parser.add_argument(
        "--wear",
        choices=tuple(write_profile.LEVELS),
        help="watching: write less, for flash, and merge less often: also a first row waits (default: normal)",
    )
    parser.add_argument(
        "--observer",
        choices=OBSERVERS,
        help="watching: by events while these come (auto), by the file system's events alone, or by looking each "
        "interval (default: auto)",
    )
    parser.add_argument(
        "--max-bytes",
        type=arguments.name,
        metavar="SIZE",
        help="the most that the whole store may take, shards, master and logs: 500M, 2G, 512MiB. It is noted in the "
        "store (budget.json), for each writer and merger that is started from then on",
    )
    parser.add_argument(
        "--on-full",
        choices=ON_FULL,
        help="with --max-bytes: refuse (error, the default), or delete the oldest rows of the master (drop-oldest)",
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="lines for people, or an object a line"
    )
    parser.add_argument(
        "--metrics-file",
        metavar="X.prom",
        help="watching: keep a file for Prometheus' textfile collector (pip install 'edgeshard[metrics]')",
    )
    pruning.add_rules(parser, "--prune-", "after the merge, and watching now and then: prune ")
    parser.add_argument("--keep-empty", action="store_true", help="leave the empty shards of agents that are gone")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the report as one JSON object; watching: a line for each pass that found rows, or after a prune",
    )
    parser.add_argument(
        "--lock-wait",
        type=arguments.seconds,
        default=0.0,
        metavar="S",
        help="wait up to S seconds for another merger (default: 0)",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well; errors still")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    interrupted = "interrupted; what was committed stays, the rest is merged next time"
    parser.set_defaults(run=run, verb="merge", interrupted=interrupted, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Merge, once or as rows come, and say what was done."""
    _check(options)
    if options.max_bytes is not None:
        arguments.store_of(options).note_budget(options.max_bytes, options.on_full)
    if options.watch:
        from edgeshard.cli.watching import watch  # a merge from cron needs none of it

        return watch(arguments.store_of(options), options)
    with signals.stop_on_signals() as stop:
        report = _merge(options, stop)
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not (options.quiet and report.complete):
        print(report)
    if stop.by == signal.SIGINT:
        raise KeyboardInterrupt
    return exits.DONE if report.complete else exits.INCOMPLETE


def _check(options: argparse.Namespace) -> None:
    """Refuse what would be without effect; argparse cannot say that one option needs another."""
    prune = pruning.asked_of(options, "prune_")
    if prune.is_empty and pruning.is_narrowed(prune):
        rules = "--prune-older-than, --prune-keep-rows, --prune-max-bytes and --prune-deletions-older-than"
        options.usage_error(f"one of {rules} is wanted")
    if options.dry_run and not prune.is_empty:
        options.usage_error("argument --dry-run: what a prune would do says `edgeshard prune --dry-run`")
    if options.max_bytes is None and options.on_full is not None:
        options.usage_error("argument --on-full: it is for --max-bytes")
    if options.max_bytes is not None and options.dry_run:
        options.usage_error("argument --max-bytes: --dry-run notes nothing")
    if options.watch:
        for option, value in (("--from", options.sources), ("--dry-run", options.dry_run)):
            if value:
                options.usage_error(f"argument {option}: it is for a single merge, without --watch")
    else:
        for name in ("interval", "rescan", "wear", "observer", "metrics_file"):
            if getattr(options, name) is not None:
                options.usage_error(f"argument --{name.replace('_', '-')}: it is for --watch")


def _merge(options: argparse.Namespace, stop: signals.Stop) -> MergeReport:
    store = arguments.store_of(options)
    with sqlite.translate_errors("merge", str(store.root)):
        is_empty = not (store.root / "shards").exists() and not store.master_path.exists()
    if is_empty and not options.sources:
        return MergeReport(dry_run=options.dry_run)
    if options.dry_run:
        return once.preview(store.root, options.sources)
    with terminal.progress("rows merged", quiet=options.quiet) as progress:
        return once.merge(
            store.root,
            options.sources,
            keep_empty=options.keep_empty,
            lock_wait_s=options.lock_wait,
            prune=pruning.retention_of(options),
            stopping=stop.is_asked,
            progress=progress,
        )
