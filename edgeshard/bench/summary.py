"""Summarize the rounds of each system and workload as medians and ranges."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.spread import Spread
from edgeshard.bench.trials import Trial
from edgeshard.bench.workload import Workload


@attrs.frozen
class Summary:
    """All rounds of one system under one workload: one line of a table.

    Attributes:
        workload: the load.
        system: the system's name.
        rounds: number of rounds that were measured.
        figures: by the names of `measurement.named_figures`, those that apply.
        row_check: the sum over all rounds.
        trouble: why it was not run or how it failed; "" if all rounds were measured.
        is_failure: whether it failed, rather than just not run.
    """

    workload: Workload
    system: str
    rounds: int
    figures: dict[str, Spread]
    row_check: RowCheck
    trouble: str = ""
    is_failure: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed and every row is there exactly once."""
        return not self.is_failure and self.row_check.is_exact


def summarize(trials: Iterable[Trial]) -> list[Summary]:
    """Return one summary for each workload and system, in the order of their first trials."""
    grouped: dict[tuple[Workload, str], list[Trial]] = {}
    for trial in trials:
        grouped.setdefault((trial.workload, trial.system), []).append(trial)
    workload_order = list(dict.fromkeys(workload for workload, _ in grouped))
    system_order = list(dict.fromkeys(system for _, system in grouped))
    ordered = sorted(grouped, key=lambda key: (workload_order.index(key[0]), system_order.index(key[1])))
    return [_summary(workload, system, grouped[workload, system]) for workload, system in ordered]


def _summary(workload: Workload, system: str, trials: list[Trial]) -> Summary:
    checks = [trial.row_check for trial in trials if trial.row_check is not None]
    unmeasured = [trial for trial in trials if trial.row_check is None]
    values: dict[str, list[float]] = {}
    for trial in trials:
        for name, value in trial.figures.items():
            values.setdefault(name, []).append(value)
    figures = {name: Spread.from_values(found) for name, found in values.items()}
    total = sum(checks, RowCheck(0))
    if not unmeasured:
        return Summary(workload, system, len(checks), figures, total)
    failed = [trial for trial in unmeasured if trial.failure]
    trouble = f"failed: {failed[0].failure.splitlines()[-1]}" if failed else f"not run: {unmeasured[0].not_run}"
    return Summary(workload, system, len(checks), figures, total, " ".join(trouble.split()), bool(failed))
