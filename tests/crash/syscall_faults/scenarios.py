"""The scenarios of the fault sweep: write, merge, remove, close, take a snapshot, read; erase, restore, accept a loss.

Each scenario is a generator: it prepares, yields, acts (now calls may fail), yields, and cleans up. What it was told
about each row goes into an `Account`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import attrs

import edgeshard
from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.errors import DiskFullError, EdgeshardError, ShardPoisonedError, StorageBusyError, StorageError
from edgeshard.files import paths, scan
from edgeshard.format import blocks
from edgeshard.master import database
from edgeshard.merge import merger, truncate
from edgeshard.options import Durability
from edgeshard.shard import quota as shard_quota
from edgeshard.shard import wal_limit
from edgeshard.sqlite import connection as sqlite_connection

_T = TypeVar("_T")

#: How long the package waits for a lock here, in seconds: nobody else holds one.
_PATIENCE_S = 0.002


@edgeshard.table(index=["n"])
@attrs.frozen
class Sample:
    """A row of the second table."""

    n: int
    much: bytes = b""


@attrs.define
class Account:
    """What the writers were told about their rows.

    Attributes:
        root: the store's folder.
        acknowledged: rows that are committed.
        refused: rows that are certainly not there.
        unknown: rows whose fate is unknown, but the same for all rows of a transaction.
        errors: how often errors of each class were raised.
        sources: other databases to merge, below the folder.
        finish: what makes the store whole in the end, as its owner would.
    """

    root: Path
    acknowledged: set[int] = attrs.Factory(set)
    refused: set[int] = attrs.Factory(set)
    unknown: list[frozenset[int]] = attrs.Factory(list)
    errors: dict[str, int] = attrs.Factory(dict)
    sources: tuple[str, ...] = ()
    finish: Callable[[edgeshard.Store], object] = lambda _: None

    def note(self, error: EdgeshardError) -> None:
        """Count an error; check that it is one of ours and names what it concerns."""
        assert str(self.root) in error.path, f"the error does not name its path: {error}"
        assert error.cause, "the error has no cause"
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1

    def copy(self, root: Path) -> Account:
        """Return the account as it is now, for a copy of the store."""
        return Account(
            root,
            set(self.acknowledged),
            set(self.refused),
            list(self.unknown),
            sources=self.sources,
            finish=self.finish,
        )

    def check(self, found: list[int]) -> None:
        """Compare with the numbers that the master has in the end, including duplicates."""
        there = set(found)
        assert len(found) == len(there), f"doubled: {sorted(n for n in there if found.count(n) > 1)}"
        assert self.acknowledged <= there, f"lost: {sorted(self.acknowledged - there)}"
        assert not self.refused & there, f"refused, and there: {sorted(self.refused & there)}"
        for group in self.unknown:
            assert not group & there or group <= there, f"a part of a transaction: {sorted(group & there)}"
        known = self.acknowledged.union(self.refused, *self.unknown)
        assert there <= known, f"never written: {sorted(there - known)}"


@attrs.define
class Writer:
    """An agent that reopens its shard whenever its handle is unusable."""

    store: edgeshard.Store
    agent: str
    account: Account
    handle: edgeshard.Shard | None = None
    durability: Durability = "process"

    def attempt(self, numbers: Iterable[int], action: Callable[[edgeshard.Shard], object]) -> None:
        """Write rows, and record their fate."""
        group = frozenset(numbers)
        if self.handle is None:
            try:
                self.handle = self.store.shard(self.agent, durability=self.durability)
            except EdgeshardError as error:
                self.account.note(error)
                self.account.refused |= group
                return
        try:
            action(self.handle)
        except EdgeshardError as error:
            self._judge(self.handle, error, group)
        else:
            self.account.acknowledged |= group

    def _judge(self, handle: edgeshard.Shard, error: EdgeshardError, group: frozenset[int]) -> None:
        """Check that a failure with an unknown outcome makes the handle unusable, and that no row is there after others."""
        self.account.note(error)
        assert isinstance(error, StorageError), f"{type(error).__name__} is no error of the storage: {error}"
        poisoned = isinstance(handle._unusable, ShardPoisonedError)
        if poisoned:
            assert not isinstance(error, (DiskFullError, StorageBusyError)), f"poisoned by {error!r}"
            self.account.unknown.append(group)
            self._ensure_refuses(handle)
            self.close()
        else:
            self.account.refused |= group

    def _ensure_refuses(self, handle: edgeshard.Shard) -> None:
        for use in (lambda: handle.write({"n": -1}), lambda: handle.write_many([{"n": -2}]), handle.sync):
            try:
                use()
            except ShardPoisonedError as error:
                self.account.note(error)
            else:
                raise AssertionError("a poisoned handle was used")

    def close(self) -> None:
        """Close the handle, even if that fails."""
        handle, self.handle = self.handle, None
        if handle is not None:
            try:
                handle.close()
            except EdgeshardError as error:
                self.account.note(error)
            handle.close()  # of no effect, whatever the first one did


def record(n: int, size: int = 0) -> Any:
    """Return a record of one of the two tables."""
    return {"n": n, "much": "x" * size} if n % 3 else Sample(n, b"x" * size)


def _transaction(handle: edgeshard.Shard, numbers: Iterable[int], size: int = 0) -> None:
    with handle.transaction():
        for n in numbers:
            handle.write(record(n, size))


def _nested(handle: edgeshard.Shard, outer: Iterable[int], inner: int) -> None:
    with handle.transaction():
        for n in outer:
            handle.write(record(n))
        with contextlib.suppress(KeyError), handle.transaction():
            handle.write(record(inner))
            raise KeyError


def _write_all(writer: Writer) -> None:
    """Write in each way, small rows and rows of several pages, some of them more than once."""
    writer.attempt([1], lambda handle: handle.write(record(1)))
    writer.attempt([2], lambda handle: handle.write(record(2, 3_000)))
    writer.attempt([3, 4, 5], lambda handle: _transaction(handle, [3, 4, 5]))
    writer.attempt([6, 7, 8, 9], lambda handle: handle.write_many(record(n, 700) for n in (6, 7, 8, 9)))
    writer.account.refused.add(12)
    writer.attempt([10, 11], lambda handle: _nested(handle, [10, 11], 12))
    writer.attempt([], lambda handle: handle.sync())
    writer.attempt([13], lambda handle: handle.write(record(13)))
    writer.attempt([14, 15], lambda handle: _transaction(handle, [14, 15], 2_000))
    writer.attempt([16], lambda handle: handle.write(record(16)))


def _write_and_open(account: Account, durability: Durability, *, is_new: bool) -> Generator[None]:
    writer = Writer(edgeshard.Store(account.root), "agent", account, durability=durability)
    if not is_new:
        writer.attempt([101, 102], lambda handle: handle.write_many([record(101), record(102)]))
    yield
    _write_all(writer)
    yield
    writer.attempt([200], lambda handle: handle.write(record(200)))
    writer.close()


def write(account: Account) -> Generator[None]:
    """Write through an open handle, with a checkpoint now and then."""
    yield from _write_and_open(account, "process", is_new=False)


def write_durably(account: Account) -> Generator[None]:
    """Write with an fsync per commit."""
    yield from _write_and_open(account, "power", is_new=False)


def open_and_write(account: Account) -> Generator[None]:
    """Create the folder, the shard and its tables, then write."""
    yield from _write_and_open(account, "process", is_new=True)


def close(account: Account) -> Generator[None]:
    """Close a handle, open another, and close it inside a transaction."""
    writer = Writer(edgeshard.Store(account.root), "agent", account)
    writer.attempt(range(1, 9), lambda handle: handle.write_many(record(n, 700) for n in range(1, 9)))
    yield
    writer.close()
    writer.attempt([20], lambda handle: handle.write(record(20)))
    writer.close()
    yield
    writer.attempt([30], lambda handle: handle.write(record(30)))
    writer.close()


# -- merging ----------------------------------------------------------------------------------------------------------


def _fill(account: Account) -> None:
    """Create a master with rows, a closed shard, one with two tables, and one that was killed with rows in its WAL."""
    filled = account.root.parent.parent / "filled"
    if not filled.exists():
        _make_filled(edgeshard.Store(filled))
    shutil.copytree(filled, account.root, dirs_exist_ok=True)
    for first, end in ((1000, 1003), (1010, 1013), (1100, 1140), (1200, 1203), (1300, 1330), (1400, 1420)):
        account.acknowledged.update(range(first, end))


def _make_filled(store: edgeshard.Store) -> None:
    for agent, numbers in (("a", range(1000, 1003)), ("b", range(1010, 1013))):
        _write_closed(store, agent, numbers)
    store.merge(keep_empty=True)
    for agent, numbers in (("a", range(1100, 1140)), ("b", range(1200, 1203)), ("c", range(1300, 1330))):
        _write_closed(store, agent, numbers)
    _leave_log(store, "d", range(1400, 1420))


def _write_closed(store: edgeshard.Store, agent: str, numbers: range) -> None:
    with store.shard(agent) as handle:
        handle.write_many(record(n, n % 5 * 300) for n in numbers[: len(numbers) // 2])
        for n in numbers[len(numbers) // 2 :]:
            handle.write(record(n))


def _leave_log(store: edgeshard.Store, agent: str, numbers: range) -> None:
    """Leave the shard as a killed agent does."""
    path = store.root / "shards" / f"{agent}.db"
    image = store.root / "image"
    image.mkdir()
    with store.shard(agent) as handle:
        handle.write_many(record(n, 300) for n in numbers)
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", image / f"{agent}.db{suffix}")
    for suffix in ("", "-wal"):
        (image / f"{agent}.db{suffix}").replace(f"{path}{suffix}")
    image.rmdir()


def _merge(account: Account, **options: Any) -> None:
    try:
        report = edgeshard.Store(account.root).merge(**options)
    except EdgeshardError as error:
        account.note(error)
    else:
        for item in report.quarantined:
            assert item.reason
            account.errors["set aside"] = account.errors.get("set aside", 0) + 1


def merge_and_truncate(account: Account) -> Generator[None]:
    """Merge several chunks of several shards, one of which an agent has open and keeps writing to."""
    _fill(account)
    writer = Writer(edgeshard.Store(account.root), "e", account)
    writer.attempt(range(1500, 1530), lambda handle: handle.write_many(record(n) for n in range(1500, 1530)))
    writer.attempt([1530], lambda handle: handle.write(record(1530)))
    yield
    _merge(account, keep_empty=True)
    yield
    writer.attempt([1531], lambda handle: handle.write(record(1531)))
    writer.close()


def merge_and_remove(account: Account) -> Generator[None]:
    """Merge the shards of ended agents, which are then removed."""
    _fill(account)
    yield
    _merge(account)
    yield


def first_merge(account: Account) -> Generator[None]:
    """Merge for the first time, which creates the master."""
    store = edgeshard.Store(account.root)
    _write_closed(store, "a", range(1, 8))
    account.acknowledged.update(range(1, 8))
    yield
    _merge(account)
    yield


def merge_from(account: Account) -> Generator[None]:
    """Merge from another store's master."""
    elsewhere = edgeshard.Store(account.root / "elsewhere")
    _write_closed(elsewhere, "x", range(2000, 2020))
    elsewhere.merge()
    account.acknowledged.update(range(2000, 2020))
    edgeshard.Store(account.root).init()
    account.sources = ("elsewhere/master.db",)
    yield
    _merge(account, sources=[elsewhere.master_path])
    yield


# -- reading ----------------------------------------------------------------------------------------------------------


def snapshot(account: Account) -> Generator[None]:
    """Take a snapshot: it appears complete or not at all, and the one that it replaces is not lost before."""
    _fill(account)
    store = edgeshard.Store(account.root)
    store.merge()
    new, old = account.root / "new.db", account.root / "old.db"
    store.snapshot(old)
    yield
    for target, force in ((new, False), (old, True)):
        try:
            store.snapshot(target, force=force)
        except EdgeshardError as error:
            account.note(error)
    yield
    for target in (new, old):
        if target.exists():
            assert len(account.acknowledged) == _rows_of(target), f"{target.name} is not whole"
    assert old.exists()
    store.snapshot(new, force=True)
    store.snapshot(old, force=True)
    assert [] == [path.name for path in account.root.iterdir() if ".new" in path.name]


def _rows_of(path: Path) -> int:
    connection = sqlite.connect(str(path), writable=False)
    try:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        tables = "(select _id from agent_data union all select _id from sample)"
        return int(sqlite.scalar(connection, f"SELECT count(*) FROM {tables}"))
    finally:
        connection.close()


def read(account: Account) -> Generator[None]:
    """Query, verify, status and dry run: each answers correctly, or says why it cannot."""
    _fill(account)
    store = edgeshard.Store(account.root)
    store.merge()
    rows = len(account.acknowledged)
    _write_closed(store, "a", range(3000, 3005))
    account.acknowledged.update(range(3000, 3005))
    found: list[tuple[str, object, object]] = []
    yield
    questions: list[tuple[str, object, Callable[[], object]]] = [
        ("query", rows, lambda: len(store.query("select n from sample union all select _id from agent_data"))),
        ("read", rows, lambda: len(list(store.read(Sample))) + len(list(store.read(edgeshard.AgentData)))),
        ("verify", rows, lambda: store.verify().rows),
        ("status", 5, lambda: _waiting(store)),
        ("dry run", 5, lambda: _would_merge(store)),
    ]
    for name, expected, question in questions:
        try:
            found.append((name, expected, question()))
        except EdgeshardError as error:
            account.note(error)
    yield
    for name, expected, answer in found:
        assert answer in (expected, None), f"{name}: {answer}, not {expected}"


def _waiting(store: edgeshard.Store) -> int | None:
    """Return the pending rows, or None if a shard could not be read and that was reported."""
    report = store.status()
    return None if any(item.reason for item in report.shards) else sum(item.pending_rows or 0 for item in report.shards)


def _would_merge(store: edgeshard.Store) -> int | None:
    report = store.merge(dry_run=True)
    return None if report.quarantined else report.rows


# -- what is done rarely ----------------------------------------------------------------------------------------------


def _try(account: Account, action: Callable[[], _T]) -> _T | None:
    """Return what the action returns, or None if it failed, which is noted."""
    try:
        return action()
    except EdgeshardError as error:
        account.note(error)
        return None


def init(account: Account) -> Generator[None]:
    """Make a store."""
    store = edgeshard.Store(account.root)
    yield
    _try(account, store.init)
    yield


def write_within_budget(account: Account) -> Generator[None]:
    """Write and merge within a disk budget: with quotas, and a reserve."""
    writer = Writer(edgeshard.Store(account.root, max_bytes="2M"), "agent", account)
    yield
    _write_all(writer)
    _merge(account)
    writer.attempt([20], lambda handle: handle.write(record(20)))
    writer.close()
    _merge(account)
    yield
    writer.attempt([30], lambda handle: handle.write(record(30)))
    writer.close()
    store = edgeshard.Store(account.root)
    store.merge()
    assert paths.reserve(store.root).stat().st_size == policy.MIN_RESERVE_BYTES


def erase(account: Account) -> Generator[None]:
    """Erase rows, merged ones and pending ones. A row that could not be merged stays, and is named."""
    _fill(account)
    store = edgeshard.Store(account.root)
    rows = {n for n in account.acknowledged if n % 3 and not n % 4}
    account.acknowledged -= rows
    unknown = [frozenset([n]) for n in rows]
    account.unknown += unknown
    yield
    report = _try(account, lambda: store.erase("agent_data", _EVERY_FOURTH))
    if report is not None and not report.unexamined:
        account.unknown, account.refused = [], account.refused | rows
    yield
    assert not store.erase("agent_data", _EVERY_FOURTH).unexamined
    account.unknown, account.refused = [], account.refused | rows


_EVERY_FOURTH = "data ->> '$.n' % 4 = 0"


def restore(account: Account) -> Generator[None]:
    """Put a snapshot in the place of the master: the old or the new one is there, and no row is missing."""
    _fill(account)
    store = edgeshard.Store(account.root)
    store.merge()
    store.snapshot(account.root / "older.db")
    _write_closed(store, "a", range(3000, 3005))
    account.acknowledged.update(range(3000, 3005))
    yield
    _try(account, lambda: store.restore(account.root / "older.db"))
    yield
    store.restore(account.root / "older.db")
    assert [] == [path.name for path in account.root.iterdir() if ".new" in path.name]


def accept_loss(account: Account) -> Generator[None]:
    """Accept that rows are lost: those of a shard that was removed before an older master was put back."""
    store = edgeshard.Store(account.root)
    _write_closed(store, "a", range(1, 6))
    account.acknowledged.update(range(1, 6))
    store.merge()
    store.snapshot(account.root / "older.db")
    _write_closed(store, "a", range(6, 10))
    store.merge()
    store.restore(account.root / "older.db")
    account.finish = lambda store: store.accept_loss(why="the disk broke")
    yield
    _try(account, lambda: store.accept_loss(why="the disk broke"))
    yield


def note_damage(account: Account) -> Generator[None]:
    """Find out that the master is damaged, and merge nothing into it."""
    store = edgeshard.Store(account.root)
    _write_closed(store, "a", range(1, 6))
    account.acknowledged.update(range(1, 9))
    store.merge()
    _write_closed(store, "a", range(6, 9))
    _set_last_seq(store, 6)
    account.finish = _repair
    yield
    report = _try(account, store.verify)
    assert report is None or report.errors
    _merge(account)
    yield


def _set_last_seq(store: edgeshard.Store, last: int) -> None:
    connection = sqlite.connect(str(store.master_path), writable=True)
    connection.execute("UPDATE _edgeshard_ranges SET last = ? WHERE stream_no = 1", (last,))
    connection.close()


def _repair(store: edgeshard.Store) -> None:
    _set_last_seq(store, 5)
    assert store.verify().ok


SCENARIOS: dict[str, Callable[[Account], Generator[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        write,
        write_durably,
        open_and_write,
        close,
        merge_and_truncate,
        merge_and_remove,
        first_merge,
        merge_from,
        snapshot,
        read,
        init,
        write_within_budget,
        erase,
        restore,
        accept_loss,
        note_damage,
    )
}


def make_small(patch: Callable[[object, str, object], object]) -> None:
    """Make limits small, so that little data needs several chunks and checkpoints by writers; and wait for no lock."""
    real = sqlite_connection._busy_handler
    patch(sqlite_connection, "_busy_handler", lambda timeout_s: real(min(timeout_s, _PATIENCE_S)))
    patch(wal_limit, "LEAST_BYTES", 12 << 10)
    patch(wal_limit, "LEAST_BYTES_AT_POWER", 12 << 10)
    patch(wal_limit, "MOST_BYTES", 0)
    patch(shard_quota, "_CHECKPOINT_PART", 0.2)
    patch(truncate, "_LONG_WAL_BYTES", 0)
    patch(truncate, "_LONG_WAL_BYTES_WITHIN_BUDGET", 0)
    patch(database, "CHECKPOINT_BYTES", 20 * 4096)
    patch(blocks, "CHUNK_BYTES", 12_000)
    patch(merger, "_AGENTS_CHECKED", 2)
    patch(scan, "FRESH_S", -1.0)  # what a failing merge believes of a shard, the next one does not ask again
