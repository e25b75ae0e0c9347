"""Writes, queries and merges that an asyncio program awaits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import trio

import edgeshard
from edgeshard.errors import (
    ConfigurationError,
    RecordError,
    ShardClosedError,
    ShardForkedError,
    StorageIOError,
    TransactionError,
)
from edgeshard.shard.async_write import AsyncWrite
from tests.support.forks import Count, begin
from tests.support.stores import numbers


def slow_down(shard: edgeshard.Shard, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have each write wait for its disk."""
    for name in ("write", "write_many"):
        real = getattr(shard, name)

        def slow(records: Any, real: Any = real, **options: Any) -> int:
            time.sleep(seconds)
            count: int = real(records, **options)
            return count

        monkeypatch.setattr(shard, name, slow)


def test_awaited_writes_return_what_writes_do_in_the_order_of_the_awaits(store: edgeshard.Store) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            assert 1 == await shard.awrite({"n": 1})
            assert 2 == await shard.awrite_many({"n": n} for n in (2, 3))
            assert [4, 5, 6] == await asyncio.gather(*(shard.awrite({"n": n}) for n in (4, 5, 6)))
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                task = group.create_task(shard.awrite({"n": 7}))
            assert 7 == task.result()
            assert 8 == await asyncio.wait_for(asyncio.shield(shard.awrite({"n": 8})), 20)
        report = await store.amerge()
        assert 8 == report.rows
        rows = await store.aquery("select data ->> 'n' as n from agent_data where data ->> 'n' > ?", (7,))
        assert [8] == [row.n for row in rows]

    asyncio.run(main())
    assert list(range(1, 9)) == numbers(store)


def test_the_loop_goes_on_while_a_write_waits(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            slow_down(shard, monkeypatch, 0.2)
            writing = asyncio.create_task(shard.awrite({"n": 1}))
            beats = 0
            while not writing.done():
                await asyncio.sleep(0.005)
                beats += 1
            assert beats > 10
            assert {threading.current_thread()} == {t for t in threading.enumerate() if "Main" in t.name}

    asyncio.run(main())


def test_the_thread_ends_with_the_shard(store: edgeshard.Store) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeshard write")]
            await asyncio.gather(*(shard.awrite({"n": n}) for n in range(5)))
            (thread,) = (thread for thread in threading.enumerate() if thread.name.startswith("edgeshard write"))
        thread.join(10)
        assert not thread.is_alive()

    asyncio.run(main())


def test_a_write_that_was_refused_says_so(store: edgeshard.Store) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            write = shard.awrite({"n": float("nan")})
            with pytest.raises(RecordError):
                await write
            assert (False, None) == (write.kept, write.result)
            assert 1 == await shard.awrite({"n": 1})
        write = shard.awrite({"n": 2})
        with pytest.raises(ShardClosedError):
            await write
        assert write.kept is False

    asyncio.run(main())


def test_a_write_whose_outcome_is_unknown_says_so(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import apsw

    async def main() -> None:
        shard = store.shard("agent")
        await shard.awrite({"n": 1})

        def failing(*_: Any) -> None:
            raise apsw.IOError("the disk was pulled out")

        monkeypatch.setattr(shard, "_execute", failing)
        write = shard.awrite({"n": 2})
        with pytest.raises(StorageIOError):
            await write
        assert write.kept is None
        late = shard.awrite({"n": 3})
        with pytest.raises(edgeshard.ShardPoisonedError):
            await late
        assert late.kept is False
        monkeypatch.undo()
        shard.close()

    asyncio.run(main())


def test_an_awaited_write_inside_a_transaction_of_the_loop_is_refused_at_once(store: edgeshard.Store) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            with shard.transaction():
                for write in (shard.awrite({"n": 1}), shard.awrite_many([{"n": 2}])):
                    began = time.monotonic()
                    with pytest.raises(TransactionError, match="awrite_many"):
                        await write
                    assert time.monotonic() - began < 1
                    assert write.kept is False
                shard.write({"n": 3})
            await shard.awrite({"n": 4})

    asyncio.run(main())
    store.merge()
    assert [3, 4] == numbers(store)


def test_a_cancelled_write_that_waits_for_another_thread_is_abandoned(store: edgeshard.Store) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(shard: edgeshard.Shard) -> None:
        with shard.transaction():
            entered.set()
            leave.wait(20)

    async def main() -> None:
        with store.shard("agent") as shard:
            thread = threading.Thread(target=hold, args=[shard])
            thread.start()
            entered.wait(20)
            writes = [shard.awrite({"n": n}) for n in range(3)]
            tasks = [asyncio.create_task(write) for write in writes]
            await asyncio.sleep(0.05)
            began = time.monotonic()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert time.monotonic() - began < 1, "it did not wait for the transaction"
            assert [False] * 3 == [write.kept for write in writes]
            leave.set()
            thread.join()
            await shard.awrite({"n": 9})

    asyncio.run(main())
    store.merge()
    assert [9] == numbers(store)


def test_a_write_that_has_begun_runs_to_its_end_however_often_it_is_cancelled(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            slow_down(shard, monkeypatch, 0.1)
            write = shard.awrite({"n": 1})
            task = asyncio.create_task(write)
            await asyncio.sleep(0.03)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0.005)
            assert not task.done()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (True, 1) == (write.kept, write.result)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await (late := shard.awrite({"n": 2}))
            assert late.kept is True

    asyncio.run(main())
    store.merge()
    assert [1, 2] == numbers(store)


def test_a_write_that_never_began_writes_nothing(store: edgeshard.Store) -> None:
    async def main() -> None:
        with store.shard("agent") as shard:
            write = shard.awrite({"n": 1})
            task = asyncio.create_task(write)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert write.kept is False
            shard.awrite({"n": 2}).close()

    asyncio.run(main())
    store.merge()
    assert [] == numbers(store)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_after_cancellations_at_random_moments_the_master_has_what_was_said_to_be_kept(
    store: edgeshard.Store, durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = random.Random(durability)
    kept: set[int] = set()
    refused: set[int] = set()

    async def one(shard: edgeshard.Shard, n: int) -> None:
        many = choices.random() < 0.3
        numbers = {n, n + 1} if many else {n}
        write: AsyncWrite = shard.awrite_many([{"n": i} for i in numbers]) if many else shard.awrite({"n": n})
        task = asyncio.create_task(write)
        if choices.random() < 0.7:
            for _ in range(choices.randrange(3)):
                await asyncio.sleep(choices.choice((0, 0, 0.0005, 0.002)))
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert write.kept is not None
        (kept if write.kept else refused).update(numbers)
        if not task.cancelled():
            assert write.kept

    async def main() -> None:
        with store.shard("agent", durability=durability) as shard:
            slow_down(shard, monkeypatch, 0.0005)
            for start in range(0, 400, 40):
                await asyncio.gather(*(one(shard, n) for n in range(start, start + 40, 2)))

    asyncio.run(main())
    store.merge()
    assert sorted(kept) == numbers(store)
    assert len(kept) > 20
    assert len(refused) > 20


def test_a_cancelled_merge_ends_early_and_keeps_what_it_committed(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(8):
        with store.shard(f"agent-{n}") as shard:
            shard.write({"n": n})
    real, begun, ended = store.merge, threading.Event(), threading.Event()

    def merge(*arguments: Any, should_stop: Any, **options: Any) -> Any:
        begun.set()
        while not should_stop():
            time.sleep(0.001)
        time.sleep(0.05)
        try:
            return real(*arguments, should_stop=should_stop, **options)
        finally:
            ended.set()

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(store, "merge", merge)
            task = asyncio.create_task(store.amerge())
            await asyncio.to_thread(begun.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert ended.is_set()
        assert 8 == (await store.amerge()).rows

    asyncio.run(main())
    assert list(range(8)) == numbers(store)


def test_without_an_asyncio_loop_the_error_names_the_right_call(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:

        async def main(write: Coroutine[Any, Any, int]) -> None:
            with pytest.raises(ConfigurationError, match=r"trio.to_thread.run_sync"):
                await write

        trio.run(main, shard.awrite({"n": 1}))


def test_a_forked_child_is_refused(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        asyncio.run(main_of(shard))

        def child(count: Count) -> None:
            with pytest.raises(ShardForkedError):
                asyncio.run(main_of(shard))
            count(1)

        life = begin(child)
        life.wait()
        assert 1 == life.count
        asyncio.run(main_of(shard))


async def main_of(shard: edgeshard.Shard) -> None:
    await shard.awrite({"n": 1})
