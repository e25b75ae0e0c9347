"""A table that contradicts the master's blocks its own rows, with the transactions that touch them, and no others."""

from __future__ import annotations

import logging
import random
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest

import edgeshard
from edgeshard.cli.exits import INCOMPLETE
from edgeshard.files import scan
from edgeshard.master import database
from edgeshard.merge.merger import Merger
from edgeshard.retention import own_shards
from edgeshard.shard import store_master
from tests.support.forms import short_and_full
from tests.support.keyed_schema_versions import plain
from tests.support.processes import command, sql, unwrapped
from tests.support.stores import numbers, shard_path

REFERENCE, OTHER = plain(v=int), plain(v=str)


def named(name: str, **types: type) -> Any:
    return attrs.make_class(name, {column: attrs.field(type=type_) for column, type_ in types.items()}, frozen=True)


def keyed(name: str, **types: type) -> Any:
    return edgeshard.table(key="k")(named(name, **types))


@pytest.fixture(autouse=True)
def unaware_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let agents write classes that do not fit, as if they had written before the master had the table."""
    monkeypatch.setattr(store_master, "ensure_fits", lambda *_: None)


@pytest.fixture
def store(tmp_path: Path) -> edgeshard.Store:
    """Return a store whose master has a table `sample` with integers."""
    made = edgeshard.Store(tmp_path / "store")
    with made.shard("first") as shard:
        shard.write(REFERENCE(1))
    made.merge()
    return made


def write(store: edgeshard.Store, agent: str, *transactions: Any) -> None:
    """Write each of these: a record, or a list of records in one transaction. A number is a dict."""
    with store.shard(agent) as shard:
        for item in transactions:
            records = [{"n": each} if isinstance(each, int) else each for each in _listed(item)]
            shard.write_many(records)


def _listed(item: Any) -> list[Any]:
    return item if isinstance(item, list) else [item]


def blocked(report: edgeshard.MergeReport) -> list[tuple[str, str, int]]:
    assert () == report.quarantined
    return [(Path(item.path).name, item.table, item.rows) for item in report.blocked]


def merged_with(store: edgeshard.Store, *sources: Any) -> edgeshard.MergeReport:
    """Merge; a dry run says the same before, and the store is consistent afterwards."""
    dry = store.merge(sources, dry_run=True)
    report = store.merge(sources)
    assert (dry.rows, blocked(dry), dry.truncated) == (report.rows, blocked(report), report.truncated)
    assert [item.reason for item in dry.blocked] == [item.reason for item in report.blocked]
    check(store, sum(item.rows for item in report.blocked if Path(item.path).parent.name == "shards"))
    return report


def check(store: edgeshard.Store, pending: int) -> None:
    """Check that nothing is missing, and that exactly these rows are pending, in verify and in status."""
    for _ in range(2):  # the second time, status need not look into the shard
        verified, status = store.verify(deep=True), store.status()
        assert ((), ()) == (verified.errors, status.gaps)
        assert (pending, pending) == (status.states.pending, verified.states.pending)
        assert (0, status.states.total) == (status.states.missing, verified.states.total)
        assert pending == status.blocked_rows
        assert status.complete == (not pending)


# -- what is blocked --------------------------------------------------------------------------------------------------


def test_other_tables_and_later_rows_are_merged_and_a_transaction_is_blocked_whole(store: edgeshard.Store) -> None:
    write(store, "a", 1, OTHER("x"), 2, [3, OTHER("y"), 4], [5, 6], OTHER("z"))
    report = merged_with(store)
    assert (4, 1, [("a.db", "sample", 5)], False) == (report.rows, report.truncated, blocked(report), report.complete)
    assert "column sample.v is text in this shard and integer in the master" in report.blocked[0].reason
    assert [1, 2, 5, 6] == numbers(store)
    assert () == report.gaps
    again = merged_with(store)
    assert (0, 0, blocked(report)) == (again.rows, again.truncated, blocked(again))
    assert [1, 2, 5, 6] == numbers(store)


def test_the_command_names_the_rows_and_exits_with_3(store: edgeshard.Store) -> None:
    write(store, "a", 1, OTHER("x"))
    done = command("merge", store.root)
    assert (INCOMPLETE, True) == (done.returncode, "1 row blocked of sample" in done.stdout)
    assert "rows of table sample in " in done.stderr
    status = command("status", store.root)
    assert INCOMPLETE == status.returncode
    assert "1 row of table sample blocked in shard a.db: column sample.v is text" in unwrapped(status.stdout)


def test_values_that_do_not_fit_block_their_transactions_alone(store: edgeshard.Store) -> None:
    write(store, "floats", named("other", w=float)(0.5))
    merged_with(store)
    big = named("other", w=int)
    write(store, "a", big(1), [big(2**53 + 1), 1], big(3), 2)
    report = merged_with(store)
    assert [("a.db", "other", 2)] == blocked(report)
    assert "integers beyond 2^53" in report.blocked[0].reason
    assert [0.5, 1.0, 3.0] == sorted(row.w for row in store.query("SELECT w FROM other"))
    assert [2] == numbers(store)
    write(store, "decimals", named("other", w=Decimal)(Decimal("0.1")))
    report = store.merge()  # from now on the column holds both
    assert (3, []) == (report.rows, blocked(report))
    assert 0 == merged_with(store).rows
    assert [1, 2] == numbers(store)


def test_a_keyed_table_is_blocked_with_its_tombstones_and_they_hold_those_of_others(store: edgeshard.Store) -> None:
    mine, theirs = keyed("state", k=str, v=str), keyed("state", k=str, v=int)
    write(store, "first", theirs("p", 1))
    merged_with(store)
    with store.shard("a") as shard:
        shard.write(mine("p", "x"))
        shard.delete(mine, "p")
        shard.write({"n": 1})
    report = merged_with(store)
    assert [("a.db", "state", 1), ("a.db", "state_deleted", 1)] == blocked(report)
    assert [("p", 1)] == store.query("SELECT k, v FROM state")
    assert [1] == numbers(store)
    connection = database.open_master(store.master_path, writable=False)
    try:
        (hold,) = own_shards.scan_own_shards(connection, store.root.resolve() / "shards").holds
    finally:
        connection.close()
    assert "a.db has pending changes" in hold.reason


@pytest.mark.parametrize("role", ["master", "bundle", "copy of a shard"])
def test_rows_of_other_databases_are_blocked_alike_and_are_gaps_until_they_fit(
    store: edgeshard.Store, tmp_path: Path, role: str
) -> None:
    device = edgeshard.Store(tmp_path / "device")
    write(device, "a", 1, OTHER("x"), [2, OTHER("y")], 3)
    if role == "copy of a shard":
        path = shutil.copy(shard_path(device, "a"), tmp_path / "copy.db")
    else:
        device.merge()
        path = device.master_path if role == "master" else tmp_path / "bundle.db"
        if role == "bundle":
            device.export(path)
    for rows in (2, 0):
        report = store.merge([path])
        assert (rows, [(Path(path).name, "sample", 3)], 3) == (report.rows, blocked(report), report.missing_rows)
    assert [1, 3] == numbers(store)
    assert () == store.verify(deep=True).errors
    store.prune(table="sample", drop_table=True)
    report = store.merge([path])
    assert (3, [], 0) == (report.rows, blocked(report), report.missing_rows)
    assert [1, 2, 3] == numbers(store)
    assert ["x", "y"] == sorted(row.v for row in store.query("SELECT v FROM sample"))
    assert store.verify(deep=True).ok


def test_a_database_that_is_named_twice_is_counted_once(store: edgeshard.Store, tmp_path: Path) -> None:
    device = edgeshard.Store(tmp_path / "device")
    write(device, "b", 1, OTHER("x"))
    device.merge()
    write(store, "a", 2, OTHER("y"))
    mine, theirs = shard_path(store, "a"), device.master_path
    for dry_run in (True, False):
        report = store.merge([theirs, theirs, mine], dry_run=dry_run)
        assert (2, [("a.db", "sample", 1), ("master.db", "sample", 1)]) == (report.rows, sorted(blocked(report)))


# -- release ----------------------------------------------------------------------------------------------------------


def test_a_dropped_table_releases_all_once_and_in_its_transactions(store: edgeshard.Store) -> None:
    write(store, "a", 1, [2, OTHER("x")], 3, OTHER("y"))
    merged_with(store)
    store.prune(table="sample", drop_table=True)
    report = merged_with(store)
    assert (3, [], 1) == (report.rows, blocked(report), report.removed)
    assert [1, 2, 3] == numbers(store)
    assert ["x", "y"] == sorted(row.v for row in store.query("SELECT v FROM sample"))
    (whole,) = store.query("SELECT last_id - first_id + 1 AS rows FROM _edgeshard_transactions")
    assert 2 == whole.rows
    assert 0 == merged_with(store).rows


def test_the_same_agents_corrected_class_releases_what_fits(store: edgeshard.Store) -> None:
    write(store, "first", named("other", w=float)(0.5))
    merged_with(store)
    big = named("other", w=int)
    write(store, "a", big(2**53 + 1), 1)
    assert [("a.db", "other", 1)] == blocked(merged_with(store))
    write(store, "a", named("other", w=Decimal)(Decimal("0.5")))
    report = merged_with(store)
    assert (2, []) == (report.rows, blocked(report))
    assert {"0.5", str(2**53 + 1)} == {str(row.w) for row in store.query("SELECT w FROM other")}


# -- what stays in the shard ------------------------------------------------------------------------------------------


def test_no_merge_deletes_a_blocked_row_or_the_shard(store: edgeshard.Store) -> None:
    write(store, "a", 1, OTHER("x"), 2)
    saved = store.root / "saved.db"
    shutil.copy(shard_path(store, "a"), saved)
    with (
        mock.patch.object(Merger, "_truncate_or_remove", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        store.merge()
    for _ in range(3):
        assert [("a.db", "sample", 1)] == blocked(merged_with(store))
        assert [[1]] == sql(shard_path(store, "a"), "SELECT count(*) FROM sample")
    shutil.copy(saved, shard_path(store, "a"))
    Path(f"{shard_path(store, 'a')}-wal").unlink(missing_ok=True)
    assert [("a.db", "sample", 1)] == blocked(merged_with(store))
    write(store, "a", 3)
    merged_with(store)
    assert [1, 2, 3] == numbers(store)
    store.prune(table="sample", drop_table=True)
    assert (1, 1) == ((report := merged_with(store)).rows, report.removed)
    assert [1, 2, 3] == numbers(store)


def test_blocked_rows_of_a_lost_shard_are_missing(store: edgeshard.Store) -> None:
    write(store, "a", OTHER("x"), 1)
    merged_with(store)
    shard_path(store, "a").rename(store.root / "moved.db")
    (gap,) = store.verify().gaps
    assert (1, 1) == (gap.first, gap.last)
    report = store.merge()
    assert ([], 1, (gap,)) == (blocked(report), report.missing_rows, report.gaps)
    (store.root / "moved.db").rename(shard_path(store, "a"))
    assert [("a.db", "sample", 1)] == blocked(merged_with(store))


def test_a_row_that_only_an_older_master_takes_for_blocked_is_missing(store: edgeshard.Store, tmp_path: Path) -> None:
    """Its shard no longer has it: the master that was replaced had merged it."""
    with store.shard("a") as shard:
        shard.write(OTHER("x"))
        assert [("a.db", "sample", 1)] == blocked(store.merge())
        store.snapshot(tmp_path / "older.db")
        store.prune(table="sample", drop_table=True)
        assert (1, 1) == ((report := store.merge()).rows, report.truncated)
        restored = store.restore(tmp_path / "older.db")
        gaps = [(gap.agent, gap.first, gap.last) for gap in restored.gaps]
        assert (("a", 1, 1) in gaps, restored.gaps) == (True, store.verify().gaps)
        assert set(store.status().gaps) == set(restored.gaps) == set(store.merge().gaps)


def test_blocked_rows_in_two_copies_of_a_shard_count_once(store: edgeshard.Store) -> None:
    write(store, "a", OTHER("x"), [1, OTHER("y")])
    merged_with(store)
    shutil.copy(shard_path(store, "a"), store.root / "shards" / "carried.db")
    write(store, "b", OTHER("z"))
    assert [("a.db", 3), ("b.db", 1), ("carried.db", 3)] == [(name, rows) for name, _, rows in blocked(store.merge())]
    check(store, 4)


def test_rows_that_were_merged_before_their_table_came_into_conflict_stay_until_they_need_no_comparison(
    store: edgeshard.Store,
) -> None:
    write(store, "a", named("other", w=int)(1), 1)
    with mock.patch.object(Merger, "_truncate_or_remove"):
        assert 2 == store.merge().rows
        write(store, "z", edgeshard.table(renamed={"w": "x"})(named("other", x=int))(7))
        assert 1 == store.merge().rows
    write(store, "a", edgeshard.table(renamed={"w": "y"})(named("other", y=int))(2), 2)
    for _ in range(2):
        assert [("a.db", "other", 2)] == blocked(store.merge())
        assert [[2]] == sql(shard_path(store, "a"), "SELECT count(*) FROM other")
    assert ([1, 2], 2) == (numbers(store), store.query("SELECT count(*) AS c FROM other")[0].c)
    store.prune(table="other", drop_table=True)
    report = merged_with(store)
    assert (1, [], 1) == (report.rows, blocked(report), report.removed)
    assert [(2,)] == store.query("SELECT y FROM other")
    assert [1, 2] == numbers(store)


# -- a merger that watches --------------------------------------------------------------------------------------------


def test_a_merger_that_stays_opens_the_shard_again_only_if_it_or_the_master_changed(
    store: edgeshard.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scan, "FRESH_S", -1.0)
    caplog.set_level(logging.WARNING, "edgeshard.merge")
    write(store, "a", 1, OTHER("x"), 2)
    merger = Merger(store.root, watching=True)
    opened = [merger.run(thorough=thorough).shards for thorough in (True, False, False, False)]
    assert [1, 0] == [opened[0], opened[-1]]
    assert not merger.has_news()
    assert [("a.db", "sample", 1)] == blocked(merger.run(thorough=False))
    assert 1 == merger.run(thorough=True).shards
    write(store, "a", OTHER("y"), 3)
    report = merger.run(thorough=False)
    assert (1, [("a.db", "sample", 2)]) == (report.rows, blocked(report))
    assert 1 == sum("are blocked" in record.getMessage() for record in caplog.records)
    store.prune(table="sample", drop_table=True)
    report = merger.run(thorough=False)
    assert (2, []) == (report.rows, blocked(report))
    merger.close()
    assert [1, 2, 3] == numbers(store)


# -- any order of everything ------------------------------------------------------------------------------------------


@attrs.define
class Model:
    """What must be in the master: all but the transactions with a row of a blocked table."""

    free: list[int] = attrs.Factory(list)
    waiting: list[int] = attrs.Factory(list)
    blocked_rows: int = 0


def random_transaction(rng: random.Random, next_n: int, model: Model) -> Any:
    rows = [OTHER("x") if rng.random() < 0.3 else next_n + at for at in range(rng.randint(1, 4))]
    if any(not isinstance(row, int) for row in rows):
        model.waiting += [row for row in rows if isinstance(row, int)]
        model.blocked_rows += len(rows)
    else:
        model.free += rows
    return rows if len(rows) > 1 else rows[0]


@pytest.mark.parametrize("trials", short_and_full(3, 100))
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_random_transactions_are_merged_or_blocked_as_the_model_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, chunk_bytes: int
) -> None:
    monkeypatch.setattr("edgeshard.format.blocks.CHUNK_BYTES", chunk_bytes)
    check_random_transactions(tmp_path, trials)


def check_random_transactions(folder: Path, trials: int) -> None:
    for seed in range(trials):
        rng, model = random.Random(seed), Model()
        store = edgeshard.Store(folder / str(seed))
        write(store, "first", REFERENCE(1))
        store.merge()
        for step in range(3):
            first = 100 * step
            write(store, "a", *(random_transaction(rng, first + 10 * at, model) for at in range(rng.randint(1, 6))))
            report = store.merge()
            assert model.blocked_rows == sum(item.rows for item in report.blocked), seed
            assert () == report.gaps, seed
            assert sorted(model.free) == numbers(store), seed
            check(store, model.blocked_rows)
        store.prune(table="sample", drop_table=True)
        report = store.merge()
        assert (model.blocked_rows, []) == (report.rows, blocked(report)), seed
        assert sorted(model.free + model.waiting) == numbers(store), seed
        check(store, 0)
