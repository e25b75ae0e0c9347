"""Kill and interrupt prunes: whole steps stay, and the next prune continues."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.retention import pace, plan, shrink
from tests.support.forms import short_and_full
from tests.support.pruning import (
    account,
    killed_at,
)
from tests.support.records import NOON, Reading
from tests.support.stores import numbers


def check_kills(folder: Path, every: int, **asked: Any) -> int:
    """Kill a prune at every so many of its statements, each in the store that the one before left; how many kills."""
    store = edgeshard.Store(folder / "data")
    with store.shard("a") as shard:
        for n in range(0, 600, 3):
            shard.write_many([{"n": n, "text": "x" * 500}, Reading("a", 0.0, NOON), {"n": n + 2, "text": "x" * 500}])
    store.merge()
    store.snapshot(folder / "whole.db")
    number = kills = 0
    while True:
        shutil.copyfile(folder / "whole.db", store.master_path)
        for suffix in ("-wal", "-shm"):
            Path(f"{store.master_path}{suffix}").unlink(missing_ok=True)
        number += every
        if not killed_at(store, number, **asked):
            break
        kills += 1
        rows, gone, held = account(store)
        assert (600, 600, 0) == (rows + gone, held, store.merge().rows)
        left = numbers(store)
        assert left == sorted(set(left))
        assert len(left) == 2 * len(list(store.read(Reading))), "a part of a transaction is gone"
        store.prune(**asked)
        assert (99, 501, 600) == account(store)
        assert [n for n in range(501, 600) if n % 3 != 1] == numbers(store)
    return kills


@pytest.mark.parametrize(("every", "kills"), short_and_full((31, 9), (5, 60)))
def test_a_prune_that_is_killed_left_steps_whole_and_the_next_goes_on(
    every: int, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FIRST_ROWS", 60)
    monkeypatch.setattr(plan, "next_size", lambda *_: 60)
    monkeypatch.setattr(pace, "PAUSE_S", 0.0)
    assert kills < check_kills(tmp_path, every, keep_rows=99)


@pytest.mark.slow
@pytest.mark.parametrize(("every", "kills"), short_and_full((23, 10), (4, 60)))
def test_a_disk_that_is_given_back_survives_kills(
    every: int, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "next_size", lambda *_: 5)
    monkeypatch.setattr(shrink, "FIRST_PAGES", 5)
    monkeypatch.setattr(pace, "PAUSE_S", 0.0)
    assert kills < check_kills(tmp_path, every, keep_rows=99, shrink=True)
    done = edgeshard.Store(tmp_path / "data").prune(shrink=True)
    assert (0, True) == (done.free_bytes, edgeshard.Store(tmp_path / "data").verify(deep=True).ok)
