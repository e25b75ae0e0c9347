"""``edgeshard push``: push the rows that PostgreSQL lacks, exactly once; one push, or a service that keeps pushing."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from edgeshard.cli import arguments, once, output
from edgeshard.errors import printable
from edgeshard.log_fields import fields
from edgeshard.reports import PushReport
from edgeshard.store import BATCH, BATCH_MAX, ON_INVALID

logger = logging.getLogger("edgeshard.push")

SUMMARY = "Push the rows that PostgreSQL lacks from a store's master into it, exactly once."

_EPILOG = """\
DSN is what libpq takes: postgresql://user@host/database, or "host=... dbname=...". What it leaves out comes from the
PG* variables, a service file (service=NAME) and ~/.pgpass; postgresql:// alone takes everything from there. Others on
this machine can see a password in the DSN (ps), so better keep it in one of these. Passwords are never printed or
logged.

examples:
  %(prog)s data postgresql://edge@db.example.com/fleet
  %(prog)s data postgresql:// --watch    push what merges bring, until SIGTERM; PGHOST, PGUSER ... name the server
  %(prog)s data postgresql:// --retry-rejected --on-invalid replace    rows with U+0000, with U+FFFD instead
  %(prog)s data postgresql:// --dry-run  which rows, and which tables and columns would be created

exit codes:
  0 done, also with nothing to do     1 failed                     2 wrong usage
  3 done, but PostgreSQL cannot store some rows: see `edgeshard rejected`
  69 PostgreSQL is unavailable, or its disk is full: try again     74 input/output error, or no space
  77 not permitted, or a wrong password                           78 wrong configuration, such as no such database
  130 interrupted by Ctrl-C (with --watch: by a second one; the first ends it with 0)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    parser.add_argument("dsn", metavar="DSN", type=arguments.name, help="the database; see below")
    parser.add_argument("--watch", action="store_true", help="push what merges bring, until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--interval",
        type=arguments.positive_seconds,
        metavar="S",
        help="with --watch: check for new rows every S seconds (default: 1)",
    )
    parser.add_argument(
        "--batch",
        type=arguments.count,
        default=BATCH,
        metavar="N",
        help="rows per transaction (default: %(default)s); fewer if rows are large",
    )
    parser.add_argument(
        "--inserts",
        action="store_true",
        help="use INSERT instead of COPY; servers that only speak PostgreSQL's protocol always get INSERT",
    )
    parser.add_argument(
        "--retry-rejected",
        action="store_true",
        help="try the rejected rows again, except dismissed ones; with --watch, once",
    )
    parser.add_argument(
        "--on-invalid",
        choices=ON_INVALID,
        default=ON_INVALID[0],
        help="reject rows with U+0000 or half of a surrogate pair (default), or push them with U+FFFD (replace) or as "
        "six characters such as \\u0000 (escape) instead",
    )
    parser.add_argument(
        "--distribute",
        action="store_true",
        help="on the coordinator of a Citus cluster: distribute the tables of rows over its workers, by stream",
    )
    arguments.add_dry_run(parser)
    arguments.add_json(parser, "; with --watch, one line for each push")
    arguments.add_log_format(parser)
    arguments.add_verbosity(parser)
    interrupted = "interrupted; what was committed stays, the next push continues"
    parser.set_defaults(run=run, interrupted=interrupted, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Push, once or as rows come, and report what was done."""
    if not 1 <= options.batch <= BATCH_MAX:
        options.usage_error(f"argument --batch: must be a number from 1 to {BATCH_MAX}, got {options.batch}")
    if options.watch:
        if options.dry_run:
            options.usage_error("argument --dry-run: cannot be combined with --watch")
        from edgeshard.cli import services  # a single push needs none of it

        return services.push(arguments.store_of(options), options)
    if options.interval is not None:
        options.usage_error("argument --interval: requires --watch")

    def push(should_stop: Callable[[], bool], progress: output.Progress | None) -> PushReport:
        report = arguments.store_with_master(options).push(
            options.dsn,
            batch=options.batch,
            inserts=options.inserts,
            retry_rejected=options.retry_rejected,
            on_invalid=options.on_invalid,
            distribute=options.distribute,
            dry_run=options.dry_run,
            should_stop=should_stop,
            progress=progress,
        )
        for rejected in report.rejected:
            extra = fields(store=options.root, agent=rejected.agent, table=rejected.table, state="rejected")
            logger.warning("%s", rejected, extra=extra)
        return report

    return once.run(options, push, counted="rows pushed", text=_text)


def _text(report: PushReport) -> str:
    return "\n".join([str(report), *map(printable, report.statements)]) if report.dry_run else str(report)
