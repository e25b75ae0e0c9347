"""What is asked of a prune: ages, numbers of rows and sizes, as people write them. Pure values."""

from __future__ import annotations

import datetime
import re
from typing import Final

import attrs

from edgeshard.master.receipts import EDGESHARD, POSTGRESQL

#: The rules, as prunings name them, in the order in which they are followed.
OLDER_THAN, KEEP_ROWS, DELETIONS, MAX_BYTES = "older than", "keep rows", "deletion", "max bytes"

#: As prunings name it where the store's budget asks for a size (merge/room.py).
BUDGET: Final = "budget"

#: The smallest size that can be asked for, in bytes: a figure without its unit would delete everything.
MAX_BYTES_LEAST: Final = 1_000_000

_AGES = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_SIZES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.ASCII)

#: A thousand years, in seconds: what is older than that is a mistake.
_AGE_MAX_S = 1_000 * 365.25 * 86_400


@attrs.frozen
class Rules:
    """What is to go, and what must not.

    Attributes:
        older_than_s: rows that came longer ago than this, in seconds.
        keep_rows: all but so many of the newest.
        max_bytes: the oldest, until the master takes no more than this.
        kinds: only rows that a peer of one of these kinds holds; None: all rows.
        table: only rows of this table.
        tables: only rows of these, as they are spelt in the master; None: of all.
        size_reason: what asks for `max_bytes`.
        spared: agents whose rows stay.
        deletions_older_than_s: deletions of keyed tables that were made, and came, longer ago than this, in seconds,
            once no older change can follow them.
    """

    older_than_s: float | None = None
    keep_rows: int | None = None
    max_bytes: int | None = None
    kinds: tuple[str, ...] | None = None
    table: str | None = None
    tables: tuple[str, ...] | None = None
    size_reason: str = MAX_BYTES
    spared: tuple[str, ...] = ()
    deletions_older_than_s: float | None = None

    @property
    def asks_nothing(self) -> bool:
        """Whether no row is to go."""
        return self.asks_for_deletions_alone and self.deletions_older_than_s is None

    @property
    def asks_for_deletions_alone(self) -> bool:
        """Whether none but deletions of keyed tables are to go."""
        return self.older_than_s is None and self.keep_rows is None and self.max_bytes is None

    @property
    def ages_s(self) -> tuple[float, ...]:
        """The ages from which on something is to go, in seconds."""
        return tuple(age for age in (self.older_than_s, self.deletions_older_than_s) if age is not None)


def parse_rules(
    older_than: str | float | datetime.timedelta | None,
    keep_rows: int | None,
    max_bytes: str | int | None,
    only_pushed: bool,
    only_receipted: bool,
    table: str | None,
    deletions_older_than: str | float | datetime.timedelta | None = None,
) -> Rules:
    """Rules as a user gives them.

    Raises:
        ValueError: one of them cannot be.
    """
    kinds = (POSTGRESQL,) if only_pushed else (EDGESHARD, POSTGRESQL) if only_receipted else None
    return Rules(
        older_than_s=None if older_than is None else age_s(older_than),
        keep_rows=None if keep_rows is None else row_count(keep_rows),
        max_bytes=None if max_bytes is None else size_bytes(max_bytes),
        kinds=kinds,
        table=table,
        deletions_older_than_s=None if deletions_older_than is None else age_s(deletions_older_than),
    )


def age_s(age: str | float | datetime.timedelta) -> float:
    """An age in seconds: "30d", "12h", "90m" (minutes), "2w", "45s", a timedelta, or a number of seconds.

    Raises:
        ValueError: it is none; the text says what is wanted.
    """
    if isinstance(age, datetime.timedelta):
        value = age.total_seconds()
    elif isinstance(age, str):
        found = _AGE.fullmatch(age.strip().lower())
        if found is None or found[2] not in _AGES:
            raise ValueError(f"an age is a number and a unit, such as 30d, 12h, 90m or 45s, not {age!r}")
        value = float(found[1]) * _AGES[found[2]]
    else:
        value = float(age)
    if not 0 <= value <= _AGE_MAX_S:  # nor NaN
        raise ValueError(f"an age lies between nothing and a thousand years, which {age!r} does not")
    return value


def size_bytes(size: str | int) -> int:
    """A size in bytes: "500M" or "500MB" (of a million), "2G", "512MiB" (of 2**20), or a number of bytes.

    Raises:
        ValueError: it is none, or less than `MAX_BYTES_LEAST`.
    """
    if isinstance(size, str):
        found = _SIZE.fullmatch(size.strip().lower())
        if found is None or (found[3] and not found[2]):
            raise ValueError(f"a size is a number and a unit, such as 500M, 2G or 512MiB, not {size!r}")
        value = int(float(found[1]) * (1024 if found[3] else 1000) ** _SIZES[found[2]])
    else:
        value = int(size)
    if value < MAX_BYTES_LEAST:
        raise ValueError(f"a size is 1M at the least, not {size!r}")
    return value


def row_count(rows: int) -> int:
    """A number of rows.

    Raises:
        ValueError: it is none.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise ValueError(f"a number of rows is a whole number from 0 on, not {rows!r}")
    return rows
