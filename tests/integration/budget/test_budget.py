"""A budget for the disk: it holds, who is refused learns it with figures, and what is dropped is accounted for."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.budget import policy, quotas, usage
from edgeshard.budget.policy import Budget
from edgeshard.errors import (
    ConfigurationError,
    DiskBudgetError,
    DiskFullError,
    RecordError,
    StorageBusyError,
    TableError,
)
from edgeshard.files import paths
from edgeshard.master import write_stats
from edgeshard.merge import truncate
from edgeshard.merge.merger import Merger
from edgeshard.options import PruneRule
from edgeshard.retention import prune, rules
from tests.support.processes import command, sql, unwrapped
from tests.support.stores import new_store, numbers, shard_path

MB = 1_000_000


@edgeshard.table(priority=5)
@attrs.frozen
class Alarm:
    """Kept longer than others."""

    n: int
    text: str


@attrs.frozen
class Trace:
    """Dropped first."""

    n: int
    text: str


def taken(store: edgeshard.Store) -> int:
    """What the files of a store take, by their sizes."""
    sizes = 0
    for folder, _, names in os.walk(store.root):
        for name in names:
            with suppress(FileNotFoundError):
                sizes += os.lstat(os.path.join(folder, name)).st_size
    return sizes


@contextmanager
def sampled(store: edgeshard.Store) -> Iterator[list[int]]:
    """What the store takes, again and again while the block lasts, as the largest that was seen."""
    largest, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.005):
            largest[0] = max(largest[0], taken(store))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield largest
    finally:
        ended.set()
        thread.join()


def fill(write: Callable[[int], object], most: int = 1_000_000) -> int:
    """Write until it is refused for the budget; how many were acknowledged."""
    for n in range(most):
        try:
            write(n)
        except DiskBudgetError:
            return n
    raise AssertionError("nothing was refused")


def look_again(shard: edgeshard.Shard) -> None:
    """Have the next write look at the store, as it would in a second."""
    assert shard._quota is not None
    shard._quota._measured_at = shard._upkeep_at = shard._check_at = 0.0


def lift(store: edgeshard.Store) -> edgeshard.Store:
    """The store without its budget."""
    paths.budget(store.root).unlink()
    return edgeshard.Store(store.root)


# -- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["10", "many", "500X", 5, -1, float("inf"), float("nan"), [5], {}])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_bytes="):
        edgeshard.Store(tmp_path, max_bytes=given)


def test_on_full_without_a_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_bytes"):
        edgeshard.Store(tmp_path, on_full="error")


@pytest.mark.parametrize("priority", [-1, 1_001, True, 1.5])
def test_a_priority_that_cannot_be_is_refused(priority: int) -> None:
    with pytest.raises(TableError, match="whole number"):
        edgeshard.table(priority=priority)


# -- the note ---------------------------------------------------------------------------------------------------------


def test_a_budget_holds_for_whoever_opens_the_store_later(tmp_path: Path) -> None:
    new_store(tmp_path, max_bytes="2M").merge()
    with edgeshard.Store(tmp_path).shard("agent") as shard:
        fill(lambda n: shard.write({"n": n, "x": "x" * 500}))
    assert taken(edgeshard.Store(tmp_path)) <= 2 * MB


def test_a_shard_that_is_open_learns_of_a_larger_budget(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="2M")
    with store.shard("agent") as shard:
        fill(lambda n: shard.write({"n": n, "x": "x" * 500}))
        store.note_budget("4M")
        look_again(shard)
        assert fill(lambda n: shard.write({"n": n, "x": "x" * 500})) > 100


@pytest.mark.slow
def test_the_command_notes_a_budget(store: edgeshard.Store) -> None:
    store.init()
    done = command("merge", store.root, "--max-bytes", "2M", "--on-full", "drop-oldest")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("the disk budget is 2.0 MB from now on; on full: drop-oldest\nmerged ")
    assert Budget(2 * MB, "drop-oldest") == usage.load_budget(store.root)
    assert re.search(r"of 2\.0 MB used \(\d+%\); on full: drop-oldest", command("status", store.root).stdout)
    for wrong in (["--on-full", "error"], ["--max-bytes", "2M", "--dry-run"]):
        assert 2 == command("merge", store.root, *wrong).returncode
    assert 78 == command("merge", store.root, "--max-bytes", "2").returncode


def test_a_note_that_is_no_budget_is_named(tmp_path: Path) -> None:
    paths.budget(tmp_path).write_text('{"max_bytes": "all"}')
    with pytest.raises(ConfigurationError, match=paths.budget(tmp_path).name):
        edgeshard.Store(tmp_path).shard("agent")
    edgeshard.Store(tmp_path, max_bytes="2M").shard("agent").close()


def test_a_store_without_a_budget_has_plain_shards(store: edgeshard.Store) -> None:
    with store.shard("agent") as shard:
        assert edgeshard.Shard is type(shard)


# -- refusing ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_refused_write_says_who_takes_how_much_and_every_acknowledged_row_is_there(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="3M")
    with store.shard("agent") as shard:
        written = fill(lambda n: shard.write({"n": n}))
        with pytest.raises(DiskBudgetError, match="raise the budget") as caught:
            for n in range(written, written + 1_000):
                shard.write({"n": n})
                written += 1
    error = caught.value
    assert isinstance(error, DiskFullError)
    assert (3 * MB, str(shard_path(store, "agent"))) == (error.limit_bytes, error.path)
    assert error.used_bytes >= error.shards_bytes + error.master_bytes > 0.9 * error.used_bytes
    assert 0.5 * 3 * MB < error.used_bytes <= 3 * MB
    lift(store).merge()
    assert [*range(written)] == numbers(store)
    assert store.verify().ok


@pytest.mark.slow
def test_a_value_that_is_refused_after_a_write_without_space_takes_no_seq(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="3M")
    with store.shard("agent") as shard:
        written = fill(lambda n: shard.write({"n": n}))
        with pytest.raises(DiskBudgetError):
            for n in range(written, written + 1_000):
                shard.write({"n": n})
                written += 1
        writes: list[Callable[[Any], int]] = [shard.write, lambda record: shard.write_many([record])]
        for write in writes:
            with pytest.raises((RecordError, DiskBudgetError)):
                write({"n": float("nan")})
        lift(store).merge()
        look_again(shard)
        for _ in range(2):
            shard.write({"n": written})
            written += 1
    report = store.merge()
    assert ((), [*range(written)]) == (report.quarantined, numbers(store))
    assert (1, True) == (store.verify().streams, store.verify().ok)


@pytest.mark.slow
def test_growing_to_the_end_of_a_budget_again_and_again_takes_one_stream(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="3M")
    written = 0
    with store.shard("agent") as shard:
        for _ in range(3):
            written += fill(lambda n: shard.write({"n": written + n}))  # noqa: B023
            with pytest.raises(DiskBudgetError):
                shard.write_many({"n": n, "x": "x" * 1_000} for n in range(100))
            store.merge()
            store.prune(keep_rows=0, shrink=True)
            look_again(shard)
    store.merge()
    report = store.verify()
    assert report.ok
    assert written == report.rows + sum(report.pruned.values())
    assert [[1]] == sql(store.master_path, "select count(*) from _edgeshard_streams")


def test_a_transaction_for_which_there_is_no_room_is_undone_whole(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="3M")
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        with pytest.raises(DiskBudgetError):
            shard.write_many({"n": n, "x": "x" * 1_000} for n in range(1, 5_000))
        shard.write_many({"n": n, "x": "x" * 1_000} for n in range(1, 250))
    lift(store).merge()
    assert [*range(250)] == numbers(store)


def test_a_row_larger_than_a_grant_is_written_where_there_is_room(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="5M")
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        assert 2 == shard.write({"n": 1, "x": "x" * 10 * policy.FIRST_GROWTH_BYTES})


@pytest.mark.slow
def test_nearing_the_limit_is_logged_once_before_a_write_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="3M")
    with caplog.at_level(logging.WARNING, "edgeshard"), store.shard("agent") as shard:
        fill(lambda n: shard.write({"n": n}))
    assert 1 == caplog.text.count("is nearly full")


def test_a_new_shard_is_refused_where_there_is_no_room_for_it(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="2M")
    with store.shard("agent") as shard, ExitStack() as others:
        fill(lambda n: shard.write({"n": n}))
        # what is too little for another row to grow the first may do for one more shard, which is empty
        opened = fill(lambda n: others.enter_context(store.shard(f"other{n}")), most=3)
        assert not shard_path(store, f"other{opened}").exists()


def test_status_is_red_while_a_writer_is_refused(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="4M")
    with store.shard("agent") as shard:
        fill(lambda n: shard.write({"n": n, "x": "x" * 200}))
        store.merge()
    warned_of = []
    for rows in (300, 1):  # what is too little for many rows may do for one
        with suppress(DiskBudgetError):
            while True:
                with store.shard("agent") as shard:
                    shard.write_many({"n": n, "x": "x" * 200} for n in range(rows))
        warned_of.append(store.status().problems[0])
    assert [("budget-high", "yellow"), ("budget-full", "red")] == [(each.kind, each.level) for each in warned_of]
    with pytest.raises(DiskBudgetError):
        store.shard("agent")
    store.merge()
    assert store.status().complete
    store.shard("agent").close()


def test_the_logs_count(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="10M")
    with store.shard("agent") as shard:
        shard.write({"n": 0})
        Path(f"{shard_path(store, 'other')}-wal").write_bytes(bytes(9 * MB))
        look_again(shard)
        with pytest.raises(DiskBudgetError):
            shard.write_many({"n": n, "x": "x" * 1_000} for n in range(1, 2_000))


@pytest.mark.slow
def test_a_merge_frees_what_writers_were_refused_for(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="5M")
    with store.shard("agent") as shard:
        written = fill(lambda n: shard.write({"n": n}))
        with sampled(store) as largest:
            assert written == store.merge().rows
        assert largest[0] <= 5 * MB
        look_again(shard)
        shard.write({"n": written})
    store.merge()
    assert [*range(written + 1)] == numbers(store)


def test_a_merge_without_room_is_refused_with_figures_and_loses_nothing(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path)
    with store.shard("agent") as shard:
        shard.write_many({"n": n, "x": "x" * 1_000} for n in range(3_000))
        store.note_budget("3M")
        with pytest.raises(DiskBudgetError, match="pending rows") as caught:
            store.merge()
        assert caught.value.used_bytes > 3 * MB
    done = command("merge", store.root)
    assert (74, True) == (done.returncode, "pending rows" in done.stderr)
    lift(store).merge()
    assert [*range(3_000)] == numbers(store)
    assert store.verify().ok


def test_while_there_is_no_room_to_merge_what_else_is_wrong_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store(tmp_path)
    with store.shard("agent") as shard:
        shard.write_many({"n": n, "x": "x" * 1_000} for n in range(3_000))
        store.merge()
        shard.write_many({"n": n, "x": "x" * 1_000} for n in range(3_000))
        (store.root / "shards" / "a-junk.db").write_bytes(b"no database" * 100)
        store.note_budget("3M")
        merger = Merger(store.root, watching=True)
        with caplog.at_level(logging.WARNING, "edgeshard"):
            for _ in range(3):
                with pytest.raises(DiskBudgetError, match="pending rows"):
                    merger.run()
                assert merger.is_open  # this is no failure of the master
        merger.close()
    assert 1 == caplog.text.count("quarantined")


# -- dropping ---------------------------------------------------------------------------------------------------------


def rows_of(store: edgeshard.Store, table: str) -> list[int]:
    return [row.n for row in store.query(f"select n from {table} order by n")]


@pytest.mark.slow
def test_dropping_begins_with_the_oldest_rows_of_the_least_important_table_and_is_accounted_for(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="6M", on_full="drop-oldest")
    written, dropped = 0, 0
    with store.shard("agent") as shard, sampled(store) as largest:
        for start in range(0, 40_000, 500):
            shard.write_many(Trace(n, "x" * 400) for n in range(start, start + 500))
            shard.write(Alarm(start, "x" * 400))
            written += 501
            dropped += store.merge().dropped
    assert largest[0] <= 6 * MB
    assert [*range(0, 40_000, 500)] == rows_of(store, "alarm")
    kept = rows_of(store, "trace")
    assert [*range(40_000 - len(kept), 40_000)] == kept
    report = store.verify()
    assert report.ok
    assert {"budget": dropped} == dict(report.pruned)
    assert written == report.rows + dropped
    status = store.status().budget
    assert status is not None
    assert (6 * MB, "drop-oldest", dropped) == (status.max_bytes, status.on_full, status.dropped_rows)
    assert "rows dropped" in unwrapped(command("status", store.root).stdout)


@pytest.mark.slow
def test_no_row_of_a_quiet_agent_is_dropped_for_one_that_fills_the_store(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="6M", on_full="drop-oldest")
    with store.shard("quiet") as quiet, store.shard("loud") as loud, sampled(store) as largest:
        for start in range(0, 40_000, 500):
            quiet.write(Trace(-1 - start, "x" * 400))  # older than what is dropped, and in between
            for part in range(start, start + 500, 100):
                loud.write_many(Trace(n, "x" * 400) for n in range(part, part + 100))
            store.merge()
    assert largest[0] <= 6 * MB
    kept = rows_of(store, "trace")
    loud_rows = [n for n in kept if n >= 0]
    assert [-1 - start for start in range(39_500, -1, -500)] == kept[: -len(loud_rows)]
    assert [*range(40_000 - len(loud_rows), 40_000)] == loud_rows
    report = store.verify()
    assert (True, 40_080) == (report.ok, report.rows + report.pruned["budget"])


@pytest.mark.slow
def test_where_others_have_nothing_that_may_go_a_quiet_agents_rows_are_dropped(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="6M", on_full="drop-oldest")
    with store.shard("quiet") as quiet:
        for start in range(0, 2_000, 100):
            quiet.write_many(Trace(n, "x" * 400) for n in range(start, start + 100))
        store.merge()
    with store.shard("loud") as loud:
        # its rows are many, and of a table with a key: they stay
        fill(lambda n: (loud.write(Setting(f"{n}", "x" * 50)), n % 500 or store.merge()))
    report = store.verify()
    assert report.ok
    assert len(store.query("select 1 from setting")) > 6_000  # so many that the other one is spared at first
    assert 0 < report.pruned["budget"]
    assert 2_000 == len(rows_of(store, "trace")) + report.pruned["budget"]


def test_rows_that_no_master_holds_are_never_dropped(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path)
    with store.shard("agent") as shard:
        shard.write_many({"n": n, "x": "x" * 1_000} for n in range(3_000))
        store.note_budget("3M", "drop-oldest")
        with pytest.raises(DiskBudgetError):
            store.merge()
    lift(store).merge()
    assert [*range(3_000)] == numbers(store)


@pytest.mark.slow
def test_a_prune_keeps_the_masters_log_short_within_a_budget(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="40M")
    with store.shard("agent") as shard:
        for start in range(0, 20_000, 2_000):
            shard.write_many({"n": n, "x": "x" * 800} for n in range(start, start + 2_000))
            store.merge()
    longest, log = 0, Path(f"{store.master_path}-wal")

    def progress(_: int, __: int) -> None:
        nonlocal longest
        longest = max(longest, log.stat().st_size)

    prune.prune(store.master_path, rules.parse_rules(None, 0, None, False, False, None), shrink=True, progress=progress)
    assert 0 < longest < 0.03 * 40 * MB


@edgeshard.table(index=["text"])
@attrs.frozen
class Indexed:
    """Each row of it is on a page of its own in the index."""

    n: int
    text: str


@pytest.fixture
def indexed(tmp_path: Path) -> edgeshard.Store:
    """A store whose master has many rows, all of which another page points to."""
    store = edgeshard.Store(tmp_path, max_bytes="20M")
    with store.shard("agent") as shard:
        for start in range(0, 30_000, 5_000):
            for n in range(start, start + 5_000):
                shard.write(Indexed(n, hashlib.sha256(str(n).encode()).hexdigest()))
            store.merge()
    return store


def longest_log(store: edgeshard.Store, asked: rules.Rules) -> tuple[int, int]:
    """How long a prune has the master's log become, and how many rows it deletes."""
    longest, log = 0, Path(f"{store.master_path}-wal")

    def progress(_: int, __: int) -> None:
        nonlocal longest
        longest = max(longest, log.stat().st_size)

    report = prune.prune(store.master_path, asked, progress=progress)
    return max(longest, log.stat().st_size), report.rows


@pytest.mark.slow
def test_a_drop_has_room_for_its_log_however_much_each_row_writes(indexed: edgeshard.Store) -> None:
    longest, rows = longest_log(indexed, rules.Rules(max_bytes=1 * MB, size_reason=rules.BUDGET))
    assert rows > 10_000
    assert longest <= policy.delete_bytes(Budget(20 * MB))


@pytest.mark.slow
def test_a_drop_ends_where_somebody_reads_for_long_and_its_log_would_become_longer(indexed: edgeshard.Store) -> None:
    asked = rules.Rules(max_bytes=1 * MB, size_reason=rules.BUDGET)
    reader = sqlite.connect(str(indexed.master_path), writable=False)
    with sqlite.read_snapshot(reader):
        reader.execute("SELECT count(*) FROM indexed").fetchall()
        longest, rows = longest_log(indexed, asked)
    reader.close()
    assert longest <= policy.delete_bytes(Budget(20 * MB))
    assert rows < 10_000
    assert longest_log(indexed, asked)[1] > 10_000


@edgeshard.table(key="name")
@attrs.frozen
class Setting:
    """How things stand: never dropped."""

    name: str
    text: str


@edgeshard.table(key="name", history=True, priority=7)
@attrs.frozen
class Level:
    """Its earlier versions are the past, and dropped like it."""

    name: str
    text: str


def settings(store: edgeshard.Store) -> list[tuple[str, str]]:
    return [(row.name, row.text[0]) for row in store.query("select name, text from setting order by name")]


@pytest.mark.slow
def test_rows_of_a_table_with_a_key_stay_and_others_are_dropped_for_them(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="6M", on_full="drop-oldest")
    with store.shard("agent") as shard:
        for turn in range(60):
            shard.write_many(Setting(f"{n:03}", chr(33 + turn) + "x" * 200) for n in range(400))
            shard.write_many(Trace(n, "x" * 400) for n in range(turn * 400, turn * 400 + 400))
            store.merge()
    assert [(f"{n:03}", chr(33 + 59)) for n in range(400)] == settings(store)
    kept = rows_of(store, "trace")
    assert 0 < len(kept) < 24_000
    assert [*range(24_000 - len(kept), 24_000)] == kept
    report = store.verify()
    assert report.ok
    assert {"budget": 24_000 - len(kept)} == dict(report.pruned)


@pytest.mark.slow
def test_where_only_rows_of_tables_with_a_key_are_left_writers_are_refused_and_nothing_is_dropped(
    tmp_path: Path,
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="4M", on_full="drop-oldest")
    refused, written = 0, 0
    with store.shard("agent") as shard:
        for n in range(40):
            try:
                shard.write_many(Setting(f"{n:02}.{i:03}", "x" * 400) for i in range(300))
                written += 1
            except DiskBudgetError as error:
                assert "a key" in str(error)
                refused += 1
            with suppress(DiskBudgetError):
                store.merge()
            look_again(shard)
    assert refused
    lift(store).merge()
    assert written * 300 == len(settings(store))
    report = store.verify()
    assert (True, {}) == (report.ok, dict(report.pruned))


@pytest.mark.slow
def test_the_history_of_a_table_with_a_key_is_dropped_by_its_priority(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="6M", on_full="drop-oldest")
    with store.shard("agent") as shard:
        for turn in range(80):
            shard.write(Level("a", f"{turn} " + "x" * 20_000))
            shard.write_many(Trace(n, "x" * 400) for n in range(turn * 500, turn * 500 + 500))
            store.merge()
    report = store.verify()
    assert report.ok
    assert {"budget"} == set(report.pruned)
    assert len(rows_of(store, "trace")) < 40_000
    assert 79 == len(store.query("select 1 from level_history"))


def test_a_store_that_is_made_saves_its_budget(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data", max_bytes="6M")
    store.init(dry_run=True)
    assert not store.root.exists()
    store.init()
    assert Budget(6 * MB) == usage.load_budget(store.root)


def test_a_priority_of_a_table_with_a_key_and_no_history_is_refused(tmp_path: Path) -> None:
    @edgeshard.table(key="name", priority=1)
    @attrs.frozen
    class Wrong:
        name: str

    with edgeshard.Store(tmp_path).shard("agent") as shard, pytest.raises(TableError, match="history"):
        shard.write(Wrong("a"))


@pytest.mark.slow
def test_what_the_stores_own_rules_let_go_goes_before_anything_is_dropped(tmp_path: Path) -> None:
    rule: PruneRule = {"keep_rows": 100, "table": Trace}
    plain = edgeshard.Store(tmp_path, max_bytes="6M", on_full="drop-oldest")
    with plain.shard("agent") as shard:
        for start in range(0, 2_000, 500):
            shard.write_many(Alarm(n, "x" * 400) for n in range(start, start + 500))
            plain.merge()
        for start in range(0, 6_000, 250):
            shard.write_many(Trace(n, "x" * 400) for n in range(start, start + 250))
            plain.merge()
    assert "budget" not in plain.verify().pruned
    store = edgeshard.Store(tmp_path, prune=rule)
    dropped = pruned = 0
    with store.shard("agent") as shard:
        for start in range(6_000, 20_000, 250):
            shard.write_many(Trace(n, "x" * 400) for n in range(start, start + 250))
            report = store.merge()
            dropped += report.dropped
            pruned += 0 if report.pruned is None else report.pruned.rows
    assert (0, 19_750) == (dropped, pruned)
    assert {"keep rows": 19_750} == dict(store.verify().pruned)


@pytest.mark.slow
def test_a_keeper_and_a_budget_beside_one_another_drop_each_row_once(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="20M", on_full="drop-oldest", prune={"max_bytes": "10M"})
    written = 0
    with store.watching(0.05), store.shard("agent") as shard, sampled(store) as largest:
        for n in range(40_000):
            with suppress(DiskBudgetError):
                shard.write(Trace(n, "x" * 400))
                written += 1
    assert largest[0] <= 20 * MB
    store.merge()
    report = store.verify()
    assert report.ok
    assert written == report.rows + sum(report.pruned.values())
    assert set(report.pruned) <= {"budget", "max bytes"}


def test_what_a_prune_counts_itself_a_merge_does_not_count_again(tmp_path: Path) -> None:
    meter = write_stats.Meter()
    with open(tmp_path / "file", "wb", buffering=0) as file, meter.running():
        file.write(bytes(1_000))
        with meter.elsewhere():
            file.write(bytes(50_000))
        file.write(bytes(200))
    assert 1_200 == meter._pending.bytes


def test_where_agents_disagree_the_highest_priority_wins_and_is_carried_on(tmp_path: Path) -> None:
    @edgeshard.table(name="thing", priority=3)
    @attrs.frozen
    class Three:
        n: int

    @edgeshard.table(name="thing", priority=7)
    @attrs.frozen
    class Seven:
        n: int

    @edgeshard.table(name="Thing")
    @attrs.frozen
    class Plain:
        n: int

    for order in ((Three, Seven, Plain), (Plain, Seven, Three), (Seven, Plain, Three)):
        store = edgeshard.Store(tmp_path / "".join(cls.__name__ for cls in order))
        for place, cls in enumerate(order):
            with store.shard(f"agent{place}") as shard:
                shard.write(cls(place))
            store.merge()
        store.export(tmp_path / f"{store.root.name}.bundle")
        hub = new_store(tmp_path / f"hub{store.root.name}")
        hub.merge([tmp_path / f"{store.root.name}.bundle"])
        for each in (store, hub):
            assert [["thing", 7]] == sql(each.master_path, "select * from _edgeshard_priorities")


def test_a_shard_with_priorities_keys_and_renames_is_removed_as_any_other(tmp_path: Path) -> None:
    @edgeshard.table(renamed={"number": "n"})
    @attrs.frozen
    class Renamed:
        n: int

    store = edgeshard.Store(tmp_path)
    with store.shard("agent") as shard:
        shard.write(Alarm(1, "x"))
        shard.write(Setting("a", "x"))
        shard.write(Renamed(1))
    assert 1 == store.merge().removed


# -- the file system --------------------------------------------------------------------------------------------------


def test_what_the_file_system_has_left_is_the_limit_where_it_is_less(small_disk: Path) -> None:
    store = edgeshard.Store(small_disk / "data", max_bytes="2M")
    with store.shard("agent") as shard:
        written = fill(lambda n: shard.write({"n": n}))
        with pytest.raises(DiskBudgetError, match="file system"):
            for _ in range(1_000):
                shard.write({"n": written})
                written += 1
        assert usage.measure(store.root).free > 0
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        look_again(shard)
        assert fill(lambda n: shard.write({"n": n})) > 1_000


# -- many at once -----------------------------------------------------------------------------------------------------

# forked, so that a hundred begin at once, and not as a hundred interpreters become ready
WRITERS = """
import json, os, sys, time, edgeshard, edgeshard.shard.quota
from edgeshard.errors import DiskBudgetError
root, count, seconds, rows, size = sys.argv[1], *map(int, sys.argv[2:])

def write(agent, until):
    store, shard, acknowledged, written = edgeshard.Store(root), None, {}, 0
    while time.time() < until and written < rows:
        try:
            shard = shard or store.shard(agent)
            seq = shard.write({"x": "x" * size})
            acknowledged.setdefault(shard.stream, []).append(seq)
            written += 1
        except DiskBudgetError:
            time.sleep(0.005)
    if shard:
        shard.close()
    assert all(seqs == [*range(1, len(seqs) + 1)] for seqs in acknowledged.values())
    return {stream: len(seqs) for stream, seqs in acknowledged.items()}

until, pipes = time.time() + seconds, []
for n in range(count):
    out, back = os.pipe()
    if not os.fork():
        with open(back, "w") as file:
            json.dump(write(f"agent{n}", until), file)
        os._exit(0)
    os.close(back)
    pipes.append(out)
print(json.dumps({stream: rows for pipe in pipes for stream, rows in json.load(open(pipe)).items()}))
"""


def fill_master(store: edgeshard.Store, rows: int, size: int) -> tuple[str, int]:
    """Have one agent write so many rows, and merge them; its stream, and how many there are."""
    store.merge()
    if not rows:
        return "", 0
    with store.shard("earlier") as shard:
        for start in range(0, rows, 500):
            shard.write_many({"x": "x" * size} for _ in range(start, min(rows, start + 500)))
            store.merge()
        assert shard.stream is not None
        return shard.stream, rows


def addresses(store: edgeshard.Store) -> tuple[list[tuple[str, int]], dict[str, list[int]]]:
    """The addresses of all rows of a master, and of each stream the seqs that are recorded as dropped."""
    rows = sql(
        store.master_path,
        "select lower(hex(stream_id)), _seq from agent_data join _edgeshard_streams on stream_no=_stream",
    )
    dropped: dict[str, list[int]] = {}
    for stream, first, last in sql(
        store.master_path,
        "select lower(hex(stream_id)), first, last from _edgeshard_pruned_ranges join _edgeshard_streams using(stream_no) "
        "where reason = 'budget'",
    ):
        dropped.setdefault(stream, []).extend(range(first, last + 1))
    for stream, last in sql(store.master_path, "select lower(hex(stream_id)), last_seq from _edgeshard_retired"):
        dropped.setdefault(stream, []).extend(range(1, last + 1))
    return [(stream, seq) for stream, seq in rows], dropped


@pytest.mark.parametrize(
    ("writers", "on_full", "most", "seconds"),
    [
        pytest.param(10, "error", 20 * MB, 2, id="short-error"),
        pytest.param(10, "drop-oldest", 20 * MB, 5, id="short-drop-oldest", marks=pytest.mark.slow),
        pytest.param(1, "error", 30 * MB, 8, id="1-error", marks=pytest.mark.slow),
        pytest.param(1, "drop-oldest", 30 * MB, 30, id="1-drop-oldest", marks=pytest.mark.slow),
        pytest.param(100, "error", 30 * MB, 8, id="100-error", marks=pytest.mark.slow),
        pytest.param(100, "drop-oldest", 30 * MB, 30, id="100-drop-oldest", marks=pytest.mark.slow),
    ],
)
def test_the_budget_holds_under_many_writers_and_each_acknowledged_row_is_present_or_recorded_as_dropped(
    tmp_path: Path, writers: int, on_full: policy.OnFull, most: int, seconds: int
) -> None:
    size = 800
    store = new_store(tmp_path / "data", max_bytes=most, on_full=on_full)
    # where rows are dropped there is too little room from the start for the logs of a hundred, however slow they are
    stream, earlier = fill_master(store, 0 if on_full == "error" else int(0.6 * most) // size, size)
    with ExitStack() as opened:
        watch = [sys.executable, "-m", "edgeshard", "merge", str(store.root), "--watch", "-q", "--interval", ".3"]
        merger = opened.enter_context(subprocess.Popen(watch, stderr=subprocess.PIPE, text=True))
        opened.callback(merger.terminate)
        largest = opened.enter_context(sampled(store))
        arguments = [str(store.root), *map(str, (writers, seconds, most // writers // size, size))]
        done = subprocess.run([sys.executable, "-c", WRITERS, *arguments], stdout=subprocess.PIPE, check=True)
        merger.terminate()
        told = merger.communicate()[1]
    assert largest[0] <= most
    assert "is missing rows" not in told
    lift(store).merge()
    assert 0 == command("verify", store.root).returncode
    rows = {stream: earlier, **json.loads(done.stdout)}
    acknowledged = {(stream, seq) for stream, last in rows.items() for seq in range(1, last + 1)}
    present, recorded = addresses(store)
    dropped = [(stream, seq) for stream, seqs in recorded.items() for seq in seqs]
    assert len(acknowledged) == len(present) + len(dropped)
    assert acknowledged == {*present, *dropped}
    assert bool(dropped) == (on_full == "drop-oldest")


@pytest.mark.slow
@pytest.mark.parametrize("changes_hands", [True, False])
def test_a_writer_waits_for_others_who_measure_in_turn_but_not_for_one_who_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes_hands: bool
) -> None:
    monkeypatch.setattr(quotas, "_LOCK_WAIT_S", 1.0)
    store = new_store(tmp_path / "data", max_bytes="10M")
    store.shard("other").close()
    with open(paths.quotas(store.root), "r+b") as held, ThreadPoolExecutor() as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        opened = pool.submit(store.shard, "agent")
        for _ in range(50):
            time.sleep(0.05)
            if changes_hands:
                os.utime(held.fileno())
        assert opened.done() is not changes_hands
        fcntl.flock(held, fcntl.LOCK_UN)
        if changes_hands:
            opened.result().close()
        else:
            with pytest.raises(StorageBusyError, match="has been measuring the store"):
                opened.result()
    store.shard("agent").close()


# -- giving back -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shard_gives_back_in_pieces_what_was_merged_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="20M")
    given_back = []
    give_back = truncate._release_pages

    def noted(connection: sqlite.Connection, left_bytes: int) -> None:
        given_back.append(connection.filename)
        give_back(connection, left_bytes)

    monkeypatch.setattr(truncate, "_release_pages", noted)
    with store.shard("agent") as shard:
        written = fill(lambda n: shard.write({"n": n, "x": "x" * 300}))
        with sampled(store) as largest:
            assert written == store.merge().rows
    assert given_back
    assert 0.65 * 20 * MB < largest[0] <= 20 * MB
    assert [*range(written)] == numbers(store)
