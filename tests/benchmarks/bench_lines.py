"""What does `edgeshard write` of lines cost, against `write_many` of the same dicts in Python?

    python -m tests.benchmarks.bench_lines [--rows N] [--rounds N] [--dir FOLDER]

Processor time, because other processes take time, too; that of the command includes its start. The contestants take
turns. It asserts no times.

write_many    all dicts in one call; and, for the ratio of the same number of commits, a thousand in each
ndjson, csv   the command, with its usual batches of a thousand
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import edgeshard
from edgeshard.bench.costs.timing import alternate, scratch

_BATCH = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_lines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many rows (default: 1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how many turns each has (default: 3)")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    given = parser.parse_args()
    rows = [_row(number) for number in range(given.rows)]
    with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as name:
        folder = Path(name)
        _write_files(folder, rows)
        size = (folder / "rows.ndjson").stat().st_size / len(rows)
        contestants: dict[str, Callable[[Path], float]] = {
            "write_many": partial(_write_many, rows, len(rows)),
            "by thousands": partial(_write_many, rows, _BATCH),
            "ndjson": partial(_command, "--ndjson", folder / "rows.ndjson"),
            "csv": partial(_command, "--csv", folder / "rows.csv"),
        }
        found = alternate(given.rounds, {name: partial(_apart, folder, work) for name, work in contestants.items()})
    print(f"{len(rows):,} rows of {size:.0f} bytes     µs/row   / write_many   / by thousands")
    for name, times in found.items():
        ratios = [
            median(mine / peer for mine, peer in zip(times, found[peer], strict=True))
            for peer in ("write_many", "by thousands")
        ]
        print(f"{name:>28} {median(times) / len(rows) * 1e6:>10.2f} {ratios[0]:>14.2f} {ratios[1]:>16.2f}")
    return 0


def _row(number: int) -> dict[str, Any]:
    at = 1764489600.123 + number
    return {"sensor": f"room-{number % 50:03}", "celsius": number % 1000 / 10, "at": at, "is_open": True, "n": number}


def _write_files(folder: Path, rows: list[dict[str, Any]]) -> None:
    with open(folder / "rows.ndjson", "w") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    with open(folder / "rows.csv", "w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _apart(folder: Path, work: Callable[[Path], float]) -> float:
    """Return the processor time of the work in a store of its own."""
    with scratch(folder) as root:
        os.sync()
        return work(root)


def _write_many(rows: list[dict[str, Any]], batch: int, root: Path) -> float:
    began = time.process_time()
    with edgeshard.Store(root).shard("agent") as shard:
        for start in range(0, len(rows), batch):
            shard.write_many(rows[start : start + batch])
    return time.process_time() - began


def _command(option: str, file: Path, root: Path) -> float:
    before = _children_s()
    command = [sys.executable, "-m", "edgeshard", "write", str(root), "agent", option, str(file), "--quiet"]
    subprocess.run(command, check=True)
    return _children_s() - before


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
