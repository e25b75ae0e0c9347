"""Parse the rules of a prune: ages, row counts and sizes, as people write them. Pure values."""

from __future__ import annotations

import datetime
import re
from typing import Final

import attrs

from edgeshard.master import pruned_ranges
from edgeshard.master.receipts import EDGESHARD, POSTGRESQL

#: The rules by their names in _edgeshard_pruned_ranges and in reports, in the order in which a prune follows them.
OLDER_THAN, KEEP_ROWS, TOMBSTONES, MAX_BYTES = "older than", "keep rows", pruned_ranges.TOMBSTONES, "max bytes"

#: The name of the rule that deletes all rows of a table, and the table.
DROP_TABLE: Final = "drop table"

#: The name of the size rule if the store's disk budget asks for it, not a user.
BUDGET: Final = "budget"

#: The smallest size that a rule may have, in bytes: a number without its unit would delete everything.
MIN_MAX_BYTES: Final = 1_000_000

#: The rules whose record may be forgotten with the stream; what else was deleted must not come back, however old.
FORGETTABLE: Final = frozenset(
    {OLDER_THAN, KEEP_ROWS, TOMBSTONES, pruned_ranges.SUPERSEDED, MAX_BYTES, DROP_TABLE, BUDGET}
)

_AGE_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_SIZE_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.ASCII)

#: 1000 years: an older age is a mistake.
_AGE_MAX_S = 1_000 * 365.25 * 86_400


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


def age_s(age: str | float | datetime.timedelta) -> float:
    """Parse an age: "30d", "12h", "90m" (minutes), "2w", "45s", a timedelta, or a number of seconds.

    Returns:
        The age in seconds.

    Raises:
        ValueError: it is invalid; the text says what is expected.
    """
    if isinstance(age, datetime.timedelta):
        value = age.total_seconds()
    elif isinstance(age, str):
        found = _AGE.fullmatch(age.strip().lower())
        if found is None or found[2] not in _AGE_UNITS_S:
            raise ValueError(f"age must be a number and a unit, such as 30d, 12h, 90m or 45s, got {age!r}")
        value = float(found[1]) * _AGE_UNITS_S[found[2]]
    else:
        value = float(age)
    if not 0 <= value <= _AGE_MAX_S:  # nor NaN
        raise ValueError(f"age must be between 0 and 1000 years, got {age!r}")
    return value


def size_bytes(size: str | int) -> int:
    """Parse a size: "500M" or "500MB" (millions), "2G", "512MiB" (2**20), or a number of bytes.

    Returns:
        The size in bytes.

    Raises:
        ValueError: it is invalid, or less than `MIN_MAX_BYTES`.
    """
    if isinstance(size, str):
        found = _SIZE.fullmatch(size.strip().lower())
        if found is None or (found[3] and not found[2]):
            raise ValueError(f"size must be a number and a unit, such as 500M, 2G or 512MiB, got {size!r}")
        value = int(float(found[1]) * (1024 if found[3] else 1000) ** _SIZE_EXPONENTS[found[2]])
    else:
        value = int(size)
    if value < MIN_MAX_BYTES:
        raise ValueError(f"size must be at least 1M, got {size!r}")
    return value


def row_count(rows: int) -> int:
    """Check a number of rows.

    Raises:
        ValueError: it is not a whole number, or negative.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise ValueError(f"number of rows must be a whole number, at least 0, got {rows!r}")
    return rows
