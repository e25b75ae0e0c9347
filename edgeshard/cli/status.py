"""``edgeshard status``: is all well, what to do about it if not, and what a store holds."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeshard import units
from edgeshard.cli import arguments, exits, next_steps, output
from edgeshard.reports import BudgetStatus, MasterStatus, Problem, ShardStatus, SpaceUse, StatusReport, WriteStats
from edgeshard.store import shorten_text

SUMMARY = "Say whether all is well with a store, what to do about each problem, and what it holds."

_EPILOG = """\
The first line is the verdict:
  green   all rows are merged, or pending only briefly while a merger is at work
  yellow  look at it soon: rows are pending for too long or without a merger, the disk budget is nearly used up, a clock
          is doubtful, a receipt is not confirmed, or this user may not read a shard
  red     act now: a shard is quarantined, rows are missing, blocked or were deleted by hand, the master is damaged, the
          disk budget is full, or deletions wait for the clock to be confirmed
Each problem follows, with commands that help. `edgeshard help troubleshooting` says more about each of them.

It creates nothing, takes no lock, and disturbs neither writers nor a merger. In the table of shards, quarantined ones
come first, then those with the most pending rows. Names are shortened in the middle to fit the line, and on a terminal
the list is cut to fit the screen: --json has everything in full. "writer" is the number of the process that has the
shard open. "up to 3 min": the oldest pending row has no time of its own, but cannot be older than that (unless the
shard's last merge was killed).

examples:
  %(prog)s data
  %(prog)s data --watch                  every 2 seconds, until Ctrl-C
  %(prog)s data --watch 60 --json        one JSON object per line, every minute
  %(prog)s data --html status.html       a page with charts (pip install 'edgeshard[report]')
  %(prog)s data --html /var/www/html/status.html --every 30
                                         for a web server: written again every 30 seconds, until SIGTERM or Ctrl-C
  %(prog)s data --json | jq -r '.problems[].next[]'

exit codes:
  0 the verdict is green or yellow; and --watch or --every, ended by Ctrl-C
  1 failed                                                2 wrong usage
  3 the verdict is red                                    65 the master is damaged, and cannot be read
  74 input/output error                                   75 the master is locked
  77 not permitted                                        78 there is no such store
"""

_CLEAR = "\x1b[H\x1b[2J"

#: Problems of one kind that are listed; as many shards may have the same as there are.
_SAME_MAX = 3

#: Shards that are listed on a terminal, unless it is drawn again and again.
_SHARDS_MIN = 10

#: The fewest columns for the name of an agent, or a file.
_NAME_MIN = 16

#: The width of the labels before the totals.
_LABEL = 12


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
    report = arguments.store_of(options).status()
    print(_shown(report, options))
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
            report = arguments.store_of(options).status()  # its folder may disappear, and come back
            text = _shown(report, options, is_screen=on_screen)
            print(_CLEAR + text if on_screen else text, flush=True)
            time.sleep(options.every_s)
    except KeyboardInterrupt:  # the way to end it
        return exits.DONE


def _shown(report: StatusReport, options: argparse.Namespace, *, is_screen: bool = False) -> str:
    root = Path(options.root)
    if options.json:
        return output.to_json(next_steps.status_as_dict(report, root.resolve()))
    return "\n".join(_lines(report, root, is_screen=is_screen))


# -- for people -------------------------------------------------------------------------------------------------------


def _lines(report: StatusReport, root: Path, *, is_screen: bool) -> list[str]:
    """Format a report: the verdict, the problems, the shards, the totals.

    On a terminal the shards are cut so that the verdict stays visible; on a screen that is drawn again and again, the
    problems as well.
    """
    width = output.columns()
    head = _verdict(report, width)
    blocks = _problems(report, root, width)
    totals = _totals(report, root, width)
    if not sys.stdout.isatty():
        return [
            *head,
            *_first_blocks(blocks, len(report.problems), None),
            *_shards(report, len(report.shards), width),
            *totals,
        ]
    free = output.height() - len(head) - len(totals) - 1
    problems = _first_blocks(blocks, len(report.problems), max(1, free // 2) if is_screen else None)
    table_lines = 6  # its frame and header, and how many more there are, with an empty line before it
    shown = max(1 if is_screen else _SHARDS_MIN, free - len(problems) - table_lines)
    lines = [*head, *problems, *_shards(report, shown, width), *totals]
    return lines[: output.height() - 1] if is_screen else lines


def _verdict(report: StatusReport, width: int) -> list[str]:
    first, *more = output.paragraph(f"{report.verdict}: {report.headline}", width)
    return [output.coloured(line, report.verdict) for line in (first, *more)]


def _problems(report: StatusReport, root: Path, width: int) -> list[list[str]]:
    """Return the lines of each problem: red ones first, and of these the first of each kind before the second."""
    counts: Counter[str] = Counter()
    ranked = []
    for problem in report.problems:
        counts[problem.kind] += 1
        if counts[problem.kind] <= _SAME_MAX:
            ranked.append((problem.level != "red", counts[problem.kind], problem))
    ranked.sort(key=lambda item: item[:2])
    return [_problem(problem, report, root, width) for _, _, problem in ranked]


def _problem(problem: Problem, report: StatusReport, root: Path, width: int) -> list[str]:
    first, *more = output.paragraph(f"{problem.level}: {problem.text}", width, "  ", "")
    colon = len(problem.level) + 1
    return [
        "",
        output.coloured(first[:colon], problem.level) + first[colon:],
        *more,
        *next_steps.next_step(problem, report, root).lines(width),
    ]


def _first_blocks(blocks: Sequence[Sequence[str]], count: int, max_lines: int | None) -> list[str]:
    """Return the lines of the first problems, as many as fit, and how many more there are of all."""
    lines: list[str] = []
    shown = 0
    for block in blocks:
        if max_lines is not None and len(lines) + len(block) > max_lines:
            break
        lines += block
        shown += 1
    more = ["", f"and {units.count(count - shown, 'more problem')}; --json has all"] if shown < count else []
    return [*lines, *more]


# -- shards -----------------------------------------------------------------------------------------------------------

#: The columns after the agent's name, with what each shows.
_CELLS: dict[str, Callable[[ShardStatus, datetime.datetime], str]] = {
    "file": lambda shard, _: "" if shard.name == f"{shard.agent}.db" else output.text(shard.name),
    "writer": lambda shard, _: _writer(shard),
    "pending": lambda shard, _: "?" if shard.pending_rows is None else f"{shard.pending_rows:,}",
    "oldest": lambda shard, _: _age(shard),
    "size": lambda shard, _: units.size(shard.size_bytes),
    "merged": lambda shard, at: units.ago(shard.merged_at, at),
}

#: The columns that a narrow line does without, the first one first.
_DISPENSABLE = ("size", "file", "merged")

_NUMBERS = ("pending", "size")


def _shards(report: StatusReport, shown: int, width: int) -> list[str]:
    if not report.shards:
        return []
    shards = report.shards[:shown]
    cells = {name: [cell(shard, report.at) for shard in shards] for name, cell in _CELLS.items()}
    if not any(cells["file"]):
        del cells["file"]
    for name in _DISPENSABLE:
        if _room(cells, width) < _NAME_MIN:
            cells.pop(name, None)
    agents = ["?" if shard.agent is None else output.text(shard.agent) for shard in shards]
    room = _room(cells, width)
    if "file" in cells:
        both, longest = room + _NAME_MIN, max(map(len, cells["file"]))
        room = both - min(longest, max(both // 2, both - max(map(len, agents))))
        cells["file"] = [shorten_text(text, both - room) for text in cells["file"]]
    agents = [shorten_text(text, room) for text in agents]
    for name in _NUMBERS:
        if name in cells:
            cells[name] = output.aligned(name, cells[name])
    rows = [list(row) for row in zip(agents, *cells.values(), strict=True)]
    table = output.table(("agent", *cells), rows, width).splitlines()
    left = len(report.shards) - len(shards)
    return ["", *table, *([f"and {units.count(left, 'more shard')}; --json has all"] if left else [])]


def _room(cells: dict[str, list[str]], width: int) -> int:
    """Return how many columns are left for an agent's name, besides the other cells and the table's frame."""
    fixed = [_NAME_MIN if name == "file" else max(map(len, (name, *texts))) for name, texts in cells.items()]
    return output.room_for_names(fixed, width)


def _writer(shard: ShardStatus) -> str:
    if shard.alive is None:
        return "?"
    if not shard.alive:
        return "ended"
    return "alive" if shard.pid is None else str(shard.pid)


def _age(shard: ShardStatus) -> str:
    if shard.oldest_age_s is None:
        return "?" if shard.pending_rows else ""
    return ("up to " if shard.oldest_is_bound else "") + units.duration(shard.oldest_age_s)


# -- totals -----------------------------------------------------------------------------------------------------------


def _totals(report: StatusReport, root: Path, width: int) -> list[str]:
    labelled = [
        line
        for label, text in _facts(report, root)
        for line in output.paragraph(text, width, " " * _LABEL, label.ljust(_LABEL))
    ]
    return ["", *labelled]


def _facts(report: StatusReport, root: Path) -> Iterator[tuple[str, str]]:
    master = report.master
    alive = sum(bool(shard.alive) for shard in report.shards)
    yield "shards", f"{len(report.shards):,}, {alive:,} with a writer; {report.pending}"
    if not master.exists:
        yield "master", "none yet: the first merge makes it"
    else:
        yield "master", _master(report)
        tables = ", ".join(master.tables) or "none yet"
        yield "tables", f"{tables} (`{next_steps.command('tables', root)}` has more)"
    yield "last merge", _last_merge(report)
    if report.budget is not None:
        yield "budget", _budget(report.budget)
    if report.space.total_bytes:
        yield "disk space", _space(report.space)
    if report.write_stats.bytes:
        yield "written", _written(report.write_stats)
    confirmed = [peer.received_at for peer in report.peers if peer.trusted_at is not None]
    if confirmed:
        count = units.count(len(confirmed), "confirmed database")
        yield "receipts", f"of {count}, the last one {units.ago(max(confirmed), report.at)}"
    if master.triggers:
        names = ", ".join(master.triggers)
        yield "triggers", f"{names}: not fired when rows are merged; see `edgeshard help manual-changes`"
    if master.exists:
        yield "id", master.database


def _master(report: StatusReport) -> str:
    master = report.master
    streams = units.count(master.streams, "stream")
    if master.retired_streams:
        streams += f" ({master.retired_streams:,} retired)"
    held = f"{units.count(master.rows, 'row')} of {units.count(master.agents, 'agent')} in {streams}"
    gone = [f"{rows:,} {how}" for rows, how in _gone(report, master) if rows]
    besides = f", besides {', '.join(gone)}" if gone else ""
    sizes = f"{units.size(master.size_bytes)} and a WAL of {units.size(master.wal_bytes)}"
    return f"{held}{besides}; {sizes}"


def _last_merge(report: StatusReport) -> str:
    master = report.master
    if master.merged_at is None:
        return f"never; {report.watching_line}"
    return f"at most {units.ago(master.merged_at, report.at)}; {report.watching_line}"


def _gone(report: StatusReport, master: MasterStatus) -> tuple[tuple[int, str], ...]:
    return (
        (master.pruned_rows, "pruned"),
        (master.collected_rows, "collected"),
        (master.superseded_rows, "superseded"),
        (report.states.erased, "erased"),
        (report.states.written_off, "written off"),
    )


def _written(stats: WriteStats) -> str:
    text = f"{units.size(stats.today_bytes)} today, {units.size(stats.bytes_a_day or 0)} a day"
    return text if stats.bytes_a_row is None else f"{text}, {units.size(stats.bytes_a_row)} a row"


def _budget(found: BudgetStatus) -> str:
    part = f" ({found.used_bytes / found.limit_bytes:.0%})" if found.limit_bytes > 0 else ""
    text = f"{units.size(found.used_bytes)} of {units.size(found.limit_bytes)} used{part}"
    if found.limit_bytes < found.max_bytes:
        text += f", which is all that the disk has (the budget is {units.size(found.max_bytes)})"
    dropped = f", {units.count(found.dropped_rows, 'row')} dropped" if found.dropped_rows else ""
    return f"{text}; on full: {found.on_full}{dropped}"


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
    return ", ".join(f"{what} {units.size(count)}" for what, count in listed if count)
