"""Save a run as JSON, and load it again.

The shape is stable: keys may be added, and ``format`` is incremented if the meaning of one changes.
"""

from __future__ import annotations

import json
from typing import Any, Final

import attrs

from edgeshard.bench.costs.curve import Curve
from edgeshard.bench.goals.cost import Cost
from edgeshard.bench.machine import Machine
from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.spread import Spread
from edgeshard.bench.summary import Summary, summarize
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.trials import Trial
from edgeshard.bench.workload import Workload

FORMAT: Final = 1


@attrs.frozen
class Run:
    """Everything that is saved of a run.

    Attributes:
        machine: where and when it was made.
        command: the command line.
        trials: the trials of the systems.
        costs: edgeshard's own costs that have a goal.
        curves: edgeshard's own cost curves.
    """

    machine: Machine
    command: str
    trials: list[Trial]
    costs: list[Cost]
    curves: list[Curve]


def dumps(run: Run) -> str:
    """Return a run as JSON.

    Its ``lines``, the summaries, are only for readers: `loads` ignores them.
    """
    return json.dumps(_run_to_dict(run), indent=1) + "\n"


def _run_to_dict(run: Run) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "command": run.command,
        "machine": {**attrs.asdict(run.machine), "is_quiet": run.machine.is_quiet},
        "systems": {name: {"title": entry.title, "guarantee": entry.guarantee} for name, entry in SYSTEMS.items()},
        "lines": [_summary_to_dict(summary) for summary in summarize(run.trials)],
        "measurements": [_trial_to_dict(trial) for trial in run.trials],
        "costs": [attrs.asdict(cost) for cost in run.costs],
        "curves": [attrs.asdict(curve) for curve in run.curves],
    }


def _summary_to_dict(summary: Summary) -> dict[str, Any]:
    return {
        "workload": attrs.asdict(summary.workload),
        "system": summary.system,
        "rounds": summary.rounds,
        "trouble": summary.trouble,
        "rows": attrs.asdict(summary.row_check),
        "figures": {name: attrs.asdict(figure) for name, figure in summary.figures.items()},
    }


def _trial_to_dict(trial: Trial) -> dict[str, Any]:
    return {
        "workload": attrs.asdict(trial.workload),
        "system": trial.system,
        "round": trial.round_number,
        "not_run": trial.not_run,
        "failure": trial.failure,
        "rows": None if trial.row_check is None else attrs.asdict(trial.row_check),
        "figures": trial.figures,
    }


def loads(text: str) -> Run:
    """Load a saved run.

    Raises:
        ValueError, KeyError, TypeError: the text is not the JSON of a run, or has another format.
    """
    run = json.loads(text)
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise ValueError(f"this is not a run of format {FORMAT}")
    machine = {field.name: run["machine"][field.name] for field in attrs.fields(Machine)}
    trials = [_trial_from_dict(trial) for trial in run["measurements"]]
    costs = [Cost(**cost) for cost in run["costs"]]
    return Run(Machine(**machine), run["command"], trials, costs, [_curve_from_dict(one) for one in run["curves"]])


def _trial_from_dict(trial: dict[str, Any]) -> Trial:
    return Trial(
        workload=Workload(**trial["workload"]),
        system=trial["system"],
        round_number=trial["round"],
        not_run=trial["not_run"],
        failure=trial["failure"],
        row_check=None if trial["rows"] is None else RowCheck(**trial["rows"]),
        figures=trial["figures"],
    )


def _curve_from_dict(curve: dict[str, Any]) -> Curve:
    lines = {label: [(x, Spread(**figure)) for x, figure in points] for label, points in curve["lines"].items()}
    return Curve(**{**curve, "lines": lines})
