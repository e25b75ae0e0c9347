"""Time a piece of work, and alternate between contestants so that none is favored.

The contestant that goes first changes with each round. Every timed piece of work begins without garbage to collect and
with nothing left to write to the disk.
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes, after collecting garbage and writing all files to the disk."""
    gc.collect()
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternate(rounds: int, contestants: Mapping[str, Callable[[], _T]]) -> dict[str, list[_T]]:
    """Return each contestant's results, one per round, after a warm-up round that is not counted."""
    found: dict[str, list[_T]] = {name: [] for name in contestants}
    for number in range(-1, rounds):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            result = contestants[name]()
            if number >= 0:
                found[name].append(result)
    return found


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Create a temporary folder inside another folder, and remove it afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name)
