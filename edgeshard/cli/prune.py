"""``edgeshard prune``: delete old rows from the master, so that the disk usage stays flat."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable

from edgeshard import units
from edgeshard.cli import arguments, confirm, exits, once, output
from edgeshard.reports import PruneReport
from edgeshard.store import PruneRule, Store, shorten_text

SUMMARY = "Delete old rows from a store's master by rule, for good, while writers and mergers work."

_EPILOG = """\
Afterwards each rule that was given holds, as far as rows may be deleted. The rows of one transaction are deleted
together, or stay. Pruned rows do not come back with a later copy of a shard or a master, and `verify` does not report
them as missing.

Tombstones of keyed tables are only deleted by --deletions-older-than: after this grace period, once no known stream can
still deliver an older change, and every database with a receipt knows of them. The report counts those that stay, and
says why.

Ages count by a time that no single reading of the clock can change. If the clock went ahead, that awaits confirmation,
and the report counts the rows that stay because of it: see `edgeshard clock`.

Each run of deleted rows leaves a record of about 120 bytes. That is much if --table deletes every second small row.
A stream (one opening of a shard) of which every row was deleted leaves 30 bytes, for good: without them, an old copy of
its shard would bring its rows back. --forget-after forgets streams of which all rows were deleted longer ago than AGE.
Copies that are older than that must not be merged any more.
Later merges fill the space that becomes free in the file; --max-bytes and --shrink give it back to the disk. If
writers lack space within a disk budget, as much is given back without these.

It works in steps of some milliseconds, each with the lock of mergers, so it works next to a merger that watches. On
a terminal it asks before it deletes anything, unless --yes is given.

examples:
  %(prog)s data --deletions-older-than 90d
  %(prog)s data --older-than 30d --dry-run        what would be deleted of which table, and what would that free?
  %(prog)s data --keep-rows 1000000 --table reading
  15 3 * * *  %(prog)s /srv/data --older-than 30d --max-bytes 2G -q     in a crontab
  %(prog)s data --table reading --drop-table      another agent declares it with other types, and is right
  %(prog)s data --max-bytes 500M --only-pushed    nothing that PostgreSQL does not hold
  %(prog)s data --forget-after 365d               also of deleted rows, nothing is kept that is older than a year

exit codes:
  0 done, also with nothing to do, or if rows had to stay
  1 failed, or not confirmed                              2 wrong usage
  3 the master is still larger than --max-bytes
  65 the master is damaged, or contradicts itself: see verify
  74 input/output error, or no space                      75 a merger is at work, or the master is locked (--lock-wait)
  77 not permitted                  78 there is no such store, no master in it, or no such table
  130 interrupted by Ctrl-C: what was pruned by then stays pruned
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    arguments.add_prune_rules(parser, "--", "delete ")
    parser.add_argument(
        "--drop-table",
        action="store_true",
        help="delete all rows of --table, also of one with a key, and then the table: the next merge makes it anew, as "
        "the first shard declares it that has rows for it",
    )
    parser.add_argument("--shrink", action="store_true", help="give all free space in the file back to the disk")
    confirm.add_yes(parser)
    arguments.add_dry_run(parser)
    arguments.add_json(parser)
    others = "in each step for a merger at work, or another process that has the master locked"
    arguments.add_lock_wait(parser, others)
    arguments.add_verbosity(parser)
    interrupted = "interrupted; what was pruned stays pruned, the next prune continues"
    parser.set_defaults(run=run, interrupted=interrupted, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Prune, and report what was done."""
    rule = arguments.prune_rule_of(options)
    if options.drop_table and (rule.keys() != {"table"}):
        options.usage_error("--drop-table needs --table, and no other rule")
    if not arguments.selects_rows(rule) and not options.drop_table and not options.shrink:
        options.usage_error(
            "nothing to do; add --older-than, --keep-rows, --max-bytes, --deletions-older-than, --forget-after or "
            "--shrink"
        )

    store = arguments.store_with_master(options)
    if not confirm.is_confirmed(options, _question(options, rule, store)):
        return exits.FAILED

    def prune(should_stop: Callable[[], bool], progress: output.Progress | None) -> PruneReport:
        return store.prune(
            **rule,
            drop_table=options.drop_table,
            shrink=options.shrink,
            dry_run=options.dry_run,
            lock_wait=options.lock_wait,
            should_stop=should_stop,
            progress=progress,
        )

    return once.run(options, prune, counted="rows pruned", text=_text)


def _text(report: PruneReport) -> str:
    if not report.tables:
        return str(report)
    return "\n".join([*output.paragraph(str(report), output.columns()), _table(report)])


def _table(report: PruneReport) -> str:
    """Draw what a dry run would delete of each table."""
    cells = {
        "rows": [f"{table.rows:,}" for table in report.tables],
        "oldest": [_day(table.oldest_at) for table in report.tables],
        "newest": [_day(table.newest_at) for table in report.tables],
        "frees": [units.size(table.freed_bytes) for table in report.tables],
    }
    width = output.columns()
    room = output.room_for_names([max(map(len, (name, *texts))) for name, texts in cells.items()], width)
    names = [shorten_text(output.text(table.name), max(10, room)) for table in report.tables]
    rows = zip(names, *(output.aligned(name, texts) for name, texts in cells.items()), strict=True)
    return output.table(("table", *cells), [list(row) for row in rows], width).rstrip("\n")


def _day(at: datetime.datetime | None) -> str:
    return "?" if at is None else at.strftime("%Y-%m-%d")


def _question(options: argparse.Namespace, rule: PruneRule, store: Store) -> str:
    if options.drop_table:
        return f"Delete table {options.table} of {store.master_path}, and all of its rows, for good?"
    if not arguments.selects_rows(rule):
        return f"Give the free space of {store.master_path} back to the disk? No row is deleted."
    rules = ", ".join(f"--{name.replace('_', '-')}" for name in rule)
    question = f"Delete rows of {store.master_path} for good ({rules})? With --dry-run it says how many."
    if "forget_after" in rule:
        question += " Copies as old as the forgotten streams could bring their rows back."
    return question
