"""Break a prune on purpose, and expect a check of pruning to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import edgeshard
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import database, pruned_ranges, receipts, streams
from edgeshard.retention import plan, shrink, window
from tests.support.pruning import (
    account,
    add,
    check_disk_is_given_back,
    check_nothing_comes_back,
    note,
    stream_of,
)
from tests.support.stores import new_store, numbers

pytestmark = pytest.mark.slow

DELETE = window.delete


def delete_ranges_of_pruned_rows(connection: Any, scope: Any, batch: Any, reason: str) -> None:
    """Also delete pruned rows from the ranges."""
    DELETE(connection, scope, batch, reason)
    for number in batch.window.blocks:
        own = f"FROM _edgeshard_pruned_ranges WHERE stream_no = {number}"
        connection.execute(
            f"UPDATE _edgeshard_ranges SET first = (SELECT max(last) {own}) + 1 WHERE stream_no = {number}"
        )


def block_is_not_cut(_: Any, number: int, blocks: Any, deleted: Any) -> list[Range]:
    """Delete rows, and leave their blocks as they are."""
    return [part for block in blocks for part in plan.cut(block, deleted)[1]]


def ignore_receipts(window: Any, _: Any) -> list[Range]:
    """Prune rows that no receipt allows to prune."""
    return subtract([window.ids], [window.ids])


def check_only_held_rows_are_pruned(folder: Path) -> None:
    """Check that rows which no other database holds stay."""
    store = edgeshard.Store(folder / "data")
    add(store, "a", *range(4))
    note(store, {stream_of(store): [Range(1, 2)]})
    assert (2, [2, 3]) == (store.prune(keep_rows=0, only_receipted=True).rows, numbers(store))


def check_only_rows_that_were_here_count(folder: Path) -> None:
    """Check that a receipt of a confirmed database does not count for rows that came after it."""
    store = edgeshard.Store(folder / "data")
    add(store, "a", 0, 1)
    note(store, {stream_of(store): [Range(1, 4)]})
    connection = database.open_master(store.master_path, writable=True)
    assert {stream_of(store): [Range(1, 2)]} == receipts.held_elsewhere(connection, receipts.KINDS)
    connection.close()


def check_strangers_do_not_count(folder: Path) -> None:
    """Check that a receipt of a database that nobody confirmed does not count."""
    store, hub = new_store(folder / "data"), new_store(folder / "hub")
    add(store, "a", 0, 1)
    hub.merge([store.master_path])
    store.receipt(hub.ranges())
    assert 0 == store.prune(keep_rows=0, only_receipted=True).rows


def record_without_confirmation(connection: Any, database_id: bytes, kind: str, **_: Any) -> None:
    """Record all rows of a stranger's receipt, not only that it gave one."""
    said = [(stream, [(1, 2, receipts.HELD)]) for stream in streams.numbers_by_id(connection)]
    receipts.record(connection, database_id, kind, said)


def believe_everything(number: int, _: Any, runs: Any, __: Any) -> Any:
    """Count all rows that a peer says it holds."""
    return [(number, *run) for run in runs]


def check_account(folder: Path) -> None:
    """Check that present and pruned rows add up to the rows ever held."""
    store = edgeshard.Store(folder / "data")
    add(store, "a", *range(9))
    store.prune(keep_rows=4)
    assert (4, 5, 9) == account(store)


MUTANTS: dict[str, tuple[Any, str, Any, Callable[[Path], None]]] = {
    "delete the ranges of pruned rows": (window, "delete", delete_ranges_of_pruned_rows, check_nothing_comes_back),
    "prune rows without a receipt": (plan, "not_deletable", ignore_receipts, check_only_held_rows_are_pruned),
    "count rows that were never here": (receipts, "_rows", believe_everything, check_only_rows_that_were_here_count),
    "count receipts of strangers": (
        receipts,
        "record_awaiting",
        record_without_confirmation,
        check_strangers_do_not_count,
    ),
    "do not record pruned rows": (pruned_ranges, "record", lambda *_: None, check_account),
    "prune rows without cutting their blocks": (window, "_cut_blocks", block_is_not_cut, check_account),
    "do not give the disk back": (shrink, "release", lambda *_: None, check_disk_is_given_back),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_mutant_is_found(mutant: str, tmp_path: Path) -> None:
    owner, name, replacement, check = MUTANTS[mutant]
    with mock.patch.object(owner, name, replacement), pytest.raises(AssertionError):
        check(tmp_path)
