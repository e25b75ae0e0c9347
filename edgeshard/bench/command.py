"""Run the benchmark from the command line: measure or load a run, and show it."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from edgeshard.bench import trials
from edgeshard.bench.costs.registry import CURVES
from edgeshard.bench.machine import current_machine
from edgeshard.bench.options import parser, plan_from_options
from edgeshard.bench.progress import Progress
from edgeshard.bench.report import json_file
from edgeshard.bench.report.files import write_file
from edgeshard.bench.report.json_file import Run
from edgeshard.bench.report.markdown import report
from edgeshard.bench.summary import summarize
from edgeshard.bench.trials import ServerAddresses

_NAME = "edgeshard.bench"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m edgeshard.bench``, and return its exit code."""
    options = parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print(f"{_NAME}: interrupted; nothing is left running", file=sys.stderr)
        return 128 + signal.SIGINT  # what a shell reports
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"{_NAME}: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return os.EX_IOERR


def _exit(number: int, _: FrameType | None) -> None:
    """Exit with the code of the signal, but by an exception, so that all servers are stopped."""
    sys.exit(128 + number)


def _run(options: argparse.Namespace) -> int:
    if options.dir is not None and not os.path.isdir(options.dir):
        print(
            f"{_NAME}: measure {options.dir}: no such folder; create it or choose another with --dir", file=sys.stderr
        )
        return os.EX_CONFIG
    saved_file = options.resume if options.show is None else options.show
    try:
        saved = None if saved_file is None else json_file.loads(Path(saved_file).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        print(
            f"{_NAME}: load {saved_file}: not a run that this version saved: {error!r}; save one with --json",
            file=sys.stderr,
        )
        return 1
    if options.show is not None and saved is not None:
        return _show(options, saved)
    return _show(options, _measure(options, saved))


def _measure(options: argparse.Namespace, earlier: Run | None) -> Run:
    """Run the plan that the options ask for, and save the run after each measurement so that it can be resumed.

    Args:
        options: the parsed options.
        earlier: an interrupted run to continue, if any.
    """
    plan, addresses = plan_from_options(options), ServerAddresses(options.postgres, options.redis)
    run = Run(current_machine(), shlex.join(["python", "-m", "edgeshard.bench", *sys.argv[1:]]), [], [])
    progress = Progress(sys.stderr, plan.trial_count + len(plan.curves), is_quiet=options.quiet)

    def save() -> None:
        if options.json is not None:
            write_file(options.json, json_file.dumps(run))

    try:
        earlier_trials = [] if earlier is None else earlier.trials
        for trial in trials.run_trials(plan, addresses, options.dir, progress.show_trial, earlier_trials):
            run.trials.append(trial)
            save()
        earlier_curves = {} if earlier is None else {curve.name: curve for curve in earlier.curves}
        with trials.scratch(options.dir) as folder:
            for number, name in enumerate(plan.curves):
                progress.show(f"edgeshard's own costs: {name}", plan.trial_count + number)
                run.curves.append(earlier_curves.get(name) or CURVES[name](folder, plan.scale))
                save()
    finally:
        progress.clear()
    return run


def _show(options: argparse.Namespace, run: Run) -> int:
    """Print the report, write the page if it is asked for, and return the exit code."""
    summaries = summarize(run.trials)
    if options.html is not None:
        from edgeshard.bench.report import html

        write_file(options.html, html.page(run.machine, run.command, summaries, run.curves))
    print(report(run.machine, summaries, run.curves))
    return 0 if all(summary.is_sound for summary in summaries) else 3
