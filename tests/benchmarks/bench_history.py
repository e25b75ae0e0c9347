"""How what a master has behind it makes its work dearer.

    python -m tests.benchmarks.bench_history [--quick | --million] [--only KIND ...] [--dir FOLDER]

A master gets 100, 1,000, ... 100,000 gaps, blocks, prune notes or streams (see tests/support/history.py). Each figure is
processor time in milliseconds, the least of three rounds, and in brackets its ratio to that of the smallest history.
Waiting for the disk is not counted, so a busy machine gives about the same figures.

    merge      of one more row of an agent with this history, by `Store.merge`
    pass       the same, by a merger that watches
    hub        a merge of the master into a hub that has all but one row
    export     of that row, in a bundle for the hub
    lock       the longest transaction of a prune that collects tombstones and deletes 100 rows
    status, verify
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import edgeshard
from edgeshard import sqlite
from edgeshard.merge.merger import Merger
from tests.support import history
from tests.support.last_known import LastKnown
from tests.support.stores import new_store

_ROUNDS = 3

_immediate = sqlite.immediate


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_history",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="up to 10,000")
    parser.add_argument("--million", action="store_true", help="up to 1,000,000; takes minutes")
    parser.add_argument("--only", nargs="+", choices=list(history.KINDS), default=list(history.KINDS), metavar="KIND")
    parser.add_argument("--dir", help="measure on the disk of this folder (default: the one for temporary files)")
    given = parser.parse_args()
    top = 4 if given.quick else 6 if given.million else 5
    sizes = [10**power for power in range(2, top + 1)]
    for kind in given.only:
        print(f"\n{kind:12}" + "".join(f"{size:>18,}" for size in sizes))
        curves: dict[str, list[float]] = {}
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="edgeshard-bench-", dir=given.dir) as folder:
                for name, took_s in _measure(Path(folder), kind, size):
                    curves.setdefault(name, []).append(took_s)
        for name, points in curves.items():
            print(
                f"{name:12}" + "".join(f"{took * 1e3:>9.1f} ({took / points[0]:6.1f})" for took in points), flush=True
            )
    return 0


def _measure(folder: Path, kind: str, size: int) -> Iterator[tuple[str, float]]:
    store, hub = new_store(folder / "store"), new_store(folder / "hub")
    with store.shard("agent") as shard:
        for number in range(10):
            shard.write(LastKnown(f"sensor {number}", 1.0))
            shard.delete(LastKnown, f"sensor {number}")
    history.grow(store, kind, size)

    def write() -> None:
        history.write_next_row(store)

    def write_and_merge() -> None:
        write()
        store.merge()

    yield "merge", _least(store.merge, write)
    merger = Merger(store.root, keep_empty=True, watching=True)
    merger.run()
    yield "pass", _least(merger.run, write)
    merger.close()
    store.merge()
    _merge_all(hub, store)
    yield "hub", _least(lambda: hub.merge([store.master_path]), write_and_merge)
    held = hub.ranges()
    write_and_merge()
    yield "export", _least(lambda: store.export(folder / "bundle.db", ranges=held, force=True), lambda: None)
    yield "lock", _longest_lock(store)
    yield "status", _least(store.status, lambda: None)
    yield "verify", _least(store.verify, lambda: None)


def _merge_all(hub: edgeshard.Store, store: edgeshard.Store) -> None:
    """Merge a store into a hub until nothing is left: a merge takes a part of many prune notes."""
    known = -1
    while True:
        hub.merge([store.master_path])
        ((notes,),) = hub.query("SELECT count(*) FROM _edgeshard_pruned_ranges")
        if notes == known:
            return
        known = notes


def _least(work: Callable[[], object], prepare: Callable[[], None]) -> float:
    """Return how many seconds of a processor the fastest of some rounds takes, each after it was prepared."""
    found = []
    for _ in range(_ROUNDS):
        prepare()
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def _longest_lock(store: edgeshard.Store) -> float:
    """Prune, and return how many seconds of a processor the longest transaction takes that keeps mergers waiting."""
    took_s = [0.0]

    @contextlib.contextmanager
    def immediate(connection: sqlite.Connection) -> Iterator[None]:
        with _immediate(connection):
            began = time.process_time()
            try:
                yield
            finally:
                took_s.append(time.process_time() - began)

    ((rows,),) = store.query("SELECT count(*) FROM agent_data")
    time.sleep(1.1)  # a tombstone must be older than its grace period
    with mock.patch.object(sqlite, "immediate", immediate):
        store.prune(deletions_older_than="1s", keep_rows=rows - 100)
    return max(took_s)


if __name__ == "__main__":
    raise SystemExit(main())
