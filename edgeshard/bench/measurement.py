"""The figures of one trial, and their names in reports."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import attrs

from edgeshard.bench.row_check import RowCheck
from edgeshard.bench.workload import Workload

_NS = 1_000_000_000


@attrs.frozen
class Latencies:
    """Percentiles of a number of durations, in seconds."""

    count: int
    p50_s: float
    p99_s: float
    p999_s: float
    worst_s: float


@attrs.frozen
class ResourcesUsed:
    """What all processes of a system used from begin to end. None if it cannot be determined.

    Attributes:
        cpu_s: processor time, including the agents', in seconds.
        written_bytes: bytes that all processes of the machine wrote to the disk meanwhile; see `resource_usage`.
        dirtied_bytes: bytes that the system's processes made dirty.
        memory_bytes: memory at the end (PSS); shared pages count once.
        server_peak_bytes: sum of the servers' peaks; shared pages count for each.
    """

    cpu_s: float | None = None
    written_bytes: int | None = None
    dirtied_bytes: int | None = None
    memory_bytes: int | None = None
    server_peak_bytes: int | None = None


@attrs.frozen
class Measurement:
    """What one trial measured. None if it does not apply.

    Attributes:
        row_check: whether the right rows are there.
        rows: rows written in the measured time.
        written_s: until the last agent's last acknowledgement, in seconds.
        total_s: until every row was in the final database, in seconds.
        commits: duration of each commit.
        slowest_agent: rows of the slowest agent, as a fraction of an equal share.
        refused: how many times a write was refused and retried.
        on_pace: how many agents wrote what they offered.
        behind: time from when each commit was due to its acknowledgement.
        stale: age of each row when a reader first saw it.
        used: processor time, bytes and memory.
        disk_bytes: size of the system's folder after it was stopped.
    """

    row_check: RowCheck
    rows: int
    written_s: float
    total_s: float
    commits: Latencies
    slowest_agent: float
    refused: int
    on_pace: int | None
    behind: Latencies | None
    stale: Latencies | None
    used: ResourcesUsed
    disk_bytes: int

    @property
    def rows_per_s(self) -> float:
        """Rows per second, until all were in the final database."""
        return self.rows / self.total_s


def latencies(parts: Iterable[bytes]) -> Latencies | None:
    """Compute percentiles of durations, or return None if there are none.

    Args:
        parts: nanoseconds, each part as the bytes of an array of unsigned 64-bit integers.
    """
    times = array("Q")
    for part in parts:
        times.frombytes(part)
    if not times:
        return None
    ordered = sorted(times)

    def percentile(fraction: float) -> float:
        return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] / _NS

    return Latencies(len(ordered), percentile(0.5), percentile(0.99), percentile(0.999), ordered[-1] / _NS)


def named_figures(found: Measurement, workload: Workload) -> Iterator[tuple[str, float]]:
    """Yield the figures that apply, by the names they have in the JSON; a unit comes last in a name."""
    yield "rows_per_s", found.rows_per_s
    yield "acknowledged_rows_per_s", found.rows / found.written_s
    yield from _named_latencies("commit", found.commits)
    yield from _named_latencies("behind", found.behind)
    yield from _named_latencies("stale", found.stale)
    yield "slowest_agent_share", found.slowest_agent
    yield "refused", found.refused
    yield "disk_bytes", found.disk_bytes
    payload_bytes = found.rows * workload.payload_bytes
    used = found.used
    optional = {
        "agents_on_pace": found.on_pace,
        "cpu_s_per_million_rows": None if used.cpu_s is None else used.cpu_s / found.rows * 1e6,
        "written_bytes_per_payload_byte": None if used.written_bytes is None else used.written_bytes / payload_bytes,
        "dirtied_bytes_per_payload_byte": None if used.dirtied_bytes is None else used.dirtied_bytes / payload_bytes,
        "memory_bytes": used.memory_bytes,
        "server_peak_bytes": used.server_peak_bytes,
    }
    yield from ((name, value) for name, value in optional.items() if value is not None)


def _named_latencies(name: str, found: Latencies | None) -> Iterator[tuple[str, float]]:
    if found is not None:
        yield f"{name}_p50_s", found.p50_s
        yield f"{name}_p99_s", found.p99_s
        yield f"{name}_p999_s", found.p999_s
        yield f"{name}_worst_s", found.worst_s
