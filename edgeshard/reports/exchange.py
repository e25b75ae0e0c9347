"""What an export wrote, what a receipt recorded, what forgetting a peer permits, and what other databases hold."""

from __future__ import annotations

import datetime

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.phrases import rows_of_streams


@attrs.frozen(repr=False)
class ExportReport(Report):
    """What one export wrote.

    Attributes:
        path: the bundle.
        rows: rows in it.
        streams: streams that it has rows of.
        left_out: rows of the master that are not in it, because the receiver has them or had them.
        size_bytes: size of the file.
    """

    path: str
    rows: int
    streams: int
    left_out: int
    size_bytes: int

    def _line(self) -> str:
        line = f"exported {rows_of_streams(self.rows, self.streams)} in {units.size(self.size_bytes)}"
        left_out = units.count(self.left_out, "row")
        return f"{line}; left out {left_out} that the receiver has already" if self.left_out else line


#: What became of a receipt: see `ReceiptReport.outcome`.
NEXT, PUT_BACK, DOUBTFUL, AWAITING = "next", "put back", "doubtful", "awaiting confirmation"


_RECEIPT_OUTCOMES = {
    PUT_BACK: "it was restored from an older copy, and holds less than it did",
    DOUBTFUL: "this receipt is older than the last one, or its clock was set back; only what both say counts",
}


@attrs.frozen(repr=False)
class ReceiptReport(Report):
    """What was recorded of a receipt.

    Attributes:
        database: the database that gave it, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        outcome: "next": recorded in place of the last one; "put back": the same, and the peer was restored from an
            older copy; "doubtful": it is unclear which receipt is the later one, so only what both say counts now;
            "awaiting confirmation": nobody has confirmed this database, so nothing of its receipt counts.
        rows: rows that the peer now counts as holding: those that this master had held, too, by now.
        streams: streams that they belong to.
        unknown: streams in the receipt that this master does not know; nothing is recorded for them.
        claimed: rows of other streams that the peer says it holds and that this master never held. They do not count,
            not even once such rows arrive here.
    """

    _computed = ("complete",)

    database: str
    kind: str
    outcome: str
    rows: int
    streams: int
    unknown: int
    claimed: int

    @property
    def complete(self) -> bool:
        """Whether the receipt counts: its database is confirmed."""
        return self.outcome != AWAITING

    def _line(self) -> str:
        if not self.complete:
            return f"{self.kind} database {self.database} awaits confirmation: nothing of its receipt counts until then"
        line = f"{self.database} holds {rows_of_streams(self.rows, self.streams)} known here"
        if self.outcome in _RECEIPT_OUTCOMES:
            line += f"; {_RECEIPT_OUTCOMES[self.outcome]}"
        if self.claimed:
            line += f"; ignored {units.count(self.claimed, 'row')} that this master never held"
        unknown = units.count(self.unknown, "stream")
        return f"{line}; ignored {unknown} not known here" if self.unknown else line


@attrs.frozen(repr=False)
class ForgetPeerReport(Report):
    """What `Store.forget_peer` did, or what a dry run would do, and what that permits.

    Attributes:
        database: the peer's id, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        tombstones: how many tombstones wait for this peer only. Once they are old enough, prunes may delete them.
        rows: how many rows no other peer is known to hold. No rule with ``only_pushed`` or ``only_receipted``
            deletes them any more.
        claimed: how many rows this peer says it holds that never arrived here. Nothing reminds of them any more.
        dry_run: whether nothing was changed.
    """

    database: str
    kind: str
    tombstones: int
    rows: int
    claimed: int
    dry_run: bool = False

    def _line(self) -> str:
        done = "would forget" if self.dry_run else "forgot"
        line = f"{done} {self.kind} database {self.database}: {units.count(self.tombstones, 'tombstone')} waited for it"
        line += f" only, and may be pruned; {units.count(self.rows, 'row')} that no other peer is known to hold"
        return line + (f"; {units.count(self.claimed, 'row')} that only it has may never come" if self.claimed else "")


@attrs.frozen(repr=False)
class PeerStatus(Report):
    """Another database that gave a receipt.

    Attributes:
        database: its id, in hexadecimal.
        kind: its type, "edgeshard" or "postgresql".
        received_at: when its last receipt arrived.
        trusted_at: when it was confirmed, or None if its receipt awaits confirmation and does not count.
    """

    database: str
    kind: str
    received_at: datetime.datetime
    trusted_at: datetime.datetime | None
