"""Rows are deleted from a shard only if they were copied from it or compared with it; no other claim counts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest

import edgeshard
from edgeshard.errors import DiskBudgetError
from edgeshard.files import scan
from edgeshard.merge.merger import Merger
from tests.support.claims import forged_rows, rows_in_shard, stream_of_shard, superseded_rows
from tests.support.last_known import LastKnown
from tests.support.last_known import values as last_values
from tests.support.processes import sql
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path


@edgeshard.table(key="sensor", history=True)
@attrs.frozen
class Remembered:
    sensor: str
    value: float


def interrupted(store: edgeshard.Store, **options: Any) -> None:
    """Merge, and be killed after the commit and before the truncation."""
    with (
        mock.patch.object(Merger, "_truncate_or_remove", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        store.merge(**options)


def merge_without_shards(store: edgeshard.Store, *sources: Path) -> edgeshard.MergeReport:
    """Merge other databases before the store's own shards."""
    with mock.patch.object(Merger, "_due", return_value=[]):
        return store.merge(sources)


def reasons(store: edgeshard.Store) -> list[str]:
    return [item.reason for item in store.merge().quarantined]


# -- claims of others -------------------------------------------------------------------------------------------------


def test_forged_rows_that_were_pruned_delete_no_row_of_the_agent(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("victim") as shard:
        shard.write_many({"n": n} for n in range(5))
        forged = forged_rows(tmp_path / "forger", "victim", shard.stream, 3)
        assert 3 == merge_without_shards(store, forged).rows
        store.prune(keep_rows=0)
        report = store.merge()
        assert (2, 0) == (report.rows, report.truncated)
        (refused,) = report.quarantined
        assert "3 rows stay in it, such as seqs 1 to 3 of stream " + shard.stream in refused.reason
        assert 5 == rows_in_shard(shard_path(store, "victim"))
        assert ([3, 4], False) == (numbers(store), report.complete)
        shard.write({"n": 5})
        assert 1 == store.merge().rows
    assert shard_path(store, "victim").exists()


@pytest.mark.parametrize("is_bundle", [False, True])
def test_rows_that_another_database_claims_to_have_superseded_are_not_deleted(
    is_bundle: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("victim") as shard:
        shard.write_many({"n": n} for n in range(3))
    claim = superseded_rows(tmp_path / "forger", "victim", stream_of_shard(shard_path(store, "victim")), 3)
    if is_bundle:
        edgeshard.Store(tmp_path / "forger").export(tmp_path / "bundle.db")
        claim = tmp_path / "bundle.db"
    merge_without_shards(store, claim)
    assert ["3 rows stay in it"] == [reason.partition(",")[0] for reason in reasons(store)]
    assert 3 == rows_in_shard(shard_path(store, "victim"))


def test_a_row_of_a_keyed_table_is_compared_with_a_row_of_any_table(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("victim") as shard:
        shard.write(LastKnown("inlet", 1.0))
        forged = forged_rows(tmp_path / "forger", "victim", shard.stream, 1)
    merge_without_shards(store, forged)
    (reason,) = reasons(store)
    assert "1 row differs" in reason
    assert 1 == rows_in_shard(shard_path(store, "victim"), "last_known")


def test_a_stream_that_begins_later_is_truncated_next_to_unproven_rows(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("victim") as shard:
        shard.write_many({"n": n} for n in range(3))
        merge_without_shards(store, forged_rows(tmp_path / "forger", "victim", shard.stream, 3))
    store.prune(keep_rows=0)
    for n in range(2):
        with store.shard("victim") as shard:
            shard.write({"n": n})
        report = store.merge()
        assert (1, 1, 1) == (report.rows, report.truncated, len(report.quarantined))
    assert 3 == rows_in_shard(shard_path(store, "victim"))


def test_a_shard_with_unproven_rows_is_left_alone_until_it_changes(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", 0.0)
    with store.shard("victim") as shard:
        shard.write_many({"n": n} for n in range(3))
        merge_without_shards(store, forged_rows(tmp_path / "forger", "victim", shard.stream, 3))
    store.prune(keep_rows=0)
    for _ in range(3):
        store.merge()
    before = os.stat(shard_path(store, "victim")).st_mtime_ns
    with mock.patch("edgeshard.merge.apply.copy", side_effect=AssertionError("it was opened again")):
        assert 1 == len(store.merge().quarantined)
    assert before == os.stat(shard_path(store, "victim")).st_mtime_ns
    (found,) = store.status().shards
    assert "3 rows stay in it" in found.reason


def test_the_way_out_keeps_the_unproven_rows_and_frees_the_store_of_them(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("victim") as shard:
        shard.write_many({"n": n} for n in range(5))
        merge_without_shards(store, forged_rows(tmp_path / "forger", "victim", shard.stream, 3))
        store.prune(keep_rows=0)
    path = shard_path(store, "victim")
    (reason,) = reasons(store)
    assert f"Store.merge([{str(path)!r}])" in reason
    other = new_store(tmp_path / "other")
    assert ((), [0, 1, 2, 3, 4]) == (other.merge([path]).quarantined, numbers(other))
    path.rename(tmp_path / "moved.db")
    with store.shard("victim") as shard:
        shard.write({"n": 5})
    report = store.merge()
    assert (True, [3, 4, 5], ()) == (report.complete, numbers(store), store.status().shards)


def test_no_part_of_a_transaction_is_deleted_from_a_shard(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 0})
        with shard.transaction():
            shard.write({"n": 1})
            shard.write(Reading("inlet", 1.0, NOON))
            shard.write({"n": 2})
    shutil.copy(shard.path, tmp_path / "copy.db")
    merge_without_shards(store, tmp_path / "copy.db")
    assert 1 == store.prune(table="reading", keep_rows=0).rows
    report = store.merge()
    assert (1, 1) == (report.truncated, len(report.quarantined))
    assert 2 == rows_in_shard(shard_path(store, "a"))
    assert [1, 2] == numbers(merged_alone(tmp_path / "other", shard_path(store, "a")))


def merged_alone(root: Path, source: Path) -> edgeshard.Store:
    """Return a new store that merged one database."""
    other = new_store(root)
    other.merge([source])
    return other


def test_a_budget_that_unproven_rows_use_up_says_so(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("victim") as shard:
        for n in range(2_000):
            shard.write({"n": n, "text": "x" * 1_000})
        merge_without_shards(store, forged_rows(tmp_path / "forger", "victim", shard.stream, 2_000))
        store.prune(keep_rows=0)
    store.merge()
    with new_store(store.root).shard("other") as other:
        for n in range(1_000):
            other.write({"n": n, "text": "x" * 1_000})
    with pytest.raises(DiskBudgetError, match=r"What 1 quarantined shard had stays there: Store\.status"):
        edgeshard.Store(store.root, max_bytes="2.5MB").merge()
    (found,) = [item for item in store.status().shards if item.name == "victim.db"]
    assert "2,000 rows stay in it" in found.reason


# -- what is proven ---------------------------------------------------------------------------------------------------


def test_rows_that_a_killed_merger_copied_are_truncated_after_they_were_pruned(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(3))
        interrupted(store)
        store.prune(keep_rows=0)
        report = store.merge()
    assert (0, 3, ()) == (report.rows, report.truncated, report.quarantined)


def test_rows_that_a_killed_merger_copied_are_truncated_after_they_were_superseded(store: edgeshard.Store) -> None:
    with store.shard("a") as shard, store.shard("b") as other:
        shard.write_many(LastKnown("inlet", float(n)) for n in range(3))
        interrupted(store)
        other.write(LastKnown("inlet", 5.0))
        report = store.merge()
        assert ((), 4) == (report.quarantined, report.truncated)
    assert {"inlet": 5.0} == last_values(store)


def test_rows_that_were_compared_are_truncated_after_they_were_pruned(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(3))
        copy = tmp_path / "copy.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{shard.path}{suffix}", f"{copy}{suffix}")
        merge_without_shards(store, copy)  # the rows come from elsewhere
        interrupted(store)  # and are compared
        store.prune(keep_rows=0)
        report = store.merge()
    assert (0, 3, ()) == (report.rows, report.truncated, report.quarantined)


@pytest.mark.parametrize("name", ["a", "carried"])
def test_an_old_copy_of_a_shard_is_truncated_under_its_own_name_alone_if_its_rows_were_pruned(
    name: str, store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n} for n in range(3))
    shutil.copy(shard.path, tmp_path / "copy.db")
    store.merge()
    store.prune(keep_rows=0)
    shutil.copy(tmp_path / "copy.db", shard_path(store, name))
    report = store.merge()
    assert (0, name == "a", name == "a") == (report.rows, report.complete, report.removed == 1)


def test_a_copy_is_compared_with_the_history_of_its_rows(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many(Remembered("inlet", float(n)) for n in range(3))
    shutil.copy(shard.path, shard_path(store, "copy"))
    report = store.merge()
    assert ((), 6, 2) == (report.quarantined, report.truncated, report.removed)


def test_what_is_proven_is_one_entry_for_each_stream_of_a_shard(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(5):
            shard.write({"n": n})
            store.merge()
    assert [("a.db", 1, 1, 5)] == store.query("SELECT * FROM _edgeshard_proven")


def test_an_older_master_that_was_put_back_compares_what_it_has(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write({"n": 0})
        interrupted(store)
        store.snapshot(tmp_path / "old.db")
        shard.write({"n": 1})
        interrupted(store)
        for path in store.root.glob("master.db*"):
            path.unlink()
        shutil.copy(tmp_path / "old.db", store.master_path)
        report = store.merge()
    assert (1, 2, (), [0, 1]) == (report.rows, report.truncated, report.quarantined, numbers(store))


# -- what others superseded -------------------------------------------------------------------------------------------


def rebuilt(store: edgeshard.Store, hub: edgeshard.Store, *records: Any) -> None:
    """Lose the master of a store whose shard still has all that the hub got, and rebuild it from the hub."""
    with store.shard("a") as shard:
        shard.write_many(records)
    interrupted(store)
    hub.merge([store.master_path])
    for path in store.root.glob("master.db*"):
        path.unlink()
    assert () == merge_without_shards(store, hub.master_path).quarantined


@pytest.mark.parametrize("cls", [LastKnown, Remembered])
def test_a_master_that_is_rebuilt_from_a_hub_truncates_what_the_hub_superseded(
    cls: Any, store: edgeshard.Store, tmp_path: Path
) -> None:
    hub = new_store(tmp_path / "hub")
    rebuilt(store, hub, *(cls("inlet", float(n)) for n in range(4)), cls("outlet", 7.0), {"n": 1})
    before = hub.verify()
    report = store.merge()
    assert ((), 6, 1) == (report.quarantined, report.truncated, report.removed)
    assert {cls("inlet", 3.0), cls("outlet", 7.0)} == set(store.read(cls))
    after = store.verify(deep=True)
    assert ((), (), before.states) == (after.errors, after.gaps, after.states)
    assert (0, before.rows) == (hub.merge([store.master_path]).rows, hub.verify().rows)


def test_a_version_that_another_database_wrongly_says_it_superseded_is_kept(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("victim") as shard:
        shard.write(LastKnown("inlet", 1.0))
        shard.write(LastKnown("outlet", 2.0))
    merge_without_shards(store, superseded_rows(tmp_path / "forger", "victim", shard.stream, 2))
    report = store.merge()
    assert ((), 2) == (report.quarantined, report.truncated)
    assert {"inlet": 1.0, "outlet": 2.0}.items() <= last_values(store).items()
    assert ((), (), 3) == ((found := store.verify(deep=True)).errors, found.gaps, found.states.present)


def test_a_merger_that_watches_compares_what_has_taken_the_place_of_a_shard(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    path, clone = shard_path(store, "agent"), tmp_path / "clone.db"
    merger = Merger(store.root, watching=True)
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        sql(path, f"VACUUM INTO '{clone}'")
        shard.write({"n": 1})
        assert (1 + 1, 0) == ((report := merger.run()).rows, report.truncated)  # its agent is busy
    # the machine was cloned, and the clone wrote other rows under the same addresses
    columns = "agent_id, timestamp"
    sql(
        clone,
        *(
            f"INSERT INTO agent_data SELECT _id + {n}, {columns}, '{{\"n\": {n + 1}0}}' FROM agent_data WHERE _id & 255 = 1"
            for n in (1, 2)
        ),
    )
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.move(clone, path)
    for _ in range(2):
        (refused,) = merger.run().quarantined
        assert "1 row differs" in refused.reason
    merger.close()
    assert ([0, 1], 3) == (numbers(store), rows_in_shard(path))


def test_a_snapshot_in_the_folder_of_shards_is_merged_again_and_again(store: edgeshard.Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    store.root.joinpath("shards").mkdir(parents=True)
    with other.shard("agent") as shard:
        for n in range(3):
            shard.write(LastKnown("inlet", n))
            shard.write({"n": n})
            other.merge()
            other.snapshot(tmp_path / "other.db", force=True)
            os.replace(tmp_path / "other.db", shard_path(store, "other"))
            report = store.merge()
            assert (2, 0, ()) == (report.rows, report.truncated, report.quarantined)
    assert ([0, 1, 2], {"inlet": 2.0}) == (numbers(store), last_values(store))
