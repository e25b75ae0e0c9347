"""What verify and status count of the rows of a store, and what they say after an older master was put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import edgeshard
from edgeshard.reports import RowStates
from tests.support.last_known import LastKnown
from tests.support.processes import command
from tests.support.pruning import add
from tests.support.stores import new_store, numbers, shard_path


@pytest.fixture
def hub(tmp_path: Path) -> edgeshard.Store:
    """Return a store elsewhere, of which there is nothing yet."""
    return new_store(tmp_path / "hub")


def put_back(store: edgeshard.Store, copy: Path) -> None:
    for path in store.root.glob("master.db*"):
        path.unlink()
    shutil.copy(copy, store.master_path)


def pruned_and_put_back(store: edgeshard.Store, folder: Path) -> None:
    """Prune 20 of 30 rows, and put an older copy of the master back, which had 10 of them."""
    add(store, "a", *range(10))
    store.snapshot(folder / "old.db")
    add(store, "a", *range(10, 20))
    add(store, "a", *range(20, 30))
    store.prune(keep_rows=10)
    store.snapshot(folder / "new.db")
    store.export(folder / "bundle.db")
    new_store(folder / "hub").merge([folder / "new.db"])
    put_back(store, folder / "old.db")


@pytest.mark.parametrize("source", ["new.db", "bundle.db", "hub/master.db"])
def test_rows_that_a_newer_copy_of_the_master_pruned_count_as_pruned(
    source: str, store: edgeshard.Store, tmp_path: Path
) -> None:
    pruned_and_put_back(store, tmp_path)
    report = store.merge([tmp_path / source])
    assert (10, (), True) == (report.rows, report.gaps, report.complete)
    verified = store.verify()
    assert (True, {"keep rows": 10}, ()) == (verified.ok, verified.pruned, verified.losses)
    assert RowStates(present=20, pruned=10) == verified.states == store.status().states
    assert 0 == command("verify", store.root).returncode
    assert 0 == store.merge([tmp_path / source]).rows
    assert verified.states == store.verify().states


def test_rows_that_a_newer_copy_pruned_are_still_missing_elsewhere(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    pruned_and_put_back(store, tmp_path)
    store.merge([tmp_path / "new.db"])
    other = new_store(tmp_path / "other")
    other.merge([store.master_path])
    verified = other.verify()
    assert (RowStates(present=20, missing=10), {"pruned"}) == (
        verified.states,
        {loss.cause for loss in verified.losses},
    )


def test_what_a_newer_copy_pruned_is_copied_from_whoever_has_it_and_pruned_again(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    store.init()
    store.snapshot(tmp_path / "old.db")
    with store.shard("a") as shard:
        for n in range(10):
            shard.write({"n": n})
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard.path}{suffix}", f"{tmp_path / 'shard.db'}{suffix}")
    store.merge()
    store.prune(keep_rows=0)
    store.snapshot(tmp_path / "new.db")
    put_back(store, tmp_path / "old.db")
    store.merge([tmp_path / "new.db"])
    assert RowStates(pruned=10) == store.verify().states
    assert 10 == store.merge([tmp_path / "shard.db"]).rows  # what is said of rows keeps none from being copied
    assert ([*range(10)], RowStates(present=10)) == (numbers(store), store.verify().states)
    assert 10 == store.prune(keep_rows=0).rows
    verified = store.verify()
    assert (RowStates(pruned=10), {"keep rows": 10}, ()) == (verified.states, verified.pruned, verified.errors)
    other = new_store(tmp_path / "other")
    assert () == other.merge([store.master_path]).quarantined
    assert {"pruned"} == {loss.cause for loss in other.verify().losses}


def test_each_row_is_in_one_state(store: edgeshard.Store, hub: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(6):
            shard.write({"n": n})
        store.merge()
        shard.write({"n": 6})
        hub.merge([shard_path(store, "a")])  # it misses what went to the store's master
        store.prune(keep_rows=2)
        shard.write(LastKnown("inlet", 1.0))
        shard.write(LastKnown("inlet", 2.0))
        store.merge()
        shard.write({"n": 7})
        assert RowStates(present=4, superseded=1, pruned=4, pending=1) == store.status().states
    assert RowStates(present=1, missing=6) == hub.verify().states
    assert RowStates(present=4, superseded=1, pruned=4) == store.verify().states
    found = store.status()
    assert (4, 4, 1, 0) == (
        found.master.rows,
        found.master.pruned_rows,
        found.master.superseded_rows,
        found.master.missing_rows,
    )
    assert 10 == found.states.total == found.as_dict()["states"]["total"]
    text = command("status", store.root).stdout
    assert "4 rows of 1 agent in 1 stream, besides 4 pruned, 1 superseded" in text


def test_a_row_that_is_pending_in_two_copies_of_a_shard_counts_once(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 1})
    shutil.copy(shard.path, shard_path(store, "copy"))
    found = store.status()
    assert (1, [1, 1], RowStates(pending=1)) == (
        found.pending_rows,
        [item.pending_rows for item in found.shards],
        found.states,
    )


def test_a_row_in_a_gap_that_a_shard_has_is_pending_and_not_missing(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 0})
        shutil.copy(shard.path, tmp_path / "copy.db")
        shutil.copy(f"{shard.path}-wal", tmp_path / "copy.db-wal")
        store.merge()
        shard.write({"n": 1})
        hub.merge([shard_path(store, "a")])  # the row before is missing there
    assert RowStates(present=1, missing=1) == hub.verify().states
    for suffix in ("", "-wal"):
        shutil.copy(f"{tmp_path / 'copy.db'}{suffix}", f"{shard_path(hub, 'a')}{suffix}")
    found = hub.status()
    assert (RowStates(present=1, pending=1), (), 0, True) == (
        found.states,
        found.gaps,
        found.master.missing_rows,
        found.complete,
    )


def test_rows_that_are_truncated_in_turns_count_once(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", max_bytes="5MB")  # so little that the shard is truncated in turns
    with store.shard("a") as shard:
        for n in range(1_000):
            shard.write({"n": n, "text": "x" * 2_000})
    report = store.merge()
    assert (1_000, 1_000, 1) == (report.rows, report.truncated, report.removed)
