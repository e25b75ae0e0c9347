"""Merge shards damaged at random: a short form of the campaign `damage`, and trials in which it once found a fault."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

import edgeshard
from tests.support.damaged_shards import FAULTS, Campaign, play
from tests.support.stores import numbers, shard_path


def test_no_damaged_shard_harms_the_merge_of_another_or_brings_what_was_never_written() -> None:
    trials = [*play(seed=1, numbers=[*range(60)])]
    assert [] == [trial for trial in trials if trial.outcome in FAULTS]
    outcomes = Counter(trial.outcome for trial in trials)
    assert 60 == outcomes.total()
    # damage that is always harmless, or always found at once, would test little
    assert outcomes["no row"] > 15
    assert outcomes["all rows"] > 5


# rows out of the order of their ids; an id that two tables have
@pytest.mark.parametrize("number", [107, 321, 471, 655, 7694])
def test_rows_whose_ids_are_damaged_get_no_false_addresses(tmp_path: Path, number: int) -> None:
    trial = Campaign(1, tmp_path).play(number)
    assert trial.outcome not in FAULTS, trial


def test_damage_that_shows_only_while_rows_are_copied_stops_no_other_shard(store: edgeshard.Store) -> None:
    for agent in ("a", "bad", "good"):
        with store.shard(agent) as shard:
            shard.write_many({"n": n, "agent": agent} for n in range(300))
    path = shard_path(store, "bad")
    pages = os.path.getsize(path) // 1024
    with open(path, "r+b") as file:
        file.seek((pages - 5) * 1024)
        file.write(b"\xff" * 1024)

    for _ in range(2):
        ((aside, reason),) = [(item.path, item.reason) for item in store.merge().quarantined]
        assert str(path) == aside
        assert "damaged" in reason
    assert [n for n in range(300) for _ in range(2)] == numbers(store)
    assert () == store.verify().errors
