"""How the rows of a PostgreSQL database differ from the master's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from edgeshard import units
from edgeshard.reports.base import Report

#: How rows differ: deleted there; changed there; in a table there while the master has the address in another one; no
#: longer named by the database's ranges, as after a restore.
DELETED: Final = "deleted"
CHANGED: Final = "changed"
EXTRA: Final = "extra"
LOST: Final = "lost"

#: How many differences a report lists, at most.
DIFFERENCES_MAX: Final = 1_000


@attrs.frozen(repr=False)
class Difference(Report):
    """Rows of a PostgreSQL database that are not what the master pushed.

    Attributes:
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first of their seqs.
        last: the last one.
        table: their table, or "" if it is not known.
        kind: "deleted", "changed", "extra" or "lost".
    """

    agent: str
    stream: str
    first: int
    last: int
    table: str
    kind: str

    def __len__(self) -> int:
        return self.last - self.first + 1

    def _line(self) -> str:
        place = f" of table {self.table}" if self.table else ""
        return f"{self.kind}: rows {self.first} to {self.last}{place}, stream {self.stream} of agent {self.agent!r}"


@attrs.frozen(repr=False)
class CompareReport(Report):
    """What `Store.verify_against` found.

    Attributes:
        upstream: the PostgreSQL database, as user@host:port/database, without any secret.
        rows: rows of the master that were compared: those that the database's ranges name.
        remaining: rows of the master that were never pushed, rejected ones included. They are no differences.
        counts: how many rows differ, by kind: "deleted", "changed", "extra" and "lost".
        differences: the first 1,000 differences.
        unchecked: rows whose values were not compared by a deep check: those that the push changed on request, because
            PostgreSQL cannot store them.
        behind: tables of which only the number of rows was compared, because they lack columns that the next push adds.
        deep: whether the values were compared.
        seconds: how long it took.
        stopped: whether it stopped on request before it had finished.
    """

    _computed = ("ok",)

    upstream: str
    rows: int
    remaining: int
    counts: Mapping[str, int]
    differences: tuple[Difference, ...] = ()
    unchecked: int = 0
    behind: tuple[str, ...] = ()
    deep: bool = False
    seconds: float = 0.0
    stopped: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not any(self.counts.values())

    def _line(self) -> str:
        found = ", ".join(f"{rows:,} {kind}" for kind, rows in self.counts.items() if rows)
        line = f"compared {units.count(self.rows, 'row')} with {self.upstream}: {found or 'no difference'}"
        if self.remaining:
            line += f"; {units.count(self.remaining, 'row')} not pushed"
        if self.unchecked:
            line += f"; values of {units.count(self.unchecked, 'row')} not compared: the push changed them on request"
        if self.behind:
            line += f"; only counted (push first): {', '.join(self.behind)}"
        return line + ("; stopped early" if self.stopped else "")
