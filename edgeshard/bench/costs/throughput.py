"""The curves write and merge: edgeshard against plain SQLite, over the size of a row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from edgeshard import format
from edgeshard.bench.costs.backlog import Backlog
from edgeshard.bench.costs.curve import Curve, Scale, empty_lines
from edgeshard.bench.costs.plain_sqlite import bare_shard
from edgeshard.bench.costs.sample_rows import AGENT, Sample
from edgeshard.bench.costs.timing import alternate, scratch, seconds
from edgeshard.bench.spread import Spread
from edgeshard.shard.shard import Shard
from edgeshard.store import Store


def write_curve(folder: Path, scale: Scale) -> Curve:
    """Compare a write of one row per commit with the same INSERT through apsw, with the same settings."""
    lines = empty_lines(["shard.write", "bare apsw"])
    for payload_bytes in scale.payloads:
        rows = max(50, min(5_000, scale.row_bytes // payload_bytes // 4))
        text = "p" * payload_bytes
        with (
            scratch(folder) as root,
            Store(root).shard(AGENT) as shard,
            bare_shard(root / "bare.db", "sample", "source TEXT, value REAL, text TEXT") as cursor,
        ):
            found = alternate(
                scale.rounds,
                {
                    "shard.write": partial(_write_seconds, shard, rows, text),
                    "bare apsw": partial(_insert_seconds, cursor, count(1), rows, text),
                },
            )
        for label, took_s in found.items():
            lines[label].append((payload_bytes, Spread.from_values(one / rows for one in took_s)))
    return Curve("write", "A write, one row per commit, class process", "payload of a row, bytes", "s", lines)


def _write_seconds(shard: Shard, rows: int, text: str) -> float:
    records = [Sample("inlet", number / 7, text) for number in range(rows)]
    write = shard.write

    def work() -> None:
        for record in records:
            write(record)

    return seconds(work)


def _insert_seconds(cursor: Any, numbers: Iterator[int], rows: int, text: str) -> float:
    records = [(format.row_id(1, next(numbers)), "inlet", number / 7, text) for number in range(rows)]
    execute = cursor.execute

    def work() -> None:
        for record in records:
            execute("INSERT INTO sample VALUES (?, ?, ?, ?)", record)

    return seconds(work)


def merge_curve(folder: Path, scale: Scale) -> Curve:
    """Compare a merge of one shard, which also truncates it, with an INSERT ... SELECT that only copies."""
    labels = "store.merge", "INSERT ... SELECT"
    lines = empty_lines(labels)
    for payload_bytes in scale.payloads:
        with scratch(folder) as root:
            backlog = Backlog.make(root, 1, scale.row_bytes // payload_bytes, payload_bytes)
            contestants = (
                partial(backlog.edgeshard_seconds, folder, truncating=True),
                partial(backlog.plain_sql_seconds, folder),
            )
            found = alternate(scale.rounds, dict(zip(labels, contestants, strict=True)))
        for label, took_s in found.items():
            lines[label].append((payload_bytes, Spread.from_values(backlog.rows / one for one in took_s)))
    return Curve(
        "merge",
        "A merge that truncates its shard, against copying alone: rows per second",
        "payload of a row, bytes",
        "1/s",
        lines,
    )
