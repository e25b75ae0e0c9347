"""Kill merges and writers while they change tables: no row is lost or duplicated."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import edgeshard
from edgeshard.errors import DiskFullError
from edgeshard.master import database
from tests.support import schema_versions
from tests.support.forks import begin
from tests.support.forms import others_slow
from tests.support.schema_versions import (
    CHANGES,
    column,
    kinds_of,
    merged,
    strike_at,
    version,
    write,
)


@pytest.mark.parametrize("statement", others_slow(range(10), [4]))
def test_a_merge_that_is_killed_in_a_widening_loses_and_doubles_nothing(store: edgeshard.Store, statement: int) -> None:
    write(store, "x", *(version(a=int, w=int, index=("a",))(n, n) for n in range(1_000)))
    merged(store)
    write(store, "y", version(b=float, renamed={"a": "b"}, index=("b",))(0.5))
    write(store, "z", version(a=int)(7))

    def merge(_: Any) -> None:
        with mock.patch.object(database, "open_master", strike_at(statement)):
            store.merge()

    life = begin(merge)
    life.killed = True
    life.wait()
    assert signal.SIGKILL == os.WTERMSIG(life.status or 0)
    assert [(0, 0), (1, 1)] == store.query("select a, w from sample order by a limit 2")  # as it was
    merged(store)
    assert {"b": "real", "w": "integer"} == kinds_of(store)
    assert sorted([*map(float, range(1_000)), 0.5, 7.0]) == sorted(column(store, "b"))
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("statement", others_slow(range(6), [3]))
def test_a_writer_that_is_killed_as_it_widens_its_shard_loses_nothing(store: edgeshard.Store, statement: int) -> None:
    write(store, "x", *(version(v=int)(n) for n in range(1_000)))

    def widen(_: Any) -> None:
        left = [statement]

        def strike(cursor: Any, text: str, bindings: Any) -> bool:
            if text.startswith((*CHANGES, "INSERT INTO")):
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return True

        with store.shard("x") as shard:
            shard._connection.set_exec_trace(strike)
            shard._execute = shard._connection.cursor().execute
            shard.write(version(v=float)(0.5))

    life = begin(widen)
    life.killed = True
    life.wait()
    assert signal.SIGKILL == os.WTERMSIG(life.status or 0)
    write(store, "x", version(v=float)(1.5))
    merged(store)
    assert [*map(float, range(1_000)), 1.5] == column(store, "v")


@pytest.mark.slow
def test_a_full_disk_in_a_widening_leaves_the_master_as_it_was(store: edgeshard.Store) -> None:
    write(store, "x", *(version(v=int, w=str)(n, "w" * 100) for n in range(3_000)))
    merged(store)
    write(store, "y", version(v=float)(0.5))

    def full(path: Path, *, writable: bool) -> Any:
        connection = schema_versions.OPEN_MASTER(path, writable=writable)
        connection.pragma("max_page_count", connection.pragma("page_count") + 8)
        return connection

    with mock.patch.object(database, "open_master", full), pytest.raises(DiskFullError):
        store.merge()
    assert {"v": "integer", "w": "text"} == kinds_of(store)
    merged(store)
    assert [*map(float, range(3_000)), 0.5] == column(store, "v")
