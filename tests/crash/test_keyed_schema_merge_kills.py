"""Kill a merge while it changes a keyed table and its history, and check that it changed neither."""

from __future__ import annotations

import os
import signal
from typing import Any
from unittest import mock

import pytest

import edgeshard
from edgeshard.master import database
from tests.support.forks import begin
from tests.support.forms import others_slow
from tests.support.keyed_schema_versions import NEW, OLD, agree
from tests.support.schema_versions import (
    merged,
    strike_at,
    write,
)


@pytest.mark.parametrize("statement", others_slow(range(0, 13, 2), [0, 6, 12]))
def test_a_merge_that_is_killed_as_it_changes_a_table_and_its_history_changes_neither(
    store: edgeshard.Store, statement: int
) -> None:
    write(store, "x", *(OLD(f"k{n % 500}", n) for n in range(1_500)))
    merged(store)
    write(store, "y", NEW("k0", 0.5))
    write(store, "z", OLD("k1", 7))

    def merge(_: Any) -> None:
        with mock.patch.object(database, "open_master", strike_at(statement)):
            store.merge()

    life = begin(merge)
    life.killed = True
    life.wait()
    assert signal.SIGKILL == os.WTERMSIG(life.status or 0)
    assert [(500, 1_000)] == store.query("SELECT count(a), (SELECT count(a) FROM sample_history) FROM sample")
    merged(store)
    agree(store)
    found = store.query("SELECT b FROM sample UNION ALL SELECT b FROM sample_history ORDER BY b")
    assert sorted([*map(float, range(1_500)), 0.5, 7.0]) == [value for (value,) in found]
    assert [(0.5,), (7.0,)] == store.query("SELECT b FROM sample WHERE k IN ('k0', 'k1') ORDER BY k")
