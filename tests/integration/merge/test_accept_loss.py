"""A loss that a user accepts is recorded, is shown separately, and stops nothing that arrives later all the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, MergeInProgressError
from edgeshard.merge import locks
from edgeshard.reports import RowStates
from tests.support.hostile_shards import edit
from tests.support.processes import command
from tests.support.stores import new_store, numbers, shard_path


@pytest.fixture
def gap(store: edgeshard.Store, tmp_path: Path) -> tuple[edgeshard.Store, str]:
    """Return a hub that lacks rows 1 to 6 of a stream, which the store's master has, and the stream's id."""
    hub = new_store(tmp_path / "hub")
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(6))
        store.merge()
        shard.write_many({"n": n} for n in range(6, 8))
        hub.merge([shard_path(store, "a")])
        return hub, shard.stream


def test_an_accepted_gap_is_shown_separately_and_no_merge_reports_it(gap: tuple[edgeshard.Store, str]) -> None:
    hub, stream = gap
    assert (3, 3) == (command("verify", hub.root).returncode, command("merge", hub.root).returncode)
    report = hub.accept_loss(agent="a", why="its SD card broke")
    assert (6, [(1, 6)]) == (report.rows, [(each.first, each.last) for each in report.gaps])
    found, status, merged = hub.verify(), hub.status(), hub.merge()
    assert (True, (), RowStates(present=2, written_off=6)) == (found.ok, found.gaps, found.states)
    assert [("its SD card broke", stream, 6)] == [(each.why, each.gap.stream, len(each.gap)) for each in found.accepted]
    assert (True, 6, True, 0) == (status.complete, status.states.written_off, merged.complete, merged.missing_rows)
    assert (0, 0, 0) == tuple(command(verb, hub.root).returncode for verb in ("verify", "merge", "status"))
    assert "written off on 2" in command("verify", hub.root).stdout
    assert 0 == hub.accept_loss(why="again").rows


def test_rows_that_arrive_later_all_the_same_are_merged_and_their_record_goes(
    gap: tuple[edgeshard.Store, str], store: edgeshard.Store
) -> None:
    hub, stream = gap
    assert [(2, 4)] == [
        (each.first, each.last) for each in hub.accept_loss(stream=stream[:8], seqs="2-4", why="x").gaps
    ]
    assert RowStates(present=2, written_off=3, missing=3) == hub.verify().states
    assert (3, False) == (hub.merge().missing_rows, hub.merge().complete)
    assert 6 == hub.merge([store.master_path]).rows
    assert (list(range(8)), RowStates(present=8), ()) == (numbers(hub), hub.verify().states, hub.verify().accepted)


def test_rows_deleted_by_hand_can_be_accepted_before_a_merge_recorded_them(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(5))
        shutil.copy(shard.path, tmp_path / "copy.db")
        shutil.copy(f"{shard.path}-wal", tmp_path / "copy.db-wal")
    store.merge()
    edit(store.master_path, "delete from agent_data where _id in (2, 3)")
    assert (2, RowStates(present=5)) == (store.accept_loss(why="x", dry_run=True).rows, store.status().states)
    assert 2 == store.accept_loss(why="at the customer's request").rows
    assert (True, RowStates(present=3, written_off=2), ()) == (
        (found := store.verify()).ok,
        found.states,
        found.by_hand,
    )
    store.merge([tmp_path / "copy.db"])
    assert [0, 3, 4] == numbers(store)


def test_a_watcher_notices_that_a_loss_was_accepted(gap: tuple[edgeshard.Store, str]) -> None:
    hub, _ = gap
    watcher = hub.watcher()
    watcher.open()
    try:
        assert 6 == watcher._merger.run().missing_rows
        hub.accept_loss(why="x")
        assert 0 == watcher._merger.run().missing_rows
    finally:
        watcher.close()


@pytest.mark.parametrize(
    ("asked", "cause"),
    [
        ({"agent": "b"}, "no row of an agent 'b' is known"),
        ({"stream": "00000000"}, "0 known streams have an id that begins with"),
        ({"stream": "0"}, "give 6 digits or more"),
        ({"seqs": "3-1"}, "seqs must be like 73-82"),
        ({"seqs": "0"}, "seqs must be like 73-82"),
        ({"seqs": "1-2-3"}, "seqs must be like 73-82"),
        ({"seqs": (1, 1 << 40)}, "seqs must be like 73-82"),
        ({"why": " "}, "why must be a text"),
    ],
)
def test_what_cannot_be_meant_is_refused(gap: tuple[edgeshard.Store, str], asked: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigurationError, match=cause):
        gap[0].accept_loss(**({"why": "x", **asked}))
    assert 6 == gap[0].verify().states.missing


def test_it_waits_for_the_lock_of_mergers(gap: tuple[edgeshard.Store, str]) -> None:
    hub, _ = gap
    held = locks.merge_lock(hub.root, 0, lambda: False)
    assert held is not None
    with pytest.raises(MergeInProgressError):
        hub.accept_loss(why="x", lock_wait=0)
    held.release()
    done = command("accept-loss", hub.root, "--why", "x", "--dry-run")
    assert (0, "would accept the loss of 6 rows in 1 run") == (done.returncode, done.stdout.splitlines()[0])
    done = command("accept-loss", hub.root, "--why", "x", "--json")
    assert (0, True, 78) == (
        done.returncode,
        '"rows": 6' in done.stdout,
        command("accept-loss", hub.root, "--why", "x", "--agent", "nosuch").returncode,
    )
