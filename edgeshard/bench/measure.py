"""Measure one system under one workload.

1. Start the system and the agents. Each agent connects and writes a first commit, which is checked but not timed.
2. All agents begin at the same moment and write for the time of the workload. A commit under way at its end completes.
3. Wait until every row is in the final database. *The measured time ends here*, and resource usage is read.
4. Collect the agents' timings, let them close, read all rows back, and check each one.
5. Stop the system, and measure its size on disk.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable

import attrs

from edgeshard.bench import resource_usage
from edgeshard.bench.agent_pool import AgentPool
from edgeshard.bench.measurement import Measurement, ResourcesUsed, latencies
from edgeshard.bench.messages import AgentError, Finished, Timings
from edgeshard.bench.meter import ResourceMeter
from edgeshard.bench.row_check import RowCheck, check_rows
from edgeshard.bench.system import Setting, System
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import Workload

#: An agent is on pace if it wrote at least this fraction of what it offered, in time.
_ON_PACE_FRACTION = 0.99
_NS = 1_000_000_000
#: Time from telling the agents when to begin until they begin, in ns: enough for a hundred to receive it.
_LEAD_NS = 50_000_000


@attrs.frozen
class _WritePhase:
    """What steps 2 to 4 found."""

    began_ns: int
    finished_ns: int
    agents: list[Finished]
    timings: list[Timings]
    used: ResourcesUsed


def measure(name: str, setting: Setting, workload: Workload) -> Measurement:
    """Measure a system in its own folder, which is removed afterwards.

    Raises:
        NotRunError: the system cannot run here.
        AgentError: an agent failed, or no agent committed anything.
    """
    setting.folder.mkdir(mode=0o711)  # a server that runs as another user has to reach it
    try:
        system = SYSTEMS[name].make(setting)
        try:
            system.start()
            phase = _write(system, setting, workload)
            row_check = check_rows(system.read_back(), [agent.rows for agent in phase.agents], workload.payload_bytes)
        finally:
            system.stop()
        disk_bytes = resource_usage.disk_bytes(setting.folder)
    finally:
        shutil.rmtree(setting.folder)
    return _measurement(workload, phase, row_check, disk_bytes)


def _write(system: System, setting: Setting, workload: Workload) -> _WritePhase:
    with AgentPool(system.place, workload) as pool:
        pids = list(dict.fromkeys(pool.wait_ready()[: workload.agents]))  # the reader, if any, comes last
        meter = ResourceMeter(system, pids, setting.folder)
        began_ns = time.monotonic_ns() + _LEAD_NS
        pool.begin(began_ns)
        agents = pool.wait_finished()[: workload.agents]
        system.finish()
        finished_ns = time.monotonic_ns()
        used = meter.read()
        timings = pool.timings()
        pool.close()
    return _WritePhase(began_ns, finished_ns, agents, timings, used)


def _measurement(workload: Workload, phase: _WritePhase, row_check: RowCheck, disk_bytes: int) -> Measurement:
    rows = sum(agent.timed_rows for agent in phase.agents)
    fewest = min(agent.timed_rows for agent in phase.agents)
    commits = latencies(one.commits for one in phase.timings)
    if commits is None:
        raise AgentError("no agent made a commit in the measured time")
    return Measurement(
        row_check=row_check,
        rows=rows,
        written_s=(max(agent.ended_ns for agent in phase.agents) - phase.began_ns) / _NS,
        total_s=(phase.finished_ns - phase.began_ns) / _NS,
        commits=commits,
        slowest_agent=fewest / (rows / workload.agents),
        refused=sum(agent.refused for agent in phase.agents),
        on_pace=_agents_on_pace(workload, phase.agents),
        behind=latencies(one.behind for one in phase.timings),
        stale=latencies(one.stale for one in phase.timings),
        used=phase.used,
        disk_bytes=disk_bytes,
    )


def _agents_on_pace(workload: Workload, agents: Iterable[Finished]) -> int | None:
    if workload.rate is None:
        return None
    offered = workload.rate * workload.length_s
    return sum(agent.timed_rows >= _ON_PACE_FRACTION * offered for agent in agents)
