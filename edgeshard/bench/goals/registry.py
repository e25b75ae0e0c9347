"""All of the costs that have a goal, by the names of their workloads, and the workloads of systems that have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from edgeshard.bench.goals import many_shards, processes
from edgeshard.bench.goals.cost import Cost
from edgeshard.bench.workload import Workload


@attrs.frozen
class CostWorkload:
    """A cost to measure.

    Attributes:
        title: what is measured.
        measure: measures it, given a folder and a number of rounds.
    """

    title: str
    measure: Callable[[Path, int], Iterator[Cost]]


#: They are measured in this order. Merges of ended agents come last, because they remove thousands of files: on ext4
#: without a journal, a new shard took 3.7 ms right after that, and 2.6 ms otherwise (measured).
COSTS: Final = {
    "import": CostWorkload("a process that imports edgeshard", processes.import_cost),
    "idle-merge": CostWorkload("`python -m edgeshard.merge` with nothing to merge: the process", processes.idle_merge),
    "new-shard": CostWorkload("open a new shard, write a row, close", processes.new_shard),
    "existing-shard": CostWorkload("open an existing shard, write a row, close", processes.existing_shard),
    "full-shards": CostWorkload(
        "100 live shards of 1,000 rows of 100 B, merged and truncated", many_shards.full_shards
    ),
    "live-shards": CostWorkload("1,000 live shards of 10 rows, merged: per shard", many_shards.live_shards),
    "ended-agents": CostWorkload(
        "1,000 shards of ended agents, 10 rows each, merged and removed: per shard", many_shards.ended_agents
    ),
}

#: How long the agents write, in seconds.
_LENGTH_S: Final = 2.0
#: One row per commit: the workload of the plot in the README. All systems are measured there.
MANY_AGENTS: Final = Workload("process", 100, length_s=_LENGTH_S)
#: Batches, by the payload of a row in bytes. Measured on the systems that edgeshard has to beat.
BATCHES: Final = {
    payload_bytes: Workload("process", 16, commit_rows=100, payload_bytes=payload_bytes, length_s=_LENGTH_S)
    for payload_bytes in (100, 1_000, 10_000)
}
BATCH_SYSTEMS: Final = ("sqlite-tuned", "postgres", "edgeshard")
