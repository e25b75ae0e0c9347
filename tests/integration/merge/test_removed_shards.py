"""An older master that is put back names the rows that removed shards brought, because notes outside it say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import edgeshard
from edgeshard.reports import OLDER_MASTER
from tests.support.processes import command
from tests.support.stores import numbers


def write(store: edgeshard.Store, agent: str, *ns: int) -> None:
    with store.shard(agent) as shard:
        shard.write_many({"n": n} for n in ns)


def put_back(store: edgeshard.Store, snapshot: Path) -> Path:
    """Put a snapshot in the master's place by hand, as people do; return where the old files are."""
    replaced = store.root.parent / "replaced"
    replaced.mkdir()
    for path in store.root.glob("master.db*"):
        path.rename(replaced / path.name)
    shutil.copyfile(snapshot, store.master_path)
    return replaced / "master.db"


def named(gaps: tuple[edgeshard.Gap, ...]) -> list[tuple[str, int, int]]:
    return [(gap.agent, gap.first, gap.last) for gap in gaps]


@pytest.fixture
def older(store: edgeshard.Store, tmp_path: Path) -> Path:
    """A snapshot with one row; afterwards two agents brought rows, and their shards were removed."""
    write(store, "a", 1)
    store.merge()
    store.snapshot(tmp_path / "older.db")
    write(store, "a", 2, 3)
    write(store, "b", 4, 5, 6)
    assert 2 == store.merge().removed
    return tmp_path / "older.db"


def test_each_report_names_rows_of_removed_shards_that_an_older_master_lacks(
    store: edgeshard.Store, older: Path
) -> None:
    put_back(store, older)
    expected = [("a", 1, 2), ("b", 1, 3)]
    verified, status = store.verify(), store.status()
    assert (expected, expected) == (named(verified.gaps), named(status.gaps))
    assert [OLDER_MASTER] * 2 == [loss.cause for loss in verified.losses]
    assert (False, 5, 5) == (status.complete, status.master.missing_rows, verified.states.missing)
    assert expected == named(store.merge(dry_run=True).gaps)
    merged = store.merge()
    assert (expected, 5, False) == (named(merged.gaps), merged.missing_rows, merged.complete)
    assert expected == named(store.verify().gaps), "the merge recorded them in the master"
    assert ((), [OLDER_MASTER] * 2) == (store.verify().errors, [loss.cause for loss in store.verify().losses])


def test_commands_exit_3_and_name_the_rows(store: edgeshard.Store, older: Path) -> None:
    put_back(store, older)
    for verb in ("verify", "status", "merge"):
        done = command(verb, store.root)
        assert (3, True) == (done.returncode, "5 rows missing" in done.stdout), (verb, done)
    assert "this master held them before an older copy of it was restored" in command("verify", store.root).stdout


def test_the_gaps_close_once_the_replaced_master_is_merged(store: edgeshard.Store, older: Path) -> None:
    replaced = put_back(store, older)
    assert 5 == store.merge([replaced]).rows
    assert (True, [1, 2, 3, 4, 5, 6]) == (store.verify().ok, numbers(store))
    assert store.merge().complete
