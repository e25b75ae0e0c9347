"""What a check of the master, or of a snapshot that replaces it, found."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.exchange import PeerStatus
from edgeshard.reports.loss import AcceptedLoss, Loss
from edgeshard.reports.phrases import count_missing, rows_of_streams
from edgeshard.reports.rows import Gap, RowStates


@attrs.frozen(repr=False)
class VerifyReport(Report):
    """What `Store.verify` found.

    Attributes:
        rows: rows in the master's record tables.
        streams: streams it knows.
        errors: contradictions found in the master; each is damage or a bug in edgeshard.
        gaps: rows known to exist that the master never held. A gap closes once the database with its rows is merged.
        losses: the same rows, with where they are.
        database: the master's id, in hexadecimal, by which other databases know it.
        pruned: rows that this master deleted by rule, per rule, collected tombstones included; they are not gaps.
        states: all known rows, by what became of them. Rows in shards are not counted: what is pending there is
            missing, if it is known at all, except for rows that are blocked in a shard.
        unnamed: why rows may be missing that cannot be named, or "".
        by_hand: rows that somebody deleted with another program, and whose loss nobody accepted (`accept_loss`).
        accepted: losses that somebody accepted.
    """

    _computed = ("ok",)

    rows: int
    streams: int
    errors: tuple[str, ...]
    gaps: tuple[Gap, ...]
    losses: tuple[Loss, ...] = ()
    database: str = ""
    pruned: Mapping[str, int] = attrs.Factory(dict)
    states: RowStates = attrs.Factory(RowStates)
    unnamed: str = ""
    by_hand: tuple[Gap, ...] = ()
    accepted: tuple[AcceptedLoss, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the master is free of contradictions, and lacks no row whose loss was not accepted."""
        return not self.errors and not self.gaps and not self.by_hand and not self.unnamed

    def _line(self) -> str:
        line = f"{rows_of_streams(self.rows, self.streams)}{self._pruned()}{self._given_up()}: "
        if self.ok:
            return line + "all well"
        line += f"{units.count(len(self.errors), 'error')}, {count_missing(sum(map(len, self.gaps)), len(self.gaps))}"
        line += f", {units.count(sum(map(len, self.by_hand)), 'row')} deleted by hand" if self.by_hand else ""
        return f"{line}; {self.unnamed}" if self.unnamed else line

    def _given_up(self) -> str:
        erased = f", {self.states.erased:,} erased" if self.states.erased else ""
        return erased + (f", {self.states.written_off:,} written off" if self.states.written_off else "")

    def _pruned(self) -> str:
        reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in self.pruned.items())
        return f", {sum(self.pruned.values()):,} pruned ({reasons})" if self.pruned else ""


@attrs.frozen(repr=False)
class RestoreReport(Report):
    """What `Store.restore` did, or what a dry run would do.

    Attributes:
        snapshot: the snapshot.
        replaced: the file that the replaced master is now, or "" if there was none.
        is_replaced_readable: whether that file can be read, and merged with `Store.merge`.
        database: the master's id, in hexadecimal.
        rows: rows in the master now.
        streams: streams it knows.
        gaps: rows known to exist that the master now lacks. Rows still in shards are not among them.
        losses: the same rows, with where they are.
        peers: other databases that gave receipts; they may have any of the missing rows.
        unnamed: why more rows may be missing, which cannot be named, or "".
        dry_run: whether nothing was changed.
    """

    _computed = ("complete", "missing_rows")

    snapshot: str
    replaced: str = ""
    is_replaced_readable: bool = False
    database: str = ""
    rows: int = 0
    streams: int = 0
    gaps: tuple[Gap, ...] = ()
    losses: tuple[Loss, ...] = ()
    peers: tuple[PeerStatus, ...] = ()
    unnamed: str = ""
    dry_run: bool = False

    @property
    def missing_rows(self) -> int:
        """How many rows are missing."""
        return sum(map(len, self.gaps))

    @property
    def complete(self) -> bool:
        """Whether no row is missing, as far as is known."""
        return not self.gaps and not self.unnamed

    def _line(self) -> str:
        done = "would restore" if self.dry_run else "restored"
        line = f"{done} {rows_of_streams(self.rows, self.streams)} from {self.snapshot}"
        if self.replaced:
            line += f"; the replaced master is {self.replaced}"
        if self.gaps:
            line += f"; {count_missing(self.missing_rows, len(self.gaps), dry_run=self.dry_run)}"
        return f"{line}; {self.unnamed}" if self.unnamed else line
