"""Kill real writers and mergers with SIGKILL at random moments, and account for every row.

Each writer counts acknowledged rows in a mapped file, so that the count outlives it. A killed writer may have had one
unfinished write: the master must have all of that, or nothing.

Run as ``python -m tests.crash.kills.writers_and_mergers --as-writer ...`` or ``--as-merger ROOT``, this is one of them.
"""

from __future__ import annotations

import mmap
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

import edgeshard
from edgeshard.errors import MergeInProgressError
from tests.support.project import PROJECT

LARGEST_BATCH = 12
_THIS_MODULE = "tests.crash.kills.writers_and_mergers"


@attrs.frozen
class Sample:
    """A row of the second table."""

    run: int
    n: int


@attrs.define
class Run:
    """One life of a writer process."""

    number: int
    agent: str
    process: subprocess.Popen[bytes]
    counter: Path
    killed: bool = False

    @property
    def acknowledged(self) -> int:
        """Return how many of its rows were acknowledged."""
        count: int = struct.unpack("q", self.counter.read_bytes())[0]
        return count


@attrs.define
class Tally:
    """Counts of what the rounds did."""

    rows: int = 0
    writers_killed: int = 0
    mergers_killed: int = 0
    unacknowledged: int = 0


# -- the processes ----------------------------------------------------------------------------------------------------


def batches(rng: random.Random, rows: int) -> Iterator[int]:
    """Yield sizes of writes, most of them 1, that add up to `rows`."""
    while rows > 0:
        size = min(rows, rng.choice([1, 1, 1, 1, 1, 2, LARGEST_BATCH]))
        yield size
        rows -= size


def write_rows(root: str, agent: str, run: int, counter: str, rows: int) -> None:
    """Work as a writer: write row n of its run before row n + 1."""
    rng = random.Random(run)
    with (
        open(counter, "r+b") as file,
        mmap.mmap(file.fileno(), 8) as count,
        edgeshard.Store(root).shard(agent) as shard,
    ):
        n = 0
        for size in batches(rng, rows):
            records = [{"run": run, "n": n + k} if (n + k) % 3 else Sample(run, n + k) for k in range(size)]
            if size == 1:
                shard.write(records[0])
            elif rng.random() < 0.5:
                shard.write_many(records)
            else:
                with shard.transaction():
                    for record in records:
                        shard.write(record)
            n += size
            count[:] = struct.pack("q", n)


def merge_for_ever(root: str) -> None:
    """Work as a merger: merge again and again, until killed."""
    store = edgeshard.Store(root)
    while True:
        try:
            report = store.merge(lock_wait=5)
        except MergeInProgressError:
            continue
        assert not report.quarantined, report.quarantined


# -- a round ----------------------------------------------------------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", _THIS_MODULE, *map(str, arguments)], cwd=PROJECT)


def start_writer(folder: Path, number: int, agent: str, rows: int) -> Run:
    counter = folder / f"count{number}"
    counter.write_bytes(struct.pack("q", 0))
    process = start("--as-writer", folder / "store", agent, number, counter, rows)
    return Run(number, agent, process, counter)


def play_round(folder: Path, rng: random.Random, rows: int, tally: Tally) -> None:
    """Run three writers, one of them killed and restarted, and two mergers, both killed again and again."""
    edgeshard.Store(folder / "store").init()  # the mergers may begin before the writers
    runs = [start_writer(folder, number, f"agent-{number}", rows) for number in range(3)]
    mergers = [start("--as-merger", folder / "store") for _ in range(2)]
    victim = runs[rng.randrange(3)]
    fatal = rng.randrange(rows // 10, rows)
    while any(run.process.poll() is None for run in runs):
        time.sleep(rng.uniform(0.0, 0.05))
        if not victim.killed and victim.process.poll() is None and victim.acknowledged >= fatal:
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
            victim.killed = True
            tally.writers_killed += 1
            runs.append(start_writer(folder, len(runs), victim.agent, rows // 4))
        if rng.random() < 0.2:
            which = rng.randrange(2)
            mergers[which].kill()
            mergers[which].wait()
            tally.mergers_killed += 1
            mergers[which] = start("--as-merger", folder / "store")
    for merger in mergers:
        merger.kill()
        merger.wait()
    check(folder, runs, tally)


def check(folder: Path, runs: list[Run], tally: Tally) -> None:
    """Check that the master has every acknowledged row once, and at most one unfinished write besides."""
    store = edgeshard.Store(folder / "store")
    report = store.merge()
    assert report.complete, report
    assert store.verify().ok, store.verify()
    found: dict[int, list[int]] = {run.number: [] for run in runs}
    for sql in ("select data ->> 'run', data ->> 'n' from agent_data", "select run, n from sample"):
        for number, n in store.query(sql):
            found[number].append(n)
    for run in runs:
        assert run.killed or run.process.returncode == 0, (run.agent, run.process.returncode)
        numbers = sorted(found[run.number])
        assert numbers == list(range(len(numbers))), f"run {run.number}: rows are missing or doubled"
        extra = len(numbers) - run.acknowledged
        sizes = {0, 1, 2, LARGEST_BATCH} if run.killed else {0}
        assert extra in sizes, f"run {run.number}: {run.acknowledged} acknowledged, {len(numbers)} in the master"
        tally.rows += len(numbers)
        tally.unacknowledged += extra


def play(rounds: int, rows: int, seed: int) -> Tally:
    """Play rounds, each with its own seed."""
    tally = Tally()
    for number in range(rounds):
        rng = random.Random(f"{seed}-{number}")
        with tempfile.TemporaryDirectory(prefix="edgeshard-kills-") as folder:
            play_round(Path(folder), rng, rows, tally)
    return tally


if __name__ == "__main__":
    if sys.argv[1] == "--as-writer":
        _, _, root, agent, run, counter, rows = sys.argv
        write_rows(root, agent, int(run), counter, int(rows))
    else:
        merge_for_ever(sys.argv[2])
