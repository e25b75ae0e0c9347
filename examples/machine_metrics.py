"""Four agents sample this machine's counters, each into its own shard; merges run meanwhile.

    python examples/machine_metrics.py [FOLDER] [--seconds N] [--interval S]

Every agent is a process that reads one file of /proc at an interval and writes a row for each sample. The agents cpu,
memory, disk and network wait neither for each other nor for the merger. At the end the master must hold exactly the
rows that were acknowledged to the agents; otherwise this exits with an error. Ctrl-C ends the sampling early.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import multiprocessing
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

import edgeshard

MERGE_INTERVAL_S = 1.0
# whole disks only: partitions, and devices on top of disks (loop, dm, md), would count every byte twice
DISK = re.compile(r"(sd|hd|vd|xvd)[a-z]+|(nvme\d+n|mmcblk)\d+")
SECTOR_BYTES = 512  # the unit of /proc/diskstats, whatever the disk's own sectors are


# -- records: one class, one table ------------------------------------------------------------------------------------


@attrs.frozen
class CpuSample:
    """Processor time since boot, of all processors together, in ticks."""

    at: datetime.datetime
    busy_ticks: int
    total_ticks: int


@attrs.frozen
class MemorySample:
    """Memory at this moment."""

    at: datetime.datetime
    available_bytes: int
    total_bytes: int


@attrs.frozen
class DiskSample:
    """Traffic of all whole disks since boot; a container may see none."""

    at: datetime.datetime
    disks: int
    read_bytes: int
    written_bytes: int


@attrs.frozen
class NetworkSample:
    """Traffic of all interfaces except the loopback since boot; there may be none."""

    at: datetime.datetime
    interfaces: int
    received_bytes: int
    sent_bytes: int


# -- agents -----------------------------------------------------------------------------------------------------------


def sample_cpu() -> CpuSample:
    first_line = Path("/proc/stat").read_text().partition("\n")[0]
    # user nice system idle iowait irq softirq steal; the fields after these are included in user and nice
    ticks = [int(field) for field in first_line.split()[1:9]]
    return CpuSample(now(), sum(ticks) - sum(ticks[3:5]), sum(ticks))


def sample_memory() -> MemorySample:
    pairs = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    size = {name: int(value.split()[0]) * 1024 for name, value in pairs}
    return MemorySample(now(), size["MemAvailable"], size["MemTotal"])


def sample_disk() -> DiskSample:
    path = Path("/proc/diskstats")
    lines = path.read_text().splitlines() if path.exists() else []  # some sandboxes lack it
    disks = [fields for fields in map(str.split, lines) if DISK.fullmatch(fields[2])]
    read, written = (sum(int(fields[column]) for fields in disks) * SECTOR_BYTES for column in (5, 9))
    return DiskSample(now(), len(disks), read, written)


def sample_network() -> NetworkSample:
    pairs = (line.split(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:])
    counters = [value.split() for name, value in pairs if name.strip() != "lo"]
    received, sent = (sum(int(fields[column]) for fields in counters) for column in (0, 8))
    return NetworkSample(now(), len(counters), received, sent)


SAMPLERS: dict[str, Callable[[], Any]] = {
    "cpu": sample_cpu,
    "memory": sample_memory,
    "disk": sample_disk,
    "network": sample_network,
}


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def run_agent(agent: str, folder: str, interval_s: float, stop: Connection, count: Connection) -> None:
    """Sample into the agent's own shard until told to stop, then send the number of acknowledged rows."""
    written = 0
    try:
        with edgeshard.Store(folder).shard(agent) as shard:
            for _ in ticks(interval_s, stop):
                shard.write(SAMPLERS[agent]())
                written += 1
    except (edgeshard.EdgeshardError, OSError) as error:
        sys.exit(f"agent {agent}: {error}")
    finally:
        with contextlib.suppress(BrokenPipeError):  # nobody is left to tell
            count.send(written)


def ticks(interval_s: float, stop: Connection) -> Iterator[int]:
    """Count up at an interval, until the other end of `stop` is closed, also if its owner dies."""
    began = time.monotonic()
    for number in itertools.count():
        if (
            stop.poll(max(0.0, began + number * interval_s - time.monotonic())) and number
        ):  # even a late agent writes once
            return
        yield number


# -- the parent: starts the agents, merges, and checks ----------------------------------------------------------------


@attrs.frozen
class Agents:
    """The running agents, and the ends of the pipes to them."""

    processes: list[multiprocessing.process.BaseProcess]
    counts: list[Connection]
    stop: Connection

    def finish(self) -> list[int | None]:
        """End the agents and return how many rows were acknowledged to each, None for one that was killed."""
        self.stop.close()
        written = [received(count) for count in self.counts]
        for process in self.processes:
            process.join()
        return written


def start_agents(folder: Path, interval_s: float) -> Agents:
    context = multiprocessing.get_context("spawn")
    stopped, stop = context.Pipe(duplex=False)
    agents = Agents([], [], stop)
    # Ctrl-C reaches every process of the terminal; only the parent reacts to it
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    for agent in SAMPLERS:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=run_agent, args=(agent, str(folder), interval_s, stopped, theirs), name=agent, daemon=True
        )
        process.start()
        theirs.close()  # so that the pipe ends with the agent
        agents.processes.append(process)
        agents.counts.append(ours)
    signal.signal(signal.SIGINT, handler)
    return agents


def received(count: Connection) -> int | None:
    try:
        return int(count.recv())
    except EOFError:
        return None


def merge_repeatedly(store: edgeshard.Store, seconds: float) -> None:
    """Merge about once a second, for a while or until Ctrl-C."""
    deadline = time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, MERGE_INTERVAL_S))
            print(store.merge(lock_wait=-1), flush=True)
    except KeyboardInterrupt:
        print("interrupted; no more samples are taken", flush=True)


def run(store: edgeshard.Store, seconds: float, interval_s: float) -> int:
    store.init()
    store.merge(lock_wait=-1)  # do not count what an earlier run left in its shards
    before = store.verify().rows
    began = now()
    print(f"the master is {store.master_path}; open it with any SQLite tool, even now", flush=True)
    agents = start_agents(store.root, interval_s)
    merge_repeatedly(store, seconds)
    written = agents.finish()
    print(store.merge(lock_wait=-1))
    if all(written):  # an agent without rows has no table
        show(("agent", "rows", "figure", "value"), store.query(FIGURES, {"began": began.isoformat()}))
    right = check(store, before, sum(filter(None, written)))
    return 0 if unharmed(agents) and right else 1


def unharmed(agents: Agents) -> bool:
    """Return whether no agent failed or was killed: one that was killed could not report its count."""
    failed = [process for process in agents.processes if process.exitcode != 0]
    for process in failed:
        print(f"{process.name} ended with exit code {process.exitcode}", file=sys.stderr)
    return not failed


def check(store: edgeshard.Store, before: int, acknowledged: int) -> bool:
    """Print and return whether the master holds every acknowledged row exactly once."""
    verified = store.verify()
    arrived = verified.rows - before
    print(f"rows acknowledged: {acknowledged}, in the master: {arrived}")
    for finding in (*verified.errors, *verified.gaps):
        print(finding, file=sys.stderr)
    return verified.ok and acknowledged == arrived


# counters only grow, so the difference between largest and smallest is what happened meanwhile
FIGURES = """
SELECT 'cpu', count(*), 'busy, percent',
       100.0 * (max(busy_ticks) - min(busy_ticks)) / (max(total_ticks) - min(total_ticks))
    FROM cpu_sample WHERE at >= :began
UNION ALL
SELECT 'memory', count(*), 'available on average, MiB', avg(available_bytes) / 1048576
    FROM memory_sample WHERE at >= :began
UNION ALL
SELECT 'disk', count(*), 'written, KiB (disks: ' || max(disks) || ')',
       (max(written_bytes) - min(written_bytes)) / 1024.0
    FROM disk_sample WHERE at >= :began
UNION ALL
SELECT 'network', count(*), 'received, KiB (interfaces: ' || max(interfaces) || ')',
       (max(received_bytes) - min(received_bytes)) / 1024.0
    FROM network_sample WHERE at >= :began
"""


def show(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = [heads, *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print()


def cell(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="Sample this machine's counters into shards, and merge them.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the store (default: a fresh temporary folder)")
    parser.add_argument("--seconds", type=positive, default=5.0, metavar="N", help="for how long (default: 5)")
    parser.add_argument("--interval", type=positive, default=0.2, metavar="S", help="between samples (default: 0.2)")
    options = parser.parse_args()
    if not Path("/proc/stat").exists():
        parser.error("this example needs /proc, which this system does not have")
    store = edgeshard.Store(options.folder or tempfile.mkdtemp(prefix="edgeshard-metrics-"))
    try:
        return run(store, options.seconds, options.interval)
    except edgeshard.EdgeshardError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
