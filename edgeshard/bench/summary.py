"""Many measurements of one system under one workload, as medians and their spread."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard.bench.account import Account
from edgeshard.bench.campaign import Step
from edgeshard.bench.figures import Figure
from edgeshard.bench.workload import Workload


@attrs.frozen
class Line:
    """What one system did under one workload.

    Attributes:
        workload: what was asked.
        system: of whom.
        rounds: how often it was measured.
        figures: by the names that `measure.figures_of` gives; what does not apply is left out.
        account: what became of all rows of all rounds.
        trouble: why it was not run, or how it failed; "" where it was measured.
        is_failure: whether it failed, and was not merely not run.
    """

    workload: Workload
    system: str
    rounds: int
    figures: dict[str, Figure]
    account: Account
    trouble: str = ""
    is_failure: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed, and every row is there once."""
        return not self.is_failure and self.account.is_exact


def lines_of(steps: Iterable[Step]) -> list[Line]:
    """A line for each workload and system, in the order of their first steps."""
    grouped: dict[tuple[Workload, str], list[Step]] = {}
    for step in steps:
        grouped.setdefault((step.workload, step.system), []).append(step)
    order = list(dict.fromkeys(system for _, system in grouped))
    place = {workload: number for number, workload in enumerate(dict.fromkeys(workload for workload, _ in grouped))}
    ordered = sorted(grouped, key=lambda key: (place[key[0]], order.index(key[1])))
    return [_line(workload, system, grouped[workload, system]) for workload, system in ordered]


def _line(workload: Workload, system: str, steps: list[Step]) -> Line:
    measured = [step for step in steps if step.account is not None]
    troubled = [step for step in steps if step.account is None]
    figures: dict[str, list[float]] = {}
    for step in measured:
        for name, value in step.figures.items():
            figures.setdefault(name, []).append(value)
    total = sum((step.account for step in measured if step.account is not None), Account(0))
    summed = {name: Figure.of(values) for name, values in figures.items()}
    if not troubled:
        return Line(workload, system, len(measured), summed, total)
    failed = [step for step in troubled if step.failure]
    trouble = f"failed: {failed[0].failure.splitlines()[-1]}" if failed else f"not run: {troubled[0].not_run}"
    return Line(workload, system, len(measured), summed, total, " ".join(trouble.split()), bool(failed))
