"""Write in each way, close, and write within a disk budget."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable

import edgeshard
from edgeshard.budget import policy
from edgeshard.files import paths
from edgeshard.options import Durability
from tests.crash.syscall_faults.scenarios.account import Account, Writer, record
from tests.crash.syscall_faults.scenarios.merging import merge


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


def write_all(writer: Writer) -> None:
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
    write_all(writer)
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


def write_within_budget(account: Account) -> Generator[None]:
    """Write and merge within a disk budget: with quotas, and a reserve."""
    writer = Writer(edgeshard.Store(account.root, max_bytes="2M"), "agent", account)
    paths.shards(account.root).mkdir(parents=True)  # if the first write fails, there is a store to merge all the same
    yield
    write_all(writer)
    merge(account)
    writer.attempt([20], lambda handle: handle.write(record(20)))
    writer.close()
    merge(account)
    yield
    writer.attempt([30], lambda handle: handle.write(record(30)))
    writer.close()
    store = edgeshard.Store(account.root)
    store.merge()
    assert paths.reserve(store.root).stat().st_size == policy.MIN_RESERVE_BYTES
