"""Run the benchmark from the command line: measure or load a run, and show it."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

from edgeshard.bench import trials
from edgeshard.bench.comparison import MIN_ROUNDS, NotComparableError, check_comparable, compare
from edgeshard.bench.costs.registry import CURVES
from edgeshard.bench.goals import second_copy
from edgeshard.bench.goals.cost import Cost
from edgeshard.bench.goals.goal import outcomes
from edgeshard.bench.goals.registry import COSTS
from edgeshard.bench.machine import current_machine
from edgeshard.bench.options import parse, plan_from_options
from edgeshard.bench.plan import Plan
from edgeshard.bench.progress import Progress
from edgeshard.bench.report import json_file
from edgeshard.bench.report.comparison_table import comparison_section
from edgeshard.bench.report.files import write_file
from edgeshard.bench.report.json_file import Run
from edgeshard.bench.report.markdown import report
from edgeshard.bench.samples import samples, workload_label
from edgeshard.bench.summary import summarize
from edgeshard.bench.trials import ServerAddresses, Trial

_NAME = "edgeshard.bench"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m edgeshard.bench``, and return its exit code."""
    options = parse(arguments)
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
    try:
        base = _load(options.compare)
        saved = _load(options.resume if options.show is None else options.show)
        if options.show is None or saved is None:
            plan = plan_from_options(options)
            _check_base(base, plan)
            saved = _measure(options, plan, saved)
        return _show(options, saved, base)
    except NotComparableError as error:
        print(f"{_NAME}: compare with {options.compare}: {error}", file=sys.stderr)
        return 1
    except _NotARunError as error:
        print(f"{_NAME}: {error}", file=sys.stderr)
        return 1


class _NotARunError(Exception):
    """A file does not have a run."""


def _load(file: str | None) -> Run | None:
    """Load a run that was saved."""
    if file is None:
        return None
    try:
        return json_file.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        cause = f"not a run that this version saved: {error!r}; save one with --json"
        raise _NotARunError(f"load {file}: {cause}") from error


def _check_base(base: Run | None, plan: Plan) -> None:
    """Check that a run of this plan, here and now, can be compared with the base, before it is measured.

    Raises:
        NotComparableError: it cannot.
    """
    if base is None:
        return
    if plan.rounds < MIN_ROUNDS:
        raise NotComparableError(f"noise cannot be told from fewer than {MIN_ROUNDS} rounds; use --rounds {MIN_ROUNDS}")
    most = max(map(len, samples(base.trials, base.costs).values()), default=0)
    if most < MIN_ROUNDS:
        raise NotComparableError(
            f"it has only {most} rounds, which tell no noise; measure it with --rounds {MIN_ROUNDS}"
        )
    workloads = [*map(workload_label, plan.contests), *plan.costs]
    check_comparable(base.machine, current_machine(), _workloads(base), workloads)


def _workloads(run: Run) -> list[str]:
    """Return the workloads of a run that can be compared."""
    return list(dict.fromkeys(key.workload for key in samples(run.trials, run.costs)))


def _measure(options: argparse.Namespace, plan: Plan, earlier: Run | None) -> Run:
    """Run a plan, and save the run after each measurement so that it can be resumed.

    Args:
        options: the parsed options.
        plan: what to measure.
        earlier: an interrupted run to continue, if any.
    """
    addresses = ServerAddresses(options.postgres, options.redis)
    run = Run(current_machine(), shlex.join(["python", "-m", "edgeshard.bench", *sys.argv[1:]]), [], [], [])
    total = plan.trial_count + len(plan.costs) + len(plan.curves)
    progress = Progress(sys.stderr, total, is_quiet=options.quiet)

    def save() -> None:
        if options.json is not None:
            write_file(options.json, json_file.dumps(run))

    try:
        earlier_trials = [] if earlier is None else earlier.trials
        with trials.scratch(options.dir) as folder:
            for trial in trials.run_trials(plan, addresses, options.dir, progress.show_trial, earlier_trials):
                run.trials.append(trial)
                if trial.system == second_copy.COMPARED_WITH and trial.workload in plan.second_copies:
                    progress.show(f"{second_copy.SECOND_COPY}, {trial.workload}", len(run.trials) - 1)
                    run.costs.append(_second_copy(folder, trial, [] if earlier is None else earlier.costs))
                save()
            for number, name in enumerate(plan.costs):
                progress.show(COSTS[name].title, plan.trial_count + number)
                measured = [] if earlier is None else [cost for cost in earlier.costs if cost.workload == name]
                run.costs.extend(measured or COSTS[name].measure(folder, plan.rounds))
                save()
            earlier_curves = {} if earlier is None else {curve.name: curve for curve in earlier.curves}
            for number, name in enumerate(plan.curves, plan.trial_count + len(plan.costs)):
                progress.show(f"edgeshard's own costs: {name}", number)
                run.curves.append(earlier_curves.get(name) or CURVES[name](folder, plan.scale))
                save()
    finally:
        progress.clear()
    return run


def _second_copy(folder: Path, trial: Trial, earlier: Iterable[Cost]) -> Cost:
    """Measure the second copy in the round of a trial, unless an earlier run has measured it."""
    key = (workload_label(trial.workload), second_copy.SECOND_COPY, trial.round_number)
    for cost in earlier:
        if (cost.workload, cost.contestant, cost.round_number) == key:
            return cost
    return second_copy.measure(folder, trial.workload, trial.round_number)


def _show(options: argparse.Namespace, run: Run, base: Run | None) -> int:
    """Print the report, write the page if it is asked for, and return the exit code."""
    summaries = summarize(run.trials)
    found = samples(run.trials, run.costs)
    reached = outcomes(found)
    if options.html is not None:
        from edgeshard.bench.report import html

        write_file(options.html, html.page(run.machine, run.command, summaries, run.curves, reached))
    print(report(run.machine, summaries, run.curves, reached))
    is_sound = all(summary.is_sound for summary in summaries)
    if base is None:
        return 0 if is_sound else 3
    check_comparable(base.machine, run.machine, _workloads(base), _workloads(run))
    comparison = compare(samples(base.trials, base.costs), found)
    print(f"\n{comparison_section(options.compare, base.machine, run.machine, comparison)}")
    if not comparison.judged:
        return 1
    return 0 if is_sound and not comparison.worse else 3
