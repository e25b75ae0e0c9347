"""Watchers that stand by: one of many watches, and another takes over when it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import MergeInProgressError
from edgeshard.files import lock_holder, locks, paths
from edgeshard.merge import once
from tests.support.forks import Count, Life, begin
from tests.support.stores import numbers

PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    ended = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ended, "it did not happen"
        time.sleep(0.01)


def watching_pid(store: edgeshard.Store) -> int | None:
    """Return which process watches the store, or None."""
    path = paths.watch_lock(store.root)
    holder = lock_holder.find_holder(path) if locks.is_locked(path) else None
    return None if holder is None else holder.pid


def has_master(store: edgeshard.Store, *expected: int) -> bool:
    return store.has_master() and list(expected) == numbers(store)


def has_more_rows(store: edgeshard.Store, count: int) -> bool:
    (row,) = store.query("select count(*) as rows from agent_data")
    return bool(row.rows > count)


def test_without_standby_a_second_watcher_is_refused_and_told_who_watches(store: edgeshard.Store) -> None:
    with (
        store.watching(),
        pytest.raises(MergeInProgressError, match=r"this process since .* lock_wait=seconds"),
        store.watching(),
    ):
        pass


def test_a_watcher_that_stands_by_goes_on_when_the_first_ends(store: edgeshard.Store) -> None:
    other = edgeshard.Store(store.root)
    first = store.watching(interval=0.02)
    with store.shard("agent") as shard:
        first.__enter__()
        with other.watching(interval=0.02, rescan=0.5, standby=True):
            shard.write({"n": 1})
            wait_until(lambda: has_master(store, 1))
            first.__exit__(None, None, None)
            shard.write({"n": 2})
            wait_until(lambda: has_master(store, 1, 2))
            assert os.getpid() == watching_pid(store)
            shard.write({"n": 3})
        assert [1, 2, 3] == numbers(store)
    assert watching_pid(store) is None
    assert "edgeshard merger" not in {thread.name for thread in threading.enumerate()}


def test_a_watcher_with_standby_on_a_new_store_watches_it(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "new")
    with store.watching(interval=0.02, standby=True), store.shard("agent") as shard:
        wait_until(lambda: watching_pid(store))
        shard.write({"n": 1})
        wait_until(lambda: has_master(store, 1))


def test_a_watcher_that_stands_by_ends_at_once_and_leaves_nothing_behind(store: edgeshard.Store) -> None:
    with store.watching(), store.shard("agent") as shard:
        began = time.monotonic()
        with store.watching(standby=True):
            shard.write({"n": 1})
        assert time.monotonic() - began < 2, "it did not wait for a rescan, nor for the other watcher"
        assert has_master(store, 1)
        assert 1 == [thread.name for thread in threading.enumerate()].count("edgeshard merger")


def test_the_last_merge_waits_for_a_merge_of_others(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    held = locks.lock(paths.merge_lock(store.root))
    assert held is not None
    timer = threading.Timer(0.2, held.release)
    with store.watching(standby=True):
        timer.start()
    timer.join()
    assert has_master(store, 1)


def test_what_stands_by_goes_on_after_a_failure(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = locks.lock
    failures: list[Path] = []

    def failing(path: Path, wait_s: float = 0.0) -> object:
        if path.name == "watch.lock" and len(failures) < 3:
            failures.append(path)
            raise edgeshard.StorageIOError("lock", path, "the disk was pulled out")
        return real(path, wait_s)

    monkeypatch.setattr(locks, "lock", failing)
    with store.watching(rescan=0.1, standby=True):
        wait_until(lambda: watching_pid(store))
    assert 3 == len(failures)


def test_an_idle_watcher_that_stands_by_takes_next_to_no_processor_time(store: edgeshard.Store) -> None:
    with store.watching():

        def standby(count: Count) -> None:
            with store.watching(standby=True):
                time.sleep(0.1)
                before = time.process_time()
                time.sleep(0.5)
                count(1 + int((time.process_time() - before) * 1e6))

        life = begin(standby)
        life.wait()
        assert 0 < life.count < 25_000, "microseconds of half a second"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_that_was_forked_while_the_store_was_watched_merges_nothing(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = store.shard("agent")
    watching = store.watching(interval=0.02)
    watching.__enter__()
    shard.write({"n": 1})
    wait_until(lambda: has_master(store, 1))
    pid = os.fork()
    if not pid:
        try:
            monkeypatch.setattr(once, "merge", lambda *_, **__: os._exit(3))
            watching.__exit__(None, None, None)
            with pytest.raises(MergeInProgressError):
                store.watching().__enter__()
            os._exit(0)
        finally:
            os._exit(1)
    assert 0 == os.waitpid(pid, 0)[1]
    assert os.getpid() == watching_pid(store)
    shard.write({"n": 2})
    wait_until(lambda: has_master(store, 1, 2))
    shard.close()
    watching.__exit__(None, None, None)
    assert store.verify().ok


@pytest.mark.slow
def test_of_four_workers_one_watches_and_another_takes_over_when_it_is_killed(store: edgeshard.Store) -> None:
    def work(name: str) -> Callable[[Count], None]:
        def run(count: Count) -> None:
            signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
            stopping: list[int] = []
            with store.watching(interval=0.05, rescan=2.0, standby=True), store.shard(name) as shard:
                while not stopping:
                    count(shard.write({"worker": name}))
                    time.sleep(0.005)

        return run

    workers: dict[int, Life] = {}
    for number in range(4):
        life = begin(work(f"worker-{number}"))
        workers[life.pid] = life
    written = 0
    for _ in range(3):
        wait_until(lambda: watching_pid(store) in workers)
        pid = watching_pid(store)
        assert pid is not None
        killed = workers.pop(pid)
        assert killed.kill()
        at = time.monotonic()
        written += killed.count
        least = written + sum(life.count for life in workers.values())
        wait_until(lambda: watching_pid(store) in workers)
        assert time.monotonic() - at < 2.0 + 1.0, "within a rescan"
        wait_until(partial(has_more_rows, store, least))
    (last,) = workers.values()
    os.kill(last.pid, signal.SIGTERM)
    last.wait()
    store.merge()
    (row,) = store.query("select count(*) as rows from agent_data")
    assert written + last.count <= row.rows <= written + last.count + 3, "one each that a kill kept from being counted"
    assert store.verify().ok


@pytest.mark.slow
def test_a_child_of_a_killed_watcher_does_not_keep_others_from_watching(store: edgeshard.Store) -> None:
    def watch_and_fork(count: Count) -> None:
        with store.watching():
            pid = os.fork()
            if not pid:
                time.sleep(30)
                os._exit(0)
            count(pid)
            time.sleep(30)

    life = begin(watch_and_fork)
    wait_until(lambda: life.count)
    assert life.kill()
    try:
        with store.watching():
            pass
    finally:
        os.kill(life.count, signal.SIGKILL)
