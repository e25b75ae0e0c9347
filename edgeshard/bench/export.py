"""A run as JSON. Its shape is stable: names may be added, and ``format`` is counted up when one changes its meaning."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard.bench.account import Account
from edgeshard.bench.campaign import Step
from edgeshard.bench.figures import Figure
from edgeshard.bench.machine import Machine
from edgeshard.bench.scaling import Curve
from edgeshard.bench.summary import Line, lines_of
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import Workload

FORMAT: Final = 1


@attrs.frozen
class Run:
    """What is kept of a run.

    Attributes:
        machine: on what it was made.
        command: by which command.
        steps: what was measured of the systems.
        curves: what was measured of edgeshard itself.
    """

    machine: Machine
    command: str
    steps: list[Step]
    curves: list[Curve]


def dumps(run: Run) -> str:
    """A run, as text. ``lines``, which sum up the measurements, are for readers: `loads` makes them anew."""
    return json.dumps(_as_dict(run), indent=1) + "\n"


def _as_dict(run: Run) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "command": run.command,
        "machine": {**attrs.asdict(run.machine), "is_quiet": run.machine.is_quiet},
        "systems": {name: {"title": entry.title, "guarantee": entry.guarantee} for name, entry in SYSTEMS.items()},
        "lines": [_line(line) for line in lines_of(run.steps)],
        "measurements": [_step(step) for step in run.steps],
        "curves": [attrs.asdict(curve) for curve in run.curves],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "workload": attrs.asdict(line.workload),
        "system": line.system,
        "rounds": line.rounds,
        "trouble": line.trouble,
        "rows": attrs.asdict(line.account),
        "figures": {name: attrs.asdict(figure) for name, figure in line.figures.items()},
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "workload": attrs.asdict(step.workload),
        "system": step.system,
        "round": step.number,
        "not_run": step.not_run,
        "failure": step.failure,
        "rows": None if step.account is None else attrs.asdict(step.account),
        "figures": step.figures,
    }


def loads(text: str) -> Run:
    """A run that was saved.

    Raises:
        ValueError, KeyError, TypeError: it is not the JSON of a run, or one of another format.
    """
    run = json.loads(text)
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise ValueError(f"this is not a run of format {FORMAT}")
    machine = {field.name: run["machine"][field.name] for field in attrs.fields(Machine)}
    steps = [_loaded(step) for step in run["measurements"]]
    return Run(Machine(**machine), run["command"], steps, [_curve(curve) for curve in run["curves"]])


def _curve(curve: dict[str, Any]) -> Curve:
    lines = {name: [(x, Figure(**figure)) for x, figure in points] for name, points in curve["lines"].items()}
    return Curve(**{**curve, "lines": lines})


def _loaded(step: dict[str, Any]) -> Step:
    return Step(
        workload=Workload(**step["workload"]),
        system=step["system"],
        number=step["round"],
        not_run=step["not_run"],
        failure=step["failure"],
        account=None if step["rows"] is None else Account(**step["rows"]),
        figures=step["figures"],
    )


def write(path: str, text: str) -> None:
    """Write a file, whole or not at all."""
    made = f"{path}.part"
    try:
        Path(made).write_text(text, encoding="utf-8")
        os.replace(made, path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
