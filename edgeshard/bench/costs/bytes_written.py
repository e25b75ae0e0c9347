"""The curve wear: bytes that edgeshard writes per row, with each write profile, over the number of agents.

It simulates a minute in less time. Each agent writes 10 rows per second, and a merger makes the passes that its write
profile calls for, all in one thread, whose writes the operating system counts. The bytes depend on how many rows a pass
finds, not on when it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.curve import Curve, Scale, empty_lines
from edgeshard.bench.costs.sample_rows import Sample
from edgeshard.bench.costs.timing import scratch
from edgeshard.bench.spread import Spread
from edgeshard.master import write_stats
from edgeshard.merge import locks
from edgeshard.merge.merger import Merger
from edgeshard.shard import write_profile
from edgeshard.shard.shard import Shard
from edgeshard.store import Store

#: Rows that each agent writes per second, and the length of the simulation.
ROWS_PER_SECOND: Final = 10
SECONDS: Final = 60
#: Bytes are counted, not timed: they are the same each time (measured).
_ROUNDS: Final = 1


def wear_curve(folder: Path, scale: Scale) -> Curve:
    """Count the bytes written per row until it is in the master and its agent has ended; the sparing profile first."""
    payload_bytes = scale.payloads[0]
    profiles: tuple[write_profile.WriteProfileName, write_profile.WriteProfileName] = ("low", "normal")
    lines = empty_lines(f"wear={profile!r}" for profile in profiles)
    for agents in scale.processes:
        for profile in profiles:
            found = []
            for _ in range(min(scale.rounds, _ROUNDS)):
                with scratch(folder) as root:
                    found.append(bytes_per_row(root, profile, agents, payload_bytes))
            lines[f"wear={profile!r}"].append((agents, Spread.from_values(found)))
    title = f"Bytes written per row of {payload_bytes} B, agents that write {ROWS_PER_SECOND} rows/s"
    return Curve("wear", title, "agents", "B", lines)


def bytes_per_row(root: Path, profile: write_profile.WriteProfileName, agents: int, payload_bytes: int) -> float:
    """Return the bytes written per row, from the first write until all rows are merged and the agents have ended.

    Raises:
        RuntimeError: the operating system does not count the writes of a thread, or a row is missing.
    """
    if write_stats.thread_bytes() is None:
        raise RuntimeError("this operating system does not count what a thread writes (/proc/thread-self/io)")
    store = Store(root, wear=profile)
    with write_stats.counted() as count:
        with contextlib.ExitStack() as opened:
            shards = [opened.enter_context(store.shard(f"agent-{number}")) for number in range(agents)]
            _simulate_minute(store, shards, write_profile.PROFILES[profile], "p" * payload_bytes)
        store.merge()
    rows = agents * ROWS_PER_SECOND * SECONDS
    if store.verify().rows != rows:
        raise RuntimeError(f"only {store.verify().rows} of {rows} rows are in the master")
    return count.bytes / rows


def _simulate_minute(store: Store, shards: Sequence[Shard], profile: write_profile.WriteProfile, text: str) -> None:
    """Write rows of all agents, and run a merge pass at each interval of the write profile."""
    lock = locks.merge_lock(store.root, 0.0, lambda: False)
    if lock is None:
        raise RuntimeError(f"another merger is running on {store.root}")
    merger = Merger(store.root, watching=True, profile=profile)
    try:
        for second in range(1, SECONDS + 1):
            for number in range(ROWS_PER_SECOND):
                for shard in shards:
                    shard.write(Sample("inlet", number / 7, text))
            if second % profile.interval_s == 0:
                merger.run(thorough=second % profile.rescan_s == 0)
        merger.close()
    finally:
        lock.release()
