"""The rules of a prune. Pure values."""

from __future__ import annotations

import datetime
from typing import Final

import attrs

from edgeshard.master import pruned_ranges
from edgeshard.master.receipts import EDGESHARD, POSTGRESQL
from edgeshard.retention.quantities import age_s, row_count, size_bytes

#: The rules by their names in _edgeshard_pruned_ranges and in reports, in the order in which a prune follows them.
OLDER_THAN, KEEP_ROWS, TOMBSTONES, MAX_BYTES = "older than", "keep rows", pruned_ranges.TOMBSTONES, "max bytes"

#: The name of the rule that deletes all rows of a table, and the table.
DROP_TABLE: Final = "drop table"

#: The name of the size rule if the store's disk budget asks for it, not a user.
BUDGET: Final = "budget"

#: The rules whose record may be forgotten with the stream; what else was deleted must not come back, however old.
FORGETTABLE: Final = frozenset(
    {OLDER_THAN, KEEP_ROWS, TOMBSTONES, pruned_ranges.SUPERSEDED, MAX_BYTES, DROP_TABLE, BUDGET}
)


@attrs.frozen
class Rules:
    """Which rows to delete, and which to keep.

    Attributes:
        older_than_s: delete rows that arrived longer ago than this, in seconds.
        keep_rows: delete all but this many of the newest rows.
        max_bytes: delete the oldest rows until the master is no larger than this.
        peer_kinds: delete only rows that a peer of one of these kinds holds; None: all rows.
        table: delete only rows of this table.
        tables: delete only rows of these tables, spelled as in the master; None: of all tables.
        size_reason: the name of the rule that asks for `max_bytes`.
        protected_agents: keep all rows of these agents.
        drops_table: delete all rows of `table`, and then the table itself; the rules above are not set then.
        tombstones_older_than_s: delete tombstones that were made, and arrived, longer ago than this, in seconds, once
            no older change can follow them.
        forget_after_s: forget streams of which all rows were pruned longer ago than this, in seconds.
    """

    older_than_s: float | None = None
    keep_rows: int | None = None
    max_bytes: int | None = None
    peer_kinds: tuple[str, ...] | None = None
    table: str | None = None
    tables: tuple[str, ...] | None = None
    size_reason: str = MAX_BYTES
    protected_agents: tuple[str, ...] = ()
    tombstones_older_than_s: float | None = None
    drops_table: bool = False
    forget_after_s: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no rule is set."""
        others = (self.tombstones_older_than_s, self.forget_after_s)
        return self.selects_no_rows and others == (None, None) and not self.drops_table

    @property
    def selects_no_rows(self) -> bool:
        """Whether no rule is set but that for tombstones, if any."""
        return self.older_than_s is None and self.keep_rows is None and self.max_bytes is None

    @property
    def ages_s(self) -> tuple[float, ...]:
        """The ages that are set, in seconds."""
        ages = (self.older_than_s, self.tombstones_older_than_s, self.forget_after_s)
        return tuple(age for age in ages if age is not None)


def parse_rules(
    older_than: str | float | datetime.timedelta | None,
    keep_rows: int | None,
    max_bytes: str | int | None,
    only_pushed: bool,
    only_receipted: bool,
    table: str | None,
    deletions_older_than: str | float | datetime.timedelta | None = None,
    drop_table: bool = False,
    forget_after: str | float | datetime.timedelta | None = None,
) -> Rules:
    """Return the rules that a user gives as arguments of `Store.prune`.

    Raises:
        ValueError: one of them is invalid.
    """
    others = (older_than, keep_rows, max_bytes, deletions_older_than, forget_after)
    if drop_table and (table is None or only_pushed or only_receipted or any(rule is not None for rule in others)):
        raise ValueError("drop_table needs a table, and no other rule; prune by the other rules first")
    peer_kinds = (POSTGRESQL,) if only_pushed else (EDGESHARD, POSTGRESQL) if only_receipted else None
    return Rules(
        older_than_s=None if older_than is None else age_s(older_than),
        keep_rows=None if keep_rows is None else row_count(keep_rows),
        max_bytes=None if max_bytes is None else size_bytes(max_bytes),
        peer_kinds=peer_kinds,
        table=table,
        tombstones_older_than_s=None if deletions_older_than is None else age_s(deletions_older_than),
        drops_table=drop_table,
        forget_after_s=None if forget_after is None else age_s(forget_after),
    )
