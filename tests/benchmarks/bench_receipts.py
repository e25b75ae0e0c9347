"""How large are the ranges of a store, and what do they cost, by the number of its streams and of its gaps?

    python -m tests.benchmarks.bench_receipts [--quick] [--dir FOLDER]

For each number, two masters that hold the same rows are made, and one gives the other a receipt, twice:

size        the document, in bytes
write       processor time to take the inventory and write the document, in seconds
record      the same to read it and record all of it
again       the same to record it once more: nothing has changed
locked      how long the transactions of the first receipt kept a merger waiting, in milliseconds: the median, and the
            longest of a hundred
memory      by how much the process grew, in MB
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import edgeshard
from edgeshard import sqlite
from edgeshard.master import database
from edgeshard.sqlite import Connection
from tests.support.forks import Count, begin
from tests.support.stores import new_store

_NUMBERS = (100, 1_000, 10_000, 100_000, 1_000_000)

_BEGAN_AT = "2026-01-02T12:00:00+00:00"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_receipts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="only up to 10,000")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    given = parser.parse_args()
    for what, is_gaps in (("streams", False), ("gaps of a stream", True)):
        print(f"\n{what:>16}      size   write  record   again   locked (p99)  memory", flush=True)
        for number in _NUMBERS[: 3 if given.quick else None]:
            with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as folder:
                streams, runs = (1, number) if is_gaps else (number, 1)
                begin(_measuring(Path(folder), number, streams, runs)).wait()
    return 0


def _measuring(folder: Path, number: int, streams: int, runs: int) -> Callable[[Count], None]:
    """Return what to do in a process of its own, so that its memory is what this number needs."""
    return lambda _: _measure(folder, number, streams, runs)


def _measure(folder: Path, number: int, streams: int, runs: int) -> None:
    giver, taker = new_store(folder / "giver"), new_store(folder / "taker")
    for store in (giver, taker):
        _fill(store, streams, runs)
    document, before = folder / "ranges.json", _memory_mb()
    immediate, locked = sqlite.immediate, list[float]()

    @contextlib.contextmanager
    def timed(connection: Connection) -> Iterator[None]:
        with immediate(connection):
            began = time.monotonic()
            yield
            locked.append((time.monotonic() - began) * 1e3)

    write = _cpu_s(lambda: document.write_text(giver.ranges().to_json()))
    with mock.patch.object(sqlite, "immediate", timed):
        record = _cpu_s(lambda: taker.receipt(document, trust=True))
    again = _cpu_s(lambda: taker.receipt(document))
    locked.sort()
    median, longest = locked[len(locked) // 2], locked[int(len(locked) * 0.99)]
    size, grown = document.stat().st_size, _memory_mb() - before
    print(
        f"{number:>16} {size:>9} {write:>7.2f} {record:>7.2f} {again:>7.2f} {median:>8.1f} {longest:>6.1f} {grown:>7}",
        flush=True,
    )


def _fill(store: edgeshard.Store, streams: int, runs: int) -> None:
    """Make a master with these streams, of so many runs of rows each: only what a receipt reads, without the rows."""
    store.merge()
    dice = random.Random(19)
    connection = database.open_master(store.master_path, writable=True)
    with sqlite.immediate(connection):
        next_id = 1
        for number in range(1, streams + 1):
            origin = (number, f"agent-{number % 100}", dice.randbytes(16), _BEGAN_AT, 100 * runs)
            connection.execute("INSERT INTO _edgeshard_streams VALUES (?, ?, ?, ?, ?)", origin)
            for run in range(runs):
                seqs = (number, 100 * run + 1, 100 * run + dice.randint(1, 90))
                connection.execute("INSERT INTO _edgeshard_ranges VALUES (?, ?, ?)", seqs)
                connection.execute("INSERT INTO _edgeshard_blocks VALUES (?, ?, ?, ?)", (*seqs, next_id))
                next_id += seqs[2] - seqs[1] + 1
    connection.close()


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    raise SystemExit(main())
