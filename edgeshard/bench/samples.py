"""Collect the figures of a run for comparison: a value for each round of each workload, contestant and figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from edgeshard.bench.goals.cost import OURS, Cost
from edgeshard.bench.trials import Trial
from edgeshard.bench.units import duration, size
from edgeshard.bench.workload import Workload

#: Systems that run edgeshard. The others did not change with it, so they show how much the machine changed.
OUR_SYSTEMS: Final = (OURS, "hybrid-edgeshard")


@attrs.frozen
class Figure:
    """A figure that can be compared.

    Attributes:
        title: its name in tables.
        format_value: formats a value.
        is_higher_better: whether a higher value is better.
    """

    title: str
    format_value: Callable[[float], str]
    is_higher_better: bool = False


#: The figures that are compared, by the names that they have in the JSON.
FIGURES: Final = {
    "rows_per_s": Figure("rows/s", "{:,.0f}".format, is_higher_better=True),
    "commit_p99_s": Figure("commit, p99", duration),
    "written_bytes_per_payload_byte": Figure("bytes written per payload byte", "{:.1f}".format),
    "wall_s": Figure("time", duration),
    "cpu_s": Figure("processor time", duration),
    "memory_bytes": Figure("memory", size),
}
#: Those of a system under a workload. Its processor time and memory are in the JSON, too, but vary much more.
_TRIAL_FIGURES: Final = ("rows_per_s", "commit_p99_s", "written_bytes_per_payload_byte")


@attrs.frozen
class Key:
    """What was measured: a figure of a contestant under a workload."""

    workload: str
    contestant: str
    figure: str

    @property
    def is_ours(self) -> bool:
        """Whether this is a figure of edgeshard."""
        return self.contestant in OUR_SYSTEMS


#: The values of each figure, by the number of the round.
Samples = dict[Key, dict[int, float]]


def samples(trials: Iterable[Trial], costs: Iterable[Cost]) -> Samples:
    """Return the values of all figures of a run that can be compared."""
    found: Samples = {}
    for trial in trials:
        if trial.row_check is not None and trial.row_check.is_exact:  # a system that loses rows is fast for nothing
            for name in _TRIAL_FIGURES:
                if trial.figures.get(name):  # 0, as of a disk that counts nothing, has no ratio
                    key = Key(workload_label(trial.workload), trial.system, name)
                    found.setdefault(key, {})[trial.round_number] = trial.figures[name]
    for cost in costs:
        for name, value in cost.figures.items():
            found.setdefault(Key(cost.workload, cost.contestant, name), {})[cost.round_number] = value
    return found


def workload_label(workload: Workload) -> str:
    """Return a name for a workload that differs if any of its options does."""
    return f"{workload.durability}: {workload}, for {workload.length_s:g} s"
