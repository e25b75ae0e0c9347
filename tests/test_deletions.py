"""Deletions of keyed tables go once nothing older can come and all others know of them, and not before."""

from __future__ import annotations

import contextlib
import datetime
import inspect
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import attrs
import keyed_model
import pytest
from helpers import DAY_S, command, shard_path, sql
from hostile import edit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyed_model import Cell, KeepAll, Lww, Remembered
from test_keyed import NOON_US, LastKnown, Reading, values
from test_prune import killed_at

import edgeshard
from edgeshard import format
from edgeshard.errors import ConfigurationError
from edgeshard.inspect.verify import PRUNED
from edgeshard.master import arrivals, identity, pruned_ranges, receipts
from edgeshard.merge import late_changes, merger
from edgeshard.retention import own_shards, pace, peer_cache, plan, tombstones, watermark, window
from edgeshard.retention.holds import Hold
from edgeshard.shard import shard
from edgeshard.sources import source

GRACE = "10d"
GRACE_US = 10 * DAY_S * 1_000_000


class Wall:
    """The clock of all devices, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.us = keyed_model.set_clock(monkeypatch, NOON_US)
        monkeypatch.setattr(time, "time", lambda: self.us.now_us / 1e6)

        class Datetime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.fromtimestamp(time.time(), tz)

        for module in (shard, pruned_ranges, receipts):
            monkeypatch.setattr(module, "datetime", SimpleNamespace(datetime=Datetime, UTC=datetime.UTC))

    def advance(self, days: float) -> None:
        self.us.now_us += int(days * DAY_S * 1_000_000)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The clock of all devices."""
    return Wall(monkeypatch)


def gone(store: edgeshard.Store) -> int:
    """How many deletions it says that it pruned; and it contradicts itself nowhere."""
    report = store.verify(deep=True)
    assert () == report.errors
    return report.pruned.get("tombstone", 0)


def there(store: edgeshard.Store) -> list[str]:
    """The keys of which it has a deletion."""
    return [sensor for (sensor,) in store.query("SELECT sensor FROM last_known_deleted ORDER BY 1")]


def collect(store: edgeshard.Store, **options: Any) -> Any:
    """Prune by this rule alone."""
    return store.prune(deletions_older_than=GRACE, **options)


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
    return edgeshard.Store(tmp_path / "other")


def carry(source: edgeshard.Store, target: edgeshard.Store) -> None:
    """Merge what a store has into another."""
    source.merge()
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
    assert (0, 0, (), ()) == (report.deletions_behind, report.deletions_unheard, report.behind, report.unheard)
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
    assert (0, 1, ("b.db has pending changes; merge",)) == (report.rows, report.deletions_behind, report.behind)
    assert "kept 1 deletions since older changes may yet come (b.db has pending changes; merge)" in str(report)
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


def test_rows_from_before_a_class_had_a_key_count_as_the_oldest_of_all(store: edgeshard.Store, wall: Wall) -> None:
    @edgeshard.table(name="last_known")
    @attrs.frozen
    class Before:
        sensor: str
        value: float

    deleted(store)
    wall.advance(11)
    with store.shard("b") as shard:
        shard.write(Before("inlet", 2.0))
        assert 1 == collect(store).deletions_behind
    store.merge()
    assert {} == values(store)


def test_a_shard_that_cannot_be_read_holds_deletions_up(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    wall.advance(11)
    (store.root / "shards" / "b.db").write_bytes(b"not a database" * 100)
    report = collect(store)
    assert (0, 1) == (report.rows, report.deletions_behind)
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
    (other.root / "shards").mkdir(parents=True)
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
        assert (0, 1) == (report.rows, report.deletions_behind)
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
        assert (0, 1) == ((report := collect(store)).rows, report.deletions_behind)
        wall.advance(5)
        assert 1 == collect(store).rows


def test_what_was_pruned_lately_came_lately(store: edgeshard.Store, other: edgeshard.Store, wall: Wall) -> None:
    with other.shard("b") as shard:
        shard.write(Reading("inlet", 1.0))
        deleted(store)
        wall.advance(11)
        carry(other, store)
    store.prune(keep_rows=0)
    assert 1 == collect(store).deletions_behind
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
    assert (0, 1) == (report.rows, report.deletions_behind)
    assert "rows of agent 'c' are missing; merge the database that has them (see status)" in report.behind
    store.merge([second])
    wall.advance(20)
    assert (1, {}) == (collect(store).rows, values(store))


def test_rows_that_another_database_says_it_has_hold_deletions_up(
    store: edgeshard.Store, other: edgeshard.Store, wall: Wall, tmp_path: Path
) -> None:
    second, third = lost_on_its_way(store, other, wall, tmp_path)
    hub = edgeshard.Store(tmp_path / "hub")
    for path in (store.master_path, other.master_path):
        hub.merge([path])
    store.receipt(hub.ranges())
    report = collect(store)
    assert (0, 1, 0) == (report.rows, report.deletions_behind, report.deletions_unheard)
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
    hub, stale = edgeshard.Store(tmp_path / "hub"), edgeshard.Store(tmp_path / "stale")
    with store.shard("a") as shard:
        shard.write(LastKnown("inlet", 1.0))
        store.merge()
        for peer in (hub, stale):
            carry(store, peer)
            store.receipt(peer.ranges())
        shard.delete(LastKnown, "inlet")
    wall.advance(1)
    carry(store, stale)
    store.receipt(stale.ranges())
    wall.advance(11)
    report = collect(store)
    carry(store, hub)
    assert ({}, {}) == (values(hub), values(stale))
    assert (0, 0, 1) == (report.rows, report.deletions_behind, report.deletions_unheard)
    assert (hub.ranges().database_id.hex(),) == report.unheard
    assert "push, or export to them, and note their next receipts" in str(report)
    store.receipt(hub.ranges())
    assert 1 == collect(store).rows


def test_a_database_that_collected_a_deletion_has_heard_of_it(
    store: edgeshard.Store, tmp_path: Path, wall: Wall
) -> None:
    hub = edgeshard.Store(tmp_path / "hub")
    deleted(store)
    carry(store, hub)
    wall.advance(11)
    assert 1 == collect(hub).rows
    store.receipt(hub.ranges())
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
        text = "rows of table last_known came that are older than deletions that were pruned"
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
    sql(store.master_path, "UPDATE edgeshard_arrivals SET at = at - 1000")
    done = command(verb[0], store.root, f"{verb[1]}deletions-older-than", "0s")
    assert (0, "") == (done.returncode, done.stderr)
    assert "pruned 1 rows" in done.stdout
    assert [] == there(store)


def test_a_master_of_an_earlier_version_collects(store: edgeshard.Store, wall: Wall) -> None:
    deleted(store)
    edit(store.master_path, "drop table edgeshard_tombstone_gc")
    wall.advance(11)
    assert 1 == collect(store, dry_run=True).rows
    assert store.verify().ok
    assert 1 == collect(store).rows


# -- the law ----------------------------------------------------------------------------------------------------------

_DEVICE = st.integers(0, 2)
#: A key is written on a device, and deleted on another that all hear of; then some device collects.
_ROUND = st.tuples(st.just("round"), keyed_model.KEYS, _DEVICE, _DEVICE, _DEVICE, st.integers(-3, 5))
_STEP = st.one_of(
    _ROUND,
    keyed_model.STEP,
    st.tuples(st.just("share"), _DEVICE),
    st.tuples(st.just("advance"), st.sampled_from([1, 11])),
    st.tuples(st.just("collect"), _DEVICE),
)
_STEPS = st.tuples(st.lists(_STEP, max_size=10), _ROUND, st.lists(_STEP, max_size=10))

#: In memory, where there is such a folder here: a world makes thousands of commits.
_SHARED = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Fleet(keyed_model.World):
    """Devices that all have receipts of one another, and collect deletions. What is carried is not long under way."""

    def __init__(self, folder: Path, cls: type[Cell], wall: Wall) -> None:
        super().__init__(folder, cls, wall.us)
        self.clock = wall
        self.collected = 0
        self.do_receipts()

    def do_receipts(self) -> None:
        for one, other in itertools.permutations(self.stores, 2):
            one.receipt(other.ranges())

    def do_share(self, device: int) -> None:
        """The others get what a device has, while what their own shards have waits; and all hear of it."""
        store = self.stores[device]
        store.merge()
        for other in self.stores:
            if other is not store:
                with mock.patch.object(merger.Merger, "_due", return_value=[]):
                    other.merge([store.master_path])
        self.do_receipts()

    def do_round(self, key: tuple[str, int], writer: int, deleter: int, collector: int, moves_us: int) -> None:
        self.do_write(writer, "a", key, 1, False, 1)
        self.do_write(deleter, "b", key, None, True, moves_us)
        self.do_share(deleter)
        self.do_advance(11)
        self.do_collect(collector)

    def do_advance(self, days: int) -> None:
        self.clock.advance(days)

    def do_collect(self, device: int) -> None:
        self.collected += collect(self.stores[device]).rows


@pytest.mark.parametrize("cls", [Lww, KeepAll, Remembered])
def test_no_deleted_key_is_shown_again_wherever_deletions_are_collected(cls: type[Cell], wall: Wall) -> None:
    assert 0 < check_law(cls, wall, settings(max_examples=20))


def check_law(cls: type[Cell], wall: Wall, profile: settings) -> int:
    """Raise where the law does not hold; how many deletions were collected."""
    collected = [0]

    @settings(profile, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    @given(_STEPS, st.permutations([0, 1, 2]))
    def law(steps: tuple[list[Any], Any, list[Any]], order: list[int]) -> None:
        with tempfile.TemporaryDirectory(dir=_SHARED) as folder:
            fleet = Fleet(Path(folder), cls, wall)
            try:
                before, one, after = steps
                for step in [*before, one, *after]:
                    fleet.step(step)
            finally:
                fleet.close()
            for store in fleet.stores:
                store.merge()
            hub = edgeshard.Store(Path(folder) / "hub")
            for number in order:
                hub.merge([fleet.stores[number].master_path])
            for store in fleet.stores:
                store.merge([hub.master_path])
            expected = keyed_model.kept(cls, fleet.log)
            for store in [hub, *fleet.stores]:
                assert expected == keyed_model.state(store)
                report = store.verify()
                assert ((), set()) == (report.errors, {loss.cause for loss in report.losses} - {PRUNED})
            collected[0] += fleet.collected

    law()
    return collected[0]


@pytest.mark.parametrize("name", ["a deletion is collected too early", "its block is not cut"])
def test_the_law_finds(name: str, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, wrong, _ = MUTANTS[name]
    monkeypatch.setattr(module, attribute, wrong)
    with pytest.raises((AssertionError, ExceptionGroup)):
        check_law(Lww, wall, settings(max_examples=100, phases=keyed_model.UNSHRUNK))


# -- mutants ----------------------------------------------------------------------------------------------------------

_find = tombstones.find_expired


def _block_is_not_cut(_: Any, number: int, blocks: Any, ids: Any) -> Any:
    return [part for block in blocks for part in plan.cut(block, ids)[1]]


def _find_by_arrival_alone(connection: Any, path: Path, tables: Any, _: float) -> tombstones.ExpiredTombstones:
    inputs = watermark.load_inputs(path, format.TIMESTAMP_MAX, format.TIMESTAMP_MAX)
    return tombstones.ExpiredTombstones(tuple(tables), identity.next_id(connection), inputs)


#: What is done wrong, and the test that must find it, with the arguments that it takes.
MUTANTS: dict[str, tuple[Any, str, Any, Any]] = {
    "the grace period is ignored": (
        tombstones, "find_expired", lambda connection, path, tables, _: _find(connection, path, tables, 0.0),
        test_a_deletion_goes_once_the_grace_period_has_passed,
    ),
    "when it came is ignored": (
        arrivals, "first_since", lambda *_: None, test_a_deletion_that_came_late_stays_for_the_grace_period_from_then_on,
    ),
    "when it was timestamped is ignored": (
        tombstones, "find_expired", _find_by_arrival_alone,
        test_a_deletion_that_was_timestamped_by_a_clock_ahead_stays_until_that_time_is_over,
    ),
    "a deletion is collected too early": (
        watermark, "holds", lambda _, inputs: iter([Hold(inputs.since_us, "")]),
        test_a_deletion_waits_for_an_older_change_that_waits_in_a_shard,
    ),
    "no stream is looked at": (
        watermark, "holds", lambda _, inputs: iter([Hold(inputs.since_us, ""), *inputs.own_shards.holds]),
        test_an_agent_elsewhere_holds_deletions_up_until_a_later_change_of_it_comes,
    ),
    "no shard is looked at": (
        own_shards, "scan_own_shards", lambda *_: own_shards.OwnShards(),
        test_a_deletion_waits_for_an_older_change_that_waits_in_a_shard,
    ),
    "rows without a timestamp count as new": (
        own_shards, "_timestamps", lambda *_: iter(()), test_rows_from_before_a_class_had_a_key_count_as_the_oldest_of_all,
    ),
    "streams of the store's shards are taken for others": (
        source, "stream_ids", lambda *_: set(),
        test_an_agent_of_the_store_that_lives_on_without_a_change_holds_nothing_up,
    ),
    "what a shard gave up to another is ignored": (
        source, "has_given_up_only_what_is_held", lambda *_: True,
        test_a_shard_that_another_master_drained_holds_deletions_up,
    ),
    "a gap is ignored": (watermark, "_streams_with_missing_rows", lambda _: set(), test_a_gap_holds_deletions_up),
    "what others have is ignored": (
        receipts, "beyond", lambda _: [], test_rows_that_another_database_says_it_has_hold_deletions_up,
    ),
    "others need not have heard of it": (
        peer_cache.PeerCache, "read", lambda *_: {}, test_a_deletion_waits_for_each_database_with_a_receipt_to_hear_of_it,
    ),
    "what was pruned counts as never come": (
        pruned_ranges, "streams_since", lambda *_: set(), test_what_was_pruned_lately_came_lately,
    ),
    "it is not recorded": (
        pruned_ranges, "note", lambda *_: None, test_a_deletion_goes_once_the_grace_period_has_passed,
    ),
    "its block is not cut": (
        window, "_cut_blocks", _block_is_not_cut, test_a_deletion_goes_once_the_grace_period_has_passed,
    ),
    "nobody says that a change came late": (
        late_changes, "find", lambda *_: [], test_an_older_change_that_comes_after_all_is_kept_and_said_so_once,
    ),
    "each change is taken for a late one": (
        late_changes, "_select", lambda name, _: f"SELECT ?1, _id FROM main.{name} WHERE _id >= ?2 AND ?3 > 0",
        test_a_change_of_a_key_that_is_known_is_not_taken_for_a_late_one,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_test_finds_every_mutant(
    mutant: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, wrong, test = MUTANTS[mutant]
    given = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        test(**given)
