"""Locks that are taken at once, and those that are waited for, are the same locks."""

from __future__ import annotations

import os
from pathlib import Path
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
