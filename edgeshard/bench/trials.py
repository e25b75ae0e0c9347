"""Run the trials of a plan. Systems alternate within each round, and every round starts with another system."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from edgeshard.bench.measure import measure
from edgeshard.bench.measurement import named_figures
from edgeshard.bench.messages import AgentError
from edgeshard.bench.plan import Plan
from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.system import NotRunError, Setting
from edgeshard.bench.workload import Workload


@attrs.frozen
class Trial:
    """One system under one workload in one round: the figures, or why there are none.

    Attributes:
        workload: the load.
        system: the system's name.
        round_number: the round, from 0.
        row_check: whether the right rows were there; None if nothing was measured.
        figures: what was measured, by the names of `measurement.named_figures`.
        not_run: why the system could not be run.
        failure: how the system failed.
    """

    workload: Workload
    system: str
    round_number: int
    row_check: RowCheck | None = None
    figures: dict[str, float] = attrs.field(factory=dict)
    not_run: str = ""
    failure: str = ""

    @property
    def key(self) -> tuple[Workload, str, int]:
        """What identifies the trial in its plan."""
        return self.workload, self.system, self.round_number


@attrs.frozen
class ServerAddresses:
    """Servers of the user's to measure, instead of starting our own."""

    postgres: str | None = None
    redis: str | None = None


def run_trials(
    plan: Plan,
    addresses: ServerAddresses,
    folder: str | None,
    on_start: Callable[[Trial, int], None],
    earlier: Iterable[Trial] = (),
) -> Iterator[Trial]:
    """Run all trials of a plan.

    Args:
        plan: what to measure.
        addresses: the user's servers, if any.
        folder: a folder on the disk to measure; None means the folder for temporary files.
        on_start: called before each trial, with an empty trial and the number of trials before it.
        earlier: trials of an interrupted run of the plan; those that were measured are not repeated.
    """
    measured = {trial.key: trial for trial in earlier if trial.row_check is not None}
    not_run: dict[str, str] = {}
    with scratch(folder) as root:
        for number, trial in enumerate(_trials(plan)):
            on_start(trial, number)
            if trial.key in measured:
                yield measured[trial.key]
                continue
            if trial.system in not_run:
                yield attrs.evolve(trial, not_run=not_run[trial.system])
                continue
            result = _run_trial(trial, root, addresses)
            if result.not_run:
                not_run[trial.system] = result.not_run
            yield result


@contextlib.contextmanager
def scratch(folder: str | None) -> Iterator[Path]:
    """Create a temporary folder inside another folder, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=folder) as name:
        path = Path(os.path.realpath(name))
        path.chmod(0o711)  # a server that runs as another user has to reach its own folder inside
        yield path


def _trials(plan: Plan) -> Iterator[Trial]:
    for workload, systems in plan.contests.items():
        for round_number in range(plan.rounds):
            for system in rotated(systems, round_number):
                yield Trial(workload, system, round_number)


def rotated(names: Sequence[str], count: int) -> list[str]:
    """Rotate the names to the left by `count` places."""
    start = count % max(1, len(names))
    return [*names[start:], *names[:start]]


def _run_trial(trial: Trial, folder: Path, addresses: ServerAddresses) -> Trial:
    setting = Setting(
        folder=folder / f"run-{time.monotonic_ns()}",
        durability=trial.workload.durability,
        agents=trial.workload.agents,
        cache=folder,
        postgres=addresses.postgres,
        redis=addresses.redis,
    )
    try:
        found = measure(trial.system, setting, trial.workload)
    except NotRunError as error:
        return attrs.evolve(trial, not_run=str(error))
    except AgentError as error:
        return attrs.evolve(trial, failure=str(error).strip())
    except Exception:  # any error that a system's library raises is a failure of that system, which the report shows
        return attrs.evolve(trial, failure=traceback.format_exc().strip())
    return attrs.evolve(trial, row_check=found.row_check, figures=dict(named_figures(found, trial.workload)))
