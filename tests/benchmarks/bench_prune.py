"""How long does a prune keep others waiting, and does the disk usage stay flat?

    python -m tests.benchmarks.bench_prune [--quick] [--dir FOLDER]

stall   How long a write and a merge take, with and without a prune: a large master is pruned to a tenth and shrunk
        while an agent writes and a merger merges all the time.
flat    How large the master's file is, day by day, under a steady load with a prune after each day.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import edgeshard
from edgeshard.merge import locks
from edgeshard.merge.merger import Merger

_WRITER = """
import sys, time, edgeshard
store, stop = edgeshard.Store(sys.argv[1]), sys.argv[2]
import os
took = []
with store.shard("writer") as shard:
    n = 0
    while not os.path.exists(stop):
        began = time.perf_counter()
        shard.write({"n": n, "text": "x" * 60})
        took.append(time.perf_counter() - began)
        n += 1
        if n % 20 == 0:
            time.sleep(0.002)
took.sort()
print(len(took), *(took[int(len(took) * part)] * 1e3 for part in (0.5, 0.99, 0.999)), took[-1] * 1e3)
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_prune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as folder:
        _stall(Path(folder), 110_000 if given.quick else 1_100_000)
        _flat(Path(folder), 3_000 if given.quick else 30_000)
    return 0


def _fill(store: edgeshard.Store, rows: int) -> None:
    with store.shard("filler") as shard:
        for first in range(0, rows, 50_000):
            shard.write_many([{"n": n, "text": "x" * 60} for n in range(first, min(first + 50_000, rows))][:1])
            for n in range(first + 1, min(first + 50_000, rows)):
                shard.write({"n": n, "text": "x" * 60})
            store.merge(keep_empty=True)


def _stall(folder: Path, rows: int) -> None:
    for what in ("nothing", "prune", "prune, and shrink"):
        store = edgeshard.Store(folder / what.replace(", ", "-"))
        _fill(store, rows)
        stop = folder / f"stop {what}"
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(store.root), str(stop)], stdout=subprocess.PIPE, text=True
        )
        began = time.monotonic()
        other = None
        if what != "nothing":
            verb = [sys.executable, "-m", "edgeshard", "prune", str(store.root), "--keep-rows", str(rows // 11)]
            other = subprocess.Popen(verb + (["--shrink"] if "shrink" in what else []))
        took = _merge_until(store, functools.partial(_is_over, other, began + 15.0))
        lasted = time.monotonic() - began
        stop.touch()
        said, _ = writer.communicate()
        count, *times = said.split()
        took.sort()
        merges = [took[int(len(took) * part)] * 1e3 for part in (0.5, 0.99)] + [took[-1] * 1e3]
        writes = " ".join(f"{float(value):.3f}" for value in times)
        print(
            f"beside {what}, {lasted:.1f} s: {count} writes, ms at p50 p99 p99.9 worst: {writes}; "
            f"{len(took)} merges, ms at p50 p99 worst: {' '.join(f'{value:.1f}' for value in merges)}; "
            f"file {os.path.getsize(store.master_path) / 1e6:.1f} MB",
            flush=True,
        )


def _is_over(other: subprocess.Popen[bytes] | None, deadline: float) -> bool:
    return time.monotonic() > deadline if other is None else other.poll() is not None


def _merge_until(store: edgeshard.Store, is_over: Callable[[], bool]) -> list[float]:
    """What each pass of a merger takes, in seconds."""
    took = []
    held = locks.merge_lock(store.root, 0.0, lambda: False)
    assert held is not None
    merger = Merger(store.root, keep_empty=True, watching=True)
    while not is_over():
        began = time.monotonic()
        merger.run(thorough=False)
        took.append(time.monotonic() - began)
        time.sleep(0.05)
    merger.close()
    held.release()
    return took


def _flat(folder: Path, rows_a_day: int) -> None:
    store = edgeshard.Store(folder / "flat")
    sizes = []
    for _ in range(12):
        _fill(store, rows_a_day)
        store.prune(keep_rows=3 * rows_a_day)
        sizes.append(os.path.getsize(store.master_path) / 1e6)
    print("flat, MB by day, with a prune to three days after each:", " ".join(f"{size:.1f}" for size in sizes))


if __name__ == "__main__":
    sys.exit(main())
