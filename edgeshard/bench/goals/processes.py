"""Measure what short-lived processes pay: the import, a merge that finds nothing, and a shard that is opened for a row.

The time of a process is from its start until it has ended. Processes are compared with a Python that does nothing, and
take turns with it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from edgeshard.bench.costs.sample_rows import AGENT, Sample
from edgeshard.bench.costs.timing import scratch
from edgeshard.bench.goals.cost import OURS, Cost
from edgeshard.bench.servers import python_environment
from edgeshard.store import Store

BARE_PYTHON: Final = "bare Python"
#: How many processes, or openings, a round is the median of.
_REPEATS: Final = 9
_OPENINGS: Final = 50
#: Makes a process say how much memory it needed at most. Its own peak: getrusage() would tell its parent's as well.
_TELL_MEMORY: Final = "; print(open('/proc/self/status').read())"


def import_cost(folder: Path, rounds: int) -> Iterator[Cost]:
    """Measure a process that imports edgeshard: processor time and, on Linux, memory."""
    tell = _TELL_MEMORY if sys.platform == "linux" else ""
    ours = [sys.executable, "-c", f"import edgeshard{tell}"]
    yield from _compare_processes("import", ours, [sys.executable, "-c", f"pass{tell}"], folder, rounds)


def idle_merge(folder: Path, rounds: int) -> Iterator[Cost]:
    """Measure the process ``python -m edgeshard.merge`` on a store that has nothing to merge."""
    with scratch(folder) as root:
        store = Store(root / "store")
        with store.shard(AGENT) as shard:
            shard.write(Sample("inlet", 0.0, ""))
        store.merge()
        ours = [sys.executable, "-m", "edgeshard.merge", str(store.root)]
        yield from _compare_processes("idle-merge", ours, [sys.executable, "-c", "pass"], root, rounds)


def _compare_processes(
    workload: str, ours: Sequence[str], bare: Sequence[str], folder: Path, rounds: int
) -> Iterator[Cost]:
    for number in range(rounds):
        found: dict[str, list[dict[str, float]]] = {OURS: [], BARE_PYTHON: []}
        for _ in range(_REPEATS):
            found[OURS].append(_run(ours, folder))
            found[BARE_PYTHON].append(_run(bare, folder))
        for contestant, figures in found.items():
            yield Cost(
                workload, contestant, number, {name: median(one[name] for one in figures) for name in figures[0]}
            )


def _run(command: Sequence[str], folder: Path) -> dict[str, float]:
    """Run a process to its end, and return what it used."""
    began_s = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=python_environment()) as process:
        output = "" if process.stdout is None else process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)  # so that nobody waits for it again
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}")
    memory = re.search(r"VmHWM:\s+(\d+) kB", output)
    figures = {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime}
    return {**figures, "memory_bytes": int(memory[1]) * 1024} if memory else figures


def new_shard(folder: Path, rounds: int) -> Iterator[Cost]:
    """Measure opening a new shard, writing a row, and closing it."""
    with scratch(folder) as root:
        store = Store(root / "store")
        agents = iter(range(10**9))
        yield from _openings("new-shard", store, lambda: f"agent-{next(agents)}", rounds)


def existing_shard(folder: Path, rounds: int) -> Iterator[Cost]:
    """Measure opening a shard that exists, writing a row, and closing it."""
    with scratch(folder) as root:
        yield from _openings("existing-shard", Store(root / "store"), lambda: AGENT, rounds)


def _openings(workload: str, store: Store, next_agent: Callable[[], str], rounds: int) -> Iterator[Cost]:
    """Time openings, each round as the median of many; the first opening loads modules and is not counted."""
    _open_write_close(store, next_agent())
    for number in range(rounds):
        os.sync()
        took = [_open_write_close(store, next_agent()) for _ in range(_OPENINGS)]
        wall_s, cpu_s = (median(times) for times in zip(*took, strict=True))
        yield Cost(workload, OURS, number, {"wall_s": wall_s, "cpu_s": cpu_s})


def _open_write_close(store: Store, agent: str) -> tuple[float, float]:
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    with store.shard(agent) as shard:
        shard.write(Sample("inlet", 0.0, ""))
    cpu_s = time.process_time() - cpu_began_s
    return time.perf_counter() - began_s, cpu_s
