"""A run as JSON. Its shape is stable: names may be added, and ``format`` is counted up when one changes its meaning."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard.bench.account import Account
from edgeshard.bench.campaign import Step
from edgeshard.bench.machine import Machine
from edgeshard.bench.summary import Figure, Line, figures_of
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import Workload

FORMAT: Final = 1


def as_dict(machine: Machine, command: str, steps: Iterable[Step], lines: Iterable[Line]) -> dict[str, Any]:
    """A run, of values that JSON has."""
    return {
        "format": FORMAT,
        "command": command,
        "machine": {**attrs.asdict(machine), "is_quiet": machine.is_quiet},
        "systems": {name: {"title": entry.title, "guarantee": entry.guarantee} for name, entry in SYSTEMS.items()},
        "lines": [_line(line) for line in lines],
        "measurements": [_step(step) for step in steps],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "workload": attrs.asdict(line.workload),
        "system": line.system,
        "rounds": line.rounds,
        "trouble": line.trouble,
        "is_failure": line.is_failure,
        "rows": attrs.asdict(line.account),
        "figures": {name: attrs.asdict(figure) for name, figure in line.figures.items()},
    }


def _step(step: Step) -> dict[str, Any]:
    found = step.found
    return {
        "workload": attrs.asdict(step.workload),
        "system": step.system,
        "round": step.number,
        "not_run": step.not_run,
        "failure": step.failure,
        "rows": None if found is None else attrs.asdict(found.account),
        "figures": {} if found is None else dict(figures_of(found, step.workload)),
    }


def load(text: str) -> tuple[Machine, str, list[Line]]:
    """A run that was saved: the machine, the command and the lines.

    Raises:
        ValueError: it is not the JSON of a run, or one of another format.
    """
    run = json.loads(text)
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise ValueError(f"this is not a run of format {FORMAT}")
    machine = {field.name: run["machine"][field.name] for field in attrs.fields(Machine)}
    return Machine(**machine), run["command"], [_loaded(line) for line in run["lines"]]


def _loaded(line: dict[str, Any]) -> Line:
    return Line(
        workload=Workload(**line["workload"]),
        system=line["system"],
        rounds=line["rounds"],
        figures={name: Figure(**figure) for name, figure in line["figures"].items()},
        account=Account(**line["rows"]),
        trouble=line["trouble"],
        is_failure=line["is_failure"],
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


def dumps(run: dict[str, Any]) -> str:
    """A run, as text."""
    return json.dumps(run, indent=1) + "\n"
