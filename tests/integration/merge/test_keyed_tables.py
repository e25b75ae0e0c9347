"""Keyed tables: the newest of each key is kept, the same whatever the order of merges; nothing is lost, or revived."""

from __future__ import annotations

import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import format
from edgeshard.errors import ConfigurationError, RecordError, SchemaConflictError, TableError
from edgeshard.records import hlc
from tests.support import keyed_model
from tests.support.keyed_model import NOON_US, First, Highest, Lww, Remembered
from tests.support.last_known import LastKnown, Reading, values
from tests.support.processes import command, sql
from tests.support.stores import new_store, shard_path, write_apart

# -- what a device does -----------------------------------------------------------------------------------------------


def test_a_write_takes_the_place_of_an_earlier_one_with_its_key(store: edgeshard.Store) -> None:
    with store.shard("a") as a, store.shard("b") as b:
        a.write(LastKnown("inlet", 1.0))
        b.write(LastKnown("inlet", 2.0))
        a.write(LastKnown("outlet", 3.0))
        store.merge()
        assert {"inlet": 2.0, "outlet": 3.0} == values(store)
        a.write(LastKnown("inlet", 4.0))
        store.merge()
    assert {"inlet": 4.0, "outlet": 3.0} == values(store)
    assert store.verify().ok


def test_a_deletion_is_not_undone_by_an_older_write_that_comes_late(store: edgeshard.Store, tmp_path: Path) -> None:
    other = new_store(tmp_path / "other")
    with other.shard("late") as late, store.shard("a") as shard:
        late.write(LastKnown("inlet", 1.0))
        other.merge()
        shard.write(LastKnown("inlet", 2.0))
        shard.delete(LastKnown, "inlet")
        store.merge()
    store.merge([other.master_path])
    assert {} == values(store)
    assert store.verify().ok


def test_a_write_after_a_deletion_is_a_new_row(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        shard.delete(LastKnown, "inlet")
        store.merge()
        shard.write(LastKnown("inlet", 2.0))
        store.merge()
    assert {"inlet": 2.0} == values(store)
    assert [] == store.query("SELECT * FROM last_known_deleted")


def test_the_shard_of_an_agent_that_is_gone_is_removed_as_any_other(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    assert 1 == store.merge().removed
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 2.0))
    store.merge()
    assert {"inlet": 2.0} == values(store)


def test_what_is_replaced_before_a_merge_is_accounted_for(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(100):
            shard.write(LastKnown("inlet", float(n)))
            shard.write(Reading("inlet", float(n)))
        assert 200 == store.merge().rows
    assert 101 == store.verify(deep=True).rows
    assert [(99,)] == store.query("SELECT rows FROM _edgeshard_superseded")
    assert [(1, 200)] == store.query("SELECT first, last FROM _edgeshard_blocks")  # one run of seqs, not a hundred
    assert store.verify(deep=True).ok


def test_rows_of_a_transaction_come_together_with_or_without_a_key(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        with shard.transaction():
            shard.write(LastKnown("inlet", 1.0))
            shard.write(Reading("inlet", 1.0))
            shard.delete(LastKnown, "outlet")
        with pytest.raises(ZeroDivisionError), shard.transaction():
            shard.write(LastKnown("inlet", 2.0))
            raise ZeroDivisionError
        store.merge()
    assert {"inlet": 1.0} == values(store)
    assert 3 == store.verify().rows


def test_a_shard_whose_rows_were_replaced_meanwhile_is_still_truncated(store: edgeshard.Store) -> None:
    with store.shard("a") as shard, store.shard("b") as other:
        shard.write(LastKnown("inlet", 1.0))
        copy = Path(shard.path).with_name("copy")
        store.merge([], keep_empty=True)
        shutil.copy(shard.path, copy)
        other.write(LastKnown("inlet", 2.0))
        report = store.merge()
    assert () == report.blocked
    assert {"inlet": 2.0} == values(store)


def test_a_copy_of_a_shard_brings_nothing_back(store: edgeshard.Store, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    shard_path = Path(shard.path)
    shutil.copy(shard_path, tmp_path / "copy.db")
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 2.0))
    store.merge()
    store.merge([tmp_path / "copy.db"])
    assert {"inlet": 2.0} == values(store)
    shutil.copy(tmp_path / "copy.db", shard_path)  # and put back as the shard: compared, found equal or replaced
    report = store.merge()
    assert ((), {"inlet": 2.0}) == (report.blocked, values(store))
    assert store.verify().ok


# -- the law ----------------------------------------------------------------------------------------------------------


def test_changes_of_the_same_moment_are_told_apart_alike_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed_model.set_clock(monkeypatch, NOON_US)
    stores = keyed_model.world(tmp_path, 3)
    for number, store in enumerate(stores):
        with store.shard("a") as shard:
            shard.write(LastKnown("inlet", float(number)))
        store.merge()
    paths = [store.master_path for store in stores]
    one, other = keyed_model.world(tmp_path / "hubs", 2)
    for path in paths:
        one.merge([path])
    other.merge(reversed(paths))
    assert values(one) == values(other)


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "colour"}, "its key has 'colour', which is not one of its fields"),
        ({"key": ["row", "row"]}, "its key names a column twice"),
        ({"key": "note"}, "its key has 'note', which must not be Optional"),
        ({"key": "price"}, "its key has 'price', a Decimal, of which 1.0 and 1.00 would be two keys"),
        ({"key": "row", "conflict": "newest"}, "conflict must be 'lww', 'first', 'keep-all'"),
        ({"key": "row", "conflict": "max:colour"}, "conflict 'max:colour' needs a field of numbers, texts or times"),
        ({"key": "row", "conflict": "min:price"}, "conflict 'min:price' needs a field of numbers, texts or times"),
        ({"conflict": "first"}, "conflict and history are for tables with a key"),
        ({"history": True}, "conflict and history are for tables with a key"),
    ],
)
def test_a_key_that_cannot_be_is_refused_as_it_is_first_used(
    options: dict[str, Any], said: str, shard: edgeshard.Shard
) -> None:
    @edgeshard.table(**options)
    @attrs.frozen
    class Wrong:
        row: str
        note: str | None = None
        price: Decimal = Decimal(0)

    with pytest.raises(TableError, match=re.escape(said)):
        shard.write(Wrong("p"))


def test_a_deletion_needs_a_key_and_a_rule_that_knows_deletions(shard: edgeshard.Shard) -> None:
    with pytest.raises(TableError, match="Reading has no key"):
        shard.delete(Reading, "inlet")
    with pytest.raises(TableError, match=r"the key of Lww is \(row, col\), but got 1 value"):
        shard.delete(Lww, "p")
    with pytest.raises(TableError, match="First has conflict='first'"):
        shard.delete(First, "p", 1)
    with pytest.raises(RecordError, match=r"LwwDeleted\.col = 'one': expected int, got str"):
        shard.delete(Lww, "p", "one")
    assert 1 == shard.delete(Lww, "p", 1)  # the handle goes on


def test_two_classes_of_one_table_must_agree_on_its_key(store: edgeshard.Store) -> None:
    with store.shard("a") as shard, store.shard("b") as other:
        shard.write(Lww("p", 1, 2))
        with pytest.raises(SchemaConflictError, match=r"table cell has the key \(row, col\) with conflict 'lww' there"):
            shard.write(Highest("p", 1, 3))
        other.write(Highest("p", 1, 3))
        other.write(Reading("inlet", 1.0))
        store.merge()
        report = store.merge()
    (aside,) = report.blocked
    assert (
        "has the key (row, col) with conflict 'max:value' in this shard, and (row, col) with 'lww' in the master"
        in aside.reason
    )
    assert 2 == store.verify().rows


def test_no_plain_table_is_taken_for_deletions(store: edgeshard.Store) -> None:
    @attrs.frozen
    class LastKnownDeleted:
        sensor: str

    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        with pytest.raises(SchemaConflictError, match="where deletions or earlier versions of table last_known go"):
            shard.write(LastKnownDeleted("inlet"))
    store.merge()
    write_apart(store, "b", LastKnownDeleted("inlet"))
    report = store.merge()
    assert "where the master keeps tombstones or the history of last_known" in report.blocked[0].reason
    assert {"inlet": 1.0} == values(store)


@pytest.mark.parametrize("owner_first", [True, False])
def test_a_keyed_table_does_not_take_another_keyed_one_for_its_history(
    store: edgeshard.Store, owner_first: bool
) -> None:
    @edgeshard.table(key="row")
    @attrs.frozen
    class CellHistory:
        row: str

    pair = [Remembered("p", 1, 2), CellHistory("p")]
    first, second = pair if owner_first else reversed(pair)
    with store.shard("a") as shard:
        shard.write(first)
        with pytest.raises(SchemaConflictError, match="table cell_history is where deletions or earlier versions"):
            shard.write(second)
    store.merge()
    write_apart(store, "b", second)
    report = store.merge()
    assert [True] == ["cell_history" in aside.reason for aside in report.blocked]
    assert (1, ()) == (store.verify().rows, store.verify().errors)


def test_a_keyed_table_does_not_take_a_plain_one_for_its_deletions(store: edgeshard.Store) -> None:
    @attrs.frozen
    class LastKnownDeleted:
        sensor: str

    with store.shard("b") as other:
        other.write(LastKnownDeleted("inlet"))
    store.merge()
    write_apart(store, "a", LastKnown("inlet", 1.0))
    report = store.merge()
    assert "the master has an unrelated table last_known_deleted" in report.blocked[0].reason
    assert 1 == store.verify().rows


def test_a_keyed_class_may_have_as_many_fields_as_any_and_a_history(store: edgeshard.Store, tmp_path: Path) -> None:
    fields = {f"c{number}": attrs.field(type=int) for number in range(format.COLUMNS_MAX)}
    wide = edgeshard.table(name="wide", key="c0", history=True)(attrs.make_class("Wide", fields, frozen=True))
    hub = new_store(tmp_path / "hub")
    with store.shard("a") as shard:
        shard.write_many([wide(*range(len(fields)))] * 2)
    assert store.merge().complete
    assert hub.merge([store.master_path]).complete
    assert 2 == hub.verify().rows


def test_a_timestamp_that_no_clock_shows_is_damage_and_harms_no_other_shard(store: edgeshard.Store) -> None:
    with store.shard("a") as shard, store.shard("b") as other:
        shard.write(LastKnown("inlet", 1.0))
        other.write(LastKnown("inlet", 2.0))
    sql(shard_path(store, "a"), f"UPDATE last_known SET _timestamp = {format.TIMESTAMP_MAX + 1}")
    report = store.merge()
    assert "which no clock shows" in report.quarantined[0].reason
    assert {"inlet": 2.0} == values(store)


# -- the clock --------------------------------------------------------------------------------------------------------


def test_a_later_change_of_a_store_counts_though_the_clock_was_set_back(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = keyed_model.set_clock(monkeypatch, NOON_US)
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        wall.now_us -= 3_600_000_000
        shard.write(LastKnown("inlet", 2.0))
    with store.shard("a") as shard:  # its own file knows
        shard.write(LastKnown("inlet", 3.0))
        store.merge()
    with store.shard("b") as shard:  # the master knows
        shard.write(LastKnown("inlet", 4.0))
        shard.delete(LastKnown, "outlet")
    store.merge()
    assert {"inlet": 4.0} == values(store)
    assert [(NOON_US + 3,), (NOON_US + 4,)] == store.query(
        "SELECT _timestamp FROM last_known UNION SELECT _timestamp FROM last_known_deleted ORDER BY 1"
    )


def test_a_clock_that_jumps_years_ahead_is_bounded(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = keyed_model.set_clock(monkeypatch, NOON_US)
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    wall.now_us += 20 * 366 * hlc.DAY_US
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 2.0))
    store.merge()
    assert [(2.0, NOON_US + 1)] == store.query("SELECT value, _timestamp FROM last_known")


def test_a_write_needs_no_master(store: edgeshard.Store, caplog: pytest.LogCaptureFixture) -> None:
    store.root.mkdir()
    store.master_path.write_bytes(b"not a database" * 100)
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    assert "changes written now may get timestamps before changes that the master has" in caplog.text


def test_a_device_whose_clock_is_ahead_is_named(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wall = keyed_model.set_clock(monkeypatch, NOON_US)
    wall.now_us += 30 * hlc.DAY_US
    with store.shard("fast") as shard:
        shard.write(LastKnown("inlet", 1.0))
    wall.now_us = NOON_US
    store.merge()
    assert "changes of table last_known with timestamps 30.0 days ahead" in caplog.text
    (found,) = store.status().master.clocks_ahead
    assert ("fast", "last_known", 30 * 86_400.0) == (found.agent, found.table, found.ahead_s)
    assert ["agent-clock-ahead"] == [problem.kind for problem in store.status().problems]
    wall.now_us += 30 * hlc.DAY_US
    assert ((), ()) == ((status := store.status()).master.clocks_ahead, status.problems)


def test_a_deletion_by_a_clock_that_is_ahead_is_named_as_well(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = keyed_model.set_clock(monkeypatch, NOON_US)
    with store.shard("fast") as shard:
        shard.write(LastKnown("inlet", 1.0))
        wall.now_us += 30 * hlc.DAY_US
        shard.delete(LastKnown, "inlet")
    wall.now_us = NOON_US
    store.merge()
    assert [("fast", "last_known")] == [(item.agent, item.table) for item in store.status().master.clocks_ahead]


def test_a_change_by_a_clock_that_was_ahead_is_erased_and_written_again(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = keyed_model.set_clock(monkeypatch, NOON_US)
    wall.now_us += 30 * hlc.DAY_US
    with store.shard("fast") as shard:
        shard.write(LastKnown("inlet", 1.0))
    store.merge()
    wall.now_us = NOON_US
    with store.shard("right") as shard:
        shard.write(LastKnown("inlet", 2.0))
    store.merge()
    assert [1.0] == [record.value for record in store.read(LastKnown)]
    assert 1 == store.erase(LastKnown, "value = 1.0").rows
    with store.shard("right") as shard:
        shard.write(LastKnown("inlet", 3.0))
    store.merge()
    assert [3.0] == [record.value for record in store.read(LastKnown)]
    assert store.status().complete


def test_status_says_why_a_shard_with_another_key_waits_and_how_many_rows_were_replaced(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(Lww("p", 1, 2))
        shard.write(Lww("p", 1, 3))
        store.merge()
        write_apart(store, "b", Highest("p", 1, 3))
        report = store.status()
    assert ["b"] == [item.agent for item in report.shards if "has the key (row, col)" in str(item.blocked)]
    assert (1, 1) == (report.master.rows, report.master.superseded_rows)
    done = command("status", str(store.root))
    assert "besides 1 superseded" in done.stdout


# -- what else knows of rows ------------------------------------------------------------------------------------------


def test_what_is_salvaged_of_a_damaged_shard_keeps_its_key_and_its_timestamps(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(50):
            shard.write(LastKnown(f"s{n % 5}", float(n)))
        shard.delete(LastKnown, "s0")
    path = shard_path(store, "a")
    sql(path, "PRAGMA user_version = 999")
    assert 1 == len(store.merge().quarantined)
    report = store.salvage(path)
    assert (51, True) == (report.rows, report.complete)
    assert {f"s{n}": 45.0 + n for n in range(1, 5)} == values(store)
    path.unlink()
    assert store.verify().ok


def test_a_prune_leaves_the_newest_of_each_key_and_accounts_for_the_rest(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(100):
            shard.write(LastKnown("inlet", float(n)))
            shard.write(Reading("inlet", float(n)))
        shard.delete(LastKnown, "outlet")
        store.merge()
        report = store.prune(keep_rows=10)
        assert {"inlet": 99.0} == values(store)
        assert 10 == store.query("SELECT count(*) FROM reading")[0][0]
        assert 1 == store.query("SELECT count(*) FROM last_known_deleted")[0][0]
        assert report.rows >= 90
        assert store.verify(deep=True).ok
        shard.write(LastKnown("inlet", -1.0))
        store.merge()
    store.prune(keep_rows=0)
    assert {"inlet": -1.0} == values(store)
    assert store.verify(deep=True).ok


@pytest.mark.parametrize("table", ["last_known", "LAST_KNOWN_deleted"])
def test_no_prune_takes_the_newest_of_a_key_away(table: str, store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
    store.merge()
    with pytest.raises(ConfigurationError, match="has a key"):
        store.prune(keep_rows=0, table=table)


def test_history_can_be_pruned(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(10):
            shard.write(Remembered("p", 1, n))
        shard.delete(Remembered, "p", 1)
    store.merge()
    reasons = store.query("SELECT value, _reason AS reason FROM cell_history ORDER BY value")
    assert {"deleted"} == {row.reason for row in reasons}
    assert 10 == store.query("SELECT count(*) FROM cell_history")[0][0]
    store.prune(keep_rows=3, table="cell_history")
    assert [7, 8, 9] == [value for (value,) in store.query("SELECT value FROM cell_history ORDER BY value")]
    assert store.verify(deep=True).ok


def test_verify_tells_a_row_that_was_replaced_from_one_that_is_lost(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(4):
            shard.write(LastKnown(f"s{n % 2}", float(n)))
    store.merge()
    assert store.verify().ok
    sql(store.master_path, "DELETE FROM last_known WHERE sensor = 's0'")
    report = store.verify()
    assert ((), 1) == (report.errors, sum(map(len, report.by_hand)))


def test_read_gives_the_newest_as_instances(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        shard.write(LastKnown("inlet", 2.0))
    store.merge()
    assert [LastKnown("inlet", 2.0)] == list(store.read(LastKnown))
