"""Kill and stop real processes in one part of their work: contending mergers, snapshots, schemas, keys, prunes.

Processes are forked from one that has imported everything and has no database open, so starting one takes milliseconds.
Acknowledged rows are counted in memory that parent and child share, and that outlives the child.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import attrs

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import MergeInProgressError, ShardInUseError, StorageBusyError
from edgeshard.files import locks
from tests.crash.kills.writers_and_mergers import LARGEST_BATCH, Sample, batches
from tests.support.forks import Count, Life, begin
from tests.support.stores import new_store

#: SIGKILLs after which everything is checked, and a new store begins.
KILLS_A_ROUND = 25
#: The columns that an agent's class has in the end.
_COLUMNS = 12


@edgeshard.table(key="slot", history=True)
@attrs.frozen
class Latest:
    """What any agent last wrote into a slot; earlier versions are in the history."""

    slot: int
    run: int
    n: int


#: How many slots there are, and after how many rows one is deleted.
_SLOTS, _DELETED_EVERY = 7, 11


@attrs.define
class Tally:
    """Counts of what the rounds did."""

    rounds: int = 0
    kills: int = 0
    stops: int = 0
    rows: int = 0
    unacknowledged: int = 0
    snapshots: int = 0
    removed: int = 0
    pruned: int = 0
    replaced: int = 0


# -- what they do -----------------------------------------------------------------------------------------------------


def write(root: Path, agent: str, run: int, rows: int) -> Callable[[Count], None]:
    """Work as a writer: write row n of its run before row n + 1."""

    def work(count: Count) -> None:
        n = 0
        with _opened(root, agent) as shard:
            for size in batches(random.Random(run), rows):
                records = [{"run": run, "n": n + k} if (n + k) % 3 else Sample(run, n + k) for k in range(size)]
                if size == 1:
                    shard.write(records[0])
                else:
                    shard.write_many(records)
                n += size
                count(n)

    return work


def _opened(root: Path, agent: str) -> edgeshard.Shard:
    """Open the shard once its last user has ended."""
    for _ in range(40):
        with contextlib.suppress(ShardInUseError):
            return edgeshard.Store(root).shard(agent)
    raise AssertionError(f"{agent} stays in use")


def write_new_columns(root: Path, agent: str, run: int, rows: int) -> Callable[[Count], None]:
    """Work as a writer whose class gets another column after some rows."""
    versions = [_version(count) for count in range(1, _COLUMNS)]

    def work(count: Count) -> None:
        rng = random.Random(run)
        version = rng.randrange(3)
        with _opened(root, agent) as shard:
            for n in range(rows):
                if rng.random() < 0.1:
                    version = min(version + 1, len(versions) - 1)
                shard.write(versions[version](run, n))
                count(n + 1)

    return work


def _version(columns: int) -> Any:
    kinds: dict[str, Any] = {"run": int, "n": int, **dict.fromkeys(_column_names(columns), int | None)}
    defaults = dict.fromkeys(_column_names(columns), columns)
    cls = type("Sample", (), {"__annotations__": kinds, **defaults})
    return edgeshard.table(name="sample")(attrs.frozen(cls))


def _column_names(columns: int) -> list[str]:
    return [f"c{number}" for number in range(columns)]


def write_keyed(root: Path, agent: str, run: int, rows: int) -> Callable[[Count], None]:
    """Work as a writer of a keyed table: each row supersedes another, and some are deleted."""

    def work(count: Count) -> None:
        with _opened(root, agent) as shard:
            for n in range(rows):
                shard.write(Latest(n % _SLOTS, run, n))
                count(n + 1)
                if n % _DELETED_EVERY == 0:
                    shard.delete(Latest, n % _SLOTS)

    return work


class _NoLock:
    def release(self) -> None:
        """Do nothing: there is no lock."""


def merge(root: Path, *, locked: bool) -> Callable[[Count], None]:
    """Work as a merger: merge again and again, with ``merge.lock`` or as if there were none."""

    def work(count: Count) -> None:
        real = locks.lock

        def lock(path: Path, wait_s: float = 0.0) -> Any:
            return real(path, wait_s) if path.parent != root else _NoLock()

        store = edgeshard.Store(root)
        removed = 0
        with contextlib.nullcontext() if locked else mock.patch.object(locks, "lock", lock):
            while True:
                try:
                    report = store.merge(lock_wait=5)
                except (MergeInProgressError, StorageBusyError):  # without the lock, the master may be busy
                    continue
                bad = [item for item in report.quarantined if "replaced a moment ago" not in item.reason]
                assert not bad or not locked, bad
                removed += report.removed
                count(removed)

    return work


def take_snapshots(root: Path, target: Path) -> Callable[[Count], None]:
    """Take snapshots again and again, each replacing the last one."""

    def work(count: Count) -> None:
        store = edgeshard.Store(root)
        for number in itertools.count(1):
            store.snapshot(target, force=True)
            count(number)

    return work


def carry(root: Path, hub: Path) -> Callable[[Count], None]:
    """Carry rows to a hub, and its receipts back."""

    def work(count: Count) -> None:
        store, there = new_store(root), new_store(hub)
        for number in itertools.count(1):
            with contextlib.suppress(MergeInProgressError):
                there.merge([store.master_path], lock_wait=5)
            store.receipt(there.ranges(), trust=True)
            count(number)

    return work


def prune_again_and_again(root: Path) -> Callable[[Count], None]:
    """Prune all but the newest rows once a hub has them, and give the space back to the disk."""

    def work(count: Count) -> None:
        store = edgeshard.Store(root)
        for number in itertools.count(1):
            store.prune(keep_rows=50, only_receipted=True, shrink=number % 2 == 0)
            count(number)

    return work


# -- rounds -----------------------------------------------------------------------------------------------------------


@attrs.define
class Round:
    """A store, and all processes that ever wrote to it."""

    folder: Path
    rng: random.Random
    tally: Tally
    writers: list[Life] = attrs.Factory(list)
    others: list[Life] = attrs.Factory(list)
    kills: int = 0
    hub: Path | None = None

    @property
    def root(self) -> Path:
        """Return the store's folder."""
        return self.folder / "store"

    def writer(self, agent: str, rows: int, make: Any = write) -> Life:
        """Start a new writer."""
        run = len(self.writers)
        life = begin(make(self.root, agent, run, rows), run)
        life.rows = rows
        self.writers.append(life)
        return life

    def other(self, work: Callable[[Count], None]) -> Life:
        """Start a merger, or another process that writes no rows."""
        life = begin(work)
        self.others.append(life)
        return life

    def kill(self, life: Life) -> None:
        """Kill a process if it is alive, and count that."""
        self.kills += life.kill()

    def pause(self, most_s: float = 0.03) -> None:
        """Let the processes work for a moment."""
        time.sleep(self.rng.uniform(0.0, most_s))

    def is_over(self) -> bool:
        """Return whether there were enough kills."""
        return self.kills >= KILLS_A_ROUND

    def end(self) -> None:
        """Let the writers finish, end the others, and check."""
        for life in self.writers:
            life.wait()
        for life in self.others:
            self.kill(life)
        self.tally.kills += self.kills
        self.tally.rounds += 1
        self._check()
        self.tally.replaced += check_newest(edgeshard.Store(self.root))

    def abandon(self) -> None:
        """Kill all processes after a failed check."""
        for life in [*self.writers, *self.others]:
            with contextlib.suppress(AssertionError, ProcessLookupError, ChildProcessError):
                life.kill()

    def _check(self) -> None:
        """Check that the master has every acknowledged row once, and at most one unfinished write besides."""
        store = edgeshard.Store(self.root)
        report = store.merge()
        assert report.complete, report
        assert store.verify().ok, store.verify()
        if self.hub is not None:
            store = self._carried(store, new_store(self.hub))
        found: dict[int, list[int]] = {life.run: [] for life in self.writers}
        for run, n in _rows(store):
            found[run].append(n)
        for life in self.writers:
            numbers = sorted(found[life.run])
            assert numbers == list(range(len(numbers))), f"run {life.run}: rows are missing or doubled"
            extra = len(numbers) - life.count
            # the last batch is as large as what was left to write
            sizes = {0, 1, 2, min(LARGEST_BATCH, life.rows - life.count)} if life.killed else {0}
            assert extra in sizes, f"run {life.run}: {life.count} acknowledged, {len(numbers)} in the master"
            self.tally.rows += len(numbers)
            self.tally.unacknowledged += extra
        # a merger counts what it removed after the merge
        self.tally.removed += report.removed + (0 if self.hub else sum(life.count for life in self.others))

    def _carried(self, store: edgeshard.Store, hub: edgeshard.Store) -> edgeshard.Store:
        """Check that the hub has all pruned rows, and that none of them come back from it."""
        assert hub.merge([store.master_path]).complete
        assert hub.verify().ok, hub.verify()
        assert store.merge([hub.master_path]).rows == 0
        report = store.verify()
        assert report.ok, report
        assert report.rows + sum(report.pruned.values()) == hub.verify().rows
        self.tally.pruned += sum(report.pruned.values())
        return hub


def _rows(store: edgeshard.Store) -> Iterator[tuple[int, int]]:
    yield from store.query("select data ->> 'run', data ->> 'n' from agent_data")
    for table in ("sample", "latest", "latest_history"):
        if _has(store, table):
            yield from store.query(f"select run, n from {table}")


def _has(store: edgeshard.Store, table: str) -> bool:
    return bool(store.query("select 1 from sqlite_schema where name = ?", [table]))


def check_newest(store: edgeshard.Store) -> int:
    """Check that each slot has what was written last, unless that was a deletion; return the number of superseded rows."""
    if not _has(store, "latest"):
        return 0
    changes = [
        (slot, (timestamp, stream, seq), table)
        for table in ("latest", "latest_history", "latest_deleted")
        for slot, timestamp, stream, seq in store.query(
            f"select slot, _timestamp, stream_id, _seq from {table} join _edgeshard_streams on stream_no = _stream"
        )
    ]
    last = {slot: (table, at) for slot, at, table in sorted(changes, key=lambda change: change[1])}
    kept = {slot: at for slot, at, table in changes if table == "latest"}
    assert kept == {slot: at for slot, (table, at) in last.items() if table != "latest_deleted"}, "not the newest"
    return sum(table == "latest_history" for _, _, table in changes)


def contend(play: Round, *, locked: bool) -> None:
    """Kill two mergers and three agents again and again."""
    agents = [play.writer(f"agent-{number}", 600) for number in range(3)]
    mergers = [play.other(merge(play.root, locked=locked)) for _ in range(2)]
    while not play.is_over():
        play.pause()
        which = play.rng.randrange(3)
        if play.rng.random() < 0.4:
            play.kill(agents[which])
        if not agents[which].is_alive():
            agents[which] = play.writer(f"agent-{which}", 600)
        if play.rng.random() < 0.5:
            which = play.rng.randrange(2)
            play.kill(mergers[which])
            mergers[which] = play.other(merge(play.root, locked=locked))


def stop(play: Round) -> None:
    """Stop a merger in the middle of its work while another one, without the lock, does all of it."""
    agents = [play.writer(f"agent-{number}", 400) for number in range(3)]
    stopped, other = (play.other(merge(play.root, locked=False)) for _ in range(2))
    while not play.is_over():
        play.pause()
        os.kill(stopped.pid, signal.SIGSTOP)
        play.tally.stops += 1
        play.pause(0.15)
        if play.rng.random() < 0.5:
            play.kill(other)
            other = play.other(merge(play.root, locked=False))
            play.pause(0.15)
        os.kill(stopped.pid, signal.SIGCONT)
        play.pause()
        if play.rng.random() < 0.3:
            play.kill(stopped)
            stopped = play.other(merge(play.root, locked=False))
        for number, life in enumerate(agents):
            if not life.is_alive():
                agents[number] = play.writer(f"agent-{number}", 400)


def snapshot(play: Round) -> None:
    """Kill snapshots while mergers work: the file is complete, the old one, or missing."""
    target = play.folder / "snapshot.db"
    writer, merger = play.writer("agent", 2_000), play.other(merge(play.root, locked=True))
    while not play.is_over():
        life = play.other(take_snapshots(play.root, target))
        play.pause(0.06)
        play.kill(life)
        play.tally.snapshots += life.count
        life.shared[:] = bytes(8)  # it removed nothing
        if not writer.is_alive():
            writer = play.writer("agent", 2_000)
        if play.rng.random() < 0.3:
            play.kill(merger)
            merger = play.other(merge(play.root, locked=True))
        begin(lambda count: _check_snapshot(target)).wait()  # in a process of its own: nothing stays open here


def _check_snapshot(target: Path) -> None:
    if not target.exists():
        return
    connection = sqlite.connect(str(target), writable=False)
    assert [("ok",)] == connection.execute("pragma integrity_check").fetchall()
    counted = sqlite.scalar(connection, "select count(*) from agent_data")
    if sqlite.scalar(connection, "select 1 from sqlite_schema where name = 'sample'"):
        counted += sqlite.scalar(connection, "select count(*) from sample")
    held = sqlite.scalar(connection, "select coalesce(sum(last - first + 1), 0) from _edgeshard_blocks")
    assert counted == held, f"{target} has {counted} rows, and tells of {held}"


def schema(play: Round) -> None:
    """Kill agents that add columns, each at its own time."""
    agents = [play.writer(f"agent-{number}", 60, write_new_columns) for number in range(3)]
    merger = play.other(merge(play.root, locked=True))
    while not play.is_over():
        play.pause(0.02)
        which = play.rng.randrange(3)
        if play.rng.random() < 0.6:
            play.kill(agents[which])
        if not agents[which].is_alive():
            agents[which] = play.writer(f"agent-{which}", 60, write_new_columns)
        if play.rng.random() < 0.2:
            play.kill(merger)
            merger = play.other(merge(play.root, locked=True))


def keyed(play: Round) -> None:
    """Kill agents of a keyed table and two mergers, which take turns or not, while a hub takes what they merge."""
    play.hub = play.folder / "hub"
    edgeshard.Store(play.root).merge()
    agents = [play.writer(f"agent-{number}", 150, write_keyed) for number in range(3)]
    works = [merge(play.root, locked=True), merge(play.root, locked=False), carry(play.root, play.hub)]
    others = [play.other(work) for work in works]
    while not play.is_over():
        play.pause()
        which = play.rng.randrange(3)
        if play.rng.random() < 0.4:
            play.kill(agents[which])
        if not agents[which].is_alive():
            agents[which] = play.writer(f"agent-{which}", 150, write_keyed)
        which = play.rng.randrange(3)
        if play.rng.random() < 0.5:
            play.kill(others[which])
            others[which] = play.other(works[which])


def reap(play: Round) -> None:
    """Run many short-lived agents, kill some, and let mergers remove their shards."""
    mergers = [play.other(merge(play.root, locked=play.rng.random() < 0.5)) for _ in range(2)]
    agents: list[Life | None] = [None] * 6
    while not play.is_over():
        which = play.rng.randrange(len(agents))
        before = agents[which]
        if before is not None and play.rng.random() < 0.4:
            play.kill(before)
        if before is None or not before.is_alive():
            agents[which] = play.writer(f"agent-{which}", play.rng.randrange(1, 20))
        play.pause(0.01)
        if play.rng.random() < 0.25:
            which = play.rng.randrange(2)
            play.kill(mergers[which])
            mergers[which] = play.other(merge(play.root, locked=play.rng.random() < 0.5))


def prune(play: Round) -> None:
    """Kill prunes, writers, a merger, and the process that carries rows to a hub."""
    play.hub = play.folder / "hub"
    edgeshard.Store(play.root).merge()
    agents = [play.writer(f"agent-{number}", 400) for number in range(2)]
    works = [merge(play.root, locked=True), carry(play.root, play.hub), *[prune_again_and_again(play.root)] * 2]
    others = [play.other(work) for work in works]
    while not play.is_over():
        play.pause(0.06)
        which = play.rng.randrange(2)
        if play.rng.random() < 0.2:
            play.kill(agents[which])
        if not agents[which].is_alive():
            agents[which] = play.writer(f"agent-{which}", 400)
        which = play.rng.randrange(len(works))
        if play.rng.random() < 0.7:
            play.kill(others[which])
            others[which] = play.other(works[which])


PARTS: dict[str, Callable[[Round], None]] = {
    "locked": lambda play: contend(play, locked=True),
    "unlocked": lambda play: contend(play, locked=False),
    "stop": stop,
    "snapshot": snapshot,
    "schema": schema,
    "keyed": keyed,
    "reap": reap,
    "prune": prune,
}


def play(part: str, kills: int, seed: int) -> Tally:
    """Play rounds of a part, each with its own seed, until there were enough kills."""
    tally = Tally()
    while tally.kills < kills:
        with tempfile.TemporaryDirectory(prefix="edgeshard-kills-") as folder:
            one = Round(Path(os.path.realpath(folder)), random.Random(f"{part}-{seed}-{tally.rounds}"), tally)
            new_store(one.root)
            try:
                PARTS[part](one)
                one.end()
            except BaseException:
                print(f"part {part}, seed {seed}, round {tally.rounds}", file=sys.stderr)
                one.abandon()
                raise
    return tally
