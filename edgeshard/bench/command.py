"""``python -m edgeshard.bench``: measure, and show what was found."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

import attrs

from edgeshard.bench import campaign, export, markdown, scaling, summary
from edgeshard.bench.campaign import Plan, Servers, Step
from edgeshard.bench.export import Run
from edgeshard.bench.machine import Machine, machine
from edgeshard.bench.scaling import Curve
from edgeshard.bench.summary import Line
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import DURABILITIES, Workload
from edgeshard.cli import exits, output

_NAME = "edgeshard.bench"

_EPILOG = """\
examples:
  %(prog)s                                   the short profile: less than two minutes on a quiet machine
  %(prog)s --html report.html                the same, and a report with plots to look at
  %(prog)s --systems edgeshard sqlite-tuned --agents 1 100
                                             these two alone, by one and by a hundred agents
  %(prog)s --class power --commit-rows 100 --agents 16 --rounds 5
                                             16 agents that commit 100 rows, to survive a power cut
  %(prog)s --rate 200 --agents 100 --length 10
                                             a hundred agents, each of which offers 200 rows/s
  %(prog)s --full --json all.json --html all.html
                                             everything: some two hours
  %(prog)s --full --json all.json --resume all.json
                                             go on with it after an interruption
  %(prog)s --parts curves --full             how edgeshard's costs grow, to 10,000 shards and 10,000,000 rows
  %(prog)s --postgres "host=db dbname=test" --systems postgres edgeshard
                                             a PostgreSQL server of yours; in it only the schema edgeshard_bench is made

systems:
{systems}

curves:
  {curves}

exit codes:
  0 done                     1 failed              2 wrong usage
  3 done, but a system failed, or lost or doubled rows; the table says which
  74 input/output error     78 no such folder     130 interrupted by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m edgeshard.bench ...``; the exit code."""
    options = parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print(f"{_NAME}: interrupted; nothing is left running", file=sys.stderr)
        return exits.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except OSError as error:
        print(f"{_NAME}: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return exits.IO_ERROR


def _end(number: int, _: FrameType | None) -> None:
    """End as the signal asks, but by an exception, so that servers are stopped."""
    sys.exit(128 + number)


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    width = max(map(len, SYSTEMS))
    systems = "\n".join(f"  {name.ljust(width)}  {entry.title}" for name, entry in SYSTEMS.items())
    made = argparse.ArgumentParser(
        prog="python -m edgeshard.bench",
        description="Measure, on this machine, the ways to store what many agents write that people choose between.\n"
        "Every row is read back and compared.",
        epilog=_EPILOG.replace("{systems}", systems).replace("{curves}", ", ".join(scaling.CURVES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = made.add_argument_group("what to measure")
    what.add_argument(
        "--full", action="store_true", help="all workloads, in both classes, three rounds of three seconds"
    )
    what.add_argument(
        "--parts",
        nargs="+",
        choices=("systems", "curves"),
        help="compare systems, or see how edgeshard's own costs grow (both; systems alone where these are chosen)",
    )
    what.add_argument("--curves", nargs="+", choices=scaling.CURVES, metavar="NAME", help="which costs (all)")
    what.add_argument(
        "--systems",
        nargs="+",
        choices=SYSTEMS,
        metavar="NAME",
        help="these systems (default: all; the short profile leaves the hybrids out)",
    )
    what.add_argument(
        "--class",
        dest="classes",
        nargs="+",
        choices=DURABILITIES,
        help="what acknowledged rows survive: a kill of the process, or a power cut",
    )
    what.add_argument("--agents", nargs="+", type=_count, metavar="N", help="how many processes write")
    what.add_argument("--commit-rows", nargs="+", type=_count, metavar="N", help="rows in a commit (1)")
    what.add_argument("--payload", nargs="+", type=_count, metavar="BYTES", help="size of a row's payload (100)")
    what.add_argument("--rate", type=_positive, metavar="ROWS/S", help="what each agent offers (as many as it can)")
    what.add_argument("--length", type=_positive, metavar="S", help="for how long the agents write")
    what.add_argument("--rounds", type=_count, metavar="N", help="how often each is measured (2; --full 3)")
    where = made.add_argument_group("where")
    where.add_argument(
        "--dir", metavar="FOLDER", help="measure on this folder's disk (default: that of temporary files)"
    )
    where.add_argument(
        "--postgres", metavar="DSN", help="a PostgreSQL server (default: start one, in a folder of its own)"
    )
    where.add_argument("--redis", metavar="URL", help="a server that speaks Redis' protocol (default: start one)")
    shown = made.add_argument_group("what to show")
    shown.add_argument("--json", metavar="FILE", help="write all figures to a file")
    shown.add_argument("--html", metavar="FILE", help="write a report with plots, in one file")
    shown.add_argument("--show", metavar="FILE", help="measure nothing: show what --json wrote, --html too")
    shown.add_argument("--resume", metavar="FILE", help="go on with the run that --json wrote to a file")
    shown.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    return made


def _count(text: str) -> int:
    """A whole number above 0."""
    value = int(text) if text.isdecimal() else 0
    if not 0 < value < 1_000_000:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is wanted, not {text!r}")
    return value


def _positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:  # nor NaN
        raise argparse.ArgumentTypeError(f"a number above 0 is wanted, not {text!r}")
    return value


def _run(options: argparse.Namespace) -> int:
    if options.dir is not None and not os.path.isdir(options.dir):
        print(f"{_NAME}: {options.dir}: there is no such folder", file=sys.stderr)
        return exits.CONFIGURATION
    try:
        before = _saved(options.show or options.resume)
    except (ValueError, KeyError, TypeError) as error:
        print(f"{_NAME}: {options.show or options.resume}: not what --json writes: {error}", file=sys.stderr)
        return exits.FAILED
    if options.show is None:
        return _tell(options, _measured(options, before))
    return exits.FAILED if before is None else _tell(options, before)


def _saved(path: str | None) -> Run | None:
    return None if path is None else export.loads(Path(path).read_text(encoding="utf-8"))


def _measured(options: argparse.Namespace, before: Run | None) -> Run:
    """Measure; what is measured so far is saved after each step, so that it can be resumed."""
    plan, servers = plan_of(options), Servers(options.postgres, options.redis)
    run = Run(machine(), shlex.join(["python", "-m", "edgeshard.bench", *sys.argv[1:]]), [], [])
    progress = Progress(sys.stderr, plan.steps + len(plan.curves), is_quiet=options.quiet)

    def save() -> None:
        if options.json is not None:
            export.write(options.json, export.dumps(run))

    try:
        for step in campaign.run(plan, servers, options.dir, progress.step, [] if before is None else before.steps):
            run.steps.append(step)
            save()
        known = {} if before is None else {curve.name: curve for curve in before.curves}
        with campaign.scratch(options.dir) as folder:
            for number, name in enumerate(plan.curves):
                progress.show(plan.steps + number, f"edgeshard's own costs: {name}")
                run.curves.append(known.get(name) or scaling.CURVES[name](folder, plan.scale))
                save()
    finally:
        progress.end()
    return run


def _tell(options: argparse.Namespace, run: Run) -> int:
    """Print the report, and write the page where it is asked for; the exit code."""
    lines = summary.lines_of(run.steps)
    if options.html is not None:
        from edgeshard.bench import page

        export.write(options.html, page.page(run.machine, run.command, lines, run.curves))
    print(report(run.machine, lines, run.curves))
    return exits.DONE if all(line.is_sound for line in lines) else exits.INCOMPLETE


def plan_of(options: argparse.Namespace) -> Plan:
    """What the command line asks for: a profile, or the workloads that it names."""
    named = (options.classes, options.agents, options.commit_rows, options.payload, options.rate)
    is_named = any(one is not None for one in named)
    rounds = options.rounds or (3 if options.full else 2)
    if is_named:
        workloads = tuple(_workloads(options))
    else:
        workloads = tuple(campaign.full_workloads()) if options.full else campaign.short_workloads()
    if options.length is not None:
        workloads = tuple(attrs.evolve(workload, length_s=options.length) for workload in workloads)
    left_out = () if options.full or is_named else campaign.NOT_SHORT
    systems = options.systems or [name for name in SYSTEMS if name not in left_out]
    parts = options.parts or (["systems"] if is_named or options.systems else ["systems", "curves"])
    return Plan(
        systems=tuple(systems),
        rounds=rounds,
        workloads=workloads if "systems" in parts else (),
        curves=tuple(options.curves or scaling.CURVES) if "curves" in parts or options.curves else (),
        scale=scaling.FULL if options.full else scaling.SHORT,
    )


def _workloads(options: argparse.Namespace) -> Iterable[Workload]:
    chosen = itertools.product(
        options.classes or ["process"],
        options.commit_rows or [1],
        options.payload or [100],
        options.agents or [1, 10, 100],
    )
    for durability, commit_rows, payload_bytes, agents in chosen:
        yield Workload(
            durability, agents, options.rate, commit_rows, payload_bytes, 1.0 if options.rate is None else 3.0
        )


def report(where: Machine, lines: Sequence[Line], curves: Sequence[Curve] = ()) -> str:
    """What is printed: the machine, the tables, and what their columns mean."""
    parts = [str(where)]
    if lines:
        systems = dict.fromkeys(line.system for line in lines)
        durabilities = dict.fromkeys(line.workload.durability for line in lines)
        parts += [*markdown.tables(lines), markdown.guarantees(systems, durabilities), markdown.NOTES]
    return "\n\n".join([*parts, *map(markdown.curve, curves)])


class Progress:
    """A line on the terminal; nothing where there is none."""

    def __init__(self, stream: TextIO, steps: int, *, is_quiet: bool) -> None:
        self._stream = stream
        self._steps = steps
        self._is_shown = stream.isatty() and not is_quiet
        self._began = time.monotonic()

    def step(self, step: Step, before: int) -> None:
        """Say what comes next."""
        self.show(before, f"{SYSTEMS[step.system].title}, {step.workload.durability}, {step.workload}")

    def show(self, before: int, what: str) -> None:
        """Say what comes next, after so many."""
        if self._is_shown:
            left = ""
            if before:
                left_s = (time.monotonic() - self._began) / before * (self._steps - before)
                left = f", about {left_s / 60:.0f} min left" if left_s > 90 else f", about {left_s:.0f} s left"
            text = f"{before + 1} of {self._steps}{left}: {what}"[: output.width(self._stream) - 1]
            print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=self._stream, flush=True)
