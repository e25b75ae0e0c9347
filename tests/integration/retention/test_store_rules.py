"""A store's own rules: checked when it is made, followed after merges, and beside a merger that watches."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard.errors import ConfigurationError, DiskFullError
from edgeshard.merge import watcher
from edgeshard.merge.listener import Listener
from edgeshard.merge.watcher import Watcher
from edgeshard.options import PruneRule
from edgeshard.reports import MergeReport, PruneReport, combine_prunes
from edgeshard.retention import due, prune, scheduler, store_rules
from edgeshard.retention.rules import Rules
from edgeshard.retention.run import held_by_caller
from tests.support.clocks import DAY_S, Clock
from tests.support.processes import merge_command
from tests.support.project import PROJECT
from tests.support.records import NOON, Reading
from tests.support.stores import new_store, numbers

PATIENCE_S = 60.0
NEVER_S = 10_000.0


def with_rules(store: edgeshard.Store, prune: Any) -> edgeshard.Store:
    return edgeshard.Store(store.root, prune=prune)


def write(store: edgeshard.Store, *numbers_: int, agent: str = "a") -> None:
    with store.shard(agent) as shard:
        for n in numbers_:
            shard.write({"n": n})


def await_that(holds: Callable[[], bool]) -> None:
    """Wait until it holds; an AssertionError where it never does."""
    upto = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < upto, "it did not come to hold"
        time.sleep(0.005)


def fails(*_: object, **__: object) -> PruneReport:
    raise DiskFullError("prune", "master.db", "the disk is full")


# -- after a merge ----------------------------------------------------------------------------------------------------


def test_a_merge_follows_the_rules_of_its_store(store: edgeshard.Store) -> None:
    kept = with_rules(store, {"keep_rows": 2})
    write(kept, 0, 1, 2, 3, 4)
    report = kept.merge()
    assert (5, 3, {"keep rows": 3}) == (report.rows, report.pruned and report.pruned.rows, report.pruned.by_reason)  # type: ignore[union-attr]
    assert [3, 4] == numbers(kept)
    assert "merged 5 rows" in str(report)
    assert "pruned 3 rows" in str(report)
    assert report.complete


def test_a_store_without_rules_prunes_nothing(store: edgeshard.Store) -> None:
    write(store, 0, 1, 2)
    for report in (store.merge(), with_rules(store, []).merge()):
        assert (None, "") == (report.pruned, report.prune_error)
    assert [0, 1, 2] == numbers(store)


def test_each_table_has_a_rule_of_its_own(store: edgeshard.Store) -> None:
    kept = with_rules(store, [{"keep_rows": 1, "table": Reading}, {"keep_rows": 3, "table": "agent_data"}])
    with kept.shard("a") as shard:
        for n in range(5):
            shard.write({"n": n})
            shard.write(Reading("inlet", float(n), NOON))
    report = kept.merge()
    assert report.pruned is not None
    assert 4 + 2 == report.pruned.rows
    assert ([2, 3, 4], [4.0]) == (numbers(kept), [reading.celsius for reading in kept.read(Reading)])


def test_a_rule_for_a_table_of_which_no_row_has_come_waits_for_it(store: edgeshard.Store) -> None:
    kept = with_rules(store, {"keep_rows": 1, "table": "reading"})
    write(kept, 0)
    report = kept.merge()
    assert (0, "", True) == (report.pruned and report.pruned.rows, report.prune_error, report.complete)
    with kept.shard("a") as shard:
        for n in range(3):
            shard.write(Reading("inlet", float(n), NOON))
    assert 2 == kept.merge().pruned.rows  # type: ignore[union-attr]


def test_rows_of_an_age_go_with_the_first_merge_after_it(store: edgeshard.Store, clock: Clock) -> None:
    kept = with_rules(store, {"older_than": "30d"})
    for day in range(0, 40, 10):
        write(kept, day)
        kept.merge()
        clock.now_s += 10 * DAY_S
    assert [0, 10, 20, 30] == numbers(kept)
    report = kept.merge()
    assert (0, 1) == (report.rows, report.pruned and report.pruned.rows)
    assert [10, 20, 30] == numbers(kept)


def test_what_nobody_else_holds_stays_where_that_is_asked(store: edgeshard.Store, tmp_path: Path) -> None:
    kept = with_rules(store, {"keep_rows": 0, "only_receipted": True})
    write(kept, 0, 1)
    first = kept.merge().pruned
    assert first is not None
    assert (0, 2) == (first.rows, first.kept_back)
    hub = new_store(tmp_path / "hub")
    hub.merge(sources=[kept.master_path])
    kept.receipt(hub.ranges(), trust=True)
    write(kept, 2)
    second = kept.merge().pruned
    assert second is not None
    assert (2, 1) == (second.rows, second.kept_back)
    assert [2] == numbers(kept)


def test_a_dry_run_and_a_fresh_query_prune_nothing(store: edgeshard.Store) -> None:
    kept = with_rules(store, {"keep_rows": 0})
    write(kept, 0, 1)
    assert kept.merge(dry_run=True).pruned is None
    assert [(2,)] == kept.query("select count(*) as rows from agent_data", fresh=True)


def test_a_prune_that_fails_says_that_the_rows_are_merged(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = with_rules(store, {"keep_rows": 1})
    write(kept, 0, 1, 2)
    with monkeypatch.context() as broken:
        broken.setattr(prune, "prune", fails)
        report = kept.merge()
    assert (3, None, False) == (report.rows, report.pruned, report.complete)
    assert report.prune_error == "prune master.db: the disk is full"
    assert "merged 3 rows" in str(report)
    assert "could not be pruned: prune master.db: the disk is full" in str(report)
    assert "rows were merged, but old rows could not be pruned" in caplog.text
    assert [0, 1, 2] == numbers(kept)
    assert 2 == kept.merge().pruned.rows  # type: ignore[union-attr]


def test_a_rule_that_fails_keeps_no_other_from_being_followed(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = with_rules(store, [{"keep_rows": 5}, {"keep_rows": 1}])
    whole = prune.prune

    def one_fails(path: Path, asked: Rules, **settings: Any) -> PruneReport:
        return fails() if asked.keep_rows == 5 else whole(path, asked, **settings)

    monkeypatch.setattr(prune, "prune", one_fails)
    write(kept, 0, 1, 2)
    report = kept.merge()
    assert (2, False) == (report.pruned and report.pruned.rows, report.complete)
    assert "the disk is full" in report.prune_error


def test_a_master_that_stays_too_large_makes_the_report_incomplete() -> None:
    too_large = MergeReport(rows=1, pruned=PruneReport(fits=False))
    assert not too_large.complete
    assert attrs.evolve(too_large, pruned=PruneReport()).complete


def test_reports_of_several_rules_become_one() -> None:
    first = PruneReport(2, {"older than": 2}, 1, file_bytes=9, shrunk_bytes=4, fits=False, seconds=1.0)
    second = PruneReport(3, {"older than": 1, "keep rows": 2}, 1, file_bytes=5, shrunk_bytes=1, seconds=0.5)
    expected = PruneReport(
        5, {"older than": 3, "keep rows": 2}, 2, file_bytes=5, shrunk_bytes=5, fits=False, seconds=1.5
    )
    assert expected == combine_prunes([first, second])
    assert combine_prunes([]) is None


# -- what cannot be is refused when the store is made -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("prune", "said"),
    [
        ("30d", "prune must be a dict of rules, or a list of dicts"),
        (30, "prune must be a dict of rules, or a list of dicts"),
        (["30d"], "prune[0]: a rule must be a dict"),
        ({"older": "30d"}, "prune: unknown key 'older'; a rule has the keys older_than, keep_rows"),
        (
            {},
            "max_bytes, deletions_older_than and forget_after",
        ),
        ({"only_pushed": True}, "prune: rule selects nothing"),
        ({"older_than": "30"}, "prune: older_than='30': age must be a number and a unit"),
        ({"older_than": -1}, "prune: older_than=-1: age must be between 0 and 1000 years"),
        ({"older_than": [1]}, "prune: older_than=[1]:"),
        (
            [{"keep_rows": 1}, {"keep_rows": -1}],
            "prune[1]: keep_rows=-1: number of rows must be a whole number, at least 0",
        ),
        ({"max_bytes": 500}, "prune: max_bytes=500: size must be at least 1M"),
        ({"max_bytes": "lots"}, "prune: max_bytes='lots': size must be a number and a unit"),
        ({"keep_rows": 1, "only_pushed": "yes"}, "prune: only_pushed='yes': must be True or False"),
        ({"keep_rows": 1, "only_pushed": True, "only_receipted": True}, "set only_pushed or only_receipted, not both"),
        ({"keep_rows": 1, "table": ""}, "prune: table='': must be the name of a table, or its class"),
        ({"keep_rows": 1, "table": int}, "prune: table=<class 'int'>:"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_name_before_anything_is_made(
    tmp_path: Path, prune: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        edgeshard.Store(tmp_path / "data", prune=prune)
    assert refused.value.path == str(tmp_path / "data")
    assert said in refused.value.cause
    assert not (tmp_path / "data").exists()


def test_what_is_given_becomes_rules() -> None:
    given_: list[PruneRule] = [
        {"older_than": "30d", "only_pushed": True},
        {"keep_rows": 5, "max_bytes": "2M", "table": Reading, "only_receipted": True},
    ]
    expected = (
        Rules(older_than_s=30.0 * DAY_S, peer_kinds=("postgresql",)),
        Rules(keep_rows=5, max_bytes=2_000_000, table="reading", peer_kinds=("edgeshard", "postgresql")),
    )
    assert expected == store_rules.parse_store_rules(given_, "data").rules


# -- beside a merger that watches -------------------------------------------------------------------------------------


class Heard(Listener):
    """Keeps the reports of a service."""

    def __init__(self) -> None:
        self.reports: list[MergeReport] = []

    def merged(self, report: MergeReport) -> None:
        self.reports.append(report)

    def pruned(self) -> int:
        return sum(report.pruned.rows for report in self.reports if report.pruned is not None)


def serving(store: edgeshard.Store, prune: Any, heard: Listener) -> Watcher:
    rules = store_rules.parse_store_rules(prune, store.root)
    return Watcher(store.root, interval_s=0.02, rescan_s=NEVER_S, listener=heard, prune=rules)


@pytest.mark.slow
def test_watching_prunes_what_comes(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "MIN_INTERVAL_S", 0.0)
    heard = Heard()
    merger = serving(store, {"keep_rows": 2}, heard)
    assert merger.open()
    with watcher.in_thread(merger), store.shard("a") as shard:
        numbers_ = itertools.count()

        def comes() -> bool:
            shard.write({"n": next(numbers_)})
            return heard.pruned() > 20

        await_that(comes)  # it is told with a later pass, so that rows must go on coming
    report = store.verify()
    assert (True, ()) == (sum(report.pruned.values()) >= heard.pruned() > 0, report.errors)


def test_rows_are_merged_while_a_prune_goes_on(store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def long(path: Path, asked: Rules, **_: Any) -> PruneReport:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return PruneReport(rows=7)

    monkeypatch.setattr(prune, "prune", long)
    heard = Heard()
    merger = serving(store, {"keep_rows": 2}, heard)
    assert merger.open()
    with watcher.in_thread(merger):
        assert begun.wait(PATIENCE_S)
        for n in range(3):
            write(store, n)
            await_that(lambda: store.master_path.exists() and len(numbers(store)) == n + 1)  # noqa: B023
        assert 0 == heard.pruned()
        go_on.set()
        await_that(lambda: not any(thread.name == "edgeshard prune" for thread in threading.enumerate()))
        write(store, 3)
        await_that(lambda: heard.pruned() == 7)


def test_the_end_of_watching_leaves_the_rules_followed(store: edgeshard.Store) -> None:
    kept = with_rules(store, {"keep_rows": 3})
    with kept.watching(interval=0.01):
        write(kept, *range(20))
    assert [17, 18, 19] == numbers(kept)


def test_the_end_of_watching_ends_a_prune_after_its_step(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def long(path: Path, asked: Rules, *, should_stop: Callable[[], bool], **_: Any) -> PruneReport:
        begun.set()
        await_that(should_stop)
        return PruneReport(stopped=True)

    monkeypatch.setattr(prune, "prune", long)
    merger = serving(store, {"keep_rows": 2}, Heard())
    assert merger.open()
    with watcher.in_thread(merger):
        assert begun.wait(PATIENCE_S)
    assert not any(thread.name == "edgeshard prune" for thread in threading.enumerate())


def test_a_prune_that_fails_is_told_and_the_merger_goes_on(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(prune, "prune", fails)
    heard = Heard()
    merger = serving(store, {"keep_rows": 2}, heard)
    assert merger.open()
    with watcher.in_thread(merger), store.shard("a") as shard:
        for n in range(1000):
            shard.write({"n": n})
            if any(report.prune_error for report in heard.reports):
                break
            time.sleep(0.01)
    assert "the disk is full" in next(report.prune_error for report in heard.reports if report.prune_error)
    store.merge()
    assert list(range(n + 1)) == numbers(store)


def test_what_nobody_foresaw_in_a_prune_ends_the_merger_and_is_raised(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object, **__: object) -> PruneReport:
        raise ZeroDivisionError

    monkeypatch.setattr(prune, "prune", mistaken)
    rules = store_rules.parse_store_rules({"keep_rows": 1}, store.root)
    watched = scheduler.PruneScheduler(store.master_path, rules, held_by_caller)
    store.init()
    assert MergeReport(rows=1) == watched.add_to_report(MergeReport(rows=1))
    watched.wait()
    with pytest.raises(ZeroDivisionError):
        watched.add_to_report(MergeReport())
    with pytest.raises(ZeroDivisionError), serving_in_thread(store, {"keep_rows": 1}):
        pass


def serving_in_thread(store: edgeshard.Store, prune: Any) -> contextlib.AbstractContextManager[None]:
    merger = serving(store, prune, Heard())
    assert merger.open()
    return watcher.in_thread(merger)


def test_nothing_is_looked_for_in_a_store_in_which_nothing_happens(
    store: edgeshard.Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, 0, 1)
    store.merge()
    for name in ("MIN_INTERVAL_S", "MIN_INTERVAL_OVER_SIZE_S", "AGE_FRACTION"):
        monkeypatch.setattr(due, name, 0.0)
    monkeypatch.setattr(due, "FRUITLESS_FRACTION", math.inf)
    rules = store_rules.parse_store_rules([{"keep_rows": 2}, {"older_than": "1d"}], store.root)
    watched = scheduler.PruneScheduler(store.master_path, rules, held_by_caller)
    watched.add_to_report(MergeReport())
    watched.wait()
    calls: list[Rules] = []
    whole = prune.prune

    def noted(path: Path, asked: Rules, **settings: Any) -> PruneReport:
        calls.append(asked)
        return whole(path, asked, **settings)

    monkeypatch.setattr(prune, "prune", noted)
    for _ in range(10):
        clock.now_s += 3_600
        watched.add_to_report(MergeReport())
        watched.wait()
    assert [] == calls
    clock.now_s += DAY_S
    watched.add_to_report(MergeReport())
    watched.wait()
    assert [Rules(older_than_s=DAY_S)] == calls
    assert [] == numbers(store)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prunes_after_its_merge(store: edgeshard.Store) -> None:
    write(store, 0, 1, 2)
    done = merge_command(store.root, "--prune-keep-rows", "1", "--json")
    report = json.loads(done.stdout)
    assert (0, 3, 2, "") == (done.returncode, report["rows"], report["pruned"]["rows"], report["prune_error"])
    assert [2] == numbers(store)
    assert json.loads(merge_command(store.root, "--json").stdout)["pruned"] is None


def test_the_command_takes_what_prune_takes(store: edgeshard.Store) -> None:
    write(store, 0, 1, 2)
    done = merge_command(
        store.root, "--prune-older-than", "30d", "--prune-max-bytes", "500M", "--prune-only-pushed",
        "--prune-table", "agent_data",
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)
    assert "pruned 0 rows" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prune-older-than", "30"], "age must be a number and a unit"),
        (["--prune-keep-rows", "-1"], "number of rows must be a whole number"),
        (["--prune-max-bytes", "5"], "size must be at least 1M"),
        (["--prune-only-pushed"], "--prune-deletions-older-than or --prune-forget-after"),
        (["--prune-keep-rows", "1", "--prune-only-pushed", "--prune-only-receipted"], "not allowed with"),
        (["--prune-keep-rows", "1", "--dry-run"], "edgeshard prune --dry-run"),
    ],
)
def test_the_command_refuses_rules_that_cannot_be(store: edgeshard.Store, options: list[str], said: str) -> None:
    done = merge_command(store.root, *options)
    assert 2 == done.returncode
    assert said in done.stderr


def test_a_watching_command_says_what_it_pruned(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from edgeshard.cli import services

    reporter = services._MergeReporter(store, "watches", None, status_every_s=NEVER_S, as_json=False)
    with caplog.at_level(logging.DEBUG, "edgeshard"):
        reporter.merged(MergeReport(rows=0, pruned=PruneReport(rows=12, by_reason={"older than": 12})))
    assert "pruned 12 rows" in caplog.text
    assert reporter.summary().endswith("pruned 12 rows")


# -- a long time ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_simulated_season_keeps_its_files_and_accounts_for_each_row(tmp_path: Path) -> None:
    options = ["--days", "65", "--rows", "60", "--merges", "2", "--wear", "low", "--dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.year", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert (0, "") == (done.returncode, done.stderr)
    device, hub = [line for line in done.stdout.splitlines() if line.endswith("no errors")]
    assert device.startswith("device: ")
    assert " and 0 pruned" not in device
    assert hub == "hub: 3900 rows and 0 pruned are the 3900 that were written; no errors"


@pytest.mark.parametrize("minutes", [[0], [0, 1, 5], [0, 0, 30, 31]])
def test_it_is_known_when_the_next_rows_become_too_old(
    store: edgeshard.Store, clock: Clock, minutes: Sequence[int]
) -> None:
    began = clock.now_s
    for minute in minutes:
        clock.now_s = began + 60.0 * minute
        write(store, minute)
        store.merge()
    rows = len(minutes)
    while rows:
        next_s = scheduler._next_age_s(store.master_path, 3_600.0)
        clock.now_s = next_s - 1
        assert 0 == store.prune(older_than="1h").rows
        clock.now_s = next_s
        gone = store.prune(older_than="1h").rows
        assert gone > 0
        rows -= gone
    assert math.isclose(clock.now_s + 3_660.0, scheduler._next_age_s(store.master_path, 3_600.0))
