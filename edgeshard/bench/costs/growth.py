"""The curves shards and size: how the cost of a merge grows with the number of shards and the size of the master."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.curve import Curve, Scale, empty_lines
from edgeshard.bench.costs.sample_rows import AGENT, checked_merge, fill, grow
from edgeshard.bench.costs.timing import scratch
from edgeshard.bench.spread import Spread
from edgeshard.files import scan
from edgeshard.store import Store

#: How long merges may take to recognize that all shards are idle, in seconds.
_IDLE_TIMEOUT_S: Final = 60.0


def shards_curve(folder: Path, scale: Scale) -> Curve:
    """Time merges of a fixed number of rows from more and more shards, and merges that find nothing new."""
    rows = max(scale.batch_rows, *scale.shards)
    busy, idle = f"a merge of {rows:,} rows", "a merge that finds nothing new"
    lines = empty_lines([busy, idle])
    with scratch(folder) as root:
        stores = {shards: Store(root / str(shards)) for shards in scale.shards}
        for shards, store in stores.items():
            rounds = scale.rounds if shards < 1_000 else 1
            took_s = [_merge_shards(store, shards, rows // shards) for _ in range(rounds)]
            lines[busy].append((shards, Spread.from_values(took_s)))
        for shards, store in stores.items():  # by now the first stores have been idle for long enough
            lines[idle].append((shards, Spread.from_values(_idle_merges(store, scale.rounds))))
    return Curve("shards", "A merge, over the number of shards", "shards", "s", lines)


def _merge_shards(store: Store, shards: int, rows: int) -> float:
    for number in range(shards):
        fill(store, f"agent-{number}", rows, 100)
    return checked_merge(store, rows=rows * shards, keep_empty=True)


def _idle_merges(store: Store, rounds: int) -> Iterator[float]:
    """Time merges of a store, once the merger knows that its shards have nothing new."""
    began = time.monotonic()
    while store.merge(keep_empty=True).shards:
        if time.monotonic() - began > _IDLE_TIMEOUT_S:
            raise RuntimeError(f"merges still open idle shards after {_IDLE_TIMEOUT_S:g} s")
        time.sleep(scan.FRESH_S + 0.1)
    for _ in range(rounds):
        yield checked_merge(store, rows=0, shards=0, keep_empty=True)


def size_curve(folder: Path, scale: Scale) -> Curve:
    """Time merges of a fixed number of rows into a larger and larger master."""
    batch = scale.batch_rows
    points = []
    with scratch(folder) as root:
        store, master_rows = Store(root), 0
        for rows in scale.master_rows:
            grow(store, max(0, rows - master_rows))
            took_s = []
            for _ in range(scale.rounds):
                fill(store, AGENT, batch, 100)
                took_s.append(checked_merge(store, rows=batch))
            master_rows = max(master_rows, rows) + batch * scale.rounds
            points.append((float(rows), Spread.from_values(one / batch for one in took_s)))
    title = f"A merge of {batch:,} rows of 100 B, time per row"
    return Curve("size", title, "rows in the master before the merge", "s", {"store.merge": points})
