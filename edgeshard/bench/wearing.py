"""What a row makes edgeshard write, at each level of `Store(wear=...)`: a minute of it, in less time than that.

Agents that write 10 rows a second each, and a merger that makes the passes that its level asks for, one after the other
in one thread, whose writing the system counts. What is written depends on how many rows a pass finds, not on when.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeshard.bench.peers import Sample
from edgeshard.master import write_stats
from edgeshard.merge import locks
from edgeshard.merge.merger import Merger
from edgeshard.shard import write_profile
from edgeshard.shard.shard import Shard
from edgeshard.store import Store

#: Rows of each agent in a second, and for how many seconds.
ROWS_A_SECOND: Final = 10
SECONDS: Final = 60


def bytes_a_row(root: Path, level: write_profile.Wear, agents: int, payload_bytes: int) -> float:
    """What is written for each row, from the first to the last being in the master, and the agents gone.

    Raises:
        RuntimeError: this system does not count what a thread writes, or a row is missing.
    """
    if write_stats.thread_bytes() is None:
        raise RuntimeError("this system does not count what a thread writes (/proc/thread-self/io)")
    store = Store(root, wear=level)
    with write_stats.counted() as count:
        with contextlib.ExitStack() as opened:
            shards = [opened.enter_context(store.shard(f"agent-{number}")) for number in range(agents)]
            _live(store, shards, write_profile.LEVELS[level], "p" * payload_bytes)
        store.merge()
    rows = agents * ROWS_A_SECOND * SECONDS
    if store.verify().rows != rows:
        raise RuntimeError(f"{store.verify().rows} of {rows} rows are in the master")
    return count.bytes / rows


def _live(store: Store, shards: Sequence[Shard], level: write_profile.WriteProfile, text: str) -> None:
    """A minute: rows of all agents, and a pass at each interval."""
    held = locks.merge_lock(store.root, 0.0, lambda: False)
    if held is None:
        raise RuntimeError("another merger has the store")
    merger = Merger(store.root, watching=True, profile=level)
    try:
        for second in range(1, SECONDS + 1):
            for number in range(ROWS_A_SECOND):
                for shard in shards:
                    shard.write(Sample("inlet", number / 7, text))
            if second % level.interval_s == 0:
                merger.run(thorough=second % level.rescan_s == 0)
        merger.close()
    finally:
        held.release()
