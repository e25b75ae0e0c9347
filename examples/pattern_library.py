"""Agents look up patterns in a read-only library and write their results into shards; a merge brings these together.

    python examples/pattern_library.py [FOLDER] [--library DB] [--agents N] [--results N] [--postgres DSN]

The library is a SQLite file of 25 patterns for code (RECURSIVE_004: memoised recursion), made from patterns.json unless
one is given. Every agent is a process: it looks up a pattern by its id, does its work (here: it draws a score), and
writes a row that says where the score comes from: pattern, version and digest of the library, agent, time. This needs
no network, and no agent waits for another. At the end the master must hold exactly the rows that were acknowledged to
the agents, each from a pattern of that library; otherwise this exits with an error. With --postgres, the rows are also
pushed into a PostgreSQL database and counted there: results of many devices, whose libraries stay where the agents are.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from time import perf_counter_ns
from typing import Any
from uuid import UUID

import attrs

import edgeshard

# -- the library: any SQLite file, however it was made ----------------------------------------------------------------

VERSION = "1.0"
PATTERNS = Path(__file__).with_name("patterns.json")
COLUMNS = ("id", "family", "name", "description", "when_to_use")
LIBRARY = """
CREATE TABLE library(version TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE pattern(
    id TEXT PRIMARY KEY,
    family TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    when_to_use TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


def make_library(path: Path) -> None:
    """Create the library under another name, then rename it: nobody ever opens half of it."""
    patterns = [tuple(pattern[column] for column in COLUMNS) for pattern in json.loads(PATTERNS.read_text())]
    made = path.with_name(f"{path.name}.{os.getpid()}.new")
    # the standard library's sqlite3 is safe here: nothing in this process has this file open through edgeshard
    with contextlib.closing(sqlite3.connect(made)) as library:
        library.executescript(LIBRARY)
        library.executemany("INSERT INTO pattern VALUES (?, ?, ?, ?, ?)", patterns)
        library.execute("INSERT INTO library VALUES (?, ?)", (VERSION, digest_of(sorted(patterns))))
        library.commit()
    made.chmod(0o444)
    made.replace(path)


def digest_of(patterns: Iterable[Sequence[str]]) -> str:
    """Return the digest of the patterns: a version is a promise, a digest is a fact."""
    return hashlib.sha256(json.dumps([list(pattern) for pattern in patterns]).encode()).hexdigest()


# -- agents -----------------------------------------------------------------------------------------------------------


@edgeshard.table(index=["pattern_id"])
@attrs.frozen
class PatternResult:
    """The result of a pattern, and where it comes from."""

    pattern_id: str
    library_version: str
    library_digest: str
    agent: str
    at: datetime.datetime
    score: float


@attrs.frozen
class Job:
    """What an agent has to do."""

    agent: str
    folder: str
    library: str
    results: int


ALL = f"SELECT {', '.join(COLUMNS)} FROM patterns.pattern ORDER BY id"
# the pattern and its provenance in one look-up
ONE = "SELECT id, name, when_to_use, version, digest FROM patterns.pattern, patterns.library WHERE id = ?"


def run_agent(job: Job) -> list[int]:
    """Look up and write; return how long each look-up took, in nanoseconds, one per acknowledged row."""
    chance = random.Random(job.agent)
    with edgeshard.Store(job.folder).shard(job.agent, reference={"patterns": job.library}) as shard:
        ids = checked_ids(shard, job.library)
        return [look_up_and_write(shard, chance.choice(ids), chance) for _ in range(job.results)]


def checked_ids(shard: edgeshard.Shard, path: str) -> list[str]:
    """Return the ids of all patterns, after checking the digest that every result will name."""
    patterns = shard.lookup(ALL)
    if [(digest_of(patterns),)] != shard.lookup("SELECT digest FROM patterns.library") or not patterns:
        raise LookupError(f"{path}: its patterns do not match its digest; create the library again")
    return [pattern.id for pattern in patterns]


def look_up_and_write(shard: edgeshard.Shard, pattern_id: str, chance: random.Random) -> int:
    began = perf_counter_ns()
    (pattern,) = shard.lookup(ONE, (pattern_id,))
    took_ns = perf_counter_ns() - began
    score = work(pattern, chance)
    shard.write(PatternResult(pattern.id, pattern.version, pattern.digest, shard.agent, now(), score))
    return took_ns


def work(pattern: Any, chance: random.Random) -> float:
    """Stand in for an agent that writes code by the pattern, and for tests that judge it."""
    return round(min(1.0, chance.gauss(0.8 - len(pattern.when_to_use) / 1000, 0.1)), 3)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


# -- the parent: starts the agents, merges, and checks ----------------------------------------------------------------


def run(store: edgeshard.Store, library: Path, agents: int, results: int, dsn: str | None) -> int:
    store.init()
    store.merge(lock_wait=-1)  # do not count what an earlier run left in its shards
    before = store.verify().rows
    print(f"the library is {library}", flush=True)
    jobs = [Job(f"agent-{number:03}", str(store.root), str(library), results) for number in range(agents)]
    # a fresh interpreter each: a shard must not cross a fork
    began = now()
    with ProcessPoolExecutor(agents, multiprocessing.get_context("spawn")) as pool:
        # Ctrl-C reaches every process of the terminal; only the parent reacts to it
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        tallies = pool.map(run_agent, jobs)
        signal.signal(signal.SIGINT, handler)
        latencies_ns = [took_ns for tally in tallies for took_ns in tally]
    hand_on(store, dsn)
    this = Run(began, before, latencies_ns)
    is_right = check(store, library, this)
    return 0 if (dsn is None or check_postgres(store, dsn, this)) and is_right else 1


@attrs.frozen
class Run:
    """When it began, the rows in the master before, and how long each look-up took, one per acknowledged row."""

    began: datetime.datetime
    rows_before: int
    latencies_ns: Sequence[int]


def hand_on(store: edgeshard.Store, dsn: str | None) -> None:
    """Merge the results on this device, then push them to where those of all devices are."""
    print(store.merge(lock_wait=-1))
    if dsn is not None:
        print(store.push(dsn))


def check(store: edgeshard.Store, library: Path, run: Run) -> bool:
    """Print the results; return whether the master holds every acknowledged row, each from a pattern of the library."""
    verified = store.verify()
    acknowledged, arrived = len(run.latencies_ns), verified.rows - run.rows_before
    reference = {"patterns": library}
    show(
        ("pattern", "name", "results", "agents", "score", "library", "digest"), store.query(TABLE, reference=reference)
    )
    ((strays,),) = store.query(STRAYS, {"began": run.began}, reference=reference)
    p50_ns, *_, p99_ns = percentiles(run.latencies_ns)
    print(f"look-up, p50 and p99: {p50_ns / 1000:.1f} and {p99_ns / 1000:.1f} microseconds")
    print(f"rows acknowledged: {acknowledged}, in the master: {arrived}, not from this library: {strays}")
    for finding in (*verified.errors, *verified.gaps):
        print(finding, file=sys.stderr)
    return verified.ok and acknowledged == arrived and not strays


def check_postgres(store: edgeshard.Store, dsn: str, run: Run) -> bool:
    """Return whether PostgreSQL has each result of this run exactly once, by its address."""
    import psycopg

    here = {(UUID(bytes=stream), seq) for stream, seq in store.query(ADDRESSES, {"began": run.began})}
    streams = list({stream for stream, _ in here})
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT _stream, _seq FROM pattern_result WHERE _stream = ANY(%s)", [streams])
        there = Counter(found.fetchall())
    arrived = sum(there[address] for address in here)
    print(f"rows in PostgreSQL: {arrived}")
    return arrived == len(here) == len(run.latencies_ns)


def percentiles(values: Sequence[int]) -> list[float]:
    """Return the 50th to the 99th percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[49:]


# join the results with the patterns they came from, if they are from the same library
TABLE = """
SELECT pattern_id, coalesce(name, '(not in this library)'), count(*), count(DISTINCT agent), round(avg(score), 2),
       library_version, substr(library_digest, 1, 12)
FROM pattern_result
LEFT JOIN patterns.library ON digest = library_digest
LEFT JOIN patterns.pattern ON id = pattern_id AND digest IS NOT NULL
GROUP BY pattern_id, library_digest ORDER BY pattern_id, library_version
"""
ADDRESSES = """
SELECT stream_id, _seq FROM pattern_result JOIN _edgeshard_streams ON stream_no = _stream WHERE at >= :began
"""
STRAYS = """
SELECT count(*) FROM pattern_result
LEFT JOIN patterns.library ON digest = library_digest
LEFT JOIN patterns.pattern ON id = pattern_id AND digest IS NOT NULL
WHERE id IS NULL AND at >= :began
"""


def show(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = [heads, *([str(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look up patterns in a library, and write the results.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the store (default: a fresh temporary folder)")
    parser.add_argument("--library", type=Path, metavar="DB", help="the library (default: made in FOLDER)")
    parser.add_argument("--agents", type=positive, default=8, metavar="N", help="how many processes (default: 8)")
    parser.add_argument("--results", type=positive, default=500, metavar="N", help="rows per agent (default: 500)")
    parser.add_argument("--postgres", metavar="DSN", help="a database to push the results into as well")
    return parser.parse_args()


def main() -> int:
    options = parse()
    store = edgeshard.Store(options.folder or tempfile.mkdtemp(prefix="edgeshard-patterns-"))
    library = options.library or store.root / "patterns.db"
    print(f"the store is {store.root}")
    try:
        if not options.library and not library.exists():
            store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_library(library)
        return run(store, library, options.agents, options.results, options.postgres)
    except (edgeshard.EdgeshardError, OSError, LookupError, BrokenProcessPool) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
