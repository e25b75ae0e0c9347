"""Rows that are missing or were refused, and what became of all rows."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class Gap(Report):
    """Rows that are known to exist, or to have existed, and that the master never held.

    Attributes:
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first missing seq.
        last: the last missing seq.
    """

    agent: str
    stream: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def _line(self) -> str:
        return f"rows {self.first} to {self.last} of stream {self.stream} of agent {self.agent!r}"


@attrs.frozen(repr=False)
class Quarantined(Report):
    """A database that a merge refused, or could not read. The file stays as it is, and is tried again later.

    Attributes:
        path: the file.
        reason: why, and what to do.
        is_denied: whether the reason is only that this user has no permission, which says nothing of the database.
    """

    path: str
    reason: str
    is_denied: bool = False


@attrs.frozen(repr=False)
class Blocked(Report):
    """Rows that a merge cannot copy, because their table contradicts the master's. They stay where they are.

    Attributes:
        path: the database that has them.
        table: the table.
        rows: how many rows; all of a transaction that has a row of this table. No row is counted for two reasons.
        reason: why, and what to do.
    """

    path: str
    table: str
    rows: int
    reason: str


@attrs.frozen(repr=False)
class RowStates(Report):
    """How many of the rows that are known to have been written are in which state. Each row is in exactly one.

    Attributes:
        present: rows in the master.
        superseded: rows of keyed tables that newer versions took the place of.
        collected: tombstones that were collected.
        pruned: rows that a retention rule deleted.
        erased: rows that were erased for good.
        by_hand: rows that somebody deleted with another program, unless that loss was accepted.
        written_off: rows that are missing, or were deleted by hand, and whose loss was accepted.
        pending: rows in shards that the master does not hold yet.
        missing: all others. They went to another database, for example, or are lost.
    """

    _computed = ("total",)

    present: int = 0
    superseded: int = 0
    collected: int = 0
    pruned: int = 0
    erased: int = 0
    by_hand: int = 0
    written_off: int = 0
    pending: int = 0
    missing: int = 0

    @property
    def total(self) -> int:
        """All rows that are known to have been written."""
        return sum(getattr(self, field.name) for field in attrs.fields(type(self)))


def add_states(states: Iterable[RowStates]) -> RowStates:
    """Return the sums of the states of several streams."""
    names = [field.name for field in attrs.fields(RowStates)]
    listed = list(states)
    return RowStates(**{name: sum(getattr(each, name) for each in listed) for name in names})
