"""``edgeshard push``: what the master has and PostgreSQL lacks, exactly once; once, or as merges bring it."""

from __future__ import annotations

import argparse
import json
import logging
import signal

from edgeshard.cli import arguments, exits, signals, terminal
from edgeshard.reports import PushReport

logger = logging.getLogger("edgeshard.push")

SUMMARY = "Push what a store's master has, and PostgreSQL lacks, into PostgreSQL, exactly once."

_EPILOG = """\
DSN is what libpq takes: postgresql://user@host/database, or "host=... dbname=...". What it leaves out comes from the
PG* variables, a service file (service=NAME) and ~/.pgpass; postgresql:// alone takes all from there. A password in the
DSN can be seen by others of this machine (ps): better leave it to one of these. No password is ever printed or logged.

examples:
  %(prog)s data postgresql://edge@db.example.com/fleet
  %(prog)s data postgresql:// --watch    push what merges bring, until SIGTERM; PGHOST, PGUSER ... say where to
  %(prog)s data postgresql:// --dry-run  which rows, and which tables and columns would be made

exit codes:
  0 done, also with nothing to do     1 failed                     2 wrong usage
  3 done, but rows are held back, because PostgreSQL cannot take them; each reason is named
  69 PostgreSQL is unavailable, or its disk is full: try again     74 input/output error, or no room
  77 not permitted, or a wrong password                           78 wrong configuration, such as no such database
  130 interrupted by Ctrl-C (watching: by a second one; the first ends it with 0)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("dsn", metavar="DSN", type=arguments.name, help="the database; see below")
    parser.add_argument("--watch", action="store_true", help="push what merges bring, until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--interval", type=arguments.some_seconds, metavar="S", help="watching: look every S seconds (default: 1)"
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="rows of a transaction (default: 20000); fewer where rows are large"
    )
    parser.add_argument(
        "--inserts",
        action="store_true",
        help="use INSERT, not COPY; so it is in any case where the server is not PostgreSQL itself",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--json", action="store_true", help="print the report as one JSON object; watching: a line for each push"
    )
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="lines for people, or an object a line"
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing where all is well; errors still")
    loudness.add_argument("-v", "--verbose", action="store_true", help="log what is done")
    interrupted = "interrupted; what was committed stays, the rest is pushed next time"
    parser.set_defaults(run=run, interrupted=interrupted, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Push, once or as rows come, and say what was done."""
    from edgeshard.postgres.options import BATCH, BATCH_MAX

    options.batch = BATCH if options.batch is None else options.batch
    if not 1 <= options.batch <= BATCH_MAX:
        options.usage_error(f"argument --batch: a number from 1 to {BATCH_MAX} is wanted, not {options.batch}")
    if options.watch:
        if options.dry_run:
            options.usage_error("argument --dry-run: it is for a single push, without --watch")
        from edgeshard.cli.pushing import watch

        return watch(arguments.store_of(options), options)
    if options.interval is not None:
        options.usage_error("argument --interval: it is for --watch")
    with signals.stop_on_signals() as stop:
        report = _push(options, stop)
    for item in report.held_back:
        logger.warning("%s", item)
    if options.json:
        print(json.dumps(report.as_dict()))
    elif not (options.quiet and report.complete):
        print(report)
        if options.dry_run:
            print("\n".join(report.statements))
    if stop.by == signal.SIGINT:
        raise KeyboardInterrupt
    return exits.DONE if report.complete else exits.INCOMPLETE


def _push(options: argparse.Namespace, stop: signals.Stop) -> PushReport:
    from edgeshard.postgres import once

    path = arguments.store_with_master(options).master_path
    if options.dry_run:
        return once.preview(path, options.dsn)
    with terminal.progress("rows pushed", quiet=options.quiet) as progress:
        return once.push_once(
            path,
            options.dsn,
            batch=options.batch,
            inserts=options.inserts,
            should_stop=stop.is_asked,
            progress=progress,
        )
