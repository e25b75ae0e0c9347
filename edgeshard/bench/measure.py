"""One measurement: one system, one workload.

1. Start the system, and the agents; each connects and writes a first commit, which is compared but not timed.
2. All begin at one moment, and write for the workload's time. A commit that is under way then is finished.
3. Wait until every row is in the final database. *The time ends here*, and processes are looked at.
4. Hear what the agents measured, let them close, read all rows back, and compare each.
5. Stop the system, and see what is left on the disk.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from edgeshard.bench import processes
from edgeshard.bench.account import Account, account
from edgeshard.bench.agents import Done
from edgeshard.bench.crew import AgentError, Crew
from edgeshard.bench.system import Setting, System
from edgeshard.bench.systems import SYSTEMS
from edgeshard.bench.workload import Workload

#: An agent keeps its pace that wrote this part of what it offered, in time.
_KEPT = 0.99
_NS = 1_000_000_000
#: From the moment at which all are told to begin until they do, in ns: a hundred have to hear it.
_LEAD_NS = 50_000_000


@attrs.frozen
class Waits:
    """How long something took, in seconds; by the count of those that took no longer."""

    count: int
    p50_s: float
    p99_s: float
    p999_s: float
    worst_s: float


@attrs.frozen
class Measurement:
    """What was measured. None: it does not apply, or nothing says.

    Attributes:
        account: which rows are there.
        rows: rows that were written in the measured time.
        written_s: until the last agent's last acknowledgement, in seconds.
        total_s: until every row was in the final database, in seconds.
        commits: how long each commit took.
        slowest_agent: rows of the agent that wrote the fewest, as a part of an equal share.
        refused: how many times a write was refused and tried again.
        on_pace: how many agents wrote what they offered.
        behind: from the moment at which each commit was due until it was acknowledged.
        stale: how old each row was when a reader first saw it.
        cpu_s: processor time of all processes of the system, agents included, in seconds.
        written_bytes: what was written to the disk meanwhile, by everybody; see `processes`.
        dirtied_bytes: what the system's processes made dirty.
        memory_bytes: of all of them at the end (PSS); what they share counts once.
        server_peak_bytes: the most that the servers had, each counted for itself.
        disk_bytes: what the system's folder takes after it was stopped.
    """

    account: Account
    rows: int
    written_s: float
    total_s: float
    commits: Waits
    slowest_agent: float
    refused: int
    on_pace: int | None
    behind: Waits | None
    stale: Waits | None
    cpu_s: float | None
    written_bytes: int | None
    dirtied_bytes: int | None
    memory_bytes: int | None
    server_peak_bytes: int | None
    disk_bytes: int

    @property
    def rows_per_s(self) -> float:
        """Rows a second, until all were in the final database."""
        return self.rows / self.total_s


@attrs.frozen
class Spent:
    """What was used from the beginning to the end."""

    cpu_s: float | None = None
    written_bytes: int | None = None
    dirtied_bytes: int | None = None
    memory_bytes: int | None = None
    server_peak_bytes: int | None = None


def measure(name: str, setting: Setting, workload: Workload) -> Measurement:
    """Measure a system in a folder of its own, which is removed.

    Raises:
        NotRunError: it cannot run here.
        AgentError: an agent failed, or none wrote anything.
    """
    setting.folder.mkdir(mode=0o711)  # a server that does not run as us has to reach it
    try:
        system = SYSTEMS[name].make(setting)
        try:
            system.start()
            begun = _write(system, setting, workload)
            accounted = account(system.read_back(), begun.acknowledged, workload.payload_bytes)
        finally:
            system.stop()
        left = processes.disk_bytes(setting.folder)
    finally:
        shutil.rmtree(setting.folder)
    return _measurement(workload, begun, accounted, left)


@attrs.frozen
class _Written:
    """What step 2 to 4 found."""

    acknowledged: list[int]
    done: list[Done]
    began_ns: int
    finished_ns: int
    spent: Spent
    commits: list[bytes]
    behind: list[bytes]
    stale: list[bytes]


def _write(system: System, setting: Setting, workload: Workload) -> _Written:
    with Crew(system.place, workload) as crew:
        pids = crew.ready()[: workload.agents]
        meter = _Meter(system, pids, setting.folder)
        began_ns = time.monotonic_ns() + _LEAD_NS
        crew.go(began_ns)
        done = crew.done()[: workload.agents]
        system.finish()
        finished_ns = time.monotonic_ns()
        spent = meter.read()
        reports = crew.reports()
        crew.close()
    return _Written(
        [one.rows for one in done],
        done,
        began_ns,
        finished_ns,
        spent,
        [one.commits for one in reports],
        [one.behind for one in reports],
        [one.stale for one in reports],
    )


class _Meter:
    """Processor time and bytes from now on, of agents, servers and ourselves (who may do a system's last work)."""

    def __init__(self, system: System, agents: Sequence[int], folder: Path) -> None:
        self._system = system
        self._agents = [*agents, os.getpid()]
        self._folder = folder
        gc.collect()
        os.sync()  # nothing of what was done before is left to the disk
        self._device = processes.device_bytes(folder)
        self._before = self._usage()

    def _usage(self) -> processes.Usage | None:
        servers = self._system.servers()
        if servers is None or not processes.are_visible():
            return None
        return processes.usage([*self._agents, *processes.family(servers)])

    def read(self) -> Spent:
        """What was spent since."""
        before, after, servers = self._before, self._usage(), self._system.servers()
        if before is None or after is None or servers is None:
            return Spent()
        used = after - before
        servers = processes.family(servers)
        memory = processes.memory_bytes([*self._agents[:-1], *servers])
        peak = processes.peak_bytes(servers)
        return Spent(used.cpu_s, self._written_bytes(), used.dirtied_bytes, memory, peak)

    def _written_bytes(self) -> int | None:
        os.sync()  # what a system leaves in the page cache reaches the disk later, and counts
        device = processes.device_bytes(self._folder)
        return None if device is None or self._device is None else device - self._device


def _measurement(workload: Workload, found: _Written, accounted: Account, left: int) -> Measurement:
    rows = sum(one.timed_rows for one in found.done)
    fewest = min(one.timed_rows for one in found.done)
    commits = waits(found.commits)
    if commits is None:
        raise AgentError("no agent made a commit in the measured time")
    return Measurement(
        account=accounted,
        rows=rows,
        written_s=(max(one.ended_ns for one in found.done) - found.began_ns) / _NS,
        total_s=(found.finished_ns - found.began_ns) / _NS,
        commits=commits,
        slowest_agent=fewest / (rows / workload.agents),
        refused=sum(one.refused for one in found.done),
        on_pace=_on_pace(workload, found.done),
        behind=waits(found.behind),
        stale=waits(found.stale),
        disk_bytes=left,
        **attrs.asdict(found.spent),
    )


def _on_pace(workload: Workload, done: Iterable[Done]) -> int | None:
    if workload.rate is None:
        return None
    offered = workload.rate * workload.length_s
    return sum(one.timed_rows >= _KEPT * offered for one in done)


def waits(parts: Iterable[bytes]) -> Waits | None:
    """The quantiles of times in ns, each part the bytes of an array; None where there is none."""
    times = array("Q")
    for part in parts:
        times.frombytes(part)
    if not times:
        return None
    ordered = sorted(times)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / _NS

    return Waits(len(ordered), at(0.5), at(0.99), at(0.999), ordered[-1] / _NS)


def figures_of(found: Measurement, workload: Workload) -> Iterator[tuple[str, float]]:
    """The figures of one measurement, by name; units are last in the names."""
    payload_bytes = found.rows * workload.payload_bytes
    yield "rows_per_s", found.rows_per_s
    yield "acknowledged_rows_per_s", found.rows / found.written_s
    yield from _waits("commit", found.commits)
    yield from _waits("behind", found.behind)
    yield from _waits("stale", found.stale)
    yield "slowest_agent_share", found.slowest_agent
    yield "refused", found.refused
    yield "disk_bytes", found.disk_bytes
    if found.on_pace is not None:
        yield "agents_on_pace", found.on_pace
    if found.cpu_s is not None:
        yield "cpu_s_per_million_rows", found.cpu_s / found.rows * 1e6
    if found.written_bytes is not None:
        yield "written_bytes_per_payload_byte", found.written_bytes / payload_bytes
    if found.dirtied_bytes is not None:
        yield "dirtied_bytes_per_payload_byte", found.dirtied_bytes / payload_bytes
    if found.memory_bytes is not None:
        yield "memory_bytes", found.memory_bytes
    if found.server_peak_bytes is not None:
        yield "server_peak_bytes", found.server_peak_bytes


def _waits(name: str, found: Waits | None) -> Iterator[tuple[str, float]]:
    if found is not None:
        yield f"{name}_p50_s", found.p50_s
        yield f"{name}_p99_s", found.p99_s
        yield f"{name}_p999_s", found.p999_s
        yield f"{name}_worst_s", found.worst_s
