"""Which process a refused opening of a shard names, and that it never names a wrong one."""

from __future__ import annotations

import contextlib
import datetime
import mmap
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import ShardInUseError, StorageBusyError
from edgeshard.files import lock_holder, locks
from tests.support.forks import Count, Life, begin

NOTE = lock_holder.NOTE_AT


def lock_of(store: edgeshard.Store) -> Path:
    return store.root / "shards" / "agent.lock"


def refused(store: edgeshard.Store, wait: float = 0.0) -> ShardInUseError:
    with pytest.raises(ShardInUseError) as found:
        store.shard("agent", wait=wait)
    return found.value


@contextlib.contextmanager
def opened_elsewhere(store: edgeshard.Store) -> Iterator[Life]:
    """Have another process hold the shard of "agent" until the block ends, or it is killed."""

    def hold(count: Count) -> None:
        with store.shard("agent"):
            count(1)
            time.sleep(60)

    life = begin(hold)
    try:
        while not life.count:
            assert life.is_alive()
            time.sleep(0.005)
        yield life
    finally:
        if life.status is None:
            life.kill()


def set_note(store: edgeshard.Store, **changes: object) -> None:
    """Change fields of the note in the lock file."""
    content = lock_of(store).read_bytes()
    names = ("role", "pid", "namespace", "started", "began_us", "boot_id")
    fields = dict(zip(names, content[NOTE:].decode().split(), strict=True)) | changes
    note = " ".join(map(str, fields.values())).ljust(127).encode() + b"\n"
    lock_of(store).write_bytes(content[:NOTE] + note)


def test_the_error_names_this_process(store: edgeshard.Store) -> None:
    before = datetime.datetime.now(datetime.UTC)
    with store.shard("agent"):
        error = refused(store)
    assert error.pid == os.getpid()
    assert error.since is not None
    assert abs(error.since - before) < datetime.timedelta(seconds=10)
    assert "agent 'agent' is open in this process since" in str(error)
    assert 'store.shard(f"worker-{os.getpid()}")' in str(error)
    assert "README" in str(error)
    assert "--" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (again.pid, again.since, str(again)) == (error.pid, error.since, str(error))


def test_the_error_names_the_other_process_and_its_program(store: edgeshard.Store) -> None:
    with opened_elsewhere(store) as life:
        error = refused(store)
        assert error.pid == life.pid
        assert f"process {life.pid}" in str(error)
        if Path("/proc/self/cmdline").exists():
            assert "python" in str(error) or "pytest" in str(error)
    store.shard("agent").close()


@pytest.mark.slow
def test_the_program_is_named_without_its_arguments(store: edgeshard.Store, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import edgeshard, sys\nshard = edgeshard.Store(sys.argv[1]).shard('agent')\nprint(1, flush=True)\ninput()"
    )
    command = [sys.executable, "-W", "error", str(script), str(store.root), "--password=secret"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        error = refused(store)
        worker.kill()
    assert f"process {worker.pid} (" in str(error)
    assert "worker.py)" in str(error)
    assert "secret" not in str(error)


def test_a_note_that_a_killed_process_left_names_nobody(store: edgeshard.Store) -> None:
    with opened_elsewhere(store) as life:
        life.kill()
    assert str(life.pid).encode() in lock_of(store).read_bytes(), "the note is still there"
    held = locks.lock(lock_of(store))  # as a process does that could not write a note of its own
    assert held is not None
    try:
        error = refused(store)
    finally:
        held.release()
    assert error.pid is None
    assert error.since is None
    assert "in this process or another" in str(error)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists the locks")
def test_a_process_that_runs_but_does_not_have_the_lock_is_not_named(store: edgeshard.Store) -> None:
    with opened_elsewhere(store):
        lock_holder.leave_note(lock_of(store), "agent")  # as this process would have left it, had it not removed it
        assert refused(store).pid is None


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": os.getppid()},  # it runs, and never had the lock
        {"started": 1},  # the number was given to another process since
        {"boot_id": "00000000-0000-0000-0000-000000000000"},
        {"began_us": 10**19},
        {"pid": 2**31},
        {"role": "somebody"},
    ],
)
def test_a_note_that_cannot_be_right_is_not_believed(store: edgeshard.Store, changes: dict[str, object]) -> None:
    with store.shard("agent"):
        set_note(store, **changes)
        assert refused(store).pid is None


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"\xff" * 300, b"agent 1"])
def test_a_lock_file_with_something_else_is_no_hindrance(store: edgeshard.Store, content: bytes) -> None:
    with store.shard("agent"):
        lock_of(store).write_bytes(content)
        assert refused(store).pid is None
    lock_of(store).write_bytes(content)
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        assert refused(store).pid == os.getpid()


def test_the_number_of_a_process_in_another_container_is_only_a_number(store: edgeshard.Store) -> None:
    with store.shard("agent"):
        set_note(store, namespace=1, pid=17)
        error = refused(store)
    assert error.pid is None
    assert error.since is not None
    assert "another container, where its number is 17" in str(error)


def test_a_closed_shard_leaves_no_note(store: edgeshard.Store) -> None:
    store.shard("agent").close()
    assert not lock_of(store).read_bytes()[NOTE:].strip()


def test_a_handle_that_lost_its_lock_does_not_remove_the_note_of_its_successor(store: edgeshard.Store) -> None:
    first = store.shard("agent")
    lock_of(store).unlink()
    with store.shard("agent"):
        first.close()
        assert refused(store).pid == os.getpid()


@pytest.mark.parametrize(("role", "text"), [("merge", "a merge is removing"), ("salvage", "is being salvaged by")])
def test_others_than_an_agent_are_named_as_what_they_are(
    store: edgeshard.Store, role: lock_holder.Role, text: str
) -> None:
    store.shard("agent").close()
    held = locks.lock(lock_of(store))
    assert held is not None
    try:
        lock_holder.leave_note(lock_of(store), role)
        assert text in str(refused(store))
    finally:
        held.release()


def test_a_salvage_says_who_has_the_shard_open(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        shard.write({"n": 1})
        with pytest.raises(StorageBusyError, match="open in this process"):
            store.salvage(shard.path)


def test_an_opening_waits_as_long_as_it_is_told_to(store: edgeshard.Store) -> None:
    shard = store.shard("agent")
    began = time.monotonic()
    refused(store, 0.05)
    assert 0.05 <= time.monotonic() - began < 0.4
    timer = threading.Timer(0.1, shard.close)
    timer.start()
    store.shard("agent", wait=10.0).close()
    timer.join()


@pytest.mark.parametrize("name", ["wait", "transaction_wait"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "2", None, True])
def test_a_time_to_wait_is_a_number_of_seconds(store: edgeshard.Store, name: str, value: object) -> None:
    with pytest.raises(edgeshard.ConfigurationError, match=f"{name} must be a number of seconds"):
        store.shard("agent", **{name: value})  # type: ignore[arg-type]


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent(store: edgeshard.Store) -> None:
    child = mmap.mmap(-1, 8)

    def hold(count: Count) -> None:
        with store.shard("agent"):
            pid = os.fork()
            if not pid:
                time.sleep(5)
                os._exit(0)
            child[:] = pid.to_bytes(8, "little")
            count(1)
            time.sleep(60)

    life = begin(hold)
    while not life.count:
        time.sleep(0.005)
    life.kill()
    try:
        store.shard("agent", wait=1.0).close()
    finally:
        os.kill(int.from_bytes(child[:], "little"), 9)
