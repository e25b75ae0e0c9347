"""Fill shards and masters with sample rows, and time merges."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from edgeshard.bench.costs.timing import seconds
from edgeshard.shard.shard import Shard
from edgeshard.store import Store

AGENT: Final = "agent"
#: Rows in a transaction of a writer that fills a shard.
FILL_ROWS = 1_000


@attrs.frozen
class Sample:
    """A typical record: a few small values and a payload."""

    source: str
    value: float
    text: str


def fill(store: Store, agent: str, rows: int, payload_bytes: int, batch: int = FILL_ROWS) -> Path:
    """Write samples to an agent's shard in transactions of `batch` rows, and return the shard's path."""
    with store.shard(agent) as opened:
        fill_opened(opened, rows, payload_bytes, batch)
        return Path(opened.path)


def fill_opened(opened: Shard, rows: int, payload_bytes: int, batch: int = FILL_ROWS) -> None:
    """Write samples to an open shard in transactions of `batch` rows."""
    text = "p" * payload_bytes
    for start in range(0, rows, batch):
        opened.write_many(Sample("inlet", n / 7, text) for n in range(start, min(start + batch, rows)))


def grow(store: Store, rows: int) -> None:
    """Add rows to a master, a million at a time so that the shard stays small."""
    for start in range(0, rows, 1_000_000):
        fill(store, "past", min(1_000_000, rows - start), 100, 10_000)
        store.merge()


def checked_merge(
    store: Store, sources: Iterable[Path] = (), *, rows: int, shards: int | None = None, keep_empty: bool = False
) -> float:
    """Return how many seconds a merge takes.

    Args:
        store: the store.
        sources: as in `Store.merge`.
        rows: how many rows it must copy.
        shards: how many shards it must open; None means any number.
        keep_empty: as in `Store.merge`.

    Raises:
        RuntimeError: the merge did something else, or is incomplete.
    """
    reports = []
    took_s = seconds(lambda: reports.append(store.merge(sources, keep_empty=keep_empty)))
    (report,) = reports
    if report.rows != rows or not report.complete or shards not in (None, report.shards):
        raise RuntimeError(f"the measured merge did not copy exactly {rows} rows: {report}")
    return took_s
