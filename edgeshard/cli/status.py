"""``edgeshard status``: what a store holds, what waits to be merged, and what is wrong."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time

from edgeshard.cli import arguments, drawing, exits, terminal, units
from edgeshard.inspect.status import BudgetStatus, ClockAhead, ShardStatus, StatusReport
from edgeshard.master.write_stats import WriteStats
from edgeshard.reports import Gap
from edgeshard.store import Store

SUMMARY = "Say what a store holds: each shard, whether its agent is alive, and what waits to be merged."

_EPILOG = """\
It makes nothing, takes no lock, and disturbs neither writers nor a merger. Shards with a problem come first, then those
with the most rows waiting. On a terminal long names are cut; --json has them whole. "up to 3 min": the oldest of the
rows that wait carries no time of its own, but cannot have waited longer (unless the shard's last merge was killed).

examples:
  %(prog)s data
  %(prog)s data --watch                  every 2 seconds, until Ctrl-C
  %(prog)s data --watch 60 --json        a JSON object on a line, every minute
  %(prog)s data --json | jq '.shards[] | select(.pending_rows > 1000) | .agent'

exit codes:
  0 all well, also where rows wait; and --watch, ended by Ctrl-C
  1 failed; also where the master is damaged              2 wrong usage
  3 a shard has a problem, or rows are missing: what a merge exits 3 for
  74 input/output error                                   75 somebody holds the master locked
  77 not permitted                                        78 there is no such folder
"""

_COLUMNS = ("agent", "shard", "writer", "waiting", "oldest", "size", "merged")

_WRITER = {True: "alive", False: "gone", None: "?"}

_CLEAR = "\x1b[H\x1b[2J"

#: Lines of a screen that are neither a shard's nor a problem's: the table's frame, the totals, and the cursor's.
_OTHER_LINES = 10

#: Gaps that are named to people.
_GAPS_MAX = 10

#: Characters of a table's line that are neither of an agent's name nor of a file's.
_OTHER_COLUMNS = 60


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object, on a line of its own")
    parser.add_argument(
        "--watch",
        dest="every_s",
        type=arguments.some_seconds,
        nargs="?",
        const=2.0,
        metavar="S",
        help="look again every S seconds (default: 2), until Ctrl-C",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look once, or again and again, and say what was found."""
    if options.every_s is not None:
        return _watch(options)
    store = arguments.store_of(options)
    report = store.status()
    print(_text(store, report, options))
    return exits.DONE if report.complete else exits.INCOMPLETE


def _watch(options: argparse.Namespace) -> int:
    on_screen = terminal.can_be_cleared(sys.stdout) and not options.json
    try:
        while True:
            store = arguments.store_of(options)  # its folder may go, and come back
            text = _text(store, store.status(), options, fit=on_screen)
            print(_CLEAR + text if on_screen else text, flush=True)
            time.sleep(options.every_s)
    except KeyboardInterrupt:  # the way to end it
        return exits.DONE


def _text(store: Store, report: StatusReport, options: argparse.Namespace, *, fit: bool = False) -> str:
    if options.json:
        return json.dumps(report.as_dict())
    problems = [
        drawing.printable(f"problem: {shard.name}: {shard.problem}") for shard in report.shards if shard.problem
    ]
    shown, gaps = len(report.shards), _GAPS_MAX
    if fit:
        lines = max(3, terminal.height() - _OTHER_LINES)
        gaps = min(gaps, lines // 3)
        problems = _fitting(_first(problems, lines // (3 if report.gaps else 2), "problems"))
        shown = max(1, lines - len(problems) - min(len(report.gaps), gaps + 1))
    missing = _first([drawing.printable(_missing(gap)) for gap in report.gaps], gaps, "gaps; --json has all")
    table = _table(report, shown) if report.shards else ""
    more = [f"and {len(report.shards) - shown} more shards"] if shown < len(report.shards) else []
    return "\n".join(
        [*table.splitlines(), *more, *problems, *_totals(store, report), *(_fitting(missing) if fit else missing)]
    )


def _fitting(lines: list[str]) -> list[str]:
    return [line[: terminal.width(sys.stdout)] for line in lines]


# -- as people read it ------------------------------------------------------------------------------------------------


def _table(report: StatusReport, shown: int) -> str:
    name_width = max(12, (terminal.width(sys.stdout) - _OTHER_COLUMNS) // 2)
    return drawing.table(_COLUMNS, [_row(shard, report.at, name_width) for shard in report.shards[:shown]])


def _problem(shard: ShardStatus) -> str:
    return drawing.printable(f"problem: {shard.name}: {shard.problem}")


def _first(items: list[str], limit: int, what: str) -> list[str]:
    return items if len(items) <= limit else [*items[:limit], f"and {len(items) - limit} more {what}"]


def _cut(text: str, width: int) -> str:
    """A name on one line, which is not too long."""
    text = drawing.printable(text)
    return text if len(text) <= width else text[: width - 3] + "..."


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


def _age(shard: ShardStatus) -> str:
    if shard.oldest_age_s is None:
        return "?" if shard.pending_rows else ""
    return ("up to " if shard.oldest_is_bound else "") + units.duration(shard.oldest_age_s)


def _ago(when: datetime.datetime | None, at: datetime.datetime) -> str:
    return "never" if when is None else f"{units.duration(max(0.0, (at - when).total_seconds()))} ago"


def _totals(store: Store, report: StatusReport) -> list[str]:
    alive = sum(bool(shard.alive) for shard in report.shards)
    lines = [f"{len(report.shards)} shards, {alive} with a writer; {_waiting(report)}"]
    if report.problems:
        lines.append(f"{report.problems} shards with a problem")
    lines.append(_master(report))
    if report.budget is not None:
        lines.append(_budget(report.budget))
    lines += [drawing.printable(_ahead(item)) for item in report.master.clocks_ahead]
    if report.gaps:
        missing = f"{report.master.missing_rows} rows missing in {report.master.gaps} gaps"
        lines.append(f"{missing}; `edgeshard verify {store.root}` says where they went")
    return lines


def _budget(found: BudgetStatus) -> str:
    text = f"{units.size(found.used_bytes)} in all, of at most {units.size(found.limit_bytes)}"
    if found.limit_bytes < found.max_bytes:
        text += f", which the disk has room for (the budget is {units.size(found.max_bytes)})"
    return f"{text}; on full: {found.on_full}" + (f", {found.dropped_rows} rows dropped" if found.dropped_rows else "")


def _ahead(item: ClockAhead) -> str:
    whose = f"agent {item.agent!r} has" if item.agent else "there are"
    return (
        f"clock: {whose} changes of table {item.table} that are timestamped {units.duration(item.ahead_s)} ahead: they "
        "count as the last until then. Set that device's clock; agents of a store that merged them write later ones"
    )


def _missing(gap: Gap) -> str:
    return f"missing: rows {gap.first} to {gap.last} of stream {gap.stream} of agent {gap.agent!r}"


def _waiting(report: StatusReport) -> str:
    oldest = report.oldest
    return f"{report.pending_rows} rows wait" + ("" if oldest is None else f", the oldest {_age(oldest)}")


def _written(wear: WriteStats) -> str:
    """What wears flash, to be followed by the rest of the line; nothing where nothing is known."""
    if not wear.bytes:
        return ""
    line = f"{units.size(wear.today_bytes)} written today, {units.size(int(wear.bytes_a_day or 0))} a day, "
    return line if wear.bytes_a_row is None else f"{line}{units.size(int(wear.bytes_a_row))} a row, "


def _master(report: StatusReport) -> str:
    master = report.master
    watched = {True: "a merger watches", False: "no merger watches", None: "whether a merger watches is unknown"}
    if not master.exists:
        return f"no master yet, {watched[report.watching]}"
    held = f"{master.rows} rows of {master.agents} agents in {master.streams} streams"
    if master.pruned_rows:
        held += f", of which {master.pruned_rows} were pruned"
    if master.superseded_rows:
        held += f", {'and' if master.pruned_rows else 'of which'} {master.superseded_rows} were replaced by newer ones"
    changes = "merges and steps of prunes" if master.pruned_rows else "merges"
    return (
        f"{master.path}: {held}, {units.size(master.size_bytes)} and a log of {units.size(master.log_bytes)}, "
        f"{master.generation} {changes}, {_written(report.wear)}{watched[report.watching]}; its id is {master.database}"
    )
