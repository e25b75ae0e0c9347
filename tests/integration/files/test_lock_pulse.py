"""The ranges of bytes by which a watcher tells others when its last pass ended: real locks, other users, forks."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import time
from pathlib import Path

import pytest

from edgeshard.files import lock_pulse, locks
from edgeshard.files.lock_pulse import Pulse, last_beat
from tests.support.users import User, as_root, run_as


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "watch.lock"
    path.write_bytes(b"note")
    return path


def test_it_says_when_the_last_pass_ended_and_how_often_all_shards_are_checked(lock: Path) -> None:
    assert last_beat(lock) is None
    pulse = Pulse(lock, 2.5)
    time.sleep(0.05)
    first = last_beat(lock)
    assert first is not None
    assert (2.5, True) == (first.rescan_s, 0.04 < first.age_s)
    pulse.beat()
    second = last_beat(lock)
    assert second is not None
    assert (2.5, True) == (second.rescan_s, second.age_s < first.age_s)
    pulse.end()
    assert last_beat(lock) is None


def test_it_writes_nothing(lock: Path) -> None:
    before = lock.stat()
    pulse = Pulse(lock, 30.0)
    for _ in range(3):
        time.sleep(0.011)  # at least one unit of the ranges
        pulse.beat()
    assert before == lock.stat()
    pulse.end()


@pytest.mark.parametrize(("rescan_s", "told_s"), [(0.0001, 0.01), (86_400.0, 86_400.0), (3e8, 167_772.15)])
def test_any_interval_leaves_the_ranges_apart(lock: Path, rescan_s: float, told_s: float) -> None:
    pulse = Pulse(lock, rescan_s)
    time.sleep(0.011)
    pulse.beat()
    found = last_beat(lock)
    assert found is not None
    assert (told_s, True) == (found.rescan_s, found.age_s < 5)
    pulse.end()


def test_the_lock_file_itself_is_locked_and_released_as_without_it(lock: Path) -> None:
    held = locks.lock(lock)
    assert held is not None
    pulse = Pulse(lock, 1.0)
    assert locks.is_locked(lock)
    lock.read_bytes()  # closing another descriptor of the file drops no lock
    assert last_beat(lock) is not None
    held.release()
    assert not locks.is_locked(lock)
    assert last_beat(lock) is not None
    pulse.end()


def test_a_child_neither_ends_it_nor_outlives_it(lock: Path) -> None:
    pulse = Pulse(lock, 1.0)
    going, done = os.pipe()
    said, begun = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(done)
        os.write(begun, b".")
        os.read(going, 1)  # until the parent has ended the pulse
        os._exit(0)
    try:
        os.read(said, 1)
        assert last_beat(lock) is not None
        pulse.end()
        assert last_beat(lock) is None
    finally:
        for handle in (done, going, said, begun):
            os.close(handle)
        assert (pid, 0) == os.waitpid(pid, 0)


@as_root
def test_another_user_who_may_only_read_the_file_sees_it() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are root's alone
        os.chmod(folder, 0o711)
        lock = Path(folder) / "watch.lock"
        lock.touch()
        lock.chmod(0o644)
        pulse = Pulse(lock, 7.0)
        assert 7.0 == run_as(User(4711, 4711), lambda: getattr(last_beat(lock), "rescan_s", None))
        pulse.end()


def test_where_the_system_has_no_such_locks_nothing_is_known(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_pulse, "_SET", None)
    monkeypatch.setattr(lock_pulse, "_GET", None)
    pulse = Pulse(lock, 1.0)
    assert last_beat(lock) is None
    pulse.end()


def test_a_file_system_that_refuses_it_is_no_error(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    pulse = Pulse(lock, 1.0)
    assert last_beat(lock) is None
    pulse.beat()
    pulse.end()
