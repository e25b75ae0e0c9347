"""``edgeshard status``: what a store holds, what is pending, and what is wrong."""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import time
from collections.abc import Iterator

from edgeshard import units
from edgeshard.cli import arguments, exits, next_steps, output
from edgeshard.errors import printable
from edgeshard.reports import BudgetStatus, ClockAhead, ShardStatus, SpaceUse, StatusReport, WriteStats
from edgeshard.store import Store

SUMMARY = "Report what a store holds: each shard, whether its agent is alive, and how many rows are pending."

_EPILOG = """\
It creates nothing, takes no lock, and disturbs neither writers nor a merger. Quarantined shards come first, then those
with the most pending rows. On a terminal long names are cut; --json has them in full. "up to 3 min": the oldest pending
row has no time of its own, but cannot be older than that (unless the shard's last merge was killed).

examples:
  %(prog)s data
  %(prog)s data --watch                  every 2 seconds, until Ctrl-C
  %(prog)s data --watch 60 --json        one JSON object per line, every minute
  %(prog)s data --html status.html       a page with charts (pip install 'edgeshard[report]')
  %(prog)s data --html /var/www/html/status.html --every 30
                                         for a web server: written again every 30 seconds, until SIGTERM or Ctrl-C
  %(prog)s data --json | jq '.shards[] | select(.pending_rows > 1000) | .agent'

exit codes:
  0 all well, also if rows are pending; and --watch or --every, ended by Ctrl-C
  1 failed                                                2 wrong usage
  3 a shard is quarantined, rows are blocked, missing or deleted by hand, this machine's clock awaits confirmation, or
    the disk budget is full
  65 the master is damaged
  74 input/output error                                   75 the master is locked
  77 not permitted                                        78 there is no such store
"""

_COLUMNS = ("agent", "shard", "writer", "pending", "oldest", "size", "merged")

_WRITER = {True: "alive", False: "ended", None: "?"}

_WATCHING = {True: "a merger watches", False: "no merger watches", None: "whether a merger watches is unknown"}

_CLEAR = "\x1b[H\x1b[2J"

#: Lines of a screen that are not for shards or reasons: the table's frame, the totals, and the cursor.
_OTHER_LINES = 10

#: Gaps that are listed for people.
_GAPS_MAX = 10

#: How far the clock has gone ahead unconfirmed before people are told, in seconds: more than a night.
_CLOCK_AHEAD_S = 86_400.0

#: Databases that await confirmation, listed for people.
_PEERS_MAX = 5

#: Characters of a table's line that are not for an agent's name or a file's.
_OTHER_COLUMNS = 60


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    arguments.add_root(parser)
    arguments.add_json(parser, ", on one line")
    parser.add_argument(
        "--watch",
        dest="every_s",
        type=arguments.positive_seconds,
        nargs="?",
        const=2.0,
        metavar="S",
        help="repeat every S seconds (default: 2), until Ctrl-C",
    )
    page = parser.add_argument_group("a page with charts")
    page.add_argument(
        "--html",
        metavar="FILE",
        type=arguments.name,
        help="write a page with charts instead: one file, which needs no other and no network. Everybody may read it",
    )
    page.add_argument(
        "--every",
        dest="page_every_s",
        type=arguments.positive_seconds,
        metavar="S",
        help="with --html: write it again every S seconds, until SIGTERM or Ctrl-C",
    )
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Report once, or again and again."""
    if options.html is not None:
        return _html(options)
    if options.page_every_s is not None:
        options.usage_error("argument --every: requires --html; to repeat the report, use --watch")
    if options.every_s is not None:
        return _watch(options)
    store = arguments.store_of(options)
    report = store.status()
    print(_text(store, report, options))
    return exits.report_code(complete=report.complete)


def _html(options: argparse.Namespace) -> int:
    if options.json:
        options.usage_error("argument --html: cannot be combined with --json; run the command twice")
    if options.every_s is not None:
        options.usage_error("argument --html: cannot be combined with --watch; use --every")
    from edgeshard.cli import status_file  # charts are slow to import

    return status_file.run(options)


def _watch(options: argparse.Namespace) -> int:
    on_screen = output.can_be_cleared(sys.stdout) and not options.json
    try:
        while True:
            store = arguments.store_of(options)  # its folder may disappear, and come back
            text = _text(store, store.status(), options, fit=on_screen)
            print(_CLEAR + text if on_screen else text, flush=True)
            time.sleep(options.every_s)
    except KeyboardInterrupt:  # the way to end it
        return exits.DONE


# -- for people -------------------------------------------------------------------------------------------------------


def _text(store: Store, report: StatusReport, options: argparse.Namespace, *, fit: bool = False) -> str:
    """Format a report; if `fit`, so that it fits on the terminal."""
    if options.json:
        return output.to_json(next_steps.status_as_dict(report, store.root))
    reasons = [printable(f"quarantined: {shard.name}: {shard.reason}") for shard in report.shards if shard.reason]
    reasons += [
        printable(f"blocked: {shard.name}: {each.rows} rows of table {each.table}: {each.reason}")
        for shard in report.shards
        for each in shard.blocked
    ]
    shown, gaps = len(report.shards), _GAPS_MAX
    if fit:
        lines = max(3, output.height() - _OTHER_LINES)
        gaps = min(gaps, lines // 3)
        reasons = _fitting(_first(reasons, lines // (3 if report.gaps else 2), "reasons"))
        shown = max(1, lines - len(reasons) - min(len(report.gaps), gaps + 1))
    missing = _first([printable(f"missing: {gap}") for gap in report.gaps], gaps, "gaps; --json has all")
    table = _table(report, shown) if report.shards else ""
    more = [f"and {len(report.shards) - shown} more shards"] if shown < len(report.shards) else []
    return "\n".join(
        [*table.splitlines(), *more, *reasons, *_totals(store, report), *(_fitting(missing) if fit else missing)]
    )


def _fitting(lines: list[str]) -> list[str]:
    return [line[: output.width(sys.stdout)] for line in lines]


def _first(items: list[str], limit: int, what: str) -> list[str]:
    return items if len(items) <= limit else [*items[:limit], f"and {len(items) - limit} more {what}"]


def _table(report: StatusReport, shown: int) -> str:
    name_width = max(12, (output.width(sys.stdout) - _OTHER_COLUMNS) // 2)
    return output.table(_COLUMNS, [_row(shard, report.at, name_width) for shard in report.shards[:shown]])


def _row(shard: ShardStatus, at: datetime.datetime, name_width: int) -> list[str | int]:
    return [
        "?" if shard.agent is None else _cut(shard.agent, name_width),
        _cut(shard.name, name_width),
        _WRITER[shard.alive],
        "?" if shard.pending_rows is None else shard.pending_rows,
        _age(shard),
        units.size(shard.size_bytes),
        _ago(shard.merged_at, at),
    ]


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else text[: width - 3] + "..."


def _age(shard: ShardStatus) -> str:
    if shard.oldest_age_s is None:
        return "?" if shard.pending_rows else ""
    return ("up to " if shard.oldest_is_bound else "") + units.duration(shard.oldest_age_s)


def _ago(when: datetime.datetime | None, at: datetime.datetime) -> str:
    return "never" if when is None else f"{units.duration(max(0.0, (at - when).total_seconds()))} ago"


# -- totals -----------------------------------------------------------------------------------------------------------


def _totals(store: Store, report: StatusReport) -> list[str]:
    alive = sum(bool(shard.alive) for shard in report.shards)
    oldest = "" if report.oldest is None else f", the oldest {_age(report.oldest)}"
    lines = [f"{len(report.shards)} shards, {alive} with a writer; {report.pending_rows} rows pending{oldest}"]
    if report.quarantined_shards:
        lines.append(f"{report.quarantined_shards} shards quarantined")
    if report.blocked_rows:
        lines.append(f"{report.blocked_rows} rows blocked")
    lines.append(printable(_master(report)))
    if report.budget is not None:
        lines.append(_budget(report.budget))
        if report.budget.is_full:
            lines.append(_full_budget(store, report, report.budget))
    if report.space.total_bytes:
        lines.append(_space(report.space))
    lines += [printable(line) for line in _peers(store, report)]
    lines += [printable(_clock(item)) for item in report.master.clocks_ahead]
    lines += [printable(line) for line in _warnings(store, report)]
    if report.gaps:
        missing = f"{report.master.missing_rows} rows missing in {report.master.gaps} gaps"
        lines.append(printable(f"{missing}; `edgeshard verify {store.root}` says where they are"))
    return lines


def _warnings(store: Store, report: StatusReport) -> Iterator[str]:
    root = shlex.quote(str(store.root))
    if report.master.triggers:
        names = ", ".join(report.master.triggers)
        yield f"triggers do not fire when rows are merged: {names}; see `edgeshard help manual-changes`"
    if report.states.by_hand:
        advice = f"`edgeshard verify {root}` lists them; accept that with `edgeshard accept-loss {root}`"
        yield f"{report.states.by_hand} rows of the master were deleted by hand; {advice}"
    if report.master.damage:
        text = f"the master is damaged ({report.master.damage}): merges leave the rows in the shards until you run"
        yield f"{text} `edgeshard restore {root} SNAPSHOT`"
    if report.unnamed:
        yield report.unnamed
    if report.clock is not None and not report.clock.complete:
        yield f"{report.clock}: `edgeshard clock {root} --confirm`"
    elif report.clock is not None and report.clock.ahead_s > _CLOCK_AHEAD_S:
        yield str(report.clock)


def _master(report: StatusReport) -> str:
    master = report.master
    if not master.exists:
        return f"no master yet, {_watcher(report)}"
    held = f"{master.rows} rows of {master.agents} agents in {master.streams} streams"
    pruned, collected = (master.pruned_rows, "pruned"), (master.collected_rows, "tombstones collected")
    given_up = (report.states.erased, "erased"), (report.states.written_off, "written off")
    superseded = (master.superseded_rows, "superseded")
    gone = [f"{rows} {how}" for rows, how in (pruned, collected, superseded, *given_up) if rows]
    held += f", {master.retired_streams} of them retired" if master.retired_streams else ""
    held += f" (besides {', '.join(gone)})" if gone else ""
    changes = "merges and prune steps" if master.pruned_rows or master.collected_rows else "merges"
    sizes = f"{units.size(master.size_bytes)} and a WAL of {units.size(master.wal_bytes)}"
    return (
        f"{master.path}: {held}, {sizes}, {master.generation} {changes}, {_written(report.write_stats)}"
        f"{_watcher(report)}; its id is {master.database}"
    )


def _watcher(report: StatusReport) -> str:
    stalled = report.watcher is not None and report.watcher.is_stalled
    return str(report.watcher) if stalled else _WATCHING[report.watching]


def _written(stats: WriteStats) -> str:
    """Format the bytes written, to be followed by the rest of the line; "" if nothing is known."""
    if not stats.bytes:
        return ""
    line = f"{units.size(stats.today_bytes)} written today, {units.size(int(stats.bytes_a_day or 0))} a day, "
    return line if stats.bytes_a_row is None else f"{line}{units.size(int(stats.bytes_a_row))} a row, "


def _budget(found: BudgetStatus) -> str:
    text = f"disk budget: {units.size(found.used_bytes)} of {units.size(found.limit_bytes)} used"
    if found.limit_bytes < found.max_bytes:
        text += f", which is all that the disk has (the budget is {units.size(found.max_bytes)})"
    return f"{text}; on full: {found.on_full}" + (f", {found.dropped_rows} rows dropped" if found.dropped_rows else "")


def _space(space: SpaceUse) -> str:
    """Format what fills the store, the largest part first."""
    indexes = {} if space.indexes_bytes is None else {"indexes": space.indexes_bytes}
    parts = {
        "rows" if indexes else "rows and indexes": space.rows_bytes,
        **indexes,
        "bookkeeping": space.bookkeeping_bytes,
        "free pages": space.free_bytes,
        "the master's WAL": space.master_wal_bytes,
        "shards": space.shards_bytes,
        "WALs of shards": space.shard_wals_bytes,
        "other files": space.other_bytes,
    }
    listed = sorted(parts.items(), key=lambda part: -part[1])
    return f"disk space: {', '.join(f'{what} {units.size(count)}' for what, count in listed if count)}"


def _full_budget(store: Store, report: StatusReport, found: BudgetStatus) -> str:
    """Say what to do about a budget that is used up."""
    root = shlex.quote(str(store.root))
    steps = []
    if found.limit_bytes < found.max_bytes:
        steps.append("free space on the disk")
    if report.pending_rows or found.on_full == "drop-oldest":
        steps.append(f"merge (`edgeshard merge {root}`)")
    if found.max_bytes < found.least_bytes:
        least = f"{found.open_shards} shards are open, and one more needs {units.size(found.least_bytes)}"
        steps.append(f"close shards that are not used ({least})")
    steps += [
        f"prune (`edgeshard prune {root} --help`)",
        f"raise the budget (`edgeshard merge {root} --max-bytes SIZE`)",
    ]
    left = units.size(max(0, found.left_bytes))
    return f"the disk budget is full, {left} are left for writers: " + ", or ".join(steps)


def _peers(store: Store, report: StatusReport) -> list[str]:
    awaiting = [peer for peer in report.peers if peer.trusted_at is None]
    command = f"edgeshard receipt {shlex.quote(str(store.root))} FILE --trust"
    lines = [
        f"receipt of {peer.kind} database {peer.database}, {_ago(peer.received_at, report.at)}: it does not count "
        f"until you confirm that database. If its own status shows this id: {command}"
        for peer in awaiting
    ]
    confirmed = len(report.peers) - len(awaiting)
    counted = [f"receipts of {confirmed} confirmed databases, the last one {_last(report)}"] if confirmed else []
    return [*counted, *_first(lines, _PEERS_MAX, "databases that await confirmation; --json has all")]


def _last(report: StatusReport) -> str:
    return _ago(max(peer.received_at for peer in report.peers if peer.trusted_at is not None), report.at)


def _clock(item: ClockAhead) -> str:
    return (
        f"clock: agent {item.agent!r} has changes of table {item.table} with timestamps "
        f"{units.duration(item.ahead_s)} ahead. They win over other changes of the same keys until then: set that "
        "device's clock, erase such rows, and write these keys again"
    )
