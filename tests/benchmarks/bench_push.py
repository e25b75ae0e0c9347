"""How fast rows get from a master into PostgreSQL, by COPY and by INSERT; asserts no times, but that every row is there.

    python tests/bench_push.py [--rows 1000000] [--rounds 3] [--dsn DSN]

Each round pushes the same master into an empty database: dicts (`agent_data`: agent, time, JSON) and records of a str, a
float and a time. The server is one of our own on this machine with fsync on, unless a DSN names another one.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import NOON, Reading
from postgres import PgServer, fetch, foreign_database

import edgeshard

#: Rows of one transaction of a writer: what an agent that hurries writes.
_TOGETHER = 100


def a_dict(n: int) -> Any:
    """About 100 bytes in SQLite."""
    return {"n": n, "action": "generated_code", "pattern": "RECURSIVE_004", "tokens": n % 4096}


def a_reading(n: int) -> Any:
    """A record of three columns."""
    return Reading(f"sensor-{n % 1000:04}", n / 8, NOON)


KINDS = {"dicts": (a_dict, "agent_data"), "records": (a_reading, "reading")}


def prepare(root: Path, kind: str, rows: int) -> edgeshard.Store:
    """A store with so many rows of a kind in its master."""
    make, store = KINDS[kind][0], edgeshard.Store(root)
    with store.shard("agent") as shard:
        for first in range(0, rows, _TOGETHER):
            shard.write_many(make(n) for n in range(first, min(rows, first + _TOGETHER)))
    assert store.merge().complete
    return store


def push(store: edgeshard.Store, dsn: str, kind: str, rows: int, *, inserts: bool) -> float:
    """Rows a second of one push into an empty database, in which each row is then found once."""
    began = time.perf_counter()
    report = store.push(dsn, inserts=inserts)
    seconds = time.perf_counter() - began
    table = KINDS[kind][1]
    counted = f"select count(*), count(distinct (_stream, _seq)), min(_seq), max(_seq) from {table}"
    assert [(rows, rows, 1, rows)] == fetch(dsn, counted)
    assert [(1, rows)] == fetch(dsn, "select first, last from edgeshard_ranges")
    assert (rows, True) == (report.rows, report.complete)
    return rows / seconds


@contextlib.contextmanager
def database(server: PgServer | None, dsn: str | None) -> Iterator[str]:
    """An empty database, for a moment."""
    if server is None:
        assert dsn is not None
        with foreign_database(dsn) as made:
            yield made
    else:
        with server.database() as name:
            yield server.dsn(name)


def measure(server: PgServer | None, dsn: str | None, rows: int, rounds: int) -> None:
    """Print a line for each kind of rows and each way."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="edgeshard-bench-push-") as folder:
            store = prepare(Path(folder), kind, rows)
            ways: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds):
                for inserts, rates in ways.items():  # in turn: whatever else the machine does meets both
                    with database(server, dsn) as empty:
                        rates.append(push(store, empty, kind, rows, inserts=inserts))
            for inserts, rates in ways.items():
                least, most = min(rates), max(rates)
                print(
                    f"{rows} {kind} by {'INSERT' if inserts else 'COPY'}: {statistics.median(rates):,.0f} rows/s "
                    f"({least:,.0f} to {most:,.0f})",
                    flush=True,
                )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure pushes; every row must arrive once.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dsn", help="a server of yours, whose user may make databases")
    options = parser.parse_args()
    if options.dsn is not None:
        measure(None, options.dsn, options.rows, options.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="edgeshard-pg-") as folder:
        Path(folder).chmod(0o711)
        server = PgServer(Path(folder), fsync="on", shared_buffers="128MB", max_wal_size="4GB")
        try:
            measure(server, None, options.rows, options.rounds)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
