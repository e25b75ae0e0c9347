"""What a prune leaves is what a simple model says."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgeshard
from edgeshard.format.ranges import Range
from edgeshard.reports import PRUNED
from edgeshard.retention import plan
from tests.support.in_memory import IN_MEMORY
from tests.support.pruning import (
    account,
    note,
    stream_of,
)
from tests.support.records import NOON, Reading
from tests.support.stores import contradictions, new_store, numbers

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@attrs.frozen
class Row:
    """A row of the model."""

    n: int
    transaction: int
    is_reading: bool
    is_elsewhere: bool


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    """Rows, in order of arrival."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    rows: list[Row] = []
    for transaction, size in enumerate(sizes):
        rows += [Row(len(rows) + k, transaction, draw(st.booleans()), draw(st.booleans())) for k in range(size)]
    return rows


def expected(rows: list[Row], keep: int, table: bool, receipted: bool) -> set[int]:
    """Which rows a prune leaves, said as simply as can be."""
    asked = [row for row in rows if row.is_reading or not table]
    bound = 0 if keep > len(asked) else asked[-keep].n if keep else 1 << 30
    across = {row.transaction for row in rows if row.n < bound} & {row.transaction for row in rows if row.n >= bound}
    goes = {row.n for row in asked if row.n < bound and row.transaction not in across}
    if receipted:
        alone = {row.transaction for row in rows if not row.is_elsewhere}
        goes -= {row.n for row in rows if row.transaction in alone}
    return {row.n for row in rows} - goes


@FEW
@given(histories(), st.data())
def test_what_is_left_is_what_a_simple_model_says(rows: list[Row], data: st.DataObject) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeshard-prune-", dir=IN_MEMORY)))
        store = edgeshard.Store(folder / "data")
        with store.shard("a") as shard:
            for number in range(rows[-1].transaction + 1):
                part = [row for row in rows if row.transaction == number]
                shard.write_many(Reading(str(row.n), 0.0, NOON) if row.is_reading else {"n": row.n} for row in part)
        store.merge()
        note(store, {stream_of(store): [Range(row.n + 1, row.n + 1) for row in rows if row.is_elsewhere]})
        stack.enter_context(mock.patch.object(plan, "next_size", return_value=data.draw(st.integers(1, 9), "window")))
        stack.enter_context(mock.patch.object(plan, "FIRST_ROWS", 3))
        left = list(rows)
        for _ in range(2):
            keep = data.draw(st.integers(0, len(rows)), "keep")
            table = data.draw(st.booleans(), "table") and any(row.is_reading for row in rows)
            receipted = data.draw(st.booleans(), "receipted")
            stays = expected(left, keep, table, receipted)
            report = store.prune(keep_rows=keep, table="reading" if table else None, only_receipted=receipted)
            assert len(left) - len(stays) == report.rows
            left = [row for row in left if row.n in stays]
            assert stays == there(store)
            assert (len(left), len(rows) - len(left), len(rows)) == account(store)
        hub = new_store(folder / "hub")
        hub.merge([store.master_path])
        assert (stays, ()) == (there(hub), contradictions(hub.verify()))
        assert {PRUNED} >= {loss.cause for loss in hub.verify().losses}


def there(store: edgeshard.Store) -> set[int]:
    """The numbers of all rows of a store's master."""
    tables = [name for (name,) in store.query("select distinct table_name from _edgeshard_columns")]
    found = set(numbers(store))
    return found | ({int(row.sensor) for row in store.read(Reading)} if "reading" in tables else set())
