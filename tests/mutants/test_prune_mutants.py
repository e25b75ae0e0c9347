"""Tests of pruning find a prune that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import edgeshard
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import pruned_ranges
from edgeshard.retention import plan, shrink, window
from tests.support.pruning import (
    account,
    add,
    check_disk_is_given_back,
    check_nothing_comes_back,
    note,
    stream_of,
)
from tests.support.stores import numbers

pytestmark = pytest.mark.slow

APPLY, NOTE = window.delete, pruned_ranges.record


def range_goes_with_its_rows(connection: Any, scope: Any, goes: Any, reason: str) -> None:
    """What is pruned leaves the ranges, too."""
    APPLY(connection, scope, goes, reason)
    for number in goes.window.blocks:
        own = f"FROM edgeshard_pruned_ranges WHERE stream_no = {number}"
        connection.execute(
            f"UPDATE edgeshard_ranges SET first = (SELECT max(last) {own}) + 1 WHERE stream_no = {number}"
        )


def block_is_not_cut(_: Any, number: int, blocks: Any, gone: Any) -> list[Range]:
    """Rows go, and their block stays."""
    return [part for block in blocks for part in plan.cut(block, gone)[1]]


def receipts_are_not_asked(window: Any, _: Any) -> list[Range]:
    """Rows go before a receipt says that they may."""
    return subtract([window.ids], [window.ids])


def check_only_what_is_safe_goes(folder: Path) -> None:
    """Of rows that nobody else holds none goes."""
    store = edgeshard.Store(folder / "data")
    add(store, "a", *range(4))
    note(store, {stream_of(store): [Range(1, 2)]})
    assert (2, [2, 3]) == (store.prune(keep_rows=0, only_receipted=True).rows, numbers(store))


def check_account(folder: Path) -> None:
    """What is here, and what was pruned, is what was ever held."""
    store = edgeshard.Store(folder / "data")
    add(store, "a", *range(9))
    store.prune(keep_rows=4)
    assert (4, 5, 9) == account(store)


MUTANTS: dict[str, tuple[Any, str, Any, Callable[[Path], None]]] = {
    "the range goes with its rows": (window, "delete", range_goes_with_its_rows, check_nothing_comes_back),
    "rows go before the receipt": (plan, "not_deletable", receipts_are_not_asked, check_only_what_is_safe_goes),
    "prunings are not noted": (pruned_ranges, "record", lambda *_: None, check_account),
    "the block is not cut": (window, "_cut_blocks", block_is_not_cut, check_account),
    "the disk is not given back": (shrink, "release", lambda *_: None, check_disk_is_given_back),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_mutant_is_found(mutant: str, tmp_path: Path) -> None:
    owner, name, replacement, check = MUTANTS[mutant]
    with mock.patch.object(owner, name, replacement), pytest.raises(AssertionError):
        check(tmp_path)
