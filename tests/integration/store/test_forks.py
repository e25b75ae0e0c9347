"""What a child does with a store that its parent had open at the fork: it must lock what it opens, and lose no row."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.errors import ShardForkedError, StorageError
from edgeshard.files import paths
from edgeshard.master import database
from edgeshard.sqlite import forks
from tests.support.forms import others_slow
from tests.support.processes import command, python
from tests.support.stores import numbers, shard_path

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]

#: After this a process that waits for a lock is killed, in seconds.
PATIENCE_S = 30


@attrs.define
class Child:
    """A forked process.

    Attributes:
        pid: the process.
        gate: the end of a pipe that the child waits for.
    """

    pid: int
    gate: int

    def go_on(self) -> None:
        """Let the child go on after `wait_for_parent`."""
        os.write(self.gate, b"x")

    def succeeds(self) -> None:
        """Wait for its end."""
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.gate)
        assert 0 == os.waitstatus_to_exitcode(status)


def fork(work: Callable[[Callable[[], object]], object]) -> Child:
    """Fork a process that does this work, which is given a function that waits until the parent calls `go_on`."""
    ours, gate = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ours)
        return Child(pid, gate)
    try:
        signal.alarm(PATIENCE_S)
        work(lambda: os.read(ours, 1))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(70)


def own_locks(path: str | Path) -> int:
    """Return how many POSIX locks this process holds on a file."""
    inode, pid = str(os.stat(path).st_ino), str(os.getpid())
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " -> " not in line]
    return sum(fields[1] == "POSIX" and fields[4] == pid and fields[5].split(":")[2] == inode for fields in lines)


needs_proc_locks = pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="the system does not list its locks")


def merge_outside(store: edgeshard.Store) -> None:
    done = command("merge", store.root)
    assert 0 == done.returncode, done.stderr


# -- what was lost ----------------------------------------------------------------------------------------------------


@needs_proc_locks
def test_a_child_that_opens_the_shard_of_its_parent_holds_locks_and_loses_no_row(store: edgeshard.Store) -> None:
    def daemon(wait_for_parent: Callable[[], object]) -> None:
        wait_for_parent()
        with store.shard("agent", durability="power") as own:
            own.write({"n": 2})
            assert own_locks(shard_path(store, "agent"))
            merge_outside(store)  # removed the WAL under a child that held no lock
            assert os.path.exists(paths.wal(str(shard_path(store, "agent"))))
            own.write({"n": 3})

    shard = store.shard("agent")
    shard.write({"n": 1})
    child = fork(daemon)
    shard.close()
    child.go_on()
    child.succeeds()
    merge_outside(store)
    assert [1, 2, 3] == numbers(store)
    assert store.verify(deep=True).ok


@needs_proc_locks
def test_a_child_that_is_forked_while_its_parent_watches_holds_locks_on_the_master(store: edgeshard.Store) -> None:
    def read(wait_for_parent: Callable[[], object]) -> None:
        wait_for_parent()
        master = database.open_master(store.master_path, writable=True)
        with sqlite.read_snapshot(master):
            sqlite.scalar(master, "SELECT count(*) FROM agent_data")
            assert own_locks(store.master_path)
            merge_outside(store)
            assert os.path.exists(paths.wal(str(store.master_path)))
        master.close()
        with store.shard("own") as own:
            own.write({"n": 2})
        store.merge()

    with store.shard("agent") as shard:
        shard.write({"n": 1})
    with store.watching(rescan=60.0):
        child = fork(read)
        before = own_locks(store.master_path)
    assert before
    child.go_on()
    child.succeeds()
    merge_outside(store)
    assert [1, 2] == numbers(store)
    assert store.verify(deep=True).ok


# -- what the parent has open, whether it is in use, and what the child does ------------------------------------------


def write(store: edgeshard.Store, *, is_in_use: bool) -> None:
    """Open the shard of the parent, which has closed it, and write; refused if it was in use at the fork."""
    if is_in_use:
        with pytest.raises(ShardForkedError, match="at the moment of the fork"):
            store.shard("agent", wait=5.0)
    with store.shard("other" if is_in_use else "agent", wait=5.0, durability="power") as shard:
        shard.write({"n": 10})
        merge_outside(store)
        shard.write({"n": 11})


def merge(store: edgeshard.Store, *, is_in_use: bool) -> None:
    """Merge what the parent has left, except a shard that was in use at the fork."""
    with store.shard("other") as shard:
        shard.write({"n": 10})
    report = store.merge(lock_wait=5.0)
    if is_in_use:
        (quarantined,) = report.quarantined
        assert "at the moment of the fork" in quarantined.reason
    else:
        assert not report.quarantined
    with store.shard("other") as shard:
        shard.write({"n": 11})


def fork_again(store: edgeshard.Store, *, is_in_use: bool) -> None:
    """Have a child of its own do that, which inherits the same."""
    fork(lambda _: write(store, is_in_use=is_in_use)).succeeds()


def fork_again_later(store: edgeshard.Store, *, is_in_use: bool) -> None:
    """Write, and have a child of its own do that after another fork with a shard open."""
    with store.shard("third") as third:
        third.write({"n": 12})
        fork(lambda _: write(store, is_in_use=is_in_use)).succeeds()
        third.write({"n": 13})


def begin_program(store: edgeshard.Store, *, is_in_use: bool) -> None:
    """Begin another program, which inherits nothing."""
    assert isinstance(is_in_use, bool)
    code = (
        "import sys, edgeshard\nwith edgeshard.Store(sys.argv[1]).shard('agent', wait=5.0) as shard:\n"
        "    shard.write_many([{'n': 10}, {'n': 11}])"
    )
    done = python(code, store.root)
    assert 0 == done.returncode, done.stderr


def when_told(
    does: Callable[..., None], store: edgeshard.Store, *, is_in_use: bool
) -> Callable[[Callable[[], object]], None]:
    """Return one of these as the work of a child that first waits for its parent."""

    def work(wait_for_parent: Callable[[], object]) -> None:
        wait_for_parent()
        does(store, is_in_use=is_in_use)

    return work


@contextlib.contextmanager
def draft(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    with store.shard("agent") as shard:
        yield shard


@contextlib.contextmanager
def written(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        yield shard


@contextlib.contextmanager
def emptied(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    """A shard whose rows are all merged, opened again: its WAL is empty, or there is none."""
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    with store.shard("agent") as shard:
        yield shard


@contextlib.contextmanager
def limited(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    limited_store = edgeshard.Store(store.root, max_bytes="100MB")
    with limited_store.shard("agent") as shard:
        shard.write({"n": 1})
        yield shard


@contextlib.contextmanager
def watched(store: edgeshard.Store) -> Iterator[edgeshard.Shard]:
    with store.shard("agent") as shard:  # closed last, or the watcher would remove it
        shard.write({"n": 1})
        with store.watching(rescan=60.0):
            yield shard


@pytest.mark.parametrize("does", others_slow([write, merge, fork_again, fork_again_later, begin_program], [write]))
@pytest.mark.parametrize("is_in_use", [False, True], ids=["idle", "in a transaction"])
@pytest.mark.parametrize("opens", others_slow([draft, written, emptied, limited, watched], [written, watched]))
def test_each_acknowledged_row_is_in_the_store_once(
    store: edgeshard.Store,
    opens: Callable[[edgeshard.Store], contextlib.AbstractContextManager[edgeshard.Shard]],
    does: Callable[..., None],
    *,
    is_in_use: bool,
) -> None:
    work = when_told(does, store, is_in_use=is_in_use)
    with opens(store) as shard:
        if is_in_use:
            with shard.transaction():
                shard.write({"n": 2})
                child = fork(work)
                shard.write({"n": 3})
        else:
            child = fork(work)
            shard.write_many([{"n": 2}, {"n": 3}])
        shard.write({"n": 4})
        merge_outside(store)
        shard.write({"n": 5})
    child.go_on()
    child.succeeds()
    store.merge()
    expected = {1, 2, 3, 4, 5, 10, 11} - ({1} if opens is draft else set())
    assert sorted(expected | ({12, 13} if does is fork_again_later else set())) == numbers(store)
    assert store.verify(deep=True).ok


@needs_proc_locks
@pytest.mark.parametrize("is_in_use", [False, True], ids=["idle", "in a transaction"])
def test_the_parent_goes_on_while_its_child_merges(store: edgeshard.Store, *, is_in_use: bool) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        path = shard_path(store, "agent")
        with shard.transaction() if is_in_use else contextlib.nullcontext():
            shard.write({"n": 2})
            before = own_locks(path)
            child = fork(lambda _: [store.merge(lock_wait=5.0) for _ in range(3)])
            child.succeeds()
            assert before == own_locks(path) > 0
            shard.write({"n": 3})
        merge_outside(store)
        shard.write({"n": 4})
    merge_outside(store)
    assert [1, 2, 3, 4] == numbers(store)
    assert store.verify(deep=True).ok


def test_a_reference_that_the_parent_has_open_can_be_opened(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
    store.merge()
    with store.shard("agent", reference={"master": store.master_path}) as shard:

        def look_up(_: object) -> None:
            with store.shard("own", reference={"master": store.master_path}) as own:
                assert 1 == len(own.lookup("SELECT * FROM master.agent_data"))
            store.merge()

        fork(look_up).succeeds()
        shard.write({"n": 2})
    merge_outside(store)
    assert [1, 2] == numbers(store)


def test_a_child_that_ends_like_any_program_undoes_no_transaction_of_its_parent(store: edgeshard.Store) -> None:
    code = """
import os, sys
import edgeshard
store = edgeshard.Store(sys.argv[1])
idle, shard = store.shard("idle"), store.shard("agent")
idle.write({"n": 0})
shard.write({"n": 1})
with shard.transaction():
    for n in range(2, 3000):
        shard.write({"n": n, "text": "x" * 2000})  # more than SQLite keeps in memory
    child = os.fork()
    if not child:
        sys.exit(0)  # frees all objects
    assert os.waitpid(child, 0)[1] == 0
    shard.write({"n": 3000})
idle.close()
shard.close()
"""
    done = python(code, store.root)
    assert 0 == done.returncode, done.stderr
    merge_outside(store)
    assert list(range(3001)) == numbers(store)
    assert store.verify(deep=True).ok


# -- other threads ----------------------------------------------------------------------------------------------------


def test_a_fork_waits_for_a_short_use_by_another_thread(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "_LONGEST_WAIT_S", PATIENCE_S)
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        entered, leave = threading.Event(), threading.Event()

        def transact() -> None:
            with shard.transaction():
                shard.write({"n": 1})
                entered.set()
                leave.wait(0.03)

        thread = threading.Thread(target=transact)
        thread.start()
        assert entered.wait(PATIENCE_S)
        child = fork(when_told(write, store, is_in_use=False))
        leave.set()
        thread.join()
    child.go_on()
    child.succeeds()
    merge_outside(store)
    assert [0, 1, 10, 11] == numbers(store)


def test_a_fork_does_not_wait_long_for_another_thread(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        entered, leave = threading.Event(), threading.Event()

        def transact() -> None:
            with shard.transaction():
                shard.write({"n": 1})
                entered.set()
                leave.wait(PATIENCE_S)

        thread = threading.Thread(target=transact)
        thread.start()
        assert entered.wait(PATIENCE_S)
        began = time.monotonic()
        child = fork(when_told(write, store, is_in_use=True))
        assert time.monotonic() - began < 20 * forks._LONGEST_WAIT_S
        leave.set()
        thread.join()
        shard.write({"n": 2})
    child.go_on()
    child.succeeds()
    merge_outside(store)
    assert [0, 1, 2, 10, 11] == numbers(store)


def test_forks_while_threads_write_query_and_merge_neither_hang_nor_lose_a_row(store: edgeshard.Store) -> None:
    def child(number: int) -> Callable[[object], None]:
        def work(_: object) -> None:
            with store.shard(f"worker-{number}") as own:
                own.write({"n": -number})
            with contextlib.suppress(StorageError):  # the master was in use at the fork
                store.query("SELECT count(*) FROM agent_data")

        return work

    written, stopping = [0], threading.Event()

    def add() -> None:
        while not stopping.is_set():
            shard.write({"n": written[-1] + 1})
            written.append(written[-1] + 1)

    def ask() -> None:
        while not stopping.is_set():
            store.query("SELECT count(*) FROM agent_data")
            time.sleep(0.001)

    with store.shard("agent") as shard:
        shard.write({"n": 0})
        with store.watching(interval=0.05):
            threads = [threading.Thread(target=work) for work in (add, ask)]
            for thread in threads:
                thread.start()
            try:
                for number in range(1, 11):
                    fork(child(number)).succeeds()
            finally:
                stopping.set()
                for thread in threads:
                    thread.join()
    merge_outside(store)
    assert [*range(-10, 0), *written] == numbers(store)
    assert store.verify(deep=True).ok
