"""``edgeshard merge``: one merge, quiet enough for cron; or a merger that watches the store."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from edgeshard import units
from edgeshard.cli import arguments, exits, once, output
from edgeshard.errors import StoreWatchedError
from edgeshard.reports import MergeReport
from edgeshard.store import OBSERVERS, ON_FULL, PROFILES, PruneRule, Store

SUMMARY = "Copy the rows of all shards of a store into its master, exactly once, and truncate the shards."

_EPILOG = """\
examples:
  %(prog)s data                          merge the shards in data/shards into data/master.db
  %(prog)s data --from /media/usb/master.db
                                         also merge the rows of another device
  %(prog)s data --watch                  keep merging new rows; for systemd see examples/systemd
  %(prog)s data --watch --init           the same, also before the first agent has written
  %(prog)s data --watch --prune-older-than 30d --prune-only-pushed
                                         and delete old rows from the master once PostgreSQL holds them
  %(prog)s data --watch --max-bytes 500M --on-full drop-oldest
                                         keep the whole store below 500 MB from now on
  */5 * * * *  %(prog)s /srv/data -q     in a crontab: every five minutes, silent if all is well

exit codes:
  0 done, also with nothing to do, such as next to a watcher        1 failed        2 wrong usage
  3 done, but a shard is quarantined, rows are blocked or missing, --prune-... failed, or the master is still too large
  65 the master is damaged, or known to be; the rows stay in the shards
  74 input/output error, or no space (--max-bytes)
  75 another merger is at work, or a watcher is stopped, or finishes no pass
  77 not permitted        78 no such store, or another wrong setting
  130 interrupted by Ctrl-C (with --watch: by a second one; the first ends it with 0)
"""

_RULES = (
    "--prune-older-than, --prune-keep-rows, --prune-max-bytes, --prune-deletions-older-than or --prune-forget-after"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    _add_merge_options(parser)
    _add_watch_options(parser.add_argument_group("watching"))
    _add_budget_options(parser.add_argument_group("disk budget"))
    pruning = parser.add_argument_group("pruning", "after the merge; with --watch, from time to time")
    arguments.add_prune_rules(pruning, "--prune-", "prune ")
    interrupted = "interrupted; what was committed stays, the next merge continues"
    parser.set_defaults(run=run, interrupted=interrupted, usage_error=parser.error)


def _add_merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="DB",
        action="append",
        default=[],
        help="also merge another edgeshard database (a master, shard, bundle or copy), which is only read; repeatable",
    )
    parser.add_argument("--keep-empty", action="store_true", help="keep the empty shards of agents that have ended")
    arguments.add_dry_run(parser)
    arguments.add_json(parser, "; with --watch, one line for each pass that found rows and for each prune")
    arguments.add_lock_wait(parser, "for another merger", 0)
    arguments.add_verbosity(parser)
    arguments.add_log_format(parser)


def _add_watch_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--watch", action="store_true", help="keep merging new rows, until SIGTERM or Ctrl-C")
    group.add_argument(
        "--init",
        action="store_true",
        help="make the store first, unless it exists: for a service that starts before the first agent",
    )
    group.add_argument(
        "--interval",
        type=arguments.positive_seconds,
        metavar="S",
        help="merge at most every S seconds; a first row after a quiet time is merged at once (default: 1, with --wear "
        "low: 60)",
    )
    group.add_argument(
        "--rescan",
        type=arguments.positive_seconds,
        metavar="S",
        help="check all shards every S seconds, even without a file system event (default: 30; --wear low: 600)",
    )
    group.add_argument(
        "--wear",
        choices=tuple(PROFILES),
        help="low: write less, for flash, and merge less often; even a first row waits (default: normal)",
    )
    group.add_argument(
        "--observer",
        choices=OBSERVERS,
        help="how to detect new rows: file system events (native), checking every interval (polling), or events as "
        "long as they arrive (auto, the default)",
    )
    group.add_argument(
        "--metrics-file",
        metavar="X.prom",
        help="keep a file for Prometheus' textfile collector (pip install 'edgeshard[metrics]')",
    )


def _add_budget_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-bytes",
        type=arguments.name,
        metavar="SIZE",
        help="how much space the whole store may use, shards, master and WALs: 500M, 2G, 512MiB. It is saved in the "
        "store (budget.json), and holds for each writer and merger that is started from then on",
    )
    group.add_argument(
        "--on-full",
        choices=ON_FULL,
        help="with --max-bytes: refuse writes (error, the default), or delete the master's oldest rows (drop-oldest)",
    )


def run(options: argparse.Namespace) -> int:
    """Merge, once or as rows come, and report what was done."""
    rule = arguments.prune_rule_of(options, "prune_")
    _check(options, rule)
    if options.init:
        Store(options.root).init()
    store = arguments.store_of(options, prune=rule or None, wear=options.wear or "normal")
    if options.max_bytes is not None:
        store.note_budget(options.max_bytes, options.on_full)
        _report_budget(store, options)
    if options.watch:
        from edgeshard.cli import services  # a merge from cron needs none of it

        return services.merge(store, options)

    def merge(should_stop: Callable[[], bool], progress: output.Progress | None) -> MergeReport:
        return store.merge(
            options.sources,
            dry_run=options.dry_run,
            keep_empty=options.keep_empty,
            lock_wait=options.lock_wait,
            should_stop=should_stop,
            progress=progress,
        )

    try:
        return once.run(options, merge, counted="rows merged")
    except StoreWatchedError as error:  # as intended, for a merge from cron
        if not options.quiet:
            output.print_error(f"{units.process('a watcher', error.pid)} merges this store")
        if options.json:
            output.print_report(MergeReport(), "", as_json=True)
        return exits.DONE


def _report_budget(store: Store, options: argparse.Namespace) -> None:
    budget = store.disk_budget()
    if budget is not None and not (options.quiet or options.json or options.watch):
        print(f"the disk budget is {units.size(budget.max_bytes)} from now on; on full: {budget.on_full}")


def _check(options: argparse.Namespace, rule: PruneRule) -> None:
    """Refuse options that would have no effect; argparse cannot express that one option requires another."""
    if rule and not arguments.selects_rows(rule):
        options.usage_error(f"the rules select no rows to prune; add {_RULES}")
    if options.dry_run and rule:
        options.usage_error("argument --dry-run: cannot be combined with --prune-*; use `edgeshard prune --dry-run`")
    if options.max_bytes is None and options.on_full is not None:
        options.usage_error("argument --on-full: requires --max-bytes")
    if options.max_bytes is not None and options.dry_run:
        options.usage_error("argument --max-bytes: cannot be combined with --dry-run, which saves nothing")
    if options.watch:
        for option, value in (("--from", options.sources), ("--dry-run", options.dry_run)):
            if value:
                options.usage_error(f"argument {option}: cannot be combined with --watch")
    else:
        for name in ("init", "interval", "rescan", "wear", "observer", "metrics_file"):
            if getattr(options, name) not in (None, False):
                options.usage_error(f"argument --{name.replace('_', '-')}: requires --watch")
