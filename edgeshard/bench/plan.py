"""Choose what to measure: the workloads of the short and the full profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from edgeshard.bench.costs.curve import SHORT, Scale
from edgeshard.bench.goals.registry import BATCH_SYSTEMS, BATCHES, MANY_AGENTS
from edgeshard.bench.workload import DURABILITIES, Workload

#: What each agent offers in workloads with a fixed rate, in rows per second.
FIXED_RATE: Final = 200.0
#: Systems that the short profile leaves out, so that it ends within some minutes.
NOT_IN_SHORT_PROFILE: Final = ("hybrid-postgres", "hybrid-edgeshard")
_SHORT_S: Final = 0.6
_SHORT_FIXED_RATE_S: Final = 1.0
_SHORT_AGENTS: Final = (1, 100)
_FULL_S: Final = 3.0
_FULL_AGENTS: Final = (1, 4, 10, 16, 100)


@attrs.frozen
class Plan:
    """What to measure.

    Attributes:
        rounds: how often each workload is measured on each system.
        contests: names of systems, as in `systems.SYSTEMS`, for each workload to measure them under.
        costs: names of edgeshard's own costs that have a goal, as in `goals.registry.COSTS`.
        second_copies: workloads whose second copy is measured as well, right after the system it is compared with.
        curves: names of edgeshard's own cost curves, as in `costs.registry.CURVES`.
        scale: how far the curves go.
    """

    rounds: int
    contests: Mapping[Workload, tuple[str, ...]]
    costs: tuple[str, ...] = ()
    second_copies: tuple[Workload, ...] = ()
    curves: tuple[str, ...] = ()
    scale: Scale = SHORT

    @property
    def trial_count(self) -> int:
        """The number of trials of systems."""
        return sum(map(len, self.contests.values())) * self.rounds


def short_workloads() -> tuple[Workload, ...]:
    """Return the workloads of the short profile, the default."""
    return (
        *(Workload("process", agents, length_s=_SHORT_S) for agents in _SHORT_AGENTS),
        Workload("process", 100, rate=FIXED_RATE, length_s=_SHORT_FIXED_RATE_S),
        Workload("power", 16, commit_rows=100, length_s=_SHORT_S),
    )


def full_workloads() -> Iterator[Workload]:
    """Yield the workloads of the full profile."""
    for durability in DURABILITIES:
        for commit_rows in (1, 100):
            for agents in _FULL_AGENTS:
                yield Workload(durability, agents, commit_rows=commit_rows, length_s=_FULL_S)
        for payload_bytes in (1_000, 10_000):
            for commit_rows in (1, 100):
                yield Workload(durability, 16, commit_rows=commit_rows, payload_bytes=payload_bytes, length_s=_FULL_S)
        for agents in _FULL_AGENTS:
            yield Workload(durability, agents, rate=FIXED_RATE, length_s=2 * _FULL_S)


def goal_contests(systems: tuple[str, ...]) -> dict[Workload, tuple[str, ...]]:
    """Return the workloads of systems that have a goal.

    Args:
        systems: the systems for the workload of the plot; for batches those of them that edgeshard has to beat.
    """
    batch_systems = tuple(name for name in BATCH_SYSTEMS if name in systems)
    return {MANY_AGENTS: systems, **dict.fromkeys(BATCHES.values(), batch_systems)}
