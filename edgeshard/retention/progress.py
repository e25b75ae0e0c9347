"""Count what a prune has done so far, and tell the caller."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from edgeshard.retention.plan import PruneBatch

#: Called with (rows done, rows to do) as a prune proceeds; the second is an estimate.
ProgressCallback = Callable[[int, int], None]


@attrs.define
class HoldReasons:
    """Why tombstones that are old enough stay.

    Attributes:
        behind: where older changes may still come from, and what to do, one sentence each.
        unheard: the ids of the databases that do not know of the tombstones yet, in hexadecimal.
    """

    behind: set[str] = attrs.Factory(set)
    unheard: set[str] = attrs.Factory(set)


@attrs.define
class PrunedRows:
    """Rows of a table that a dry run would delete.

    Attributes:
        rows: how many.
        first_id: the lowest of their ids, which is that of the oldest one.
        last_id: the highest.
    """

    rows: int
    first_id: int
    last_id: int


@attrs.define
class PruneProgress:
    """What a prune has done so far.

    Attributes:
        callback: called after each transaction.
        by_reason: rows deleted, by the name of the rule.
        kept_back: sum of `PruneBatch.kept_back` over all transactions.
        behind: sum of `PruneBatch.behind`.
        unheard: sum of `PruneBatch.unheard`.
        retired: streams that retired.
        forgotten: retired streams that were forgotten.
        unconfirmed: rows that would be too old if the jumps of the clock were confirmed.
        hold_reasons: why tombstones stay.
        tables: of a dry run, the rows that it would delete, by table.
        expected_rows: an estimate of how many rows will be deleted in all; kept only for the callback.
    """

    callback: ProgressCallback | None = None
    by_reason: dict[str, int] = attrs.Factory(dict)
    kept_back: int = 0
    behind: int = 0
    unheard: int = 0
    retired: int = 0
    forgotten: int = 0
    unconfirmed: int = 0
    hold_reasons: HoldReasons = attrs.Factory(HoldReasons)
    expected_rows: int = 0
    tables: dict[str, PrunedRows] = attrs.Factory(dict)

    @property
    def rows(self) -> int:
        """How many rows were deleted."""
        return sum(self.by_reason.values())

    def add_to_table(self, table: str, rows: int, first_id: int, last_id: int) -> None:
        """Count rows of a table that a dry run would delete."""
        found = self.tables.setdefault(table, PrunedRows(0, first_id, last_id))
        found.rows += rows
        found.first_id, found.last_id = min(found.first_id, first_id), max(found.last_id, last_id)

    def add(self, reason: str, batch: PruneBatch) -> None:
        """Count what one transaction did for a rule."""
        if batch.rows:
            self.by_reason[reason] = self.by_reason.get(reason, 0) + batch.rows
        self.kept_back += batch.kept_back
        self.behind += batch.behind
        self.unheard += batch.unheard
        if self.callback is not None:
            self.callback(self.rows, max(self.expected_rows, self.rows))
