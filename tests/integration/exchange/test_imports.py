"""An import as a whole: each row comes once whatever happens to the store, and each file is imported on its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import edgeshard
from edgeshard.errors import DiskBudgetError
from edgeshard.reports import MergeReport, Quarantined
from tests.support import ordinary
from tests.support.stores import contradictions, new_store, numbers
from tests.support.wall_clock import Wall


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with ten rows."""
    path = tmp_path / "app.ndjson"
    append(path, *range(10))
    return path


def append(path: Path, *ns: int) -> None:
    with path.open("a") as file:
        file.write("".join(f'{{"n": {n}}}\n' for n in ns))


def error(store: edgeshard.Store, source: Path | str, **options: Any) -> str:
    """Why a file, or its table, was refused."""
    (found,) = store.import_(source, **options).files
    return found.error or found.tables[0].error


# -- files ------------------------------------------------------------------------------------------------------------


def test_an_import_makes_the_store(source: Path, tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data")
    assert (10, True) == (store.import_(source).rows, store.verify().ok)
    assert list(range(10)) == numbers(store)


def test_files_that_cannot_be_imported_are_named_and_the_others_are_imported(
    store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    store.init()
    store.note_budget("1G")
    causes = {
        tmp_path / "missing.db": "there is no such file",
        tmp_path: "it is a folder",
        Path("/dev/null"): "it is not a regular file",
        tmp_path / "empty": "it is empty",
        store.master_path: "it is an edgeshard database",
        store.root / "budget.json": "it belongs to the store itself",
    }
    report = store.import_([*causes, source])
    assert (10, False) == (report.rows, report.complete)
    for (path, cause), found in zip(causes.items(), report.files, strict=False):
        assert (f"import {path}: {cause}" in found.error, found.tables) == (True, ()), found.error


@pytest.mark.parametrize("name", ["x" * 201, "a\0b", "\ud800"])
def test_an_agent_that_there_cannot_be_is_refused(name: str, store: edgeshard.Store, source: Path) -> None:
    assert "agent's name" in error(store, source, agent=name)


def test_a_table_that_there_cannot_be_is_refused(store: edgeshard.Store, source: Path) -> None:
    assert "a name must have 1 to 100 letters" in error(store, source, table="a b")


def test_wrong_arguments_are_refused(store: edgeshard.Store) -> None:
    with pytest.raises(edgeshard.ConfigurationError, match="import_ takes paths, as in"):
        store.import_(7)  # type: ignore[arg-type]


def test_a_dry_run_changes_nothing(source: Path, tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "data")
    assert (10, True) == (store.import_(source, dry_run=True).rows, not store.exists())
    store.import_(source)
    append(source, 10, 11)
    before = sorted((path, path.read_bytes()) for path in store.root.rglob("*.db"))
    found = store.import_(source, dry_run=True).files[0].tables[0]
    assert (2, 10) == (found.rows, found.known)
    assert before == sorted((path, path.read_bytes()) for path in store.root.rglob("*.db"))


def test_an_import_without_news_makes_no_shard(store: edgeshard.Store, source: Path) -> None:
    store.import_(source)
    with mock.patch.object(edgeshard.Store, "shard", side_effect=AssertionError):
        assert (0, 10) == (store.import_(source).rows, store.import_(source).files[0].tables[0].known)


# -- once -------------------------------------------------------------------------------------------------------------


def test_an_agent_that_is_at_work_is_left_alone(
    store: edgeshard.Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(edgeshard.Store.shard.__kwdefaults__, "wait", 0.0)  # type: ignore[arg-type]
    with store.shard("app"):
        assert "agent 'app' is open in" in error(store, source)
    assert (10, list(range(10))) == (store.import_(source).rows, numbers(store))


def test_another_import_of_the_agent_that_ends_meanwhile_is_seen(store: edgeshard.Store, source: Path) -> None:
    real = edgeshard.Store.shard
    calls = []

    def shard(self: edgeshard.Store, agent: str, **options: Any) -> edgeshard.Shard:
        calls.append(agent)
        if len(calls) == 1:
            store.import_(source)
        return real(self, agent, **options)

    with mock.patch.object(edgeshard.Store, "shard", shard):
        assert 0 == store.import_(source).rows
    assert (["app", "app"], list(range(10))) == (calls, numbers(store))


def test_files_with_the_same_rows_that_are_next_to_each_other_are_two(
    store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.ndjson"
    shutil.copyfile(source, other)
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    for made in ("create table readings(n)", "create table keyed(n integer primary key)"):
        ordinary.run(one, made, f"insert into {made.split()[2].partition('(')[0]} values (1), (2)")
    shutil.copyfile(one, two)
    for path in (source, other, one, two):
        store.import_(path, agent="all")
    counts = [store.query(f"select count(*) from {name}")[0][0] for name in ("agent_data", "readings", "keyed")]
    assert [20, 4, 4] == counts
    assert 0 == store.import_([source, other, one, two], agent="all").rows


def test_what_is_pending_counts_as_imported(store: edgeshard.Store, source: Path) -> None:
    store.init()
    with mock.patch("edgeshard.merge.once.merge", return_value=MergeReport()):
        assert (10, []) == (store.import_(source).rows, numbers(store))
        append(source, 10)
        assert (1, []) == (store.import_(source).rows, numbers(store))
    store.merge()
    assert list(range(11)) == numbers(store)


def test_a_merge_that_fails_leaves_the_rows_pending_and_says_so(store: edgeshard.Store, source: Path) -> None:
    store.init()
    full = DiskBudgetError("merge into", store.master_path, "no space")
    with mock.patch("edgeshard.merge.once.merge", side_effect=[store.merge(), full]):
        report = store.import_(source)
    assert (10, True, False) == (report.rows, "no space" in report.pending, report.complete)
    store.merge()
    assert list(range(10)) == numbers(store)


def test_only_the_shards_of_the_import_count(store: edgeshard.Store, source: Path) -> None:
    store.init()
    (store.root / "shards" / "broken.db").write_bytes(b"no database")
    assert (10, True) == (store.import_(source).rows, store.import_(source).complete)
    append(source, 10)
    quarantined = MergeReport(quarantined=(Quarantined(str(store.root / "shards" / "app.db"), "it is damaged"),))
    with mock.patch("edgeshard.merge.once.merge", return_value=quarantined):
        report = store.import_(source)
    assert (1, True, False) == (report.rows, report.pending.endswith("app.db: it is damaged"), report.complete)


def test_a_snapshot_takes_along_what_was_imported(store: edgeshard.Store, source: Path, tmp_path: Path) -> None:
    store.import_(source)
    store.snapshot(tmp_path / "snapshot.db")
    store.restore(tmp_path / "snapshot.db")
    append(source, 10)
    assert (1, list(range(11))) == (store.import_(source).rows, numbers(store))


@pytest.mark.parametrize("by_hand", [False, True])
def test_after_an_older_master_was_put_back_nothing_comes_twice(
    by_hand: bool, store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    store.import_(source)
    store.snapshot(tmp_path / "snapshot.db")
    append(source, 10, 11)
    store.import_(source)
    if by_hand:
        replaced = str(store.master_path.rename(tmp_path / "replaced.db"))
        shutil.copyfile(tmp_path / "snapshot.db", store.master_path)
    else:
        replaced = store.restore(tmp_path / "snapshot.db").replaced
    append(source, 12)
    assert "3 rows of agent 'app' are missing" in error(store, source)
    assert list(range(10)) == numbers(store)
    store.merge([replaced])
    assert (1, list(range(13))) == (store.import_(source).rows, numbers(store))
    assert () == contradictions(store.verify(deep=True))


def test_rows_whose_loss_was_accepted_come_again(store: edgeshard.Store, source: Path, tmp_path: Path) -> None:
    store.import_(source)
    store.snapshot(tmp_path / "snapshot.db")
    append(source, 10, 11)
    store.import_(source)
    store.restore(tmp_path / "snapshot.db")
    store.accept_loss(agent="app", why="the master's disk broke")
    assert (2, list(range(12))) == (store.import_(source).rows, numbers(store))


def test_lost_rows_do_not_come_again_if_later_ones_of_the_file_are_there(
    store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    store.init()
    store.snapshot(tmp_path / "empty.db")
    store.import_(source)
    known = store.ranges()
    append(source, 10, 11)
    store.import_(source)
    store.export(tmp_path / "later.bundle", ranges=known)
    store.restore(tmp_path / "empty.db")
    store.merge([tmp_path / "later.bundle"])
    assert "rows of agent 'app' are missing" in error(store, source)
    store.accept_loss(why="the disk is lost", agent="app")
    assert (0, [10, 11]) == (store.import_(source).rows, numbers(store))
    assert store.import_(source, agent="again").rows == 12


def test_nothing_comes_twice_after_the_clock_was_set_back(store: edgeshard.Store, source: Path, wall: Wall) -> None:
    for n in range(10, 14):
        store.import_(source)
        wall.advance(days=-30)
        append(source, n)
    assert store.import_(source).rows == 1
    assert list(range(14)) == numbers(store)


def test_a_hub_that_has_the_rows_knows_that_they_were_imported(
    store: edgeshard.Store, source: Path, tmp_path: Path
) -> None:
    store.import_(source)
    hub = new_store(tmp_path / "hub")
    hub.merge([store.master_path])
    append(source, 10)
    assert (1, list(range(11))) == (hub.import_(source).rows, numbers(hub))


def test_rows_that_do_not_fit_the_master_are_refused_before_they_are_written(
    store: edgeshard.Store, tmp_path: Path
) -> None:
    with store.shard("other") as shard:
        shard.write({"n": 1}, table="readings")
    store.merge()
    ordinary.run(tmp_path / "plant.db", "create table readings(celsius real)", "insert into readings values (1.5)")
    assert "table readings has dicts there" in error(store, tmp_path / "plant.db")
    store.merge()
    assert 0 == store.query("select count(*) from _edgeshard_streams where agent_id = 'plant'")[0][0]
