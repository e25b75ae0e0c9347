"""How fast rows get from a master into PostgreSQL, by COPY and by INSERT. Asserts no times, but that every row arrives.

    python -m tests.benchmarks.bench_push [--rows 1000000] [--rounds 3] [--dsn DSN]

Each round pushes the same master into an empty database: dicts (`agent_data`: agent, time, JSON) and records of a str, a
float and a time. It starts a server with fsync on this machine, unless a DSN names another one.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.large_push import KINDS, prepare, push
from tests.support.postgres_server import PgServer, foreign_database


@contextlib.contextmanager
def database(server: PgServer | None, dsn: str | None) -> Iterator[str]:
    """Yield an empty database, and drop it afterwards."""
    if server is None:
        assert dsn is not None
        with foreign_database(dsn) as made:
            yield made
    else:
        with server.database() as name:
            yield server.dsn(name)


def measure(server: PgServer | None, dsn: str | None, rows: int, rounds: int) -> None:
    """Print a line for each kind of rows and each way to send them."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="edgeshard-bench-push-") as folder:
            store = prepare(Path(folder), kind, rows)
            ways: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(rounds):
                for inserts, rates in ways.items():  # in turn, so that other load on the machine affects both
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
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bench_push", description="Measure pushes; every row must arrive once."
    )
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
