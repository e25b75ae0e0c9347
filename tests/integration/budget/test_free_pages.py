"""Whatever frees rows of a full store makes space for its writers, whatever `on_full` says, and within the budget."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from unittest import mock

import attrs
import pytest

import edgeshard
from edgeshard import sqlite
from edgeshard.budget import policy, usage
from edgeshard.budget.policy import Budget, OnFull, Usage
from edgeshard.errors import DiskBudgetError
from tests.integration.budget.test_budget import MB, sampled, taken
from tests.support.clocks import DAY_S, Clock, set_machine_clock
from tests.support.forms import others_slow
from tests.support.processes import sql

#: How many rows a test leaves of its table.
KEPT = 20


@attrs.frozen
class Trace:
    """What fills the store."""

    n: int
    text: str


def fill_store(store: edgeshard.Store) -> int:
    """Write and merge until nothing is accepted, or rows are dropped; return how many rows were acknowledged."""
    written = 0
    with store.shard("agent") as shard:
        size = store_budget(store).max_bytes // 3_000
        while True:
            before = written
            with suppress(DiskBudgetError):
                while True:
                    shard.write_many([Trace(written + n, "x" * size) for n in range(10)])
                    written += 10
            try:
                if store.merge().dropped:
                    return written
            except DiskBudgetError:
                pass
            if written == before:
                return written


def write(store: edgeshard.Store, rows: int) -> None:
    """Write rows of 1 kB, in many transactions."""
    with store.shard("agent") as shard:
        for first in range(0, rows, 10):
            shard.write_many([Trace(n, "x" * 1_000) for n in range(first, first + 10)])


@functools.cache
def template(max_mb: float, on_full: OnFull) -> tuple[Path, int]:
    """Return the folder of a full store, which is filled once, and how many rows were acknowledged there."""
    folder = Path(tempfile.mkdtemp(prefix="edgeshard-full-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        set_machine_clock(patch, Clock())
        return folder, fill_store(edgeshard.Store(folder, max_bytes=int(max_mb * MB), on_full=on_full))


def full_store(root: Path, max_mb: float, on_full: OnFull) -> tuple[edgeshard.Store, int]:
    """Return a full store, and how many rows were acknowledged there."""
    folder, written = template(max_mb, on_full)
    shutil.copytree(folder, root, dirs_exist_ok=True)
    return edgeshard.Store(root), written


def store_budget(store: edgeshard.Store) -> Budget:
    """Return the budget that a store has."""
    budget = store.disk_budget()
    assert budget is not None
    return budget


def left(store: edgeshard.Store) -> int:
    """Return what is left for writers if the open shards are idle."""
    return policy.left_for_writers(store_budget(store), usage.measure(store.root, sizes_only=True))


def rows_of(store: edgeshard.Store) -> list[int]:
    """Return the numbers of all rows that the master has."""
    return [row[0] for row in store.query("SELECT n FROM trace ORDER BY n")]


def free_pages(store: edgeshard.Store) -> int:
    """Return how many bytes of the master's file are free."""
    return store.prune(keep_rows=1_000_000, dry_run=True).free_bytes


@contextmanager
def open_shard_again(store: edgeshard.Store) -> Iterator[None]:
    """Write to the shard that filled the store, and to one that is new."""
    with store.shard("agent") as shard, store.shard("new") as other:
        shard.write(Trace(-1, "again"))
        other.write(Trace(-2, "new"))
        yield


# -- what frees rows: each leaves rows of which none is older than the number that it returns --------------------------


def by_rows(store: edgeshard.Store, written: int, clock: Clock) -> int:
    store.prune(keep_rows=KEPT)
    return written - KEPT


def by_age(store: edgeshard.Store, written: int, clock: Clock) -> int:
    clock.now_s += DAY_S / 24
    store.prune(older_than="30m")
    return written


def by_table(store: edgeshard.Store, written: int, clock: Clock) -> int:
    store.prune(keep_rows=KEPT, table=Trace)
    return written - KEPT


def by_rules_in_a_merge(store: edgeshard.Store, written: int, clock: Clock) -> int:
    with suppress(DiskBudgetError):
        edgeshard.Store(store.root, prune={"keep_rows": KEPT}).merge()
    return written - KEPT


def by_rules_of_a_watcher(store: edgeshard.Store, written: int, clock: Clock) -> int:
    with edgeshard.Store(store.root, prune={"keep_rows": KEPT}).watching(0.05):
        pass
    return written - KEPT


def by_erasing(store: edgeshard.Store, written: int, clock: Clock) -> int:
    store.erase(Trace, "n < ?", [written - KEPT])
    return written - KEPT


def by_dropping_the_table(store: edgeshard.Store, written: int, clock: Clock) -> int:
    store.prune(table=Trace, drop_table=True)
    return written


def by_hand(store: edgeshard.Store, written: int, clock: Clock) -> int:
    with suppress(DiskBudgetError):
        store.merge()
    return written - KEPT


def delete_by_hand(store: edgeshard.Store, first: int) -> None:
    sql(store.master_path, f"DELETE FROM trace WHERE n < {first}", "PRAGMA wal_checkpoint(TRUNCATE)")


Free = Callable[[edgeshard.Store, int, Clock], int]

FREEING: list[Free] = [
    by_rows,
    by_age,
    by_table,
    by_rules_in_a_merge,
    by_rules_of_a_watcher,
    by_erasing,
    by_dropping_the_table,
    by_hand,
]

GRID = list(product([1.6, 4.0, 20.0], policy.ON_FULL, FREEING))

ALWAYS = list(product([4.0], ["error"], [by_rows, by_rules_in_a_merge, by_erasing]))


@pytest.mark.parametrize(("max_mb", "on_full", "free"), others_slow(GRID, ALWAYS))
def test_writers_of_a_full_store_go_on_once_rows_are_freed(
    tmp_path: Path, clock: Clock, max_mb: float, on_full: OnFull, free: Free
) -> None:
    store, written = full_store(tmp_path, max_mb, on_full)
    if free is by_hand:
        delete_by_hand(store, written - KEPT)  # another program does not know of the budget
    with sampled(store) as largest:
        first = free(store, written, clock)
        with open_shard_again(store):
            pass
    with suppress(DiskBudgetError):
        store.merge()
    with sampled(store) as later:
        store.merge()
    assert max(largest[0], later[0]) <= max_mb * MB, (largest, later)
    report, found = store.verify(), rows_of(store)
    if free is not by_hand:
        assert report.ok, report
    assert [-2, -1] == found[:2]
    # rows that were pending as the others were freed are there, whatever their number
    assert [*range(first, written)] == [n for n in found if n >= first]
    states = report.states
    assert len(found) == states.present
    assert written + 2 == states.present + states.pruned + states.erased + states.by_hand
    status = store.status()
    assert status.pending_rows == 0
    assert status.budget is not None
    assert not status.budget.is_full


# -- no more than is needed -------------------------------------------------------------------------------------------


def test_only_as_many_pages_are_given_back_as_writers_lack(tmp_path: Path) -> None:
    store, _ = full_store(tmp_path, 4.0, "error")
    size = store.master_path.stat().st_size
    report = store.prune(keep_rows=KEPT)
    wanted = policy.wanted_left(store_budget(store))
    assert wanted <= left(store) <= 1.5 * wanted + 8_192
    assert 0 < report.shrunk_bytes < size / 2 < report.free_bytes + report.shrunk_bytes
    assert 0 == store.prune(keep_rows=KEPT).shrunk_bytes


def test_a_store_that_has_space_keeps_its_free_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = edgeshard.Store(tmp_path, max_bytes="20M")
    write(store, 1_500)
    released = mock.Mock(wraps=sqlite.release_pages)
    monkeypatch.setattr(sqlite, "release_pages", released)
    edgeshard.Store(tmp_path, prune={"keep_rows": KEPT}).merge()
    store.prune(keep_rows=1)
    store.merge()
    assert MB < free_pages(store)
    assert not released.called


@pytest.mark.parametrize("on_full", others_slow(policy.ON_FULL, ["error"]))
def test_a_dry_run_gives_nothing_back(tmp_path: Path, on_full: OnFull) -> None:
    store, _ = full_store(tmp_path, 4.0, on_full)
    before = store.master_path.read_bytes()
    report = store.prune(keep_rows=1, dry_run=True)
    assert (True, 0, before) == (report.rows > 0, report.shrunk_bytes, store.master_path.read_bytes())


@pytest.mark.slow
def test_nothing_is_dropped_where_free_pages_make_the_space(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path)
    write(store, 6_000)
    store.merge()
    store.prune(keep_rows=5_000)
    assert MB < free_pages(store)
    store.note_budget(int(taken(store) * 8 / 7), on_full="drop-oldest")
    assert (0, [*range(1_000, 6_000)]) == (store.merge().dropped, rows_of(store))
    assert policy.wanted_left(store_budget(store)) <= left(store)


@pytest.mark.slow
def test_pages_are_given_back_for_a_transaction_that_was_refused(tmp_path: Path) -> None:
    store, _ = full_store(tmp_path, 4.0, "error")
    store.merge()
    store.prune(keep_rows=KEPT)
    large = [Trace(n, "x" * 1_000) for n in range(270)]
    with store.shard("agent") as shard:
        with pytest.raises(DiskBudgetError):
            shard.write_many(large)
        store.merge()
        shard.write_many(large)
    assert len(large) == store.merge().rows
    assert store.verify().ok


# -- a reader, and a master that cannot become smaller -------------------------------------------------------------------


@pytest.mark.slow
def test_a_long_read_delays_it_until_the_merge_after_it_and_the_budget_holds(tmp_path: Path) -> None:
    store, written = full_store(tmp_path, 4.0, "error")
    reading = sqlite.connect(str(store.master_path), writable=False)
    with sampled(store) as largest:
        with sqlite.read_snapshot(reading):
            assert sqlite.scalar(reading, "SELECT count(*) FROM trace")
            store.prune(keep_rows=written - 100)
            for _ in range(3):
                with suppress(DiskBudgetError):
                    store.merge()
        reading.close()
        store.prune(keep_rows=KEPT)
        store.merge()
        with open_shard_again(store):
            pass
    assert largest[0] <= 4 * MB
    store.merge()
    assert store.verify().ok


@pytest.mark.slow
def test_a_master_that_cannot_become_smaller_is_pruned_all_the_same_and_vacuum_helps(tmp_path: Path) -> None:
    create = sqlite.create
    with mock.patch.object(sqlite, "create", lambda *given, shrinkable=False, **more: create(*given, **more)):
        store = edgeshard.Store(tmp_path, max_bytes="1.6M")
        fill_store(store)
    report = store.prune(keep_rows=1)
    assert (False, True) == (report.can_shrink, "VACUUM" in str(report))
    with suppress(DiskBudgetError):
        store.merge()
    sql(store.master_path, "PRAGMA auto_vacuum=INCREMENTAL", "VACUUM")
    store.merge()
    with open_shard_again(store):
        pass
    store.merge()
    assert store.verify().ok


# -- what comes from elsewhere ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_smaller_snapshot_that_is_restored_makes_space(tmp_path: Path) -> None:
    store = edgeshard.Store(tmp_path / "store", max_bytes="4M")
    with store.shard("agent") as shard:
        shard.write(Trace(0, "first"))
    store.merge()
    store.snapshot(tmp_path / "small.db")
    fill_store(store)
    store.restore(tmp_path / "small.db")
    with suppress(DiskBudgetError):
        store.merge()
    with open_shard_again(store):
        pass
    found = usage.measure(store.root)  # without the master that was replaced
    assert found.used + found.reserve <= 4 * MB


# -- the decision -------------------------------------------------------------------------------------------------------


def test_the_decision() -> None:
    budget = Budget(20 * MB)
    wanted = policy.wanted_left(budget)
    room = policy.left_for_writers(budget, Usage(master=MB))

    def decide(lacking: int, free: int, transaction: int = 0) -> int:
        return policy.bytes_to_give_back(budget, Usage(master=MB + room - wanted + lacking, wanted=transaction), free)

    assert 0 == decide(0, 10 * MB)
    assert 1 + wanted // 2 == decide(1, 10 * MB)
    assert 5_000 == decide(10_000, 5_000)
    assert 0 == decide(10_000, 0)
    assert wanted < decide(0, 20 * MB, 2 * MB)
    assert 5_000 == decide(0, 5_000, 2 * MB)
