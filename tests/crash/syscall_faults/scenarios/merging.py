"""Merge shards of each kind, for the first time and again, and from another store."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from typing import Any

import edgeshard
from edgeshard.errors import EdgeshardError
from edgeshard.handles import Watcher
from edgeshard.merge.listener import Listener
from edgeshard.reports import MergeReport
from tests.crash.syscall_faults.scenarios.account import Account, Writer, attempt, prepare, record


def fill(account: Account) -> None:
    """Create a master with rows, a closed shard, one with two tables, and one that was killed with rows in its WAL."""
    prepare(account, "filled", _make_filled)
    for first, end in ((1000, 1003), (1010, 1013), (1100, 1140), (1200, 1203), (1300, 1330), (1400, 1420)):
        account.acknowledged.update(range(first, end))


def _make_filled(store: edgeshard.Store) -> None:
    for agent, numbers in (("a", range(1000, 1003)), ("b", range(1010, 1013))):
        write_closed(store, agent, numbers)
    store.merge(keep_empty=True)
    for agent, numbers in (("a", range(1100, 1140)), ("b", range(1200, 1203)), ("c", range(1300, 1330))):
        write_closed(store, agent, numbers)
    _leave_log(store, "d", range(1400, 1420))


def write_closed(store: edgeshard.Store, agent: str, numbers: range) -> None:
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


def merge(account: Account, store: edgeshard.Store | None = None, **options: Any) -> MergeReport | None:
    """Merge the account's store; return the report, or None if the merge failed, which is noted."""
    report = attempt(account, lambda: (store or edgeshard.Store(account.root)).merge(**options))
    if report is not None:
        note_quarantined(account, report)
    return report


def note_quarantined(account: Account, report: MergeReport) -> None:
    """Count the shards that a merge could not merge, each of which it gave a reason for."""
    for item in report.quarantined:
        assert item.reason
        account.errors["set aside"] = account.errors.get("set aside", 0) + 1


def merge_and_truncate(account: Account) -> Generator[None]:
    """Merge several chunks of several shards, one of which an agent has open and keeps writing to."""
    fill(account)
    writer = Writer(edgeshard.Store(account.root), "e", account)
    writer.attempt(range(1500, 1530), lambda handle: handle.write_many(record(n) for n in range(1500, 1530)))
    writer.attempt([1530], lambda handle: handle.write(record(1530)))
    yield
    merge(account, keep_empty=True)
    yield
    writer.attempt([1531], lambda handle: handle.write(record(1531)))
    writer.close()


def merge_and_remove(account: Account) -> Generator[None]:
    """Merge the shards of ended agents, which are then removed."""
    fill(account)
    yield
    merge(account)
    yield


def first_merge(account: Account) -> Generator[None]:
    """Merge for the first time, which creates the master."""
    store = edgeshard.Store(account.root)
    write_closed(store, "a", range(1, 8))
    account.acknowledged.update(range(1, 8))
    yield
    merge(account)
    yield


def merge_from(account: Account) -> Generator[None]:
    """Merge from another store's master."""
    elsewhere = edgeshard.Store(account.root / "elsewhere")
    write_closed(elsewhere, "x", range(2000, 2020))
    elsewhere.merge()
    account.acknowledged.update(range(2000, 2020))
    edgeshard.Store(account.root).init()
    account.sources = ("elsewhere/master.db",)
    yield
    merge(account, sources=[elsewhere.master_path])
    yield


def watch(account: Account) -> Generator[None]:
    """Watch a store for some passes: between two of them an agent writes a row, and failures are tried again."""
    store = edgeshard.Store(account.root)
    writer = Writer(store, "a", account)
    writer.attempt([1, 2], lambda handle: handle.write_many([record(1), record(2)]))
    write_closed(store, "b", range(11, 15))
    account.acknowledged.update(range(11, 15))
    listener = _Passes(account, writer)
    yield
    options: Any = {"interval": 0.001, "rescan": 60, "observer": "polling", "listener": listener}
    watcher = listener.watcher = attempt(account, lambda: store.watcher(**options))
    if watcher is not None and attempt(account, watcher.open):
        watcher.run()
    yield
    writer.attempt([100], lambda handle: handle.write(record(100)))
    writer.close()


class _Passes(Listener):
    """Writes a row after each pass, and stops the watcher after some passes, some failures, or some time."""

    beat_s = 0.001

    def __init__(self, account: Account, writer: Writer) -> None:
        self.watcher: Watcher | None = None
        self._account = account
        self._writer = writer
        self._events = 0
        self._until = time.monotonic() + 0.2

    def merged(self, report: MergeReport) -> None:
        note_quarantined(self._account, report)
        number = 20 + self._events
        self._writer.attempt([number], lambda handle: handle.write(record(number)))
        self._count()

    def failed(self, error: EdgeshardError) -> None:
        self._account.note(error)
        self._count()

    def beat(self) -> None:
        if time.monotonic() > self._until:
            self._stop()

    def _count(self) -> None:
        self._events += 1
        if self._events == 4:
            self._stop()

    def _stop(self) -> None:
        if self.watcher is not None:
            self.watcher.stop()
