"""Measure merges of many shards, of agents that are alive and of agents that have ended."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.sample_rows import fill
from edgeshard.bench.costs.timing import scratch
from edgeshard.bench.goals import bare_copy
from edgeshard.bench.goals.cost import OURS, Cost
from edgeshard.bench.goals.merge_once import merge_once
from edgeshard.bench.goals.shard_holder import LiveShards
from edgeshard.store import Store

BARE_COPY: Final = "bare copy"
PAYLOAD_BYTES: Final = 100


def full_shards(folder: Path, rounds: int, shards: int = 100, rows: int = 1_000) -> Iterator[Cost]:
    """Time merges of a number of live shards with many rows each, and a bare copy of as many rows from as many files.

    The bare copy leaves the files as they are. The contestants take turns, after one round that is not counted.
    """
    cost = partial(Cost, "full-shards")
    total = shards * rows
    with scratch(folder) as root, LiveShards(root / "store", shards) as live:
        (root / "files").mkdir()
        files = bare_copy.make_files(root / "files", shards, rows, PAYLOAD_BYTES)
        for number in range(-1, rounds):
            live.write(rows, PAYLOAD_BYTES)
            merged = merge_once(root / "store", total)
            bare_s = bare_copy.copy_seconds(root, files)
            if number >= 0:
                yield cost(OURS, number, {"rows_per_s": total / merged.wall_s, "cpu_s": merged.cpu_s / shards})
                yield cost(BARE_COPY, number, {"rows_per_s": total / bare_s})


def live_shards(folder: Path, rounds: int, shards: int = 1_000, rows: int = 10) -> Iterator[Cost]:
    """Measure merges of many live shards with few rows each, after one that is not counted: time per shard."""
    with scratch(folder) as root, LiveShards(root / "store", shards) as live:
        for number in range(-1, rounds):
            live.write(rows, PAYLOAD_BYTES)
            merged = merge_once(root / "store", shards * rows)
            if number >= 0:
                figures = {"cpu_s": merged.cpu_s / shards, "wall_s": merged.wall_s / shards}
                yield Cost("live-shards", OURS, number, figures)


def ended_agents(folder: Path, rounds: int, shards: int = 1_000, rows: int = 10) -> Iterator[Cost]:
    """Measure a merge that also removes the shards of many agents that have ended: time per shard.

    Raises:
        RuntimeError: a shard was not removed.
    """
    for number in range(rounds):
        with scratch(folder) as root:
            store = Store(root / "store")
            filled = [fill(store, f"agent-{agent}", rows, PAYLOAD_BYTES) for agent in range(shards)]
            merged = merge_once(store.root, shards * rows)
            if any(path.exists() for path in filled):
                raise RuntimeError("the measured merge did not remove the shards of all agents that had ended")
        figures = {"wall_s": merged.wall_s / shards, "cpu_s": merged.cpu_s / shards}
        yield Cost("ended-agents", OURS, number, figures)
