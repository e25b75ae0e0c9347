"""What threads, coroutines and greenlets that share one handle do to each other's transactions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest
import trio

import edgeshard
from edgeshard.errors import ShardPoisonedError, TransactionError
from tests.support.processes import python
from tests.support.stores import numbers


def in_thread(work: Callable[[], Any], name: str = "other") -> concurrent.futures.Future[Any]:
    """Call something in another thread."""
    result: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return result


# -- threads ----------------------------------------------------------------------------------------------------------


def test_a_pool_that_writes_inside_a_transaction_is_told_so(store: edgeshard.Store) -> None:
    with store.shard("agent", transaction_wait=0.1) as shard:
        with (
            concurrent.futures.ThreadPoolExecutor(2) as pool,
            pytest.raises(TransactionError) as found,
            shard.transaction(),
        ):
            list(pool.map(shard.write, [{"n": 1}, {"n": 2}]))
        shard.write({"n": 3})  # n=2 may have been written when the transaction was over
    assert "waited 0.1 s" in str(found.value)
    assert f"thread 'MainThread' ({threading.get_ident()})" in str(found.value)
    assert "transaction_wait" in str(found.value)
    store.merge()
    assert numbers(store) in ([3], [2, 3])


@pytest.mark.parametrize("use", ["write", "write_many", "transaction", "sync", "close"])
def test_whatever_waits_for_a_transaction_waits_up_to_the_limit(store: edgeshard.Store, use: str) -> None:
    with store.shard("agent", transaction_wait=0.05) as shard:

        def other() -> None:
            if use == "transaction":
                with shard.transaction():
                    pass
            else:
                arguments: dict[str, list[Any]] = {"write": [{"n": 1}], "write_many": [[{"n": 1}]]}
                getattr(shard, use)(*arguments.get(use, []))

        with shard.transaction():
            with pytest.raises(TransactionError, match="MainThread"):
                in_thread(other).result(10)
            shard.write({"n": 2})
        in_thread(other).result(10)


def test_the_limit_counts_for_one_transaction_of_others(store: edgeshard.Store) -> None:
    with store.shard("agent", transaction_wait=0.2) as shard:
        written: list[int] = []

        def waiter() -> None:
            written.append(shard.write({"n": 0}))

        threads = [threading.Thread(target=waiter) for _ in range(4)]
        with shard.transaction():
            for thread in threads:
                thread.start()
            time.sleep(0.1)
        ended = time.monotonic() + 0.6
        while time.monotonic() < ended:  # far longer than the limit, in transactions that are shorter
            with shard.transaction():
                time.sleep(0.05)
        for thread in threads:
            thread.join()
    assert 4 == len(written)


def test_the_limit_begins_anew_with_each_transaction_that_a_write_waits_for(store: edgeshard.Store) -> None:
    with store.shard("agent", transaction_wait=0.2) as shard:
        with shard._lock:  # so that the write does not get its turn between them
            with shard.transaction():
                waiting = in_thread(lambda: shard.write({"n": 1}))
                time.sleep(0.12)
            for _ in range(3):
                with shard.transaction():
                    time.sleep(0.12)
        assert 1 == waiting.result(10)


def test_a_transaction_that_began_long_ago_counts_from_when_the_write_began(store: edgeshard.Store) -> None:
    with store.shard("agent", transaction_wait=0.2) as shard:
        with shard.transaction():
            time.sleep(0.3)
            waiting = in_thread(lambda: shard.write({"n": 1}))
            time.sleep(0.05)
        assert waiting.result(10) == 1


def test_a_limit_of_zero_refuses_at_once(store: edgeshard.Store) -> None:
    with store.shard("agent", transaction_wait=0) as shard, shard.transaction():
        began = time.monotonic()
        with pytest.raises(TransactionError):
            in_thread(lambda: shard.write({"n": 1})).result(10)
        assert time.monotonic() - began < 0.5


def test_a_transaction_left_in_another_thread_is_undone_and_says_so(store: edgeshard.Store) -> None:
    shard = store.shard("agent")

    @contextlib.contextmanager
    def unit() -> Iterator[None]:  # as frameworks run a dependency that yields: each half in a thread of a pool
        with shard.transaction():
            shard.write({"n": 1})
            yield

    block = unit()
    block.__enter__()
    with pytest.raises(TransactionError, match="entered in one thread and left in another"):
        in_thread(lambda: block.__exit__(None, None, None)).result(10)
    for write in (lambda: shard.write({"n": 2}), lambda: in_thread(lambda: shard.write({"n": 3})).result(10)):
        with pytest.raises(ShardPoisonedError, match="open it again"):
            write()
    shard.close()
    with store.shard("agent") as again:
        again.write({"n": 4})
    store.merge()
    assert [4] == numbers(store)


# -- generators -------------------------------------------------------------------------------------------------------


def test_a_generator_that_is_closed_inside_its_transaction_says_which_rows_are_undone(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:

        def rows(first: bool) -> Iterator[int]:
            with shard.transaction():
                if first:
                    shard.write({"n": 1})
                yield 1

        generator = rows(True)
        next(generator)
        shard.write({"n": 2})
        with pytest.raises(TransactionError, match="generator was closed"):
            generator.close()  # type: ignore[attr-defined]
        generator = rows(False)
        next(generator)
        generator.close()  # type: ignore[attr-defined]  # nothing is lost
        shard.write({"n": 3})
    store.merge()
    assert [3] == numbers(store)


def test_a_context_manager_may_yield_inside_a_transaction(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:

        @contextlib.contextmanager
        def unit() -> Iterator[None]:
            with shard.transaction():
                yield

        with unit():
            shard.write({"n": 1})
        with pytest.raises(ValueError, match="mine"), unit():
            shard.write({"n": 2})
            raise ValueError("mine")
    store.merge()
    assert [1] == numbers(store)


# -- coroutines and greenlets -----------------------------------------------------------------------------------------


def test_a_trio_task_cannot_slip_into_the_transaction_of_another(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        acknowledged: list[int] = []

        async def bad() -> None:
            with pytest.raises(ValueError, match="network"), shard.transaction():
                shard.write({"n": 1})
                await trio.sleep(0.05)
                raise ValueError("network failed")

        async def good() -> None:
            await trio.sleep(0.01)
            with pytest.raises(TransactionError, match="coroutine or greenlet"):
                shard.write({"n": 2})
            await trio.sleep(0.1)
            shard.write({"n": 3})
            acknowledged.append(3)
            with shard.transaction():
                shard.write({"n": 4})
            await trio.to_thread.run_sync(shard.write, {"n": 5})
            acknowledged.extend((4, 5))

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bad)
                nursery.start_soon(good)

        trio.run(main)
    store.merge()
    assert acknowledged == numbers(store)


def test_a_greenlet_cannot_slip_into_the_transaction_of_another(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        main = greenlet.getcurrent()

        def bad() -> None:
            with shard.transaction():
                shard.write({"n": 1})
                main.switch()
                raise ValueError("network failed")

        holder = greenlet.greenlet(bad)
        holder.switch()
        refusals = 0
        for switch in (lambda: shard.write({"n": 2}), greenlet.greenlet(lambda: shard.write({"n": 3})).switch):
            with pytest.raises(TransactionError, match="coroutine or greenlet"):
                switch()
            refusals += 1
        with pytest.raises(ValueError, match="network"):
            holder.switch()
        greenlet.greenlet(lambda: shard.write({"n": 4})).switch()
    store.merge()
    assert (2, [4]) == (refusals, numbers(store))


def test_what_runs_sync_code_in_a_greenlet_of_a_task_is_told_apart(store: edgeshard.Store) -> None:
    """As SQLAlchemy's asyncio extension does: an await inside sync code switches to the task's own greenlet."""
    with store.shard("agent") as shard:

        async def main() -> None:
            outer = greenlet.getcurrent()

            def sync_code() -> None:
                with contextlib.suppress(ValueError), shard.transaction():
                    shard.write({"n": 1})
                    outer.switch()
                    raise ValueError("undone")

            inner = greenlet.greenlet(sync_code)
            inner.switch()
            with pytest.raises(TransactionError):
                shard.write({"n": 2})
            await asyncio.sleep(0)
            inner.switch()
            shard.write({"n": 3})

        asyncio.run(main())
    store.merge()
    assert [3] == numbers(store)


def test_the_main_greenlet_is_the_same_before_and_after_greenlet_is_imported(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("agent") as shard, monkeypatch.context() as patch:
        for name in ("greenlet", "trio"):
            patch.delitem(sys.modules, name)
        with shard.transaction():
            shard.write({"n": 1})
            patch.undo()
            shard.write({"n": 2})
            with shard.transaction():
                shard.write({"n": 3})
    store.merge()
    assert [1, 2, 3] == numbers(store)


GEVENT = """
import sys
if sys.argv[2] == "patched":
    from gevent import monkey
    monkey.patch_all()
import gevent, edgeshard
shard = edgeshard.Store(sys.argv[1]).shard("agent", transaction_wait=float(sys.argv[3]))
def bad():
    with shard.transaction():
        shard.write({"n": 1})
        gevent.sleep(0.3)
        raise ValueError("network failed")
def good():
    gevent.sleep(0.05)
    try:
        shard.write({"n": 2})
        print("written")
    except edgeshard.TransactionError as error:
        print("waited" if "waited" in str(error) else "refused")
first, second = gevent.spawn(bad), gevent.spawn(good)
gevent.joinall([first, second], timeout=20)
shard.write({"n": 3})
shard.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "limit", "outcome", "kept"),
    [("plain", "30", "refused", [3]), ("patched", "30", "written", [2, 3]), ("patched", "0.1", "waited", [3])],
)
def test_gevent(store: edgeshard.Store, how: str, limit: str, outcome: str, kept: list[int]) -> None:
    done = python(GEVENT, store.root, how, limit)
    assert outcome == done.stdout.strip(), done.stderr
    store.merge()
    assert kept == numbers(store)
