"""What a hub costs: merges of many devices' masters, with and without new rows, and bundles. Asserts no times.

    python -m tests.benchmarks.bench_hub [--quick] [--only NAME ...] [--dir FOLDER]

    gather    a hub merges the masters of 10 and of 100 devices, against INSERT ... SELECT from the attached files
    idle      the same hub merges them again, with no new rows and with one row of one device
    carry     a bundle is written and merged: all rows of a master, and only the newest; against a snapshot

bench_core.py runs these sections, and explains how rounds are measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs

import edgeshard
from edgeshard.bench.costs.backlog import Backlog
from edgeshard.bench.costs.sample_rows import AGENT, checked_merge, fill, grow
from edgeshard.bench.costs.timing import alternate, seconds
from tests.benchmarks import bench_core
from tests.benchmarks.bench_core import Comparison, Options, Table, rate_table, wait_table
from tests.support.stores import new_store


def devices(root: Path, count: int, rows: int, streams: int = 1) -> list[edgeshard.Store]:
    """Return devices, each with one agent that opened its shard `streams` times; its `rows` rows are in the master."""
    stores = [edgeshard.Store(root / f"device-{number}") for number in range(count)]
    for store in stores:
        for _ in range(streams):
            fill(store, AGENT, rows // streams, 100)
        store.merge()
    return stores


def masters(stores: list[edgeshard.Store]) -> list[Path]:
    """Return the paths of the masters."""
    return [store.master_path for store in stores]


# -- gather -----------------------------------------------------------------------------------------------------------


def gather_section(options: Options) -> Iterator[Table]:
    rounds, rows = options.pick(3, 7), options.pick(100_000, 1_000_000)
    found = []
    for count in (10, 100):
        with options.scratch() as root:
            stores = devices(root, count, rows // count)
            backlog = attrs.evolve(Backlog.make(root, 1, 1, 100), shards=masters(stores), rows=rows)
            took = alternate(
                rounds,
                {
                    "ours": partial(backlog.edgeshard_seconds, options.folder, truncating=False),
                    "peer": partial(backlog.plain_sql_seconds, options.folder),
                },
            )
        case = f"{count} masters, {rows // count:,} rows of 100 B each"
        found.append(Comparison(case, "INSERT, SELECT columns", took["ours"], took["peer"], rows))
    yield rate_table(f"gather: Store.merge(sources), {rounds} rounds", found)


# -- idle -------------------------------------------------------------------------------------------------------------


def idle_section(options: Options) -> Iterator[Table]:
    """Measure merges without news. The hub stays the same over all rounds."""
    rounds = options.pick(5, 15)
    found = []
    for count, streams in ((1, 1), (100, 1), (100, 100)):
        with options.scratch() as root:
            stores = devices(root, count, 1_000, streams)
            hub = new_store(root / "hub")
            hub.merge(masters(stores))
            took = alternate(
                rounds,
                {
                    "news": partial(_news_of_one, hub, stores),
                    "idle": partial(checked_merge, hub, masters(stores), rows=0),
                },
            )
        case = f"{count} masters of {streams} streams"
        found.append(Comparison(case, "a row of one of them", took["idle"], took["news"], 1))
    yield wait_table(f"idle: Store.merge(sources) with no news, {rounds} rounds", found)


def _news_of_one(hub: edgeshard.Store, stores: list[edgeshard.Store]) -> float:
    fill(stores[0], AGENT, 1, 100)
    stores[0].merge()
    return checked_merge(hub, masters(stores), rows=1)


# -- carry ------------------------------------------------------------------------------------------------------------


def carry_section(options: Options) -> Iterator[Table]:
    """Measure bundles. The master stays the same; each round writes the files again."""
    rounds, rows, news = options.pick(3, 7), options.pick(100_000, 1_000_000), 10_000
    with options.scratch() as root:
        store, hub = new_store(root / "device"), new_store(root / "hub")
        grow(store, rows)
        hub.merge([store.master_path])
        said = hub.ranges()
        fill(store, AGENT, news, 100)
        store.merge()
        copy, bundle, whole = root / "snapshot.db", root / "news.db", root / "all.db"
        took = alternate(
            rounds,
            {
                "news": lambda: seconds(lambda: store.export(bundle, ranges=said, force=True)),
                "all": lambda: seconds(lambda: store.export(whole, force=True)),
                "snapshot": lambda: seconds(lambda: store.snapshot(copy, force=True)),
                "merge": lambda: _merge_into_new(options, whole, rows + news),
            },
        )
        sizes = [(path.name, f"{path.stat().st_size:,} B") for path in (bundle, whole, copy)]
    found = [
        Comparison(f"export {news:,} of {rows:,} rows", "snapshot of all", took["news"], took["snapshot"], news),
        Comparison(f"export {rows + news:,} rows", "snapshot of all", took["all"], took["snapshot"], rows + news),
        Comparison("merge that bundle", "snapshot of all", took["merge"], took["snapshot"], rows + news),
    ]
    yield rate_table(f"carry: bundles, {rounds} rounds", found)
    yield "carry: sizes of the files", ("file", "size"), sizes


def _merge_into_new(options: Options, bundle: Path, rows: int) -> float:
    if not bundle.exists():  # before the first round
        return 0.0
    with options.scratch() as root:
        return checked_merge(new_store(root / "hub"), [bundle], rows=rows)


SECTIONS: dict[str, Callable[[Options], Iterator[Table]]] = {
    "gather": gather_section,
    "idle": idle_section,
    "carry": carry_section,
}


if __name__ == "__main__":
    sys.exit(bench_core.main(sections=SECTIONS, description=__doc__))
