"""What a merge costs depends on what is new, and not on how much history a master has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edgeshard
from edgeshard.merge.merger import Merger
from edgeshard.reports import GAPS_MAX, MergeReport
from tests.support import history
from tests.support.history import KINDS, Work
from tests.support.pruning import add
from tests.support.stores import new_store, numbers

FEW, MANY = 2 * GAPS_MAX, 3_000

#: By how much the counts of equal work differ: a search in a larger tree takes a step or two more.
TOLERANCE = 1.05

Merge = Callable[[], MergeReport]


def _merge(store: edgeshard.Store) -> Merge:
    return store.merge


def _watch(store: edgeshard.Store) -> Merge:
    merger = Merger(store.root, keep_empty=True, watching=True)
    merger.run()
    return merger.run


def _merge_into_hub(store: edgeshard.Store) -> Merge:
    hub = new_store(store.root / "hub")
    hub.merge([store.master_path])
    history.write_next_row(store)

    def merge() -> MergeReport:
        return hub.merge([store.master_path])

    return merge


def work_of_one_row(store: edgeshard.Store, kind: str, size: int, prepare: Callable[[edgeshard.Store], Merge]) -> int:
    """Merge the next row of an agent with a history of this size, and return how much work that was."""
    history.grow(store, kind, size)
    merge = prepare(store)
    if prepare is _merge_into_hub:
        store.merge()
    else:
        history.write_next_row(store)
    with history.counted(work := Work()):
        report = merge()
    assert (1, ()) == (report.rows, report.quarantined)
    assert () == store.verify().errors
    return work.total


@pytest.mark.parametrize(
    ("kind", "prepare"),
    [*((kind, prepare) for kind in KINDS for prepare in (_merge, _watch)), ("blocks", _merge_into_hub)],
)
def test_a_merge_of_one_row_costs_the_same_after_a_long_history(
    kind: str, prepare: Callable[[edgeshard.Store], Merge], tmp_path: Path
) -> None:
    few, many = (work_of_one_row(edgeshard.Store(tmp_path / str(size)), kind, size, prepare) for size in (FEW, MANY))
    assert many < TOLERANCE * few


def test_a_block_ends_only_where_rows_of_another_stream_arrived(store: edgeshard.Store) -> None:
    def blocks() -> int:
        return int(store.query("SELECT count(*) FROM _edgeshard_blocks")[0][0])

    with store.shard("one") as one, store.shard("other") as other:
        for _ in range(3):
            one.write_many([{}, {}])
            store.merge()
        assert 1 == blocks()
        for turn in range(1, 4):
            other.write({})
            store.merge()
            one.write({})
            store.merge()
            assert 1 + 2 * turn == blocks()
    assert () == store.verify().errors


def test_rows_that_a_source_pruned_come_with_an_older_copy_of_it(store: edgeshard.Store, tmp_path: Path) -> None:
    add(store, "agent", *range(10))
    store.snapshot(tmp_path / "older.db")
    store.prune(keep_rows=3)
    hub = new_store(tmp_path / "hub")
    assert 3 == hub.merge([store.master_path]).rows
    assert 0 == hub.merge([store.master_path]).rows  # what was pruned is noted now
    assert (7, ()) == ((report := hub.merge([tmp_path / "older.db"])).rows, report.gaps)
    assert ([*range(10)], ()) == (numbers(hub), hub.verify().errors)


def test_a_report_lists_some_gaps_and_counts_all_missing_rows(store: edgeshard.Store) -> None:
    history.grow(store, "gaps", 2 * GAPS_MAX)
    for report in (store.merge(), store.merge(dry_run=True)):
        assert (GAPS_MAX, 2 * GAPS_MAX, False) == (len(report.gaps), report.missing_rows, report.complete)
        be = " would be" if report.dry_run else ""
        assert f"{2 * GAPS_MAX} rows{be} missing in {GAPS_MAX} gaps and more" in str(report)
    assert 2 * GAPS_MAX == len(store.verify().gaps) == len(store.status().gaps)
