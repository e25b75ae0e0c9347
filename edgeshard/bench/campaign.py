"""Which measurements are made, and in which order: systems take turns, and who goes first changes each round."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard.bench.account import Account
from edgeshard.bench.crew import AgentError
from edgeshard.bench.measure import figures_of, measure
from edgeshard.bench.scaling import SHORT, Scale
from edgeshard.bench.system import NotRunError, Setting
from edgeshard.bench.workload import DURABILITIES, Workload

#: What each agent offers where a pace is asked for, in rows a second.
PACE: Final = 200.0
#: What the short profile leaves out: it has to end in two minutes.
NOT_SHORT: Final = ("hybrid-postgres", "hybrid-edgeshard")
_SHORT_S: Final = 0.6
_SHORT_PACED_S: Final = 1.0
_SHORT_AGENTS: Final = (1, 100)
_FULL_S: Final = 3.0
_AGENTS: Final = (1, 4, 10, 16, 100)


@attrs.frozen
class Plan:
    """What is measured.

    Attributes:
        systems: by name, as in `systems.SYSTEMS`.
        rounds: how often each workload is measured, for each system.
        workloads: what is asked of them.
        curves: which of edgeshard's own costs, as in `scaling.CURVES`.
        scale: how far these go.
    """

    systems: tuple[str, ...]
    rounds: int
    workloads: tuple[Workload, ...]
    curves: tuple[str, ...] = ()
    scale: Scale = SHORT

    @property
    def steps(self) -> int:
        """How many measurements of systems that makes."""
        return len(self.systems) * self.rounds * len(self.workloads)


@attrs.frozen
class Step:
    """One measurement of a plan, or why there is none.

    Attributes:
        workload: what was asked.
        system: of whom.
        number: in which round, from 0.
        account: what became of the rows; None where nothing was measured.
        figures: what was measured, by the names that `measure.figures_of` gives.
        not_run: why the system could not be run.
        failure: how it failed.
    """

    workload: Workload
    system: str
    number: int
    account: Account | None = None
    figures: dict[str, float] = attrs.field(factory=dict)
    not_run: str = ""
    failure: str = ""

    @property
    def question(self) -> tuple[Workload, str, int]:
        """What was to be found out."""
        return self.workload, self.system, self.number


@attrs.frozen
class Servers:
    """Servers of the user's, instead of those that are started."""

    postgres: str | None = None
    redis: str | None = None


def short_workloads() -> tuple[Workload, ...]:
    """What is measured where nothing else is asked for."""
    return (
        *(Workload("process", agents, length_s=_SHORT_S) for agents in _SHORT_AGENTS),
        Workload("process", 100, rate=PACE, length_s=_SHORT_PACED_S),
        Workload("power", 16, commit_rows=100, length_s=_SHORT_S),
    )


def full_workloads() -> Iterator[Workload]:
    """All of it."""
    for durability in DURABILITIES:
        for commit_rows in (1, 100):
            for agents in _AGENTS:
                yield Workload(durability, agents, commit_rows=commit_rows, length_s=_FULL_S)
        for payload_bytes in (1_000, 10_000):
            for commit_rows in (1, 100):
                yield Workload(durability, 16, commit_rows=commit_rows, payload_bytes=payload_bytes, length_s=_FULL_S)
        for agents in _AGENTS:
            yield Workload(durability, agents, rate=PACE, length_s=2 * _FULL_S)


def run(
    plan: Plan,
    servers: Servers,
    folder: str | None,
    about_to: Callable[[Step, int], None],
    before: Iterable[Step] = (),
) -> Iterator[Step]:
    """Measure all of a plan.

    Args:
        plan: what to measure.
        servers: the user's, where some are given.
        folder: on whose disk to measure; None: where temporary files are.
        about_to: called before each measurement, with an empty step and how many were made before.
        before: steps of an earlier run of the plan; those that were measured are not measured again.
    """
    known = {step.question: step for step in before if step.account is not None}
    absent: dict[str, str] = {}
    with scratch(folder) as below:
        for number, step in enumerate(_steps(plan)):
            about_to(step, number)
            if step.question in known:
                yield known[step.question]
                continue
            if step.system in absent:
                yield attrs.evolve(step, not_run=absent[step.system])
                continue
            done = _measured(step, below, servers)
            if done.not_run:
                absent[step.system] = done.not_run
            yield done


@contextlib.contextmanager
def scratch(folder: str | None) -> Iterator[Path]:
    """A folder for measurements, on the disk of another; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=folder) as made:
        path = Path(os.path.realpath(made))
        path.chmod(0o711)  # a server that does not run as us has to reach its own folder below
        yield path


def _steps(plan: Plan) -> Iterator[Step]:
    for workload in plan.workloads:
        for number in range(plan.rounds):
            for system in rotated(plan.systems, number):
                yield Step(workload, system, number)


def rotated(names: Sequence[str], turns: int) -> list[str]:
    """The names, beginning with another one each turn."""
    start = turns % len(names)
    return [*names[start:], *names[:start]]


def _measured(step: Step, folder: Path, servers: Servers) -> Step:
    setting = Setting(
        folder=folder / f"run-{time.monotonic_ns()}",
        durability=step.workload.durability,
        agents=step.workload.agents,
        cache=folder,
        postgres=servers.postgres,
        redis=servers.redis,
    )
    try:
        found = measure(step.system, setting, step.workload)
    except NotRunError as error:
        return attrs.evolve(step, not_run=str(error))
    except AgentError as error:
        return attrs.evolve(step, failure=str(error).strip())
    except Exception:  # whatever a system's library raises here is that system's failure; it is shown
        return attrs.evolve(step, failure=traceback.format_exc().strip())
    return attrs.evolve(step, account=found.account, figures=dict(figures_of(found, step.workload)))
