"""All cost curves, by the name that ``--curves`` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.bytes_written import wear_curve
from edgeshard.bench.costs.curve import Curve, Scale
from edgeshard.bench.costs.growth import shards_curve, size_curve
from edgeshard.bench.costs.processor_waits import turns_curve
from edgeshard.bench.costs.throughput import merge_curve, write_curve
from edgeshard.bench.costs.wake import wake_curve

CURVES: Final[dict[str, Callable[[Path, Scale], Curve]]] = {
    "write": write_curve,
    "merge": merge_curve,
    "shards": shards_curve,
    "size": size_curve,
    "wake": wake_curve,
    "wear": wear_curve,
    "turns": turns_curve,
}

#: What each curve shows, for the help of the command line.
DESCRIPTIONS: Final = {
    "write": "a write, against a bare INSERT of apsw, over the size of a row",
    "merge": "a merge, against a bare INSERT ... SELECT, over the size of a row",
    "shards": "a merge of a fixed number of rows, and one that finds nothing new, over the number of shards",
    "size": "a merge of a fixed number of rows, over the size of the master",
    "wake": "from a write after a quiet time until the row is readable, over the merger's interval",
    "wear": "bytes written per row, with wear='low' and wear='normal', over the number of agents",
    "turns": "how long a process that only computes waits for a processor, over the number of processes",
}
