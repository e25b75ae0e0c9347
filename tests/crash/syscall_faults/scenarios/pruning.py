"""Prune by each rule, by hand and after a merge, and drop a table."""

from __future__ import annotations

from collections.abc import Callable, Generator

import edgeshard
from edgeshard.reports import PruneReport
from tests.crash.syscall_faults.scenarios.account import Account, Sample, attempt, days_ago, prepare, record
from tests.crash.syscall_faults.scenarios.merging import merge

#: The old rows of the store, by transaction, and those that arrived after them.
_OLD, _NEW = ([1, 2, 3], [4], [5, 7], [6]), ([11, 12], [13], [14])

#: What the store had before a prune, which is merged again in the end: no pruned row comes back.
_OLDER_COPY = "older.db"


def _make_old(store: edgeshard.Store) -> None:
    with days_ago(40):
        _write(store, _OLD)
        store.merge()
    _write(store, _NEW)
    store.merge()
    store.snapshot(store.root / _OLDER_COPY)


def _write(store: edgeshard.Store, transactions: tuple[list[int], ...]) -> None:
    with store.shard("a") as shard:
        for numbers in transactions:
            shard.write_many(record(n, 300) for n in numbers)


def _begin(account: Account) -> edgeshard.Store:
    """Make the store, whose old rows may be pruned."""
    store = prepare(account, "old rows", _make_old)
    account.sources = (_OLDER_COPY,)
    for numbers in _NEW:
        account.acknowledged.update(numbers)
    account.doubt(*_OLD)
    return store


def _prune(account: Account, action: Callable[[], PruneReport], rows: int) -> None:
    """Prune; if that succeeds, so many rows are gone."""
    report = attempt(account, action)
    if report is not None:
        assert rows == report.rows, report
        account.refuse_unknown()


def prune_by_age(account: Account) -> Generator[None]:
    """Prune the rows that are too old, and give their pages back; first look at what would be pruned."""
    store = _begin(account)
    yield
    would = attempt(account, lambda: store.prune(older_than="20d", dry_run=True))
    assert would is None or 7 == would.rows
    _prune(account, lambda: store.prune(older_than="20d", shrink=True), 7)
    yield
    store.prune(older_than="20d")
    account.refuse_unknown()


def prune_after_merge(account: Account) -> Generator[None]:
    """Merge, and then prune by the store's own rule, which keeps a number of rows."""
    _begin(account)
    store = edgeshard.Store(account.root, prune={"keep_rows": 6})
    _write(store, ([21], [22]))
    account.acknowledged.update((21, 22))
    yield
    report = merge(account, store)
    if report is not None and not report.quarantined and not report.prune_error:
        account.refuse_unknown()
    elif report is not None and report.prune_error:
        account.errors["prune error"] = 1
    yield
    assert not store.merge().prune_error
    account.refuse_unknown()


def prune_by_size(account: Account) -> Generator[None]:
    """Prune the oldest rows until the master is small enough."""
    store = prepare(account, "large rows", _make_large)
    account.acknowledged.update((6, 7))
    account.doubt([1, 2, 3], [4], [5])
    yield
    report = attempt(account, lambda: store.prune(max_bytes="1M"))
    assert report is None or (5, True) == (report.rows, report.fits), report
    if report is not None:
        account.refuse_unknown()
    yield
    assert store.prune(max_bytes="1M").fits
    account.refuse_unknown()


def _make_large(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for numbers in ([1, 2, 3], [4], [5], [6], [7]):
            shard.write_many(record(n, 300_000) for n in numbers)
    store.merge()


def drop_table(account: Account) -> Generator[None]:
    """Drop a table: the rows of the other one stay, and the next merge makes it again."""
    store = _begin(account)
    account.acknowledged.update((1, 2, 4, 5, 7, 11, 13, 14))
    account.unknown = [frozenset([n]) for n in (3, 6, 12)]
    account.acknowledged.difference_update(*account.unknown)
    yield
    _prune(account, lambda: store.prune(table=Sample, drop_table=True), 3)
    yield
    if "sample" in {table.name for table in store.tables().tables}:  # or else what failed was the end of it
        store.prune(table=Sample, drop_table=True)
    account.refuse_unknown()
    assert "sample" not in {table.name for table in store.tables().tables}
    _write(store, ([30], [31]))
    account.acknowledged.update((30, 31))
