"""Run an operation once, and report it: what the verbs that merge, prune and push have in common."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from edgeshard.cli import exits, output, signals

if TYPE_CHECKING:
    from edgeshard.reports import MergeReport, PruneReport, PushReport

_Report = TypeVar("_Report", "MergeReport", "PruneReport", "PushReport")


def run(
    options: argparse.Namespace,
    operation: Callable[[Callable[[], bool], output.Progress | None], _Report],
    *,
    counted: str,
    text: Callable[[_Report], str] = str,
) -> int:
    """Run an operation until it ends or a signal asks it to stop, print its report, and return the exit code.

    Args:
        options: the verb's; `quiet` and `json` are used.
        operation: called with a function that says whether to stop, and with the progress to report, if any.
        counted: what the progress counts, such as "rows merged".
        text: formats the report for people.

    Raises:
        KeyboardInterrupt: SIGINT stopped it. The report has been printed.
    """
    with (
        signals.stop_on_signals() as stop,
        output.progress(counted, quiet=options.quiet) as progress,
    ):
        report = operation(stop.is_requested, progress)
    output.print_report(report, text(report), as_json=options.json, quiet=options.quiet and report.complete)
    if stop.by == signal.SIGINT:
        raise KeyboardInterrupt
    return exits.report_code(complete=report.complete)
