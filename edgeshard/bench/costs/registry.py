"""All cost curves, by the name that ``--curves`` takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.curve import Curve, Scale

CurveFunction = Callable[[Path, Scale], Curve]


def _imported_later(module: str, name: str) -> CurveFunction:
    """Return a function that is imported when it is called.

    Curves use parts of edgeshard that other versions do not have. Without them, ``--goals`` can measure those versions
    with this benchmark.
    """

    def measure(folder: Path, scale: Scale) -> Curve:
        function: CurveFunction = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        return function(folder, scale)

    return measure


CURVES: Final = {
    "write": _imported_later("throughput", "write_curve"),
    "merge": _imported_later("throughput", "merge_curve"),
    "shards": _imported_later("growth", "shards_curve"),
    "size": _imported_later("growth", "size_curve"),
    "wake": _imported_later("wake", "wake_curve"),
    "wear": _imported_later("bytes_written", "wear_curve"),
    "turns": _imported_later("processor_waits", "turns_curve"),
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
