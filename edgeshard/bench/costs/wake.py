"""The curve wake: how long a row written after a quiet time takes to become readable, over the merger's interval."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard.bench.costs.curve import Curve, Scale, empty_lines
from edgeshard.bench.costs.sample_rows import AGENT, Sample
from edgeshard.bench.costs.timing import scratch
from edgeshard.bench.servers import Server
from edgeshard.bench.spread import Spread
from edgeshard.bench.systems.sqlite_tuned import FileReader
from edgeshard.store import Store

_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.0005


def wake_curve(folder: Path, scale: Scale) -> Curve:
    """Time from the return of a write after a quiet time until a reader of the master finds the row."""
    label = "until the row is readable"
    lines = empty_lines([label])
    for interval_s in (0.1, 1.0):
        with scratch(folder) as root:
            took_s = list(_wakes(root, interval_s, scale.wakes))
        lines[label].append((interval_s, Spread.from_values(took_s)))
    return Curve("wake", "A row written after a quiet time", "the merger's interval, s", "s", lines)


def _wakes(root: Path, interval_s: float, wakes: int) -> Iterator[float]:
    store = Store(root / "store")
    with store.shard(AGENT) as shard:
        shard.write(Sample("first", 0.0, ""))
        store.merge()
        log = root / "merger.log"
        command = [sys.executable, "-m", "edgeshard.merge", str(store.root), "--watch", "--interval", str(interval_s)]
        merger = Server(command, log)
        try:
            merger.wait_until(lambda: " watches " in log.read_text())
            with contextlib.closing(_RowCounter(store)) as counter:
                for number in range(wakes):
                    time.sleep(interval_s * 1.5 + 0.2 + 0.01 * number)
                    before = counter.rows()
                    shard.write(Sample("inlet", 0.0, ""))
                    yield _seconds_until(counter, before + 1)
        finally:
            merger.stop()


class _RowCounter:
    """Counts the rows of the master, reading only the new ones."""

    def __init__(self, store: Store) -> None:
        self._reader = FileReader(store.master_path, table="sample", key="_id", value="_seq")
        self._rows = 0

    def rows(self) -> int:
        self._rows += len(self._reader.fresh())
        return self._rows

    def close(self) -> None:
        self._reader.close()


def _seconds_until(counter: _RowCounter, rows: int) -> float:
    began = time.perf_counter()
    while counter.rows() < rows:
        if time.perf_counter() - began > _TIMEOUT_S:
            raise RuntimeError(f"the merger has not merged a row after {_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)
    return time.perf_counter() - began
