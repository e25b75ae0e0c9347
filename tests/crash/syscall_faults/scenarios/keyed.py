"""Write, delete and merge rows of a table with a key, and prune its tombstones.

Each version of a slot has a larger number than the one before, and superseded ones are in the history. So every number
is there once, as in the other tables. A tombstone counts as a row as well.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import attrs

import edgeshard
from tests.crash.syscall_faults.scenarios.account import Account, Writer, attempt, days_ago, prepare
from tests.crash.syscall_faults.scenarios.merging import merge

#: The number of the tombstone of slot 0.
_TOMBSTONE = 900

#: What another copy of the store has, which is merged again in the end.
_OLDER_COPY = "older.db"


@edgeshard.table(key="slot", history=True)
@attrs.frozen
class Slot:
    """A row with a key."""

    slot: int
    n: int


def _numbers(store: edgeshard.Store) -> Iterator[int]:
    """Yield the numbers of all versions and tombstones, and check that each slot shows its newest version."""
    tables = {name for (name,) in store.query("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if "slot" not in tables:
        return
    current = {row.slot: row.n for row in store.read(Slot)}
    replaced = [(row.slot, row.n) for row in store.query("SELECT slot, n FROM slot_history")]
    deleted = [slot for (slot,) in store.query("SELECT slot FROM slot_deleted")]
    assert current.keys().isdisjoint(deleted)
    assert all(n < current.get(slot, _TOMBSTONE) for slot, n in replaced)
    yield from current.values()
    yield from (n for _, n in replaced)
    yield from (_TOMBSTONE + slot for slot in deleted)


def keyed_write(account: Account) -> Generator[None]:
    """Write rows with keys, several versions of some, and delete some."""
    account.others = _numbers
    writer = Writer(edgeshard.Store(account.root), "a", account)
    writer.attempt([1, 2], lambda handle: handle.write_many([Slot(1, 1), Slot(2, 2)]))
    yield
    writer.attempt([3], lambda handle: handle.write(Slot(3, 3)))
    writer.attempt([4, 5], lambda handle: handle.write_many([Slot(2, 4), Slot(3, 5)]))
    writer.attempt([_TOMBSTONE + 1], lambda handle: handle.delete(Slot, 1))
    writer.attempt([6, _TOMBSTONE + 2], lambda handle: _write_and_delete(handle, 6, 2))
    writer.attempt([7], lambda handle: handle.write(Slot(3, 7)))
    yield
    writer.attempt([_TOMBSTONE + 3], lambda handle: handle.delete(Slot, 3))
    writer.close()


def _write_and_delete(handle: edgeshard.Shard, n: int, slot: int) -> None:
    with handle.transaction():
        handle.write(Slot(4, n))
        handle.delete(Slot, slot)


def merge_keyed(account: Account) -> Generator[None]:
    """Merge rows of several agents with the same keys, newer and older ones than those in the master, and tombstones."""
    prepare(account, "keyed", _make_keyed)
    account.others = _numbers
    account.acknowledged.update((*range(1, 12), _TOMBSTONE + 2, _TOMBSTONE + 3))
    yield
    merge(account)
    yield


def _make_keyed(store: edgeshard.Store) -> None:
    with store.shard("a") as a, store.shard("b") as b, store.shard("c") as c:
        a.write_many([Slot(1, 1), Slot(2, 2), Slot(3, 3)])
        b.write(Slot(1, 4))  # merged late
        c.write_many([Slot(1, 5), Slot(2, 6)])
        c.write(Slot(3, 7))
        b.write_many([Slot(2, 8), Slot(4, 9)])
        b.delete(Slot, 3)
    copy = store.root / "b.db"
    (store.root / "shards" / "b.db").rename(copy)
    store.merge(keep_empty=True)
    copy.rename(store.root / "shards" / "b.db")
    with store.shard("a") as a:
        a.write(Slot(4, 10))
        a.write(Slot(1, 11))
        a.delete(Slot, 2)


def prune_tombstones(account: Account) -> Generator[None]:
    """Prune old tombstones: what they deleted does not come back."""
    store = prepare(account, "old tombstones", _make_old_tombstones)
    account.others, account.sources = _numbers, (_OLDER_COPY,)
    account.acknowledged.update(range(1, 8))
    account.doubt([_TOMBSTONE + 1], [_TOMBSTONE + 2])
    yield
    report = attempt(account, lambda: store.prune(deletions_older_than="20d"))
    if report is not None:
        assert 2 == report.rows, report
        account.refuse_unknown()
    yield
    store.prune(deletions_older_than="20d")
    account.refuse_unknown()
    assert {3, 4} == {row.slot for row in store.read(Slot)}


def _make_old_tombstones(store: edgeshard.Store) -> None:
    with days_ago(40), store.shard("a") as shard:
        for n in (1, 2, 3):
            shard.write(Slot(n, n))
        shard.write(Slot(2, 4))
        shard.delete(Slot, 1)
        shard.delete(Slot, 2)
    with days_ago(39):
        store.merge()
    with store.shard("a") as shard:
        shard.write_many([Slot(3, 5), Slot(4, 6), Slot(4, 7)])
    store.merge()
    store.snapshot(store.root / _OLDER_COPY)
