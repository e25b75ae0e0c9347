"""Prune: rows go by rule and for good, and what went is told from what was lost, whatever is killed or comes later."""

from __future__ import annotations

import datetime
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from helpers import command, numbers, sql

import edgeshard
from edgeshard import database, master, receipts
from edgeshard.errors import ConfigurationError, DamagedError, FormatError
from edgeshard.prune import passes, plan, rules, step
from edgeshard.ranges import Range

#: A time after arrivals.SENSIBLE_S, so that the clock of these tests counts as set.
DAY_1 = 1_800_000_000
DAY_S = 86_400


@attrs.frozen
class Sample:
    """A row of a second table."""

    n: int


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock by which rows come, and by which they are old."""

    def set_clock(now: float) -> None:
        monkeypatch.setattr("edgeshard.arrivals.time.time", lambda: now)
        monkeypatch.setattr("edgeshard.prune.passes.time.time", lambda: now)

    return set_clock


def add(store: edgeshard.Store, *ns: int, agent: str = "a") -> None:
    """Rows, merged."""
    with store.shard(agent) as shard:
        for n in ns:
            shard.write({"n": n})
    store.merge()


def rows_of(store: edgeshard.Store, table: str) -> list[int]:
    """The numbers in a table of the master."""
    return [row.n for row in store.query(f"select n from {table} order by _id")]


def held(store: edgeshard.Store) -> list[list[Any]]:
    """The ranges of the master."""
    return sql(store.master_path, "select first, last from edgeshard_ranges order by 1")


# -- rules ------------------------------------------------------------------------------------------------------------


def test_all_but_the_newest_rows_go(store: edgeshard.Store) -> None:
    add(store, *range(10))
    report = store.prune(keep_rows=3)
    assert (7, {"keep rows": 7}, True) == (report.rows, report.by_reason, report.fits)
    assert [7, 8, 9] == numbers(store)
    assert [[1, 10]] == held(store)


def test_rows_go_once_they_are_older_than_that_and_not_a_minute_earlier(
    store: edgeshard.Store, at: Callable[[float], None]
) -> None:
    at(DAY_1)
    add(store, 1, 2)
    at(DAY_1 + DAY_S)
    add(store, 3)
    at(DAY_1 + DAY_S - 61)
    assert 0 == store.prune(older_than="1d").rows
    at(DAY_1 + DAY_S + 61)
    assert 2 == store.prune(older_than=datetime.timedelta(days=1)).rows
    assert [3] == numbers(store)
    at(DAY_1 + 3 * DAY_S)
    assert 1 == store.prune(older_than=DAY_S).rows
    assert [] == numbers(store)


def test_a_clock_that_was_set_back_makes_no_row_older(store: edgeshard.Store, at: Callable[[float], None]) -> None:
    at(DAY_1)
    add(store, 1)
    at(DAY_1 - 30 * DAY_S)
    add(store, 2)
    at(DAY_1 + DAY_S / 2)
    assert 0 == store.prune(older_than="1d").rows


def test_a_clock_that_was_never_set_makes_no_row_older(store: edgeshard.Store, at: Callable[[float], None]) -> None:
    at(1_000)
    add(store, 1)
    at(DAY_1)
    assert 0 == store.prune(older_than="1d").rows
    add(store, 2)
    assert 0 == store.prune(older_than="1d").rows
    at(DAY_1 + 2 * DAY_S)
    assert 2 == store.prune(older_than="1d").rows


def test_the_oldest_rows_go_until_the_master_takes_no_more(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many({"n": n, "text": "x" * 900} for n in range(200))
        for n in range(200, 4_000):
            shard.write({"n": n, "text": "x" * 900})
    store.merge()
    report = store.prune(max_bytes="2M")
    left = numbers(store)
    assert report.fits
    assert report.rows == 4_000 - len(left)
    assert left == list(range(report.rows, 4_000))
    assert 1_000 < len(left) < 2_100  # of 2 MB; no more went than had to
    size = store.master_path.stat().st_size + Path(f"{store.master_path}-wal").stat().st_size
    assert size <= 2_000_000
    assert store.verify(deep=True).ok


def test_all_rules_together_hold_afterwards(store: edgeshard.Store, at: Callable[[float], None]) -> None:
    at(DAY_1)
    add(store, *range(5))
    at(DAY_1 + DAY_S)
    add(store, *range(5, 10))
    at(DAY_1 + DAY_S + 120)
    report = store.prune(older_than="1d", keep_rows=2)
    assert {"older than": 5, "keep rows": 3} == report.by_reason
    assert [8, 9] == numbers(store)


def test_a_transaction_stays_whole_or_goes_whole(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many([{"n": 0}, {"n": 1}, {"n": 2}])
        shard.write_many([{"n": 3}, {"n": 4}, {"n": 5}])
    store.merge()
    assert 3 == store.prune(keep_rows=2).rows
    assert [3, 4, 5] == numbers(store)
    assert [[4, 6]] == sql(store.master_path, "select first_id, last_id from edgeshard_transactions")


def test_of_a_table_rows_go_out_of_transactions_too(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(3):
            with shard.transaction():
                shard.write(Sample(n))
                shard.write({"n": n})
    store.merge()
    report = store.prune(keep_rows=1, table=Sample)
    assert (2, [2], [0, 1, 2]) == (report.rows, rows_of(store, "sample"), numbers(store))
    assert [[5, 6]] == sql(store.master_path, "select first_id, last_id from edgeshard_transactions")
    assert store.verify(deep=True).ok
    hub = edgeshard.Store(store.root.parent / "hub")
    hub.merge([store.master_path])
    assert ([2], [0, 1, 2]) == (rows_of(hub, "sample"), numbers(hub))
    assert [[3, 4]] == sql(hub.master_path, "select first_id, last_id from edgeshard_transactions")
    report = store.prune(keep_rows=0, table="SAMPLE")
    assert (1, [0, 1, 2]) == (report.rows, numbers(store))


def test_a_dry_run_says_what_would_go_and_changes_nothing(store: edgeshard.Store) -> None:
    add(store, *range(10))
    before = store.master_path.read_bytes()
    report = store.prune(keep_rows=4, dry_run=True)
    assert (6, True) == (report.rows, report.dry_run)
    assert before == store.master_path.read_bytes()
    assert 10 == len(numbers(store))
    assert 6 == store.prune(keep_rows=4).rows


def test_a_second_prune_finds_nothing_more(store: edgeshard.Store) -> None:
    add(store, *range(10))
    store.prune(keep_rows=4)
    assert 0 == store.prune(keep_rows=4).rows


def test_a_store_without_rows_has_nothing_to_prune(store: edgeshard.Store) -> None:
    report = store.prune(older_than="1d", keep_rows=0, max_bytes="1M")
    assert (0, True) == (report.rows, report.fits)


@pytest.mark.parametrize(
    ("asked", "cause"),
    [
        ({}, "give older_than, keep_rows, max_bytes, or shrink"),
        ({"older_than": "30"}, "an age is a number and a unit, such as 30d"),
        ({"older_than": "30 moons"}, "an age is a number and a unit"),
        ({"older_than": -1.0}, "an age lies between"),
        ({"older_than": float("nan")}, "an age lies between"),
        ({"keep_rows": -1}, "a number of rows is a whole number from 0 on"),
        ({"keep_rows": True}, "a number of rows is a whole number from 0 on"),
        ({"max_bytes": "500"}, "a master is kept to 1M at the least"),
        ({"max_bytes": "much"}, "a size is a number and a unit"),
        ({"keep_rows": 1, "table": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_and_nothing_goes(
    store: edgeshard.Store, asked: dict[str, Any], cause: str
) -> None:
    add(store, 1, 2)
    with pytest.raises(ConfigurationError, match=cause):
        store.prune(**asked)
    assert [1, 2] == numbers(store)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("90m", 5_400), ("45s", 45), ("2w", 1_209_600)]
)
def test_ages_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds == rules.age_s(text)


@pytest.mark.parametrize(
    ("text", "size"), [("500M", 500_000_000), ("2G", 2_000_000_000), ("512MiB", 536_870_912), (1_000_000, 1_000_000)]
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert size == rules.size_bytes(text)


# -- for good ---------------------------------------------------------------------------------------------------------


def test_what_was_pruned_comes_back_from_no_copy(store: edgeshard.Store, tmp_path: Path) -> None:
    hub = edgeshard.Store(tmp_path / "hub")
    with store.shard("a") as shard:
        for n in range(6):
            shard.write({"n": n})
        shard.sync()
        copy = tmp_path / "shard.db"
        sql(shard.path, f"vacuum into '{copy}'")
    store.merge()
    hub.merge([store.master_path])
    store.snapshot(tmp_path / "snapshot.db")
    store.export(tmp_path / "bundle.db")
    hub.prune(keep_rows=2)
    for source in (copy, store.master_path, tmp_path / "snapshot.db", tmp_path / "bundle.db"):
        report = hub.merge([source])
        assert (0, (), ()) == (report.rows, report.gaps, report.quarantined)
    assert [4, 5] == numbers(hub)
    assert hub.verify().ok


def test_verify_tells_pruned_from_lost(store: edgeshard.Store) -> None:
    add(store, *range(6))
    store.prune(keep_rows=4)
    report = store.verify()
    assert (True, {"keep rows": 2}, ()) == (report.ok, report.pruned, report.gaps)
    sql(store.master_path, "delete from agent_data where _seq = 4", "delete from edgeshard_blocks",
        "insert into edgeshard_blocks values (1, 3, 3, 3), (1, 5, 6, 5)")  # fmt: skip
    (error,) = [item for item in store.verify().errors if "pruned" in item]
    assert "stream number 1: seqs 4 to 4 were here, and are neither here now nor pruned" == error


def test_status_and_verify_say_what_was_pruned(store: edgeshard.Store) -> None:
    add(store, *range(6))
    done = command("prune", store.root, "--keep-rows", 4)
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("pruned 2 rows, in ")
    assert 2 == json.loads(command("status", store.root, "--json").stdout)["master"]["pruned_rows"]
    assert "6 rows of 1 agents in 1 streams, of which 2 were pruned" in command("status", store.root).stdout
    assert {"keep rows": 2} == json.loads(command("verify", store.root, "--json").stdout)["pruned"]


@pytest.mark.parametrize("by", ["master", "bundle"])
def test_a_hub_names_what_was_pruned_before_it_came_until_it_comes_another_way(
    store: edgeshard.Store, tmp_path: Path, by: str
) -> None:
    hub = edgeshard.Store(tmp_path / "hub")
    add(store, *range(6))
    store.snapshot(tmp_path / "before.db")
    store.prune(keep_rows=2)
    source = store.master_path
    if by == "bundle":
        source = tmp_path / "bundle.db"
        store.export(source)
    report = hub.merge([source])
    assert (2, [(1, 4)]) == (report.rows, [(gap.first, gap.last) for gap in report.gaps])
    (loss,) = hub.verify().losses
    assert ("pruned", store.verify().database) == (loss.cause, loss.database)
    assert f"master {loss.database} pruned them" in command("verify", hub.root).stdout
    assert (0, 1) == (hub.merge([source]).rows, len(hub.verify().losses))
    assert (4, ()) == ((report := hub.merge([tmp_path / "before.db"])).rows, report.gaps)
    assert (True, ()) == (hub.verify().ok, hub.verify().losses)


def test_a_middle_hop_passes_on_why_rows_are_missing(store: edgeshard.Store, tmp_path: Path) -> None:
    middle, hub = edgeshard.Store(tmp_path / "middle"), edgeshard.Store(tmp_path / "hub")
    add(store, *range(4))
    store.prune(keep_rows=1)
    middle.merge([store.master_path])
    hub.merge([middle.master_path])
    (loss,) = hub.verify().losses
    assert ("pruned", store.verify().database, 3) == (loss.cause, loss.database, len(loss.gap))


def test_writing_and_merging_go_on_after_a_prune(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(4):
            shard.write({"n": n})
        store.merge()
        store.prune(keep_rows=1)
        for n in range(4, 8):
            shard.write({"n": n})
        store.merge()
    assert [3, 4, 5, 6, 7] == numbers(store)
    store.prune(keep_rows=2)
    assert ([6, 7], True, [[1, 8]]) == (numbers(store), store.verify(deep=True).ok, held(store))
    lines = sql(store.master_path, "select first, last, reason from edgeshard_prunings")
    assert [[1, 6, "keep rows"]] == lines  # one line for a run of rows


# -- only what others hold --------------------------------------------------------------------------------------------


def test_only_what_a_receipt_says_is_elsewhere_goes(store: edgeshard.Store, tmp_path: Path) -> None:
    hub = edgeshard.Store(tmp_path / "hub")
    add(store, 0, 1, 2)
    hub.merge([store.master_path])
    add(store, 3, 4)
    report = store.prune(keep_rows=0, only_receipted=True)
    assert (0, 5, 5) == (report.rows, report.kept_back, len(numbers(store)))  # no receipt came back yet
    store.receipt(hub.ranges())
    report = store.prune(keep_rows=0, only_receipted=True)
    assert (3, 2, [3, 4]) == (report.rows, report.kept_back, numbers(store))
    assert 0 == store.prune(keep_rows=0, only_pushed=True).rows  # a hub is no PostgreSQL
    assert [0, 1, 2] == numbers(hub)


def test_a_receipt_of_postgresql_counts_for_only_pushed(store: edgeshard.Store) -> None:
    add(store, 0, 1, 2)
    opened = master.open_master(store.master_path, writable=True)
    (stream,) = [row[0] for row in database.fetch(opened, "select stream_id from edgeshard_streams")]
    receipts.note(opened, bytes(16), receipts.POSTGRESQL, {stream: [Range(2, 3)]})
    opened.close()
    report = store.prune(keep_rows=0, only_pushed=True)
    assert (2, 1, [0]) == (report.rows, report.kept_back, numbers(store))


def test_a_peer_that_holds_less_than_it_did_keeps_rows_here(store: edgeshard.Store, tmp_path: Path) -> None:
    hub = edgeshard.Store(tmp_path / "hub")
    add(store, 0, 1, 2)
    hub.merge([store.master_path])
    hub.prune(keep_rows=1)
    store.receipt(hub.ranges())
    report = store.prune(keep_rows=0, only_receipted=True)
    assert (1, [0, 1]) == (report.rows, numbers(store))


def test_a_transaction_of_which_a_row_is_nowhere_else_stays(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many([{"n": 0}, {"n": 1}])
        shard.write({"n": 2})
    store.merge()
    opened = master.open_master(store.master_path, writable=True)
    (stream,) = [row[0] for row in database.fetch(opened, "select stream_id from edgeshard_streams")]
    receipts.note(opened, bytes(16), receipts.EDGESHARD, {stream: [Range(2, 3)]})
    opened.close()
    report = store.prune(keep_rows=0, only_receipted=True)
    assert (1, 2, [0, 1]) == (report.rows, report.kept_back, numbers(store))


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_shrink_gives_the_room_back_to_the_disk(store: edgeshard.Store) -> None:
    add(store, 0)
    with store.shard("a") as shard:
        shard.write_many([{"n": n, "text": "x" * 500} for n in range(1, 5_000)])
    store.merge()
    before = store.master_path.stat().st_size
    store.prune(keep_rows=0)
    assert before == store.master_path.stat().st_size  # later merges fill it
    report = store.prune(shrink=True)
    after = store.master_path.stat().st_size
    assert before - after == report.shrunk_bytes
    assert after < before / 10
    assert store.verify(deep=True).ok


def test_the_file_stays_as_large_as_it_is_under_a_steady_load(store: edgeshard.Store) -> None:
    sizes = []
    for day in range(8):
        with store.shard("a") as shard:
            for n in range(500):
                shard.write({"n": day * 500 + n, "text": "x" * 200})
        store.merge()
        store.prune(keep_rows=1_000)
        sizes.append(store.master_path.stat().st_size)
    assert max(sizes[3:]) == sizes[3]
    assert 1_000 == len(numbers(store))


# -- killed, damaged, together ----------------------------------------------------------------------------------------

_PRUNE_AND_DIE = """
import os, signal, sys
from edgeshard import Store, database
from edgeshard.prune import plan, space, step
dies_at, count = int(sys.argv[2]), 0
def counted(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
step.apply = counted(step.apply)
step._cut_blocks = counted(step._cut_blocks)
step.prunings.note = counted(step.prunings.note)
database.shrink_log = counted(database.shrink_log)
space.shrink_by = counted(space.shrink_by)
space.PAGES_FIRST = plan.ROWS_FIRST = plan.ROWS_LEAST = plan.ROWS_MOST = 20
space.PAGES_LEAST = space.PAGES_MOST = 20
Store(sys.argv[1]).prune(keep_rows=100, shrink=True)
"""


def test_a_prune_that_is_killed_anywhere_is_finished_by_the_next(store: edgeshard.Store) -> None:
    died = 0
    for point in range(31):
        with store.shard("a") as shard:
            for n in range(60):
                shard.write({"n": n, "text": "x" * 200})
            shard.write_many([{"n": n} for n in range(40)])
        store.merge()
        done = subprocess.run([sys.executable, "-c", _PRUNE_AND_DIE, store.root, str(point + 1)], check=False)
        died += done.returncode == -9
        if point % 7 == 0:  # elsewhere the next prune finds what the killed one left, too
            assert store.verify().ok
    store.prune(keep_rows=100, shrink=True)
    assert (100, True) == (len(numbers(store)), store.verify(deep=True).ok)
    assert died > 20


def test_a_prune_beside_a_merger_and_writers_loses_no_row(store: edgeshard.Store) -> None:
    with store.watching(interval=0.05), store.shard("a") as shard:
        for n in range(3_000):
            shard.write({"n": n})
            if n % 500 == 499:
                store.prune(keep_rows=700)
    left = numbers(store)
    assert left == list(range(left[0], 3_000))
    assert len(left) >= 700
    report = store.verify(deep=True)
    assert (True, 3_000) == (report.ok, report.rows + sum(report.pruned.values()))


def prune_command(store: edgeshard.Store, rows: int) -> subprocess.Popen[str]:
    """A prune in a process of its own, that goes on while we do something else."""
    verb = [sys.executable, "-m", "edgeshard", "prune", str(store.root), "--keep-rows", str(rows), "--json"]
    return subprocess.Popen(verb, stdout=subprocess.PIPE, text=True)


def test_two_prunes_at_once_delete_nothing_twice(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(4_000):
            shard.write({"n": n})
    store.merge()
    others = [prune_command(store, 50) for _ in range(2)]
    said = [json.loads(other.communicate()[0]) for other in others]
    assert 3_950 == sum(report["rows"] for report in said)
    assert list(range(3_950, 4_000)) == numbers(store)
    assert store.verify().ok


def test_a_merger_waits_for_a_prune_no_longer_than_for_one_step(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        for n in range(3_000):
            shard.write({"n": n})
    store.merge()
    merged = []

    def merge_meanwhile(done: int, _: int) -> None:
        add(store, done, agent="b")  # between two steps nothing is locked
        merged.append(done)

    store.prune(keep_rows=10, table="agent_data", progress=merge_meanwhile)
    assert len(merged) > 1
    assert store.verify().ok


def test_a_master_that_contradicts_itself_is_not_pruned(store: edgeshard.Store) -> None:
    add(store, *range(10))
    sql(store.master_path, "delete from agent_data where _seq = 5")
    with pytest.raises(DamagedError, match="`edgeshard verify` says more"):
        store.prune(keep_rows=2)
    assert 9 == len(numbers(store))
    assert 1 == command("prune", store.root, "--keep-rows", 2).returncode


def test_a_bundle_is_no_master_to_prune(store: edgeshard.Store, tmp_path: Path) -> None:
    add(store, 1)
    other = edgeshard.Store(tmp_path / "other")
    other.root.mkdir()
    store.export(other.master_path)
    with pytest.raises(FormatError, match="bundle"):
        other.prune(keep_rows=0)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "one of --older-than, --keep-rows, --max-bytes and --shrink is wanted"),
        (["--older-than", "30"], 2, "an age is a number and a unit"),
        (["--keep-rows", "-5"], 2, "a whole number of rows is wanted"),
        (["--max-bytes", "1x"], 2, "a size is a number and a unit"),
        (["--keep-rows", "1", "--only-pushed", "--only-receipted"], 2, "not allowed with"),
        (["--keep-rows", "1", "--table", "nowhere"], 78, "nowhere"),
    ],
)
def test_the_command_refuses_what_cannot_be(store: edgeshard.Store, arguments: list[str], code: int, said: str) -> None:
    add(store, 1, 2)
    done = command("prune", store.root, *arguments)
    assert (code, True) == (done.returncode, said in done.stderr), done.stderr
    assert [1, 2] == numbers(store)


def test_the_command_of_a_store_without_a_master_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = command("prune", tmp_path / "data", "--keep-rows", 1)
    assert (78, "") == (done.returncode, done.stdout)


def test_the_command_says_where_a_size_cannot_be_reached(store: edgeshard.Store) -> None:
    with store.shard("a") as shard:
        shard.write_many([{"n": n, "text": "x" * 1_000} for n in range(2_500)])
    store.merge()
    done = command("prune", store.root, "--max-bytes", "1M", "--only-receipted")
    assert (3, True) == (done.returncode, "it does not fit into what it was to take" in done.stdout)
    assert 2_500 == len(numbers(store))


# -- mutants ----------------------------------------------------------------------------------------------------------


def _random_life(root: Path, seed: int) -> None:
    """A store that is written, merged, pruned by this and that, and merged elsewhere; all of it is accounted for."""
    rng = random.Random(seed)
    store, hub = edgeshard.Store(root / "device"), edgeshard.Store(root / "hub")
    written = 0
    for _ in range(rng.randint(3, 6)):
        with store.shard(rng.choice("abc")) as shard:
            for _ in range(rng.randint(1, 4)):
                batch = rng.randint(1, 6)
                shard.write_many([rng.choice([{"n": written + k}, Sample(written + k)]) for k in range(batch)])
                written += batch
        store.merge()
        if rng.random() < 0.4:
            hub.merge([store.master_path])
            store.receipt(hub.ranges())
        if rng.random() < 0.8:
            only = rng.random() < 0.5
            table = rng.choice([None, None, "sample", "agent_data"])
            known = {name for (name,) in sql(store.master_path, "select distinct table_name from edgeshard_columns")}
            if table is None or table in known:
                store.prune(keep_rows=rng.randint(0, 8), only_receipted=only, table=table)
        _ensure_accounted(store, written)
    if rng.random() < 0.5:
        hub.merge([store.master_path])
        assert not hub.verify().errors
        assert not [loss for loss in hub.verify().losses if loss.cause == "unknown"]


def _ensure_accounted(store: edgeshard.Store, written: int) -> None:
    report = store.verify(deep=True)
    assert report.ok, report
    assert written == report.rows + sum(report.pruned.values())
    blocks = sql(store.master_path, "select coalesce(sum(last - first + 1), 0) from edgeshard_blocks")
    assert [[report.rows]] == blocks
    parts = sql(
        store.master_path,
        "select count(*) from edgeshard_transactions t where not exists (select 1 from edgeshard_blocks b "
        "where t.first_id between b.first_id and b.first_id + b.last - b.first)",
    )
    assert [[0]] == parts


@pytest.mark.parametrize("seed", range(12))
def test_random_lives_of_a_store_are_accounted_for(tmp_path: Path, seed: int) -> None:
    _random_life(tmp_path, seed)


def _ranges_go_with_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = step.apply

    def also(connection: Any, scope: Any, goes: Any, reason: str) -> None:
        apply(connection, scope, goes, reason)
        connection.execute("DELETE FROM edgeshard_ranges")
        connection.execute("INSERT INTO edgeshard_ranges SELECT stream_no, first, last FROM edgeshard_blocks")

    monkeypatch.setattr(step, "apply", also)


def _prunings_are_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeshard.prunings.note", lambda *_: None)


def _blocks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = step._cut_blocks

    def only_counted(connection: Any, number: int, blocks: Any, gone: Any) -> Any:
        connection.execute("SAVEPOINT kept")
        lost = cut(connection, number, blocks, gone)
        connection.execute("ROLLBACK TO kept")
        return lost

    monkeypatch.setattr(step, "_cut_blocks", only_counted)


def _receipts_are_not_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "kept_back", lambda *_: [])


def _transactions_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_whole", lambda _, bound: bound)


def _nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_shrink", lambda *_: None)


@pytest.mark.parametrize(
    ("mutant", "finder"),
    [
        (_ranges_go_with_their_rows, test_what_was_pruned_comes_back_from_no_copy),
        (_prunings_are_not_noted, test_verify_tells_pruned_from_lost),
        (_blocks_stay, test_writing_and_merging_go_on_after_a_prune),
        (_receipts_are_not_heeded, test_only_what_a_receipt_says_is_elsewhere_goes),
        (_transactions_are_divided, test_a_transaction_stays_whole_or_goes_whole),
        (_nothing_is_given_back, test_shrink_gives_the_room_back_to_the_disk),
    ],
)
def test_each_mutant_is_found(
    store: edgeshard.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Any, finder: Any
) -> None:
    mutant(monkeypatch)
    wanted = {"store": store, "tmp_path": tmp_path}
    names = finder.__code__.co_varnames[: finder.__code__.co_argcount]
    with pytest.raises((AssertionError, edgeshard.EdgeshardError)):
        finder(**{name: wanted[name] for name in names})
