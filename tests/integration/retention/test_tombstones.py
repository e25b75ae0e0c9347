"""Deletions of keyed tables go once nothing older can come and all others know of them, and not before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeshard
from edgeshard.errors import ConfigurationError
from edgeshard.reports import PRUNED
from edgeshard.retention import pace, plan
from tests.support import hostile_shards, keyed_model
from tests.support.clocks import DAY_S
from tests.support.keyed_model import KeepAll, Lww
from tests.support.last_known import LastKnown, Reading, values
from tests.support.processes import command, sql
from tests.support.pruning import killed_at
from tests.support.stores import new_store, shard_path
from tests.support.tombstones import GRACE, collect
from tests.support.wall_clock import Wall

GRACE_US = 10 * DAY_S * 1_000_000


def gone(store: edgeshard.Store) -> int:
    """How many deletions it says that it pruned; and it contradicts itself nowhere."""
    report = store.verify(deep=True)
    assert () == report.errors
    return report.pruned.get("tombstone", 0)


def there(store: edgeshard.Store) -> list[str]:
    """The keys of which it has a deletion."""
    return [sensor for (sensor,) in store.query("SELECT sensor FROM last_known_deleted ORDER BY 1")]


def deleted(store: edgeshard.Store, sensor: str = "inlet", agent: str = "a") -> None:
    """An agent writes a row, deletes it, and ends; all is merged."""
    with store.shard(agent) as shard:
        shard.write(LastKnown(sensor, 1.0))
        shard.delete(LastKnown, sensor)
    store.merge()


@contextlib.contextmanager
def hidden(store: edgeshard.Store, agent: str) -> Iterator[None]:
    """In the block an agent's shard lies elsewhere, so that no merge finds it."""
    files = [path for path in (store.root / "shards").iterdir() if path.name.startswith(f"{agent}.db")]
    for path in files:
        path.rename(store.root / path.name)
    yield
    for path in files:
        (store.root / path.name).rename(path)


@pytest.fixture
def other(tmp_path: Path) -> edgeshard.Store:
    """A store elsewhere."""
    return new_store(tmp_path / "other")


def carry(source: edgeshard.Store, target: edgeshard.Store) -> None:
    """Merge what a store has into another."""
    source.merge()
    target.init()
    target.merge([source.master_path])


# -- the grace period -------------------------------------------------------------------------------------------------


def test_a_deletion_goes_once_the_grace_period_has_passed(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    wall.advance(9.9)
    assert (0, ["inlet"]) == (collect(store).rows, there(store))
    wall.advance(0.2)
    assert 1 == collect(store, dry_run=True).rows
    assert ["inlet"] == there(store)
    report = collect(store)
    assert (1, {"tombstone": 1}) == (report.rows, report.by_reason)
    assert (0, 0, (), ()) == (report.tombstones_behind, report.tombstones_unheard, report.behind, report.unheard)
    assert ([], 1, {}) == (there(store), gone(store), values(store))
    assert 0 == collect(store).rows


def test_a_deletion_that_came_late_stays_for_the_grace_period_from_then_on(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall
) -> None:
    deleted(other)
    wall.advance(20)
    carry(other, store)
    wall.advance(9.9)
    assert (0, 1) == (collect(store).rows, collect(other).rows)
    wall.advance(0.2)
    assert 1 == collect(store).rows


def test_a_deletion_that_was_timestamped_by_a_clock_ahead_stays_until_that_time_is_over(
    store: edgeshard.Store, wall: Wall
) -> None:
    wall.advance(30)
    deleted(store)
    wall.advance(-30)
    with store.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
    store.merge()  # the clock, by which rows came, does not run back
    wall.advance(39.9)
    assert 0 == collect(store).rows
    wall.advance(0.2)
    assert 1 == collect(store).rows


# -- what all streams have passed -------------------------------------------------------------------------------------


def test_a_deletion_waits_for_an_older_change_that_waits_in_a_shard(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall
) -> None:
    with store.shard("b") as shard:
        shard.write(LastKnown("inlet", 1.0))
    wall.advance(1)
    deleted(other)
    with hidden(store, "b"):
        store.merge()
        carry(other, store)
    wall.advance(11)
    report = collect(store)
    assert (0, 1, ("b.db has pending changes; merge",)) == (report.rows, report.tombstones_behind, report.behind)
    assert "kept 1 tombstone because older changes may still arrive (b.db has pending changes; merge)" in str(report)
    store.merge()
    collect(store)
    assert ({}, []) == (values(store), sorted(set(there(store)) - {"inlet"}))
    wall.advance(11)
    collect(store)
    assert ({}, []) == (values(store), there(store))
    assert 1 == gone(store)


def test_changes_that_wait_in_shards_and_are_newer_hold_nothing_up(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    wall.advance(11)
    with store.shard("b") as shard:
        shard.write(LastKnown("inlet", 2.0))
        shard.write(Reading("inlet", 2.0))
        assert 1 == collect(store).rows
    store.merge()
    assert {"inlet": 2.0} == values(store)


@pytest.mark.parametrize("timestamp", ["-9223372036854775808", "NULL", "9223372036854775807", "'text'"])
def test_a_shard_with_timestamps_that_no_clock_shows_holds_deletions_up(
    store: edgeshard.Store, wall: Wall, timestamp: str
) -> None:
    deleted(store)
    wall.advance(11)
    with store.shard("b") as shard:
        shard.write(LastKnown("inlet", 2.0))
    hostile_shards.edit(
        shard_path(store, "b"),
        "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'last_known'",
    )
    hostile_shards.edit(shard_path(store, "b"), f"UPDATE last_known SET _timestamp = {timestamp}")
    report = collect(store)
    assert (0, 1) == (report.rows, report.tombstones_behind)
    assert "b.db cannot be read" in report.behind[0]


def test_a_shard_that_cannot_be_read_holds_deletions_up(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    wall.advance(11)
    (store.root / "shards" / "b.db").write_bytes(b"not a database" * 100)
    report = collect(store)
    assert (0, 1) == (report.rows, report.tombstones_behind)
    assert "b.db cannot be read" in report.behind[0]
    shard_path(store, "b").unlink()
    assert 1 == collect(store).rows


def test_a_shard_that_another_master_drained_holds_deletions_up(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall
) -> None:
    with store.shard("b") as shard:
        shard.write(LastKnown("inlet", 1.0))
    wall.advance(1)
    with hidden(store, "b"):
        deleted(store)
    wall.advance(11)
    elsewhere, here = shard_path(other, "b"), shard_path(store, "b")
    here.rename(elsewhere)
    other.merge(keep_empty=True)
    elsewhere.rename(here)
    report = collect(store)
    assert report.behind == (
        "b.db was truncated by a merge into another database, and rows of it are missing here; merge that database",
    )
    carry(other, store)
    assert (1, {}) == (collect(store).rows, values(store))


def test_an_agent_of_the_store_that_lives_on_without_a_change_holds_nothing_up(
    store: edgeshard.Store, wall: Wall
) -> None:
    with store.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
        deleted(store)
        wall.advance(10.1)
        shard.write(Reading("inlet", 2.0))
        store.merge()
        assert 1 == collect(store).rows


def test_an_agent_elsewhere_holds_deletions_up_until_a_later_change_of_it_comes(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall
) -> None:
    with other.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
        carry(other, store)
        deleted(store)
        wall.advance(10.1)
        shard.write(Reading("inlet", 2.0))
        carry(other, store)
        report = collect(store)
        assert (0, 1) == (report.rows, report.tombstones_behind)
        assert ("agent 'b' may still deliver older changes; merge its shard or its database, or wait",) == report.behind
        shard.write(LastKnown("outlet", 2.0))
        carry(other, store)
        assert 1 == collect(store).rows


def test_an_agent_elsewhere_of_which_nothing_came_for_the_grace_period_holds_nothing_up(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall
) -> None:
    with other.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
        deleted(store)
        wall.advance(5)
        carry(other, store)
        wall.advance(6)
        assert (0, 1) == ((report := collect(store)).rows, report.tombstones_behind)
        wall.advance(5)
        assert 1 == collect(store).rows


def test_what_was_pruned_lately_came_lately(store: edgeshard.Store, other: edgeshard.Store, wall: Wall) -> None:
    with other.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
        deleted(store)
        wall.advance(11)
        carry(other, store)
    store.prune(keep_rows=0)
    assert 1 == collect(store).tombstones_behind
    wall.advance(11)
    assert 1 == collect(store).rows


def test_an_agent_elsewhere_that_began_after_a_deletion_holds_nothing_up(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall
) -> None:
    deleted(store)
    wall.advance(11)
    with other.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
        carry(other, store)
        assert 1 == collect(store).rows


def lost_on_its_way(store: edgeshard.Store, other: edgeshard.Store, wall: Wall, folder: Path) -> tuple[Path, Path]:
    """Another device's changes in three bundles, of which the second, with an older one of a key, has yet to come.

    A deletion of that key lies here, and is old enough. Returns the second bundle and the third.
    """
    bundles = [folder / f"bundle{number}.db" for number in range(3)]
    with other.shard("c") as shard:
        for bundle, record in zip(
            bundles, (Reading("inlet", 1.0), LastKnown("inlet", 1.0), Reading("inlet", 3.0)), strict=True
        ):
            before = other.ranges()
            shard.write(record)
            other.merge()
            other.export(bundle, ranges=before)
    store.init()
    store.merge([bundles[0]])
    wall.advance(1)
    deleted(store)
    wall.advance(20)
    return bundles[1], bundles[2]


def test_a_gap_holds_deletions_up(store: edgeshard.Store, other: edgeshard.Store, wall: Wall, tmp_path: Path) -> None:
    second, third = lost_on_its_way(store, other, wall, tmp_path)
    store.merge([third])
    wall.advance(20)
    report = collect(store)
    assert (0, 1) == (report.rows, report.tombstones_behind)
    assert "rows of agent 'c' are missing; merge the database that has them (see status)" in report.behind
    store.merge([second])
    wall.advance(20)
    assert (1, {}) == (collect(store).rows, values(store))


def test_rows_that_another_database_says_it_has_hold_deletions_up(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall, tmp_path: Path
) -> None:
    second, third = lost_on_its_way(store, other, wall, tmp_path)
    hub = new_store(tmp_path / "hub")
    for path in (store.master_path, other.master_path):
        hub.merge([path])
    store.receipt(hub.ranges(), trust=True)
    report = collect(store)
    assert (0, 1, 0) == (report.rows, report.tombstones_behind, report.tombstones_unheard)
    store.merge([second, third])
    assert {} == values(store)
    wall.advance(20)
    assert 1 == collect(store).rows


def test_rows_that_others_pruned_are_not_missing(store: edgeshard.Store, other: edgeshard.Store, wall: Wall) -> None:
    with other.shard("b") as shard:
        for n in range(5):
            shard.write(Reading("inlet", float(n)))
    other.merge()
    other.prune(keep_rows=2)
    carry(other, store)
    deleted(store)
    wall.advance(11)
    assert 1 == collect(store).rows


# -- what all databases have heard of ---------------------------------------------------------------------------------


def test_a_deletion_waits_for_each_database_with_a_receipt_to_hear_of_it(
    store: edgeshard.Store, tmp_path: Path, wall: Wall
) -> None:
    hub, stale = new_store(tmp_path / "hub"), new_store(tmp_path / "stale")
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        store.merge()
        for peer in (hub, stale):
            carry(store, peer)
            store.receipt(peer.ranges(), trust=True)
        shard.delete(LastKnown, "inlet")
    wall.advance(1)
    carry(store, stale)
    store.receipt(stale.ranges(), trust=True)
    wall.advance(11)
    report = collect(store)
    carry(store, hub)
    assert ({}, {}) == (values(hub), values(stale))
    assert (0, 0, 1) == (report.rows, report.tombstones_behind, report.tombstones_unheard)
    assert (hub.ranges().database_id.hex(),) == report.unheard
    assert "push or export to them, then record their next receipts" in str(report)
    store.receipt(hub.ranges(), trust=True)
    assert 1 == collect(store).rows


def test_a_database_that_nobody_confirmed_holds_no_deletion_up(
    store: edgeshard.Store, tmp_path: Path, wall: Wall
) -> None:
    stranger = edgeshard.Store(tmp_path / "stranger")
    stranger.init()
    deleted(store)
    assert "awaiting confirmation" == store.receipt(stranger.ranges()).outcome
    wall.advance(11)
    assert 1 == collect(store).rows


def test_a_database_that_collected_a_deletion_has_heard_of_it(
    store: edgeshard.Store, tmp_path: Path, wall: Wall
) -> None:
    hub = new_store(tmp_path / "hub")
    deleted(store)
    carry(store, hub)
    wall.advance(11)
    assert 1 == collect(hub).rows
    store.receipt(hub.ranges(), trust=True)
    assert 1 == collect(store).rows
    carry(hub, store)
    carry(store, hub)
    assert ((), ()) == (store.verify().gaps, hub.verify().gaps)


# -- what went --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["master", "snapshot", "bundle", "copy of before"])
def test_a_deletion_that_went_does_not_come_back_and_is_told_from_loss(
    form: str, store: edgeshard.Store, other: edgeshard.Store, wall: Wall, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("outlet", 5.0))
    deleted(store)
    store.snapshot(tmp_path / "copy of before")
    wall.advance(11)
    assert 1 == collect(store).rows
    path = {"master": store.master_path}.get(form, tmp_path / form)
    if form == "snapshot":
        store.snapshot(path)
    elif form == "bundle":
        store.export(path)
    other.merge([path])
    losses = other.verify().losses
    expected = [] if form == "copy of before" else [(PRUNED, store.status().master.database)]
    assert expected == [(loss.cause, loss.database) for loss in losses]
    assert {"outlet": 5.0} == values(other) == values(store)
    store.merge([tmp_path / "copy of before", other.master_path])
    assert ([], 1, {"outlet": 5.0}, ()) == (there(store), gone(store), values(store), store.verify().gaps)


def test_an_older_copy_of_a_shard_brings_nothing_back(store: edgeshard.Store, wall: Wall, tmp_path: Path) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        shard.delete(LastKnown, "inlet")
    shutil.copy(shard_path(store, "a"), tmp_path / "a.db")
    store.merge()
    wall.advance(11)
    assert 1 == collect(store).rows
    store.merge([tmp_path / "a.db"])
    assert ({}, []) == (values(store), there(store))
    sql(tmp_path / "a.db", "PRAGMA user_version = 999")
    assert 0 == store.salvage(tmp_path / "a.db").merged
    assert ({}, [], 1) == (values(store), there(store), gone(store))


def test_an_older_change_that_comes_after_all_is_kept_and_said_so_once(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    with other.shard("b") as late, store.shard("a") as shard:
        late.write(LastKnown("inlet", 1.0))
        late.write(LastKnown("known", 1.0))
        other.merge()
        wall.advance(-1)
        shard.write(LastKnown("known", 0.0))
        wall.advance(2)
        deleted(store, agent="c")
        wall.advance(11)
        assert 1 == collect(store).rows
        text = "rows of table last_known arrived after newer tombstones were collected"
        shard.write(LastKnown("outlet", 2.0))
        store.merge()
        assert text not in caplog.text
        store.merge([other.master_path])
    assert {"inlet": 1.0, "known": 1.0, "outlet": 2.0} == values(store)
    assert 1 == caplog.text.count(text)
    store.merge([other.master_path])
    assert 1 == caplog.text.count(text)


def test_a_change_of_a_key_that_is_known_is_not_taken_for_a_late_one(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    with store.shard("a") as shard:
        shard.write(LastKnown("known", 0.0))
    wall.advance(1)
    with other.shard("b") as late:
        late.write(LastKnown("known", 1.0))
    wall.advance(1)
    deleted(store, agent="c")
    wall.advance(11)
    assert 1 == collect(store).rows
    carry(other, store)
    assert {"known": 1.0} == values(store)
    assert "may have been deleted" not in caplog.text


def test_of_a_table_that_keeps_all_the_last_deletion_goes_and_what_was_written_after_it_stays(
    store: edgeshard.Store, wall: Wall
) -> None:
    with store.shard("a") as shard:
        for value in (1, 2):
            shard.write(KeepAll("p", 1, value))
        shard.delete(KeepAll, "p", 1)
        for value in (3, 4):
            shard.write(KeepAll("p", 1, value))
    store.merge()
    before = keyed_model.state(store)
    wall.advance(11)
    assert (1, 2) == (collect(store).rows, len(before))
    assert (before, 1) == (keyed_model.state(store), gone(store))


def test_many_go_step_by_step_out_of_transactions_and_leave_the_rest(
    store: edgeshard.Store, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FIRST_ROWS", 10)
    monkeypatch.setattr(plan, "next_size", lambda *_: 10)
    with store.shard("a") as shard:
        for n in range(0, 60, 3):
            with shard.transaction():
                shard.delete(LastKnown, f"s{n}")
                shard.write(Reading("inlet", float(n)))
                shard.write(LastKnown(f"t{n}", float(n)))
    store.merge()
    wall.advance(11)
    assert 20 == collect(store, dry_run=True).rows
    assert 20 == collect(store).rows
    assert ([], 20, 20) == (there(store), gone(store), len(values(store)))
    assert [(20,)] == store.query("SELECT count(*) FROM reading")


@pytest.mark.slow
def test_a_prune_of_this_rule_that_is_killed_left_steps_whole(
    store: edgeshard.Store, wall: Wall, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("FIRST_ROWS", "MIN_ROWS", "MAX_ROWS"):
        monkeypatch.setattr(plan, name, 8)
    monkeypatch.setattr(pace, "PAUSE_S", 0.0)
    with store.shard("a") as shard:
        for n in range(40):
            shard.write(LastKnown(f"s{n}", float(n)))
        for n in range(0, 40, 2):
            shard.delete(LastKnown, f"s{n}")
    store.merge()
    store.snapshot(tmp_path / "whole.db")
    left = {f"s{n}": float(n) for n in range(1, 40, 2)}
    wall.advance(11)
    number = kills = 0
    while True:
        shutil.copyfile(tmp_path / "whole.db", store.master_path)
        for suffix in ("-wal", "-shm"):
            Path(f"{store.master_path}{suffix}").unlink(missing_ok=True)
        number += 7
        if not killed_at(store, number, deletions_older_than=GRACE):
            break
        kills += 1
        assert (20, left) == (gone(store) + len(there(store)), values(store))
        store.merge()
        collect(store)
        assert (20, [], left) == (gone(store), there(store), values(store))
    assert kills > 10


# -- how it is asked for ----------------------------------------------------------------------------------------------


def test_it_can_be_asked_of_a_single_table(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    with store.shard("b") as shard:
        shard.delete(Lww, "p", 1)
        shard.write(Reading("inlet", 1.0))
    store.merge()
    wall.advance(11)
    assert 1 == collect(store, table=LastKnown).rows
    assert ([], 1) == (there(store), store.query("SELECT count(*) FROM cell_deleted")[0][0])
    with pytest.raises(ConfigurationError, match="table reading has no tombstones"):
        collect(store, table="reading")
    with pytest.raises(ConfigurationError, match="has a key"):
        collect(store, table="cell", keep_rows=0)
    wall.advance(11)  # streams have retired: they may have delivered their rows lately
    assert 1 == collect(store, table="cell_deleted").rows


def test_no_other_rule_takes_a_deletion_and_this_one_takes_nothing_else(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    with store.shard("b") as shard:
        shard.write_many(Reading("inlet", float(n)) for n in range(5))
    store.merge()
    wall.advance(11)
    assert (5, ["inlet"]) == (store.prune(older_than="1d", keep_rows=0).rows, there(store))
    with store.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
    store.merge()
    wall.advance(11)  # what was pruned may have come lately
    report = store.prune(keep_rows=1, deletions_older_than=GRACE)
    assert ({"tombstone": 1}, 1) == (report.by_reason, store.query("SELECT count(*) FROM reading")[0][0])


def test_a_store_collects_by_itself_after_its_merges(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    wall.advance(11)
    report = edgeshard.Store(store.root, prune={"deletions_older_than": GRACE}).merge()
    assert (1, []) == (report.pruned and report.pruned.rows, there(store))


@pytest.mark.parametrize("verb", [("prune", "--"), ("merge", "--prune-")])
def test_the_command_collects(verb: tuple[str, str], store: edgeshard.Store) -> None:
    deleted(store)
    sql(store.master_path, "UPDATE _edgeshard_arrivals SET at = at - 1000")
    done = command(verb[0], store.root, f"{verb[1]}deletions-older-than", "0s")
    assert (0, "") == (done.returncode, done.stderr)
    assert "pruned 1 row" in done.stdout
    assert [] == there(store)
