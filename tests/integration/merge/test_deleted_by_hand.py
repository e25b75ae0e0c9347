"""Somebody changes a master with another program: rows that are gone are recorded, and everything goes on."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from unittest import mock

import attrs
import pytest

import edgeshard
from edgeshard.errors import DamagedError
from edgeshard.master import catalog, database
from edgeshard.merge.merger import Merger
from edgeshard.reports import RowStates
from edgeshard.retention.by_hand import settle
from edgeshard.sqlite import Connection
from tests.support.forms import others_slow
from tests.support.last_known import LastKnown
from tests.support.last_known import values as last_values
from tests.support.processes import command
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers, shard_path

NO_TRIGGER = 'drop trigger "_edgeshard_deletions_of_agent_data"'

#: Whether the master's triggers note what is deleted, or that must be found out.
EVADED = pytest.mark.parametrize("first", [(), (NO_TRIGGER,)], ids=["noted", "evaded"])


@edgeshard.table(key="sensor", history=True)
@attrs.frozen
class Remembered:
    sensor: str
    value: float


def by_hand(store: edgeshard.Store, *statements: str) -> int:
    """Execute statements in the master as any program would; return how many rows the last one changed."""
    connection = sqlite3.connect(store.master_path)
    try:
        for statement in statements:
            changed = connection.execute(statement).rowcount
        connection.commit()
        return changed
    finally:
        connection.close()


def written(store: edgeshard.Store, agent: str, count: int, first: int = 0) -> None:
    with store.shard(agent) as shard:
        for n in range(first, first + count):
            shard.write({"n": n, "user": n % 7, "text": "x" * 300})


# -- rows are deleted -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@EVADED
def test_rows_deleted_by_hand_are_reported_and_the_budget_and_prunes_go_on(
    store: edgeshard.Store, first: tuple[str, ...]
) -> None:
    capped = edgeshard.Store(store.root, max_bytes="3M", on_full="drop-oldest", prune={"keep_rows": 400})
    written(capped, "a", 350)
    capped.merge()
    deleted = by_hand(capped, *first, "delete from agent_data where data ->> '$.user' = 3")
    assert deleted == 50 == sum(map(len, capped.verify().by_hand))
    for number in range(1, 5):
        written(capped, "a", 100, 350 * number)
        report = capped.merge()
        assert ("", 100) == (report.prune_error, report.rows)
    found = capped.verify()
    assert (False, (), 50, 50) == (found.ok, found.errors, sum(map(len, found.by_hand)), found.states.by_hand)
    assert (400, 300) == (found.rows, found.states.pruned)
    done = command("verify", store.root)
    assert (3, True) == (done.returncode, "50 rows deleted by hand" in done.stdout)
    assert 3 == command("status", store.root).returncode


@EVADED
def test_a_row_deleted_by_hand_comes_back_from_no_copy_and_blocks_no_shard(
    store: edgeshard.Store, tmp_path: Path, first: tuple[str, ...]
) -> None:
    """Its shard still has it, because the merger was killed before it truncated."""
    with store.shard("a") as shard:
        for n in range(10):
            shard.write({"n": n})
        shutil.copy(shard.path, tmp_path / "copy.db")
        shutil.copy(f"{shard.path}-wal", tmp_path / "copy.db-wal")
        with (
            mock.patch.object(Merger, "_truncate_or_remove", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            store.merge()
        by_hand(store, *first, "delete from agent_data where data ->> '$.n' in (3, 4)")
        shard.write({"n": 10})
        report = store.merge()
        assert ((), 1, 11) == (report.quarantined, report.rows, report.truncated)
    expected = [0, 1, 2, 5, 6, 7, 8, 9, 10]
    assert expected == numbers(store)
    store.merge([tmp_path / "copy.db"])  # a source that is only read
    assert expected == numbers(store)
    for suffix in ("", "-wal"):  # a shard of another name: whether its rows are the same cannot be known
        shutil.copy(tmp_path / f"copy.db{suffix}", f"{shard_path(store, 'other')}{suffix}")
    (refused,) = store.merge().quarantined
    assert ("2 rows stay in it" in refused.reason, expected) == (True, numbers(store))
    assert RowStates(present=9, by_hand=2) == store.verify().states


@EVADED
def test_hubs_bundles_and_inventories_have_the_rest(
    store: edgeshard.Store, tmp_path: Path, first: tuple[str, ...]
) -> None:
    written(store, "a", 20)
    store.merge()
    by_hand(store, *first, "delete from agent_data where data ->> '$.user' = 3")
    assert 17 == store.export(tmp_path / "bundle.db").rows
    assert 17 == sum(map(len, next(iter(store.ranges().held.values()))))
    store.snapshot(tmp_path / "snapshot.db")
    for name, source in (("hub", store.master_path), ("b", tmp_path / "bundle.db"), ("s", tmp_path / "snapshot.db")):
        hub = new_store(tmp_path / name)
        assert ((), 17) == ((report := hub.merge([source])).quarantined, report.rows)
        assert {"pruned"} == {loss.cause for loss in hub.verify().losses}


def test_a_source_that_lacks_rows_says_what_to_do_in_its_own_store(store: edgeshard.Store, tmp_path: Path) -> None:
    written(store, "a", 20)
    store.merge()
    by_hand(store, "delete from agent_data where _id = 2")
    hub = new_store(tmp_path / "hub")
    (refused,) = hub.merge([store.master_path]).quarantined
    assert "Store.merge and Store.verify in its own store" in refused.reason
    store.merge()
    assert ((), 19) == ((report := hub.merge([store.master_path])).quarantined, report.rows)


def test_among_superseded_rows_a_noted_deletion_is_known_by_its_address(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(5):
            shard.write(LastKnown("inlet", float(n)))
            shard.write({"n": n})
    store.merge()
    by_hand(store, "delete from agent_data where data ->> '$.n' = 2")
    assert [(6, 6)] == [(gap.first, gap.last) for gap in store.verify().by_hand]
    assert [(6, 6)] == [(gap.first, gap.last) for gap in store.accept_loss(agent="a", why="asked", dry_run=True).gaps]
    store.merge()
    found = store.verify()
    assert (RowStates(present=5, superseded=4, by_hand=1), [(6, 6)]) == (
        found.states,
        [(gap.first, gap.last) for gap in found.by_hand],
    )


def test_among_superseded_rows_other_deletions_count_together_with_them(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(5):
            shard.write(LastKnown("inlet", float(n)))
            shard.write({"n": n})
    store.merge()
    by_hand(store, NO_TRIGGER, "delete from agent_data where data ->> '$.n' = 2")
    assert 5 == sum(map(len, store.verify().by_hand))
    assert 5 == store.export(store.root / "bundle.db").rows
    assert RowStates(present=5, by_hand=5) == store.verify().states


def test_a_noted_deletion_and_others_are_both_recorded(store: edgeshard.Store) -> None:
    written(store, "a", 6)
    store.merge()
    by_hand(store, "delete from agent_data where _id = 2", NO_TRIGGER, "delete from agent_data where _id in (4, 5)")
    expected = [(2, 2), (4, 5)]
    assert expected == [(gap.first, gap.last) for gap in store.verify().by_hand]
    assert expected == [(gap.first, gap.last) for gap in store.accept_loss(why="it was us", dry_run=True).gaps]
    assert expected == [(gap.first, gap.last) for gap in store.accept_loss(why="it was us").gaps]
    assert (True, ()) == ((found := store.verify()).ok, found.by_hand)


@pytest.mark.parametrize("end", ["last + 1", "last - 1"])
def test_if_blocks_are_wrong_nothing_is_taken_for_deleted_by_hand(store: edgeshard.Store, end: str) -> None:
    written(store, "a", 6)
    store.merge()
    by_hand(store, NO_TRIGGER, f"update _edgeshard_blocks set last = {end}")
    found = store.verify()
    assert (True, ()) == (len(found.errors) > 0, found.by_hand)
    with pytest.raises(DamagedError, match="known to be damaged"):
        store.accept_loss(why="it was us")
    store.master_path.with_name("master-damaged.json").unlink()  # as if nobody had verified it
    assert () == store.accept_loss(why="it was us").gaps
    assert [(0,)] == [tuple(row) for row in store.query("select count(*) from _edgeshard_pruned_ranges")]


def test_an_older_version_does_not_take_the_place_of_one_that_was_deleted_by_hand(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    shutil.copy(shard.path, store.root / "old.db")
    store.merge()
    with store.shard("b") as shard:
        shard.write(LastKnown("inlet", 2.0))
    store.merge()
    by_hand(store, "delete from last_known")
    shutil.copy(store.root / "old.db", shard_path(store, "copy"))
    store.merge()
    assert {} == last_values(store)


def test_a_table_that_a_merger_makes_meanwhile_was_not_dropped(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def merge_first(connection: Connection) -> list[tuple[str, str, str]]:
        columns = all_columns(connection)
        monkeypatch.setattr(catalog, "all_columns", all_columns)
        assert 1 == edgeshard.Store(store.root).merge().rows
        return columns

    written(store, "a", 3)
    store.merge()
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    all_columns = catalog.all_columns
    connection = database.open_master(store.master_path, writable=True)
    monkeypatch.setattr(catalog, "all_columns", merge_first)
    try:
        assert 0 == settle(connection, store.master_path)
    finally:
        connection.close()
    assert "made again" not in caplog.text
    assert 1 == len(last_values(store))


def test_rows_that_a_damaged_file_lost_are_damage(store: edgeshard.Store) -> None:
    written(store, "a", 200)
    store.merge()
    by_hand(store, NO_TRIGGER, "delete from agent_data where _id = 2")
    by_hand(store, "pragma wal_checkpoint(truncate)")
    with store.master_path.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"\0" * 4096)
    with pytest.raises(DamagedError):
        store.prune(keep_rows=0)
    assert 65 == command("verify", store.root).returncode


# -- other changes ----------------------------------------------------------------------------------------------------

#: What somebody does to a master, how many rows that deletes, and how many of the table's remain for readers.
CHANGES = {
    "delete a row": (["delete from agent_data where _id = 1"], 1),
    "delete all rows": (["delete from agent_data", "delete from reading", "delete from last_known"], 3),
    "delete a current row": (["delete from last_known"], 1),
    "delete history": (["delete from remembered_history"], 1),
    "delete tombstones": (["delete from last_known_deleted"], 1),
    "drop the table for dicts": (["drop table agent_data"], 1),
    "drop a table with an index": (["drop table reading"], 1),
    "drop a keyed table": (["drop table last_known"], 1),
    "drop tombstones": (["drop table last_known_deleted"], 1),
    "drop a history": (["drop table remembered_history"], 1),
    "drop all": (["drop table agent_data", "drop table reading", "drop table last_known", "drop table remembered"], 4),
    "drop a column": (['drop index "reading by sensor"', "alter table reading drop column celsius"], 0),
    "rename a column": (["alter table reading rename column celsius to c"], 0),
    "rename a table": (["alter table reading rename to other"], 1),
    "drop an index": (['drop index "reading by sensor"'], 0),
    "change values": (["update agent_data set data = '{}'", "update last_known set value = 7"], 0),
    "drop our triggers": ([NO_TRIGGER, "delete from agent_data"], 1),
    "vacuum": (["vacuum"], 0),
}


def _write_of_each(store: edgeshard.Store, agent: str, n: int) -> None:
    with store.shard(agent) as shard:
        shard.write({"n": n})
        shard.write(Reading("inlet", 1.5, NOON))
        shard.write(LastKnown("inlet", float(n)))
        shard.write_many([Remembered("inlet", n + 0.1), Remembered("inlet", n + 0.2)])
        shard.delete(LastKnown, "outlet")


@pytest.mark.parametrize(
    "change", others_slow([*CHANGES], always=("delete all rows", "drop all", "rename a table", "drop our triggers"))
)
@pytest.mark.parametrize("is_merged_first", [True, False], ids=["merge first", "read first"])
def test_what_is_changed_by_hand_stops_nobody(
    change: str, is_merged_first: bool, store: edgeshard.Store, tmp_path: Path
) -> None:
    statements, deleted = CHANGES[change]
    _write_of_each(store, "a", 1)
    store.merge()
    by_hand(store, *statements)
    if is_merged_first:
        store.merge()
    found = store.verify(deep=True)
    assert ((), deleted) == (found.errors, sum(map(len, found.by_hand)))
    store.status()
    store.ranges()
    store.snapshot(tmp_path / "snapshot.db")
    assert 6 - deleted == store.export(tmp_path / "bundle.db").rows
    for number in (2, 3):
        _write_of_each(store, "a", number)
        assert ((), 6) == ((report := store.merge()).quarantined, report.rows)
        hub = new_store(tmp_path / f"hub{number}")
        assert () == hub.merge([store.master_path, tmp_path / "bundle.db", tmp_path / "snapshot.db"]).quarantined
        assert [3.0][: number - 2] == [row.value for row in store.read(LastKnown)][: number - 2]
    store.prune(keep_rows=1)
    found = store.verify(deep=True)
    assert ((), deleted, 18) == (found.errors, sum(map(len, found.by_hand)), found.states.total)
