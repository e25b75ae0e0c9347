"""Kill and stop real processes in one part of their work: contending mergers, snapshots, schemas, keys, prunes.

Processes are forked from one that has imported everything and has no database open, so that starting one costs
milliseconds. What was acknowledged is counted in memory that parent and child share, and that outlives the child.
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

#: SIGKILLs after which all is checked, and a new store begun.
KILLS_A_ROUND = 25
#: The columns that an agent's class has in the end.
_COLUMNS = 12


@edgeshard.table(key="slot", history=True)
@attrs.frozen
class Latest:
    """What was written into a slot last, by whichever agent; what was there before is in the history."""

    slot: int
    run: int
    n: int


#: So many slots there are, and after every so many rows one is deleted.
_SLOTS, _DELETED_EVERY = 7, 11


@attrs.define
class Tally:
    """What the rounds did."""

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
    """A writer: row n of its run is written before row n + 1."""

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
    """The shard, once whoever had it is gone."""
    for _ in range(40):
        with contextlib.suppress(ShardInUseError):
            return edgeshard.Store(root).shard(agent)
    raise AssertionError(f"{agent} stays in use")


def write_new_columns(root: Path, agent: str, run: int, rows: int) -> Callable[[Count], None]:
    """A writer whose class has a column more after some rows."""
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
    """A writer of a keyed table: each row takes the place of another one, some of them are deleted."""

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
        """Nothing is held."""


def merge(root: Path, *, locked: bool) -> Callable[[Count], None]:
    """A merger: again and again, with ``merge.lock`` or as if there were none."""

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
                except (MergeInProgressError, StorageBusyError):  # a master is busy where nobody takes turns
                    continue
                bad = [item for item in report.quarantined if "replaced a moment ago" not in item.reason]
                assert not bad or not locked, bad
                removed += report.removed
                count(removed)

    return work


def take_snapshots(root: Path, target: Path) -> Callable[[Count], None]:
    """Snapshots over one another."""

    def work(count: Count) -> None:
        store = edgeshard.Store(root)
        for number in itertools.count(1):
            store.snapshot(target, force=True)
            count(number)

    return work


def carry(root: Path, hub: Path) -> Callable[[Count], None]:
    """Rows go to a hub, and its receipts come back."""

    def work(count: Count) -> None:
        store, there = edgeshard.Store(root), edgeshard.Store(hub)
        for number in itertools.count(1):
            with contextlib.suppress(MergeInProgressError):
                there.merge([store.master_path], lock_wait=5)
            store.receipt(there.ranges())
            count(number)

    return work


def prune_again_and_again(root: Path) -> Callable[[Count], None]:
    """All but the newest rows go, once a hub has them, and the disk gets its room back."""

    def work(count: Count) -> None:
        store = edgeshard.Store(root)
        for number in itertools.count(1):
            store.prune(keep_rows=50, only_receipted=True, shrink=number % 2 == 0)
            count(number)

    return work


# -- rounds -----------------------------------------------------------------------------------------------------------


@attrs.define
class Round:
    """A store, and all who ever wrote to it."""

    folder: Path
    rng: random.Random
    tally: Tally
    writers: list[Life] = attrs.Factory(list)
    others: list[Life] = attrs.Factory(list)
    kills: int = 0
    hub: Path | None = None

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.folder / "store"

    def writer(self, agent: str, rows: int, make: Any = write) -> Life:
        """A new writer."""
        run = len(self.writers)
        life = begin(make(self.root, agent, run, rows), run)
        life.rows = rows
        self.writers.append(life)
        return life

    def other(self, work: Callable[[Count], None]) -> Life:
        """A merger, or another that writes no rows of its own."""
        life = begin(work)
        self.others.append(life)
        return life

    def kill(self, life: Life) -> None:
        """Kill it, if it lives, and count that."""
        self.kills += life.kill()

    def pause(self, most_s: float = 0.03) -> None:
        """Let them work for a moment."""
        time.sleep(self.rng.uniform(0.0, most_s))

    def is_over(self) -> bool:
        """Whether there were enough kills."""
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
        """Nobody stays behind where a check failed."""
        for life in [*self.writers, *self.others]:
            with contextlib.suppress(AssertionError, ProcessLookupError, ChildProcessError):
                life.kill()

    def _check(self) -> None:
        """Every acknowledged row is in the master once, and nothing else but the write that was under way."""
        store = edgeshard.Store(self.root)
        report = store.merge()
        assert report.complete, report
        assert store.verify().ok, store.verify()
        if self.hub is not None:
            store = self._carried(store, edgeshard.Store(self.hub))
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
        """The hub, with what the store still has: all that was pruned must be there, and nothing comes back from it."""
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
    """Of each slot the master has what was written last, unless that was a deletion; how many rows it replaced."""
    if not _has(store, "latest"):
        return 0
    changes = [
        (slot, (timestamp, stream, seq), table)
        for table in ("latest", "latest_history", "latest_deleted")
        for slot, timestamp, stream, seq in store.query(
            f"select slot, _timestamp, stream_id, _seq from {table} join edgeshard_streams on stream_no = _stream"
        )
    ]
    last = {slot: (table, at) for slot, at, table in sorted(changes, key=lambda change: change[1])}
    kept = {slot: at for slot, at, table in changes if table == "latest"}
    assert kept == {slot: at for slot, (table, at) in last.items() if table != "latest_deleted"}, "not the newest"
    return sum(table == "latest_history" for _, _, table in changes)


def contend(play: Round, *, locked: bool) -> None:
    """Two mergers, and three agents; all of them are killed again and again."""
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
    """A merger stands still in the middle of its work while another one, without the lock, does it all."""
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
    """A snapshot is killed while mergers work, and is whole or the old one, or not there."""
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
    held = sqlite.scalar(connection, "select coalesce(sum(last - first + 1), 0) from edgeshard_blocks")
    assert counted == held, f"{target} has {counted} rows, and tells of {held}"


def schema(play: Round) -> None:
    """Agents add columns, each in its own order of time, and are killed as they do."""
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
    """Agents write one keyed table, two mergers take turns or do not, and a hub takes what they merge."""
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


def orphans(play: Round) -> None:
    """Many agents that live for some rows, some of them killed, beside mergers that remove what they leave."""
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
    """Old rows are pruned as writers write, a merger merges and a hub takes them; all of them are killed."""
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
    "orphans": orphans,
    "prune": prune,
}


def play(part: str, kills: int, seed: int) -> Tally:
    """Play rounds of a part, each with a seed of its own, until there were as many kills."""
    tally = Tally()
    while tally.kills < kills:
        with tempfile.TemporaryDirectory(prefix="edgeshard-kills-") as folder:
            one = Round(Path(os.path.realpath(folder)), random.Random(f"{part}-{seed}-{tally.rounds}"), tally)
            one.root.mkdir()
            try:
                PARTS[part](one)
                one.end()
            except BaseException:
                print(f"part {part}, seed {seed}, round {tally.rounds}", file=sys.stderr)
                one.abandon()
                raise
    return tally
