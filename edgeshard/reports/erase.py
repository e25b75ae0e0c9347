"""What was erased."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.rows import Quarantined


@attrs.frozen(repr=False)
class ErasedElsewhere(Report):
    """Another database that holds rows which were erased here, as its last receipt says.

    Attributes:
        database: its id, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        rows: how many of the rows it holds.
    """

    database: str
    kind: str
    rows: int


@attrs.frozen(repr=False)
class EraseReport(Report):
    """What `Store.erase` did, or what a dry run would do.

    Attributes:
        rows: rows erased from the master, which held all rows that could be merged by then.
        pending: a dry run: rows in shards that were not examined, because they would be merged first. Otherwise 0.
        unexamined: shards whose rows, or some of them, could not be merged and so were not examined, with the reason.
        elsewhere: the databases that hold some of the rows, as their receipts say.
        is_wal_emptied: whether the master's WAL was emptied. If not, it has copies of the rows until a later merge.
        dry_run: whether nothing was changed.
    """

    _computed = ("complete",)

    rows: int = 0
    pending: int = 0
    unexamined: tuple[Quarantined, ...] = ()
    elsewhere: tuple[ErasedElsewhere, ...] = ()
    is_wal_emptied: bool = True
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether all rows of the store were examined, and the WAL was emptied."""
        return not self.unexamined and self.is_wal_emptied

    def _line(self) -> str:
        line = f"{'would erase' if self.dry_run else 'erased'} {units.count(self.rows, 'row')}"
        if self.pending:
            line += f"; {units.count(self.pending, 'pending row')} would be merged and examined first"
        if self.unexamined:
            could = "could" if not self.dry_run else "can"
            first = next((each for each in self.unexamined if each.is_denied), self.unexamined[0])
            line += f"; {units.count(len(self.unexamined), 'shard')} {could} not be examined: {first.path}"
            line += f": {first.reason}" if first.is_denied else ""
        if not self.is_wal_emptied:
            line += "; another program reads the master, so its WAL has copies of them until a later merge"
        for each in self.elsewhere:
            line += f"; {each.kind} database {each.database} holds {each.rows:,} of them"
        return line
