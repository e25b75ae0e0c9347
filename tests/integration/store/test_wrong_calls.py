"""Wrong calls on the writing side: each raises an error of ours that shows the right form, and writes nothing."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import attrs
import pytest

import edgeshard
from edgeshard.errors import (
    ConfigurationError,
    EdgeshardError,
    RecordError,
    ShardClosedError,
    ShardForkedError,
    TableError,
    TransactionError,
)
from tests.support.forks import Count, begin
from tests.support.records import NOON, Reading
from tests.support.stores import numbers


@edgeshard.table(key="name")
@attrs.frozen
class Setting:
    name: str


class Point(NamedTuple):
    x: int


async def _several() -> Any:
    yield {"n": 1}


def _with(what: Any) -> None:
    with what:
        raise AssertionError("entered")


Call = Callable[[Any, Any], object]  # with a store and a shard; untyped, as wrong calls are

table = cast("Any", edgeshard.table)

CALLS: dict[str, tuple[Call, type[EdgeshardError], str]] = {
    "table of a name": (lambda *_: table("readings"), TableError, "@edgeshard.table(name='readings')"),
    "table of a number": (lambda *_: table(5), TableError, "@edgeshard.table(key=...)"),
    "table of an instance": (lambda *_: table(Setting("a")), TableError, "@edgeshard.table(key=...)"),
    "table, key=5": (lambda *_: table(key=5), TableError, 'key=["sensor"]'),
    "table, index=5": (lambda *_: table(index=5), TableError, 'index=["sensor"]'),
    "table, name=5": (lambda *_: table(name=5), TableError, '@edgeshard.table(name="readings")'),
    "delete of a name": (lambda _, shard: shard.delete("r", 1), TableError, "shard.delete(Setting, key)"),
    "delete of an instance": (lambda _, shard: shard.delete(Setting("a")), TableError, "shard.delete(Setting, key)"),
    "delete without a key": (lambda _, shard: shard.delete(Setting), TableError, "(name), but got 0 values"),
    "delete of a log": (lambda _, shard: shard.delete(Reading, 1), TableError, "@edgeshard.table(key=...)"),
    "write_many of a dict": (lambda _, shard: shard.write_many({"n": 1}), RecordError, "shard.write_many([record])"),
    "write_many of a text": (lambda _, shard: shard.write_many("text"), RecordError, "shard.write_many([record])"),
    "write_many of bytes": (lambda _, shard: shard.write_many(b"text"), RecordError, "shard.write_many([record])"),
    "write_many of a number": (lambda _, shard: shard.write_many(5), RecordError, "shard.write_many([record])"),
    "write_many of None": (lambda _, shard: shard.write_many(None), RecordError, "shard.write_many([record])"),
    "write_many of a record": (
        lambda _, shard: shard.write_many(Reading("a", 1, NOON)), RecordError, "shard.write(record)",
    ),
    "write_many of a named tuple": (lambda _, shard: shard.write_many(Point(1)), RecordError, "shard.write(record)"),
    "write_many of a class": (lambda _, shard: shard.write_many(Reading), RecordError, "shard.write_many([record])"),
    "write_many, async": (lambda _, shard: shard.write_many(_several()), RecordError, "collect its records in a list"),
    "write_many of numbers": (lambda _, shard: shard.write_many([5]), TableError, "int is a builtin type"),
    "write of a class": (lambda _, shard: shard.write(Reading), TableError, "Reading(...), not Reading"),
    "write of a list": (lambda _, shard: shard.write([{}]), TableError, "list is a builtin type"),
    "write of None": (lambda _, shard: shard.write(None), TableError, "NoneType is a builtin type"),
    "awrite of a number": (lambda _, shard: asyncio.run(shard.awrite(5)), TableError, "int is a builtin type"),
    "awrite_many of a dict": (
        lambda _, shard: asyncio.run(shard.awrite_many({"n": 1})), RecordError, "shard.write_many([record])",
    ),
    "shard of a number": (lambda store, _: store.shard(5), ConfigurationError, 'store.shard("door-3")'),
    "shard of bytes": (lambda store, _: store.shard(b"x"), ConfigurationError, 'store.shard("door-3")'),
    "shard of None": (lambda store, _: store.shard(None), ConfigurationError, 'store.shard("door-3")'),
    "shard, durability": (
        lambda store, _: store.shard("b", durability=[]), ConfigurationError, "'process' or 'power'",
    ),
    "store of None": (lambda *_: edgeshard.Store(cast("Any", None)), ConfigurationError, 'Store("data")'),
    "store of a number": (lambda *_: edgeshard.Store(cast("Any", 5)), ConfigurationError, 'Store("data")'),
    "store of bytes": (lambda *_: edgeshard.Store(cast("Any", b"x")), ConfigurationError, 'Store("data")'),
    "store of a store": (lambda store, _: edgeshard.Store(store), ConfigurationError, 'Store("data")'),
    "store, U+0000": (lambda *_: edgeshard.Store("a\0b"), ConfigurationError, 'Store("data")'),
    "pickle a shard": (lambda _, shard: pickle.dumps(shard), ShardForkedError, "store.shard(f'worker-"),
    "pickle a method": (lambda _, shard: pickle.dumps(shard.write), ShardForkedError, "store.shard(f'worker-"),
    "copy a shard": (lambda _, shard: copy.copy(shard), ShardForkedError, "store.shard(f'worker-"),
    "deepcopy a shard": (lambda _, shard: copy.deepcopy(shard), ShardForkedError, "store.shard(f'worker-"),
    "transaction, not called": (
        lambda _, shard: _with(shard.transaction), TransactionError, "with shard.transaction():",
    ),
    "merge of a number": (lambda store, _: store.merge(5), ConfigurationError, 'store.merge(["other/master.db"])'),
    "merge of a store": (lambda store, _: store.merge(store), ConfigurationError, 'store.merge(["other/master.db"])'),
    "merge of numbers": (lambda store, _: store.merge([5]), ConfigurationError, "must be a str or a Path, got 5"),
    "merge of bytes": (lambda store, _: store.merge([b"x"]), ConfigurationError, "must be a str or a Path, got b'x'"),
    "merge, lock_wait": (lambda store, _: store.merge(lock_wait="x"), ConfigurationError, "number of seconds"),
    "snapshot of None": (lambda store, _: store.snapshot(None), ConfigurationError, "target must be a str or a Path"),
    "salvage of a number": (lambda store, _: store.salvage(5), ConfigurationError, "path must be a str or a Path"),
    "restore of a number": (lambda store, _: store.restore(5), ConfigurationError, "must be a str or a Path"),
    "export to a number": (lambda store, _: store.export(5), ConfigurationError, "target must be a str or a Path"),
    "no budget": (lambda store, _: store.note_budget(None), ConfigurationError, "max_bytes must be given"),
}  # fmt: skip


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[edgeshard.Store, edgeshard.Shard]]:
    store = edgeshard.Store(tmp_path_factory.mktemp("wrong") / "data")
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        yield store, shard
        shard.write({"n": 2})  # after all of them
    store.merge()
    assert [1, 2] == numbers(store)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_shows_the_right_form(used: tuple[edgeshard.Store, edgeshard.Shard], name: str) -> None:
    call, kind, right = CALLS[name]
    with pytest.raises(kind) as found:
        call(*used)
    assert right in str(found.value)


def test_a_source_that_is_no_database_is_quarantined(store: edgeshard.Store, tmp_path: Path) -> None:
    store.shard("agent").close()
    (found,) = store.merge(str(tmp_path / "missing.db")).quarantined
    assert "no such file" in found.reason


def test_a_closed_shard_is_not_entered_again(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    with pytest.raises(ShardClosedError, match="open it again"), shard:
        raise AssertionError("entered")


def test_a_store_can_be_pickled_and_copied(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", prune={"older_than": "30d"}, max_bytes="1GB", wear="low")
    for same in (pickle.loads(pickle.dumps(store)), copy.copy(store), copy.deepcopy(store)):
        assert repr(store) == repr(same)
        assert vars(store).keys() == vars(same).keys()
        with same.shard("agent") as shard:
            shard.write({"n": 1})
    assert 3 == store.merge().rows


class Worker:
    """What many write first: a class that opens its shard when it is made, in the parent."""

    def __init__(self, store: edgeshard.Store) -> None:
        self.shard = store.shard("worker")

    def work(self, n: int) -> int:
        return self.shard.write({"n": n})


def test_a_shard_opened_before_a_fork_says_where_to_open_it(store: edgeshard.Store) -> None:
    worker = Worker(store)
    messages = store.root / "message"

    def child(count: Count) -> None:
        try:
            worker.work(1)
        except ShardForkedError as error:
            messages.write_text(str(error))
            with pytest.raises(ShardForkedError), worker.shard:
                pass
            count(1)

    life = begin(child)
    life.wait()
    assert 1 == life.count
    for part in (worker.shard.path, "opened before a fork", "store.shard(f'worker-", "post_fork", "initializer="):
        assert part in messages.read_text()
    assert 1 == worker.work(2)
    worker.shard.close()


def test_a_shard_that_is_given_to_a_spawned_process_says_where_to_open_it(store: edgeshard.Store) -> None:
    worker = Worker(store)
    process = multiprocessing.get_context("spawn").Process(target=worker.work, args=[1])
    with pytest.raises(ShardForkedError, match=r"cannot be copied or pickled.*store\.shard\(f.worker-"):
        process.start()
    worker.shard.close()
