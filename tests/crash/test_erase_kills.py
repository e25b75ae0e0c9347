"""Kill erasures: all of the rows are there, or the next merge erases all of them; no other row is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import pytest

import edgeshard
from edgeshard.retention import erase, erased_file
from tests.support.forms import short_and_full
from tests.support.pruning import killed_in
from tests.support.stores import contradictions, new_store, numbers

WHERE = "data ->> '$.n' % 3 = 0"

LEFT = [n for n in range(60) if n % 3]


def check_kills(folder: Path, every: int) -> tuple[int, int]:
    """Kill an erasure at every so many of its statements; return how many were killed before, and after, the list."""
    whole = new_store(folder / "whole")
    with whole.shard("a") as shard:
        for n in range(0, 40, 4):
            shard.write_many({"n": n} for n in range(n, n + 4))
    whole.merge()
    with whole.shard("a") as shard:  # these are pending
        shard.write_many({"n": n} for n in range(40, 60))
    number, kills = 0, [0, 0]
    while True:
        number += every
        store = edgeshard.Store(folder / f"data{number}")
        shutil.copytree(whole.root, store.root)
        if not killed_in(lambda store=store: store.erase("agent_data", WHERE), number):  # type: ignore[misc]
            assert LEFT == numbers(store)
            return kills[0], kills[1]
        is_listed = erased_file.number(store.root) > 0
        kills[is_listed] += 1
        store.merge()
        found = store.verify(deep=True)
        assert ((), 60) == (contradictions(found), found.states.total)
        assert (LEFT if is_listed else list(range(60))) == numbers(store)
        assert (len(LEFT) if is_listed else 60) == found.states.present
        store.erase("agent_data", WHERE)
        assert (LEFT, True) == (numbers(store), store.verify(deep=True).ok)
        shutil.rmtree(store.root)


@pytest.mark.parametrize("every", short_and_full(41, 3))
def test_an_erasure_that_is_killed_has_not_begun_or_is_completed_by_the_next_merge(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "STEP_ROWS", 5)
    before, after = check_kills(tmp_path, every)
    assert min(before, after) > 0, (before, after)


def test_a_list_that_cannot_be_written_erases_nothing(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(60))
    with mock.patch("os.rename", side_effect=OSError(28, "no space")), pytest.raises(edgeshard.errors.DiskFullError):
        store.erase("agent_data", WHERE)
    store.merge()
    assert (list(range(60)), 0) == (numbers(store), erased_file.number(store.root))
