"""Prune: rows go by rule, whole transactions, for good; what went is accounted for, and nothing comes back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest

import edgeshard
from edgeshard import cli, sqlite
from edgeshard.errors import ConfigurationError, DamagedError, StorageBusyError
from edgeshard.format.ranges import Range
from edgeshard.master import arrivals, database
from edgeshard.reports import PEER, PRUNED, UNKNOWN
from edgeshard.retention import plan, shrink
from tests.support.clocks import DAY_S, Clock
from tests.support.hostile_shards import edit
from tests.support.processes import command, sql
from tests.support.pruning import (
    account,
    add,
    check_disk_is_given_back,
    check_nothing_comes_back,
    copies_of,
    note,
    stream_of,
)
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers


def pruned(store: edgeshard.Store) -> list[list[Any]]:
    """What the store notes that it pruned, of all its streams."""
    return sql(
        store.master_path,
        "select first, last, reason from _edgeshard_pruned_ranges join _edgeshard_database using(database_id) order by 1",
    )


@pytest.fixture
def hub(tmp_path: Path) -> edgeshard.Store:
    """A store elsewhere, of which there is nothing yet."""
    return new_store(tmp_path / "hub")


# -- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left"), [(0, 0), (1, 1), (3, 3), (6, 6), (99, 6)])
def test_the_newest_rows_are_kept(store: edgeshard.Store, keep: int, left: int) -> None:
    add(store, "a", 0, 1, 2)
    add(store, "b", 3, 4, 5)
    report = store.prune(keep_rows=keep)
    assert (6 - left, {"keep rows": 6 - left} if left < 6 else {}) == (report.rows, report.by_reason)
    assert list(range(6 - left, 6)) == numbers(store)
    assert (left, 6 - left, 6) == account(store)


def test_rows_of_an_age_go_and_younger_ones_stay(store: edgeshard.Store, clock: Clock) -> None:
    for day in range(4):
        add(store, "a", day)
        clock.now_s += DAY_S
    assert 0 == store.prune(older_than="4d").rows
    assert [0, 1, 2, 3] == numbers(store)
    assert 2 == store.prune(older_than="60h").rows
    assert [2, 3] == numbers(store)
    assert {"older than": 2} == store.verify().pruned
    assert 2 == store.prune(older_than=0).rows


def test_a_row_is_never_taken_for_older_than_it_is(store: edgeshard.Store, clock: Clock) -> None:
    add(store, "a", 0)
    clock.now_s += arrivals.RESOLUTION_S - 1
    add(store, "a", 1)  # within the same minute: it counts as come with the first
    clock.now_s += 10
    assert 0 == store.prune(older_than=10).rows
    clock.now_s += arrivals.RESOLUTION_S - 9
    assert 2 == store.prune(older_than=arrivals.RESOLUTION_S).rows


def test_rows_that_came_while_the_clock_was_not_set_are_of_unknown_age(store: edgeshard.Store, clock: Clock) -> None:
    real, clock.now_s = clock.now_s, 1_000.0
    add(store, "a", 0, 1)
    assert 0 == store.prune(older_than=0).rows
    clock.now_s = real
    assert 0 == store.prune(older_than="30d").rows
    add(store, "a", 2)  # the first time that is known: what came before it counts as come with it
    clock.now_s += 10 * DAY_S
    assert (0, 3) == (store.prune(older_than="11d").rows, store.prune(older_than="9d").rows)


def test_a_clock_that_was_set_back_makes_rows_no_older(store: edgeshard.Store, clock: Clock) -> None:
    add(store, "a", 0)
    clock.now_s -= 50 * DAY_S
    add(store, "a", 1)
    clock.now_s += 51 * DAY_S
    add(store, "a", 2)
    assert 2 == store.prune(older_than="12h").rows
    assert [2] == numbers(store)
    held = sql(store.master_path, "select at from _edgeshard_arrivals order by first_id")
    assert sorted(held) == held


def test_times_of_rows_that_are_gone_are_forgotten(store: edgeshard.Store, clock: Clock) -> None:
    for day in range(20):
        add(store, "a", day)
        clock.now_s += DAY_S
    store.prune(keep_rows=2)
    assert [[19], [20]] == sql(store.master_path, "select first_id from _edgeshard_arrivals")


def test_a_master_is_kept_to_a_size_and_keeps_the_newest(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(4_000):
            shard.write({"n": n, "text": "x" * 800})
    store.merge()
    before = store.master_path.stat().st_size
    report = store.prune(max_bytes="2M")
    files = [store.master_path, Path(f"{store.master_path}-wal")]
    assert (True, True) == (report.fits, sum(path.stat().st_size for path in files if path.exists()) <= 2_000_000)
    assert before - report.shrunk_bytes == store.master_path.stat().st_size == report.file_bytes
    left = numbers(store)
    assert (list(range(4_000 - len(left), 4_000)), True) == (left, len(left) > 1_500)
    assert {"max bytes": report.rows} == report.by_reason == store.verify().pruned
    assert 0 == store.prune(max_bytes="2M").rows


def test_each_rule_holds_afterwards_where_several_are_given(store: edgeshard.Store, clock: Clock) -> None:
    for day in range(6):
        add(store, "a", 2 * day, 2 * day + 1)
        clock.now_s += DAY_S
    report = store.prune(older_than="100h", keep_rows=5, max_bytes="10M")
    assert ({"older than": 4, "keep rows": 3}, 7) == (report.by_reason, report.rows)
    assert [7, 8, 9, 10, 11] == numbers(store)
    assert ({"older than": 4, "keep rows": 3}, 3) == (store.verify().pruned, report.retired_streams)
    assert [[1, 1, "keep rows"]] == pruned(store)  # the other streams have retired
    report = store.prune(older_than="30h", keep_rows=5)
    assert ({"older than": 3}, [10, 11]) == (report.by_reason, numbers(store))


def test_only_the_rows_of_the_named_table_go(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(6):
            shard.write_many([{"n": n}, Reading("inlet", float(n), NOON)])
    store.merge()
    assert 5 == store.prune(keep_rows=1, table=Reading).rows
    assert ([5.0], list(range(6))) == ([row.celsius for row in store.read(Reading)], numbers(store))
    assert (7, 5, 12) == account(store)
    assert 4 == store.prune(keep_rows=2, table="AGENT_data").rows
    assert ([4, 5], (3, 9, 12)) == (numbers(store), account(store))
    assert 1 == store.prune(keep_rows=2).rows
    assert ([5], 1) == (numbers(store), len(list(store.read(Reading))))


def test_only_the_named_table_goes_as_a_size_is_kept(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write(Reading("inlet", 1.0, NOON))
        for n in range(3_000):
            shard.write({"n": n, "text": "x" * 800})
    store.merge()
    assert not store.prune(max_bytes="1M", table=Reading).fits
    assert (0, 3_000) == (len(list(store.read(Reading))), len(numbers(store)))
    assert 3 == command("prune", store.root, "--max-bytes", "1M", "--table", "reading").returncode


# -- transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_that_lies_across_a_rule_is_kept_whole(store: edgeshard.Store) -> None:
    add(store, "a", 0, [1, 2, 3, 4], 5)
    assert (1, [1, 2, 3, 4, 5]) == (store.prune(keep_rows=3).rows, numbers(store))
    assert (4, [5]) == (store.prune(keep_rows=1).rows, numbers(store))
    assert [] == sql(store.master_path, "select * from _edgeshard_transactions")


def test_a_transaction_larger_than_a_step_goes_in_one(store: edgeshard.Store) -> None:
    add(store, "a", range(3_000), 3_000)
    seen: list[int] = []
    report = store.prune(keep_rows=1, progress=lambda done, _: seen.append(done))
    assert (3_000, {3_000}) == (report.rows, set(seen) - {0})


def test_what_is_left_of_a_transaction_stays_one_and_goes_on_to_a_hub_in_one(
    store: edgeshard.Store, hub: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.shard("a") as shard:
        with shard.transaction():
            for n in range(6):
                shard.write({"n": n} if n % 2 else Reading("inlet", float(n), NOON))
        shard.write({"n": 9})
    store.merge()
    assert 3 == store.prune(keep_rows=0, table=Reading).rows
    assert [[2, 6]] == sql(store.master_path, "select * from _edgeshard_transactions")
    monkeypatch.setattr("edgeshard.format.blocks.CHUNK_BYTES", 1)  # a row at a time, if it were not for the transaction
    hub.merge([store.master_path])
    assert [[1, 3]] == sql(hub.master_path, "select * from _edgeshard_transactions")
    assert ([1, 3, 5, 9], ()) == (numbers(hub), hub.verify().errors)


# -- what others hold -------------------------------------------------------------------------------------------------


@pytest.fixture
def half_pushed(store: edgeshard.Store, hub: edgeshard.Store) -> edgeshard.Store:
    """A store of ten rows, of which a hub holds six, and PostgreSQL, as its receipt says, the first three."""
    add(store, "a", *range(6))
    hub.merge([store.master_path])
    store.receipt(hub.ranges(), trust=True)
    add(store, "a", 6, 7, 8, 9)
    note(store, {stream_of(store): [Range(1, 3)]})
    return store


def test_rows_that_nobody_else_holds_are_kept_back(half_pushed: edgeshard.Store) -> None:
    report = half_pushed.prune(keep_rows=0, only_receipted=True)
    assert (6, 4, [6, 7, 8, 9]) == (report.rows, report.kept_back, numbers(half_pushed))
    assert "pruned 6 rows, kept 4 rows that no other database holds" in str(report)


def test_only_what_postgresql_holds_counts_as_pushed(half_pushed: edgeshard.Store) -> None:
    report = half_pushed.prune(keep_rows=0, only_pushed=True)
    assert (3, 7, list(range(3, 10))) == (report.rows, report.kept_back, numbers(half_pushed))
    done = command("prune", half_pushed.root, "--keep-rows", "0", "--only-pushed", "--json")
    assert (0, 0, 7) == (done.returncode, (report := json.loads(done.stdout))["rows"], report["kept_back"])


@pytest.mark.parametrize("which", ["only_pushed", "only_receipted"])
def test_without_a_receipt_nothing_goes(store: edgeshard.Store, which: str) -> None:
    add(store, "a", 0, 1)
    asked: dict[str, Any] = {which: True}
    report = store.prune(keep_rows=0, **asked)
    assert (0, 2, [0, 1]) == (report.rows, report.kept_back, numbers(store))


def test_what_a_peer_pruned_or_lost_is_not_safe_there(store: edgeshard.Store, hub: edgeshard.Store) -> None:
    add(store, "a", 0, 1, 2, 3)
    hub.merge([store.master_path])
    hub.prune(keep_rows=2)
    store.receipt(hub.ranges(), trust=True)
    assert (2, [0, 1]) == (store.prune(keep_rows=0, only_receipted=True).rows, numbers(store))


def test_a_peer_whose_clock_was_set_back_holds_no_more_than_it_says_after_its_prune(
    store: edgeshard.Store, hub: edgeshard.Store
) -> None:
    add(store, "a", 0, 1, 2, 3)
    hub.merge([store.master_path])
    store.receipt(hub.ranges(), trust=True)
    hub.prune(keep_rows=2)
    said = hub.ranges()
    assert "doubtful" == store.receipt(attrs.evolve(said, at=NOON.replace(year=2001))).outcome
    assert 2 == store.prune(keep_rows=0, only_receipted=True).rows


def test_a_transaction_of_which_a_peer_lacks_a_row_is_kept_back(store: edgeshard.Store) -> None:
    add(store, "a", 0, [1, 2, 3], 4)
    note(store, {stream_of(store): [Range(1, 3), Range(5, 5)]})
    report = store.prune(keep_rows=0, only_receipted=True)
    assert (2, 3, [1, 2, 3]) == (report.rows, report.kept_back, numbers(store))


def test_a_receipt_that_comes_in_the_midst_of_a_prune_counts(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, "a", *range(30))
    note(store, {stream_of(store): [Range(1, 30)]})
    monkeypatch.setattr(plan, "FIRST_ROWS", 10)
    monkeypatch.setattr(plan, "next_size", lambda *_: 10)
    first: list[int] = []

    def lose(done: int, _: int) -> None:
        if done and not first:
            first.append(done)
            note(store, {})

    report = store.prune(keep_rows=0, only_receipted=True, progress=lose)
    assert (first[0], 30 - first[0]) == (report.rows, report.kept_back)


# -- nothing comes back -----------------------------------------------------------------------------------------------


def test_nothing_that_was_pruned_comes_back(tmp_path: Path) -> None:
    check_nothing_comes_back(tmp_path)


def test_what_a_hub_holds_stays_there_and_does_not_come_back(store: edgeshard.Store, hub: edgeshard.Store) -> None:
    add(store, "a", 0, 1, 2, 3)
    hub.merge([store.master_path])
    store.prune(keep_rows=1)
    add(store, "a", 4)
    assert (1, ()) == ((report := hub.merge([store.master_path])).rows, report.gaps)
    assert 0 == store.merge([hub.master_path]).rows
    assert ([0, 1, 2, 3, 4], [3, 4], True) == (numbers(hub), numbers(store), hub.verify().ok)


def test_a_shard_that_still_has_what_was_pruned_is_truncated(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(4):
            shard.write({"n": n})
        with mock.patch("edgeshard.merge.truncate.truncate", return_value=None):  # as if killed before it
            store.merge()
        store.prune(keep_rows=1)
        shard.write({"n": 4})
        assert (1, 5) == ((report := store.merge()).rows, report.truncated)
    assert ([3, 4], True) == (numbers(store), store.verify().ok)


# -- what others see of a pruned master -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["master", "snapshot", "bundle", "hub"])
def test_a_hub_that_comes_late_is_told_that_rows_were_pruned(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path, form: str
) -> None:
    add(store, "a", *range(6))
    store.prune(keep_rows=2)
    path = store.master_path if form == "master" else copies_of(store, tmp_path / "copies")[form]
    report = hub.merge([path])
    assert (2, 4, ()) == (report.rows, sum(map(len, report.gaps)), report.quarantined)
    (loss,) = hub.verify().losses
    pruner = store.status().master.database
    assert (1, 4, PRUNED, pruner) == (loss.gap.first, loss.gap.last, loss.cause, loss.database)
    assert f"master {pruner} pruned them" in command("verify", hub.root).stdout
    before = sql(hub.master_path, "select * from _edgeshard_database", "select generation from _edgeshard_database")
    hub.merge([path])
    assert before == sql(hub.master_path, "select generation from _edgeshard_database"), (
        "what is noted was written anew"
    )


def test_a_reason_reaches_a_hub_that_knew_of_the_gap(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("a") as shard:
        shard.write_many([{"n": 0}, {"n": 1}])
        store.merge()
        said = store.ranges()
        shard.write_many([{"n": 2}, {"n": 3}])
        store.merge()
    store.export(tmp_path / "second.db", ranges=said)
    hub.merge([tmp_path / "second.db"])
    assert [UNKNOWN] == [loss.cause for loss in hub.verify().losses]
    store.prune(keep_rows=2)
    store.export(tmp_path / "third.db", ranges=hub.ranges())
    assert 0 == hub.merge([tmp_path / "third.db"]).rows
    assert [PRUNED] == [loss.cause for loss in hub.verify().losses]


def test_a_gap_that_somebody_fills_is_none_whatever_was_pruned(
    store: edgeshard.Store, hub: edgeshard.Store, tmp_path: Path
) -> None:
    add(store, "a", 0, 1, 2)
    store.export(tmp_path / "early.db")
    store.prune(keep_rows=1)
    hub.merge([store.master_path])
    assert [PRUNED] == [loss.cause for loss in hub.verify().losses]
    assert (2, True, {}) == (hub.merge([tmp_path / "early.db"]).rows, hub.verify().ok, hub.verify().pruned)


def test_a_peer_that_holds_pruned_rows_is_named_first(store: edgeshard.Store, hub: edgeshard.Store) -> None:
    add(store, "a", 0, 1, 2)
    store.prune(keep_rows=1)
    hub.merge([store.master_path])
    note(hub, {stream_of(store): [Range(1, 2)]})
    assert [PEER] == [loss.cause for loss in hub.verify().losses]


@pytest.mark.parametrize(
    "change",
    [
        "update _edgeshard_pruned_ranges set first = 0",
        "update _edgeshard_pruned_ranges set last = first - 1",
        "update _edgeshard_pruned_ranges set database_id = x'00'",
        "update _edgeshard_pruned_ranges set reason = printf('%.*c', 101, 'x')",
    ],
)
def test_a_source_whose_prunings_cannot_be_is_set_aside(
    store: edgeshard.Store, hub: edgeshard.Store, change: str
) -> None:
    add(store, "a", *range(6))
    store.prune(keep_rows=2)
    edit(store.master_path, change)
    (aside,) = hub.merge([store.master_path]).quarantined
    assert "has invalid pruned ranges" in aside.reason


# -- what is said of it -----------------------------------------------------------------------------------------------


def test_verify_and_status_tell_what_was_pruned(store: edgeshard.Store) -> None:
    add(store, "a", *range(6))
    store.prune(keep_rows=2)
    done = command("verify", store.root)
    assert (0, "2 rows of 1 stream, 4 pruned (keep rows: 4): all well\n") == (done.returncode, done.stdout)
    report = json.loads(command("verify", store.root, "--json").stdout)
    assert ({"keep rows": 4}, True, [], []) == tuple(report[key] for key in ("pruned", "ok", "gaps", "losses"))
    assert "2 rows of 1 agent in 1 stream, besides 4 pruned" in command("status", store.root).stdout
    found = json.loads(command("status", store.root, "--json").stdout)["master"]
    assert (2, 4, 0) == (found["rows"], found["pruned_rows"], found["missing_rows"])
    assert [[1, 4, "keep rows"]] == pruned(store)


def test_runs_that_went_for_one_reason_share_a_line(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "next_size", lambda *_: 3)
    add(store, "a", *range(20))
    store.prune(keep_rows=8)
    store.prune(keep_rows=3)
    assert [[1, 17, "keep rows"]] == pruned(store)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("delete from _edgeshard_pruned_ranges", "seqs 1 to 4 were here, and are neither here now nor pruned"),
        ("update _edgeshard_ranges set first = 3", "seqs 1 to 4 were pruned, but have no range"),
        ("update _edgeshard_pruned_ranges set last = 5", "seqs 1 to 5 were pruned, and some of them have a block"),
        (
            "insert into _edgeshard_pruned_ranges select 1, database_id, stream_no, 2, 3, reason, '' from _edgeshard_pruned_ranges",
            "seq 2 was pruned twice",
        ),
        ("delete from _edgeshard_blocks", "seqs 5 to 6 were here, and are neither here now nor pruned"),
    ],
)
def test_verify_tells_loss_from_what_was_pruned(store: edgeshard.Store, change: str, finding: str) -> None:
    add(store, "a", *range(6))
    store.prune(keep_rows=2)
    edit(store.master_path, change)
    assert any(finding in error for error in store.verify().errors), store.verify().errors


def test_progress_ends_with_all_that_went(store: edgeshard.Store) -> None:
    add(store, "a", *range(2_500))
    seen: list[tuple[int, int]] = []
    store.prune(keep_rows=100, progress=lambda *at: seen.append(at))
    assert ((2_400, 2_400), True, sorted(seen)) == (seen[-1], len(seen) > 1, seen)


# -- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {}, {"only_pushed": True}, {"table": "agent_data"}, {"older_than": "soon"}, {"keep_rows": -1},
        {"keep_rows": True}, {"keep_rows": 1.5}, {"max_bytes": 10}, {"max_bytes": "many"},
        {"keep_rows": 1, "table": "nosuch"}, {"keep_rows": 1, "table": "_edgeshard_ranges"},
        {"keep_rows": 1, "table": "a\" or 1"},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_and_nothing_goes(store: edgeshard.Store, asked: dict[str, Any]) -> None:
    add(store, "a", 0, 1)
    with pytest.raises(ConfigurationError, match=r"^prune "):
        store.prune(**asked)
    assert [0, 1] == numbers(store)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--deletions-older-than, --forget-after or --shrink"),
        (["--only-pushed"], 2, "nothing to do; add --older-than"),
        (["--older-than", "30"], 2, "a number and a unit"),
        (["--keep-rows", "-1"], 2, "must be a whole number"),
        (["--keep-rows", "1e3"], 2, "must be a whole number"),
        (["--max-bytes", "500"], 2, "size must be at least 1M"),
        (["--keep-rows", "1", "--only-pushed", "--only-receipted"], 2, "not allowed with"),
        (["--keep-rows", "1", "--table", ""], 2, "must not be empty"),
        (["--keep-rows", "1", "--table", "nosuch"], 78, "there is no table 'nosuch'; the master has agent_data"),
    ],
)
def test_wrong_usage_is_told(store: edgeshard.Store, arguments: list[str], code: int, said: str) -> None:
    add(store, "a", 0, 1)
    done = command("prune", store.root, *arguments)
    assert (code, "", True) == (done.returncode, done.stdout, said in done.stderr), done.stderr
    assert [0, 1] == numbers(store)


def test_the_command_prunes_and_says_so(store: edgeshard.Store) -> None:
    add(store, "a", *range(6))
    done = command("prune", store.root, "--keep-rows", "4")
    assert (0, "", True) == (done.returncode, done.stderr, done.stdout.startswith("pruned 2 rows, in "))
    assert (0, "", "") == ((done := command("prune", store.root, "--keep-rows", "2", "-q")).returncode, done.stdout, "")
    done = command("prune", store.root, "--keep-rows", "1", "--json")
    report = json.loads(done.stdout)
    assert report["complete"]
    assert (1, {"keep rows": 1}, 0, True, False) == (
        report["rows"], report["by_reason"], report["kept_back"], report["fits"], report["dry_run"]
    )  # fmt: skip
    assert [5] == numbers(store)


# -- a dry run --------------------------------------------------------------------------------------------------------


def files_of(store: edgeshard.Store) -> dict[str, bytes]:
    """The bytes of the store's files, but for what readers leave beside them."""
    return {path.name: path.read_bytes() for path in sorted(store.root.rglob("*.db"))}


@pytest.mark.parametrize(
    "asked",
    [
        {"keep_rows": 3},
        {"keep_rows": 2, "table": "agent_data"},
        {"keep_rows": 0, "only_receipted": True},
        {"keep_rows": 5, "older_than": 0},
    ],
)
def test_a_dry_run_says_what_a_prune_does_and_does_nothing(
    store: edgeshard.Store, clock: Clock, asked: dict[str, Any]
) -> None:
    add(store, "a", 0, 1, [2, 3, 4], 5, 6)
    note(store, {stream_of(store): [Range(1, 4)]})
    clock.now_s += DAY_S
    store.prune(shrink=True)
    before, told = files_of(store), store.prune(dry_run=True, **asked)
    assert before == files_of(store)
    done = store.prune(**asked)
    assert (done.rows, done.by_reason, done.kept_back) == (told.rows, told.by_reason, told.kept_back)
    assert (True, True) == (told.dry_run, str(told).startswith(f"would prune {done.rows} rows"))


def test_a_dry_run_of_a_size_comes_near(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(4_000):
            shard.write({"n": n, "text": "x" * 800})
    store.merge()
    before, told = files_of(store), store.prune(max_bytes="2M", dry_run=True)
    assert before == files_of(store)
    done = store.prune(max_bytes="2M")
    assert (True, True) == (told.fits, abs(told.rows - done.rows) < 0.1 * done.rows)


def test_a_dry_run_names_tables_their_oldest_and_newest_rows_and_the_bytes_to_be_freed(
    store: edgeshard.Store, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = clock.now_s
    for _ in range(3):
        with store.shard("a") as shard:
            shard.write_many(Reading("inlet", 71.5, NOON) for _ in range(1_000))
            shard.write({"n": 1})
        store.merge()
        clock.now_s += DAY_S
    size_bytes = {table.name: table.size_bytes or 0 for table in store.tables().tables}
    told = store.prune(keep_rows=1_001, dry_run=True)
    data, reading = told.tables
    assert (("agent_data", 2), ("reading", 2_000)) == ((data.name, data.rows), (reading.name, reading.rows))
    assert reading.oldest_at is not None
    assert reading.newest_at is not None
    assert abs(reading.oldest_at.timestamp() - began_s) < 60
    assert DAY_S == (reading.newest_at - reading.oldest_at).total_seconds()
    assert [size_bytes["agent_data"] * 2 // 3, size_bytes["reading"] * 2 // 3] == [
        data.freed_bytes,
        reading.freed_bytes,
    ]
    assert ", about " in str(told)
    for columns in (40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert 0 == cli.main(["prune", str(store.root), "--keep-rows", "1001", "--dry-run"])
        shown = capsys.readouterr().out
        assert shown.startswith("would prune 2,002 rows, in ")
        assert columns >= max(map(len, shown.splitlines()))
    assert any(line.startswith("│ reading") and "│ 2,000 │ " in line for line in shown.splitlines())
    done = command("prune", store.root, "--keep-rows", "1001", "--dry-run", "--json")
    assert (0, told.as_dict()["tables"]) == (done.returncode, json.loads(done.stdout)["tables"])
    assert () == store.prune(keep_rows=1_001).tables


# -- masters that are empty, missing, damaged or busy ----------------------------------------------------------------


def test_an_empty_master_has_nothing_to_prune(store: edgeshard.Store) -> None:
    store.init()
    for asked in ({"keep_rows": 0}, {"older_than": "1d"}, {"max_bytes": "1M"}, {"shrink": True}):
        report = store.prune(**asked)
        assert (0, True) == (report.rows, report.fits)
    assert store.verify().ok


def test_a_prune_makes_no_master(store: edgeshard.Store) -> None:
    assert 78 == command("prune", store.root, "--keep-rows", "1").returncode
    (store.root / "shards").mkdir(parents=True)
    for dry_run in (False, True):
        assert (0, dry_run) == ((report := store.prune(keep_rows=0, dry_run=dry_run)).rows, report.dry_run)
    done = command("prune", store.root, "--keep-rows", "1", "--dry-run")
    assert (78, ["shards"], True) == (done.returncode, os.listdir(store.root), "there is no master yet" in done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "update _edgeshard_blocks set first_id = first_id + 1",
        "update _edgeshard_blocks set first_id = first_id - 1",
        "update _edgeshard_blocks set first_id = first_id + 100",
        "update _edgeshard_blocks set first = first + 1",
        "delete from _edgeshard_blocks",
        "update agent_data set _seq = 7 - _seq",
        "drop table _edgeshard_transactions",
        "drop table _edgeshard_blocks",
    ],
)
def test_a_master_that_contradicts_itself_is_not_pruned_further(store: edgeshard.Store, change: str) -> None:
    """Nor are its rows recorded as pruned, or as deleted by hand."""
    add(store, "a", *range(6))
    edit(store.master_path, change)
    before = sql(store.master_path, "select _id, _seq from agent_data")
    with pytest.raises(DamagedError, match=r"^prune "):
        store.prune(keep_rows=2)
    assert before == sql(store.master_path, "select _id, _seq from agent_data")
    assert [[0]] == sql(store.master_path, "select count(*) from _edgeshard_pruned_ranges")
    done = command("prune", store.root, "--keep-rows", "2")
    assert (65, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))


def test_a_file_that_is_no_database_is_refused(store: edgeshard.Store) -> None:
    add(store, "a", 0)
    store.master_path.write_bytes(os.urandom(40_000))
    done = command("prune", store.root, "--keep-rows", "0")
    assert (65, "", True) == (done.returncode, done.stdout, "not a database" in done.stderr)


def test_whoever_holds_the_master_locked_is_waited_for_and_then_told_of(store: edgeshard.Store) -> None:
    add(store, "a", 0, 1)
    connection = database.open_master(store.master_path, writable=True)
    with sqlite.immediate(connection):
        done = command("prune", store.root, "--keep-rows", "0", "--lock-wait", "0")
        assert (75, "") == (done.returncode, done.stdout)
        with pytest.raises(StorageBusyError):
            store.prune(keep_rows=0, lock_wait=0.0)
        connection.execute("ROLLBACK")
    connection.close()
    assert [0, 1] == numbers(store)


def test_a_master_made_without_auto_vacuum_is_pruned_and_cannot_become_smaller(store: edgeshard.Store) -> None:
    with mock.patch.object(sqlite, "create", lambda *given, shrinkable=False, **more: CREATE(*given, **more)):
        add(store, "a", *range(3_000))
    told = store.prune(keep_rows=10, dry_run=True)
    size, report = store.master_path.stat().st_size, store.prune(keep_rows=10, shrink=True)
    assert (2_990, 2_990, 0, False) == (told.rows, report.rows, report.shrunk_bytes, report.can_shrink)
    assert (size, (10, 2_990, 3_000)) == (store.master_path.stat().st_size, account(store))
    assert "this file cannot become smaller" in str(report)


CREATE = sqlite.create


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_the_disk_gets_its_room_back(tmp_path: Path) -> None:
    check_disk_is_given_back(tmp_path)


@pytest.mark.slow
def test_without_being_asked_the_file_keeps_its_room_for_rows_to_come(store: edgeshard.Store) -> None:
    sizes = []
    for day in range(8):
        add(store, "a", *range(day * 1_000, day * 1_000 + 1_000))
        store.prune(keep_rows=2_000)
        sizes.append(store.master_path.stat().st_size)
    assert (True, True) == (sizes[0] < sizes[3], max(sizes[3:]) < 1.05 * sizes[3]), sizes


def test_each_step_of_giving_back_is_bounded() -> None:
    assert [10, 50, 200, 5_000] == [
        plan.next_size(*at, shrink.MIN_PAGES, shrink.MAX_PAGES)
        for at in ((10, 9.0), (100, 9.0), (100, 0.0), (5_000, 0.0))
    ]


def test_a_step_takes_as_many_rows_as_take_its_time() -> None:
    assert [100, 500, 2_000, 50_000, 1_000] == [
        plan.next_size(*at, plan.MIN_ROWS, plan.MAX_ROWS)
        for at in ((150, 9.0), (1_000, 9.0), (1_000, 0.0), (40_000, 0.001), (1_000, plan.TRANSACTION_S))
    ]


def test_waiting_for_a_merger_makes_no_step_smaller(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "a", *range(3_000))
    taken: list[float] = []

    def noted(rows: int, took_s: float, *_: int) -> int:
        taken.append(took_s)
        return rows

    monkeypatch.setattr(plan, "next_size", noted)
    real, now_s = sqlite.immediate, [0.0]

    @contextlib.contextmanager
    def waiting(connection: Any) -> Iterator[None]:
        now_s[0] += 50.0
        with real(connection):
            yield

    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(sqlite, "immediate", waiting)
    store.prune(keep_rows=0)
    assert (True, {0.0}) == (len(taken) >= 4, set(taken))


# -- kills ------------------------------------------------------------------------------------------------------------


def test_a_prune_that_is_interrupted_ends_after_a_step_and_says_so(store: edgeshard.Store) -> None:
    add(store, "a", *range(50))
    code = (
        "import os, signal, sys\n"
        "from edgeshard import cli\n"
        "from edgeshard.retention import plan, window\n"
        "plan.FIRST_ROWS = 10\n"
        "plan.next_size = lambda *_: 10\n"
        "real = window.delete\n"
        "def apply(*given):\n"
        "    real(*given)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "window.delete = apply\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    arguments = [sys.executable, "-c", code, "prune", str(store.root), "--keep-rows", "0"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (130, True) == (done.returncode, "stopped early, the next prune continues" in done.stdout), done.stderr
    rows, gone, held = account(store)
    assert (50, 50, True) == (rows + gone, held, 0 < gone < 50)
    assert rows == store.prune(keep_rows=0).rows


@pytest.mark.slow
def test_two_prunes_at_once_find_each_others_windows_empty(store: edgeshard.Store) -> None:
    add(store, "a", *range(5_000))
    arguments = [sys.executable, "-m", "edgeshard", "prune", str(store.root), "--keep-rows", "100", "--json"]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    reports = [json.loads(process.communicate()[0]) for process in both]
    assert ([0, 0], 4_900) == ([process.returncode for process in both], sum(report["rows"] for report in reports))
    assert (100, 4_900, 5_000) == account(store)


@pytest.mark.parametrize("error", [ValueError("mine"), OverflowError("mine"), TypeError("mine"), OSError("mine")])
@pytest.mark.parametrize("argument", ["progress", "should_stop"])
def test_an_error_of_a_callers_function_is_not_taken_for_damage(
    store: edgeshard.Store, argument: str, error: Exception
) -> None:
    def fail(*_: object) -> bool:
        raise error

    with store.shard("a") as shard:
        for n in range(9):
            shard.write({"n": n})
    store.merge()
    with pytest.raises(type(error)) as caught:
        store.prune(keep_rows=1, **{argument: fail})  # type: ignore[arg-type]
    assert caught.value is error
    assert store.verify().ok
    store.prune(keep_rows=1)
    assert [8] == numbers(store)
