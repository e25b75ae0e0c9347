"""Locks that are taken at once, and those that are waited for, are the same locks."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeshard.files import locks


def test_a_lock_taken_at_once_and_one_that_is_waited_for_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    handle = locks.lock_at_once(str(path))
    assert handle is not None
    assert locks.is_locked(path)
    assert (None, None) == (locks.lock(path), locks.lock_at_once(str(path)))
    locks.release(handle)
    held = locks.lock(path)
    assert held is not None
    assert locks.lock_at_once(str(path)) is None
    held.release()
    assert not locks.is_locked(path)


def test_a_lock_file_that_was_removed_before_it_was_locked_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    real = locks.lock_open_file

    def late(handle: int, name: Any) -> bool:
        path.unlink()  # by its last holder
        return real(handle, name)

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(locks, "lock_open_file", late)
    assert locks.lock_at_once(str(path)) is None
    assert before == len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("is_free_by_then", [False, True])
def test_a_wait_that_is_interrupted_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_free_by_then: bool
) -> None:
    """Otherwise nobody else would get the lock before this process ends."""
    path = tmp_path / "lock"
    path.touch()
    holder, waiting = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    assert locks.lock_open_file(holder, path)

    def end_wait() -> None:
        os.close(holder)
        for thread in threading.enumerate():
            if thread.name == "edgeshard-lock":
                thread.join()

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if is_free_by_then:
                end_wait()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(locks, "threading", SimpleNamespace(**{**vars(threading), "Event": Interrupted}))
        with pytest.raises(KeyboardInterrupt):
            locks.lock_in_turn(waiting, path, 10.0)
    if not is_free_by_then:
        end_wait()
    assert not locks.is_locked(path)
    os.close(waiting)
