"""Rows that are missing for a known reason, and losses that were accepted."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.rows import Gap

#: Why rows are missing: see `Loss.cause`.
PEER, PRUNED, OLDER_MASTER, OTHER_MASTER, UNKNOWN = "peer", "pruned", "older master", "another master", "unknown"


REPLACED = "replaced master"


@attrs.frozen(repr=False)
class Loss(Report):
    """A part of a gap, and where its rows are, as far as that is known.

    Attributes:
        gap: the rows.
        cause: "peer": another database holds them, as its receipt says; "pruned": another master, from which this one
            was merged, deleted them by rule; "older master": this master held them before an older copy of it was
            restored; "another master": a shard was truncated after that master had merged it; "unknown": they are in a
            shard that is quarantined or was not merged here, or they are lost. In the report of a restore also
            "replaced master": the master that was replaced has them.
        database: the id of the database that holds, pruned or merged them, in hexadecimal, or "".
        kind: the type of database that holds them, "edgeshard" or "postgresql", as its receipt says, or "".
    """

    gap: Gap
    cause: str
    database: str
    kind: str = ""


@attrs.frozen(repr=False)
class AcceptedLoss(Report):
    """Rows whose loss a user accepted; see `Store.accept_loss`.

    Attributes:
        gap: the rows.
        why: why the user accepted it.
        at: when, ISO 8601, UTC.
    """

    gap: Gap
    why: str
    at: str


@attrs.frozen(repr=False)
class AcceptLossReport(Report):
    """What `Store.accept_loss` did, or what a dry run would do.

    Attributes:
        gaps: the rows whose loss is accepted now. They were missing, or somebody had deleted them by hand.
        dry_run: whether nothing was changed.
    """

    _computed = ("rows",)

    gaps: tuple[Gap, ...] = ()
    dry_run: bool = False

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return sum(map(len, self.gaps))

    def _line(self) -> str:
        if not self.gaps:
            return "none of these rows is missing or was deleted by hand, so there is no loss to accept"
        accepted = "would accept" if self.dry_run else "accepted"
        return f"{accepted} the loss of {units.count(self.rows, 'row')} in {units.count(len(self.gaps), 'run')}"
