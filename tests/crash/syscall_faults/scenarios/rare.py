"""What is done rarely: make a store, erase rows, restore a snapshot, accept a loss, find damage, confirm a clock."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import edgeshard
from edgeshard import sqlite
from edgeshard.files import paths
from tests.crash.syscall_faults.scenarios.account import Account, attempt, days_ago, prepare, record
from tests.crash.syscall_faults.scenarios.merging import fill, merge, write_closed


def init(account: Account) -> Generator[None]:
    """Make a store."""
    store = edgeshard.Store(account.root)
    yield
    attempt(account, store.init)
    yield


def erase(account: Account) -> Generator[None]:
    """Erase rows, merged ones and pending ones. A row that could not be merged stays, and is named."""
    fill(account)
    store = edgeshard.Store(account.root)
    account.doubt(*([n] for n in account.acknowledged if n % 3 and not n % 4))
    yield
    report = attempt(account, lambda: store.erase("agent_data", _EVERY_FOURTH))
    if report is not None and not report.unexamined:
        account.refuse_unknown()
    yield
    assert not store.erase("agent_data", _EVERY_FOURTH).unexamined
    account.refuse_unknown()


_EVERY_FOURTH = "data ->> '$.n' % 4 = 0"


def restore(account: Account) -> Generator[None]:
    """Put a snapshot in the place of the master: the old or the new one is there, and no row is missing."""
    fill(account)
    store = edgeshard.Store(account.root)
    store.merge()
    store.snapshot(account.root / "older.db")
    write_closed(store, "a", range(3000, 3005))
    account.acknowledged.update(range(3000, 3005))
    yield
    attempt(account, lambda: store.restore(account.root / "older.db"))
    yield
    store.restore(account.root / "older.db")
    assert [] == [path.name for path in account.root.iterdir() if ".new" in path.name]


def accept_loss(account: Account) -> Generator[None]:
    """Accept that rows are lost: those of a shard that was removed before an older master was put back."""
    store = edgeshard.Store(account.root)
    write_closed(store, "a", range(1, 6))
    account.acknowledged.update(range(1, 6))
    store.merge()
    store.snapshot(account.root / "older.db")
    write_closed(store, "a", range(6, 10))
    store.merge()
    store.restore(account.root / "older.db")
    account.finish = lambda store: store.accept_loss(why="the disk broke")
    yield
    attempt(account, lambda: store.accept_loss(why="the disk broke"))
    yield


def note_damage(account: Account) -> Generator[None]:
    """Find out that the master is damaged, and merge nothing into it."""
    store = edgeshard.Store(account.root)
    write_closed(store, "a", range(1, 6))
    account.acknowledged.update(range(1, 9))
    store.merge()
    write_closed(store, "a", range(6, 9))
    _set_last_seq(store, 6)
    account.finish = _repair
    yield
    report = attempt(account, store.verify)
    assert report is None or report.errors
    merge(account)
    yield


def _set_last_seq(store: edgeshard.Store, last: int) -> None:
    connection = sqlite.connect(str(store.master_path), writable=True)
    connection.execute("UPDATE _edgeshard_ranges SET last = ? WHERE stream_no = 1", (last,))
    connection.close()


def _repair(store: edgeshard.Store) -> None:
    _set_last_seq(store, 5)
    assert store.verify().ok


def salvage(account: Account) -> Generator[None]:
    """Salvage a damaged shard of which every row can be read; then move it away."""
    store = prepare(account, "damaged shard", _make_damaged)
    account.acknowledged.update(range(1, 51))
    account.finish = _salvage_all
    yield
    report = attempt(account, lambda: store.salvage(_bad_shard(store)))
    assert report is None or (50, True) == (report.rows, report.complete)
    yield
    _salvage_all(store)
    assert [] == [path.name for path in store.root.iterdir() if path.name.startswith("salvage-")]
    account.finish = lambda _: None


def _bad_shard(store: edgeshard.Store) -> Path:
    return paths.shards(store.root) / "bad.db"


def _make_damaged(store: edgeshard.Store) -> None:
    write_closed(store, "bad", range(1, 51))
    store.init()
    connection = sqlite.connect(str(_bad_shard(store)), writable=False)
    root, size = sqlite.fetch(
        connection,
        "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = '_edgeshard_truncations'",
    )[0]
    connection.close()
    with open(_bad_shard(store), "r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


def _salvage_all(store: edgeshard.Store) -> None:
    assert store.salvage(_bad_shard(store)).complete
    for suffix in ("", "-wal", "-shm"):
        Path(f"{_bad_shard(store)}{suffix}").unlink(missing_ok=True)


def confirm_clock(account: Account) -> Generator[None]:
    """Confirm that the clock, which went ahead, is right: rows that arrived before become old, and can be pruned."""
    store = prepare(account, "clock ahead", _make_clock_ahead)
    account.acknowledged.update(range(11, 14))
    account.doubt([1, 2, 3], [4])
    yield
    asked = attempt(account, store.clock)
    assert asked is None or (4, True) == (asked.rows, asked.awaits_confirmation)
    confirmed = attempt(account, store.confirm_clock)
    assert confirmed is None or confirmed.confirmed
    yield
    assert confirmed is None or not store.clock().awaits_confirmation  # what failed may have been the sync
    assert store.confirm_clock().confirmed
    store.prune(older_than="20d")
    account.refuse_unknown()


def _make_clock_ahead(store: edgeshard.Store) -> None:
    with days_ago(40, as_it_seemed=True):
        with store.shard("a") as shard:
            shard.write_many(record(n) for n in (1, 2, 3))
            shard.write(record(4))
        store.merge()
    write_closed(store, "a", range(11, 14))
    store.merge()
