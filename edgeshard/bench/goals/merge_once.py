"""Merge a store once in a process of its own: ``python -m edgeshard.bench.goals.merge_once STORE``.

It prints how long the merge took and its processor time, in seconds, and how many rows it copied and truncated. A new
process has nothing in memory from earlier merges, like a merge that cron starts. The time of its start is not part of
the figures: it merges a store without rows first, so that every module is loaded.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

from edgeshard.bench.servers import python_environment
from edgeshard.store import Store


@attrs.frozen
class Merged:
    """What a merge took.

    Attributes:
        wall_s: time, in seconds.
        cpu_s: processor time, in seconds.
    """

    wall_s: float
    cpu_s: float


def merge_once(root: Path, rows: int) -> Merged:
    """Merge a store in a new process.

    Args:
        root: the store.
        rows: how many rows the merge must copy, and delete from the shards.

    Raises:
        RuntimeError: it copied or truncated another number of rows, or was incomplete.
    """
    command = [sys.executable, "-m", __name__, str(root)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=python_environment()).stdout
    wall_s, cpu_s, copied, truncated, is_complete = output.split()
    if (int(copied), int(truncated), is_complete) != (rows, rows, "True"):
        raise RuntimeError(f"the measured merge did not copy and truncate exactly {rows} rows: {output.strip()}")
    return Merged(float(wall_s), float(cpu_s))


def _main(root: str) -> None:
    with tempfile.TemporaryDirectory(dir=os.path.dirname(root)) as empty:
        first = Store(empty)
        first.init()
        first.merge()
    store = Store(root)
    gc.collect()
    os.sync()
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    report = store.merge()
    cpu_s, wall_s = time.process_time() - cpu_began_s, time.perf_counter() - began_s
    sys.stdout.write(f"{wall_s} {cpu_s} {report.rows} {report.truncated} {report.complete}\n")


if __name__ == "__main__":
    _main(sys.argv[1])
