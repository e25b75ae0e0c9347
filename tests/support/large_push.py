"""Push many rows of one kind, and check that every row arrives once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import edgeshard
from tests.support.postgres_server import fetch
from tests.support.records import NOON, Reading

#: Rows per transaction of a writer: as a busy agent writes them.
_TOGETHER = 100


def a_dict(n: int) -> Any:
    """Return a dict that takes about 100 bytes in SQLite."""
    return {"n": n, "action": "generated_code", "pattern": "RECURSIVE_004", "tokens": n % 4096}


def a_reading(n: int) -> Any:
    """Return a record of three columns."""
    return Reading(f"sensor-{n % 1000:04}", n / 8, NOON)


KINDS = {"dicts": (a_dict, "agent_data"), "records": (a_reading, "reading")}


def prepare(root: Path, kind: str, rows: int) -> edgeshard.Store:
    """Create a store with a number of rows of one kind in its master."""
    make, store = KINDS[kind][0], edgeshard.Store(root)
    with store.shard("agent") as shard:
        for first in range(0, rows, _TOGETHER):
            shard.write_many(make(n) for n in range(first, min(rows, first + _TOGETHER)))
    assert store.merge().complete
    return store


def push(store: edgeshard.Store, dsn: str, kind: str, rows: int, *, inserts: bool) -> float:
    """Push into an empty database, check that each row is there once, and return the rows per second."""
    began = time.perf_counter()
    report = store.push(dsn, inserts=inserts)
    seconds = time.perf_counter() - began
    table = KINDS[kind][1]
    counted = f"select count(*), count(distinct (_stream, _seq)), min(_seq), max(_seq) from {table}"
    assert [(rows, rows, 1, rows)] == fetch(dsn, counted)
    assert [(1, rows)] == fetch(dsn, "select first, last from edgeshard_ranges")
    assert (rows, True) == (report.rows, report.complete)
    return rows / seconds
