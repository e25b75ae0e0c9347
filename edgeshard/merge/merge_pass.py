"""What one pass of a merger should do, and its counts so far."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from edgeshard.format import blocks
from edgeshard.master import write_stats

#: Called with (rows done, rows to do) after each commit of a merge.
Progress = Callable[[int, int], None]


@attrs.define
class MergePass:
    """One pass of a merger: what it should do, and its counts so far.

    Attributes:
        began_ns: when it began, by the system's clock (`time.time_ns`).
        keep_empty: whether to keep the shards of agents that have ended.
        should_stop: called after each shard; returns whether to stop.
        progress: called after each commit; None to report nothing.
        meter: counts the bytes that the merger writes.
        chunk_bytes: about how much the next transaction may copy.
        rows: how many rows were copied and committed.
        rows_to_do: how many rows there were to copy; counted only if there is a `progress`.
        copied_bytes: about how large the copied rows were.
        truncated: how many rows were deleted from shards.
        removed: how many shards were removed.
        stopped: whether `should_stop` ever returned True.
        late_tables: tables that got rows older than tombstones that were collected.
    """

    began_ns: int
    keep_empty: bool
    should_stop: Callable[[], bool]
    progress: Progress | None
    meter: write_stats.Meter
    chunk_bytes: int = blocks.CHUNK_BYTES
    rows: int = 0
    rows_to_do: int = 0
    copied_bytes: int = 0
    truncated: int = 0
    removed: int = 0
    stopped: bool = False
    late_tables: set[str] = attrs.Factory(set)

    def is_stopping(self) -> bool:
        """Return whether the pass should stop: whether `should_stop` has ever returned True."""
        self.stopped = self.stopped or self.should_stop()
        return self.stopped
