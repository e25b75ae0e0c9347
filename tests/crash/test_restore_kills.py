"""Kill a restore, with real files, at its statements and its calls of the file system: the old or the new master stays."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import edgeshard
from edgeshard import sqlite
from tests.support.forks import Count, begin
from tests.support.forms import short_and_full
from tests.support.stores import contradictions, numbers

_CALLS = ("link", "rename", "unlink", "fsync")


def killed_restore(store: edgeshard.Store, snapshot: Path, number: int) -> bool:
    """Restore in another process, and kill it before its nth statement or call; return whether it was killed."""

    def work(_: Count) -> None:
        count = [0]

        def strike(*_: Any) -> bool:
            count[0] += 1
            if count[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return True

        def striking(call: Callable[..., Any]) -> Callable[..., Any]:
            def struck(*given: Any, **options: Any) -> Any:
                strike()
                return call(*given, **options)

            return struck

        def traced(*given: Any, **options: Any) -> Any:
            connection = real(*given, **options)
            connection.set_exec_trace(strike)
            return connection

        real = sqlite.connect
        with mock.patch.object(sqlite, "connect", traced), mock.patch("edgeshard.sqlite.take_over.connect", traced):
            patches = [mock.patch.object(os, name, striking(getattr(os, name))) for name in _CALLS]
            for patch in patches:
                patch.start()
            store.restore(snapshot)

    life = begin(work)
    life.killed = True  # it kills itself
    life.wait()
    return life.status == signal.SIGKILL


def begun(folder: Path) -> tuple[edgeshard.Store, Path]:
    """Create a store with a snapshot of row 1; rows 2 and 3 were merged after it, their shard removed, and 4 is pending."""
    store = edgeshard.Store(folder / "data")
    for n in (1, 2, 3):
        with store.shard("a") as shard:
            shard.write({"n": n})
        store.merge()
        if n == 1:
            store.snapshot(folder / "older.db")
    with store.shard("b") as shard:
        shard.write({"n": 4})
    return store, folder / "older.db"


@pytest.mark.parametrize("every", short_and_full(31, 1))
def test_a_killed_restore_leaves_the_old_or_the_new_master_and_can_be_repeated(every: int, tmp_path: Path) -> None:
    original, snapshot = begun(tmp_path / "original")
    outcomes: set[tuple[int, ...]] = set()
    number = every
    while True:
        root = tmp_path / f"copy{number}"
        shutil.copytree(original.root, root)
        store = edgeshard.Store(root)
        if not killed_restore(store, snapshot, number):
            break
        merged = store.merge()
        found = numbers(store)
        outcomes.add(tuple(found))
        assert found in ([1, 4], [1, 2, 3, 4]), number
        assert 4 == len(found) + merged.missing_rows
        assert ((), merged.gaps) == (contradictions(store.verify(deep=True)), store.verify().gaps)
        assert 1 == os.stat(store.master_path).st_nlink, "the master has a second name"
        report = store.restore(snapshot)
        assert [1] == numbers(store)
        assert not [name for name in os.listdir(root) if "edgeshard-" in name], "something is left"
        store.merge([report.replaced])
        assert set(found) <= set(numbers(store))
        number += every
    assert number > 4 * every
    assert (1, 2, 3, 4) in outcomes
    assert every > 1 or (1, 4) in outcomes
