"""What was pushed to PostgreSQL, and what it rejected."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.phrases import rows_of_streams


@attrs.frozen(repr=False)
class Rejected(Report):
    """Rows that PostgreSQL cannot store. They stay in the master; all other rows are pushed.

    Attributes:
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first seq that is not pushed; a writer's transaction is never divided.
        last: the last one; 4294967295 if the whole stream is blocked from `first` on.
        seq: the row that caused it.
        table: its table.
        column: the column that caused it, or "" if it is not a single column.
        reason: why, and what to do.
    """

    agent: str
    stream: str
    first: int
    last: int
    seq: int
    table: str
    column: str
    reason: str

    def _line(self) -> str:
        place = f"{self.table}.{self.column}" if self.column else self.table
        return (
            f"agent {self.agent!r}, stream {self.stream}, seqs {self.first} to {self.last} are rejected: "
            f"row {self.seq}, {place or 'the stream itself'}: {self.reason}"
        )


@attrs.frozen(repr=False)
class PushReport(Report):
    """What one push did, or what a dry run would do.

    Attributes:
        upstream: the PostgreSQL database, as user@host:port/database, without any secret.
        rows: rows committed there. If the answer to a commit was lost, its rows count only if they had to be sent
            again.
        streams: streams that these rows belong to.
        tables: rows per table.
        statements: SQL that was run to create tables, columns and indexes for them.
        rejected: rows that PostgreSQL cannot store, with the reason.
        remaining: rows in the master that PostgreSQL still lacks, including the rejected ones.
        tombstones: tombstones that were deleted there, because this master has pruned them.
        seconds: how long it took.
        dry_run: whether nothing was changed.
        stopped: whether the push stopped on request before it had finished; the next one continues.
    """

    _computed = ("complete",)

    upstream: str = ""
    rows: int = 0
    streams: int = 0
    tables: dict[str, int] = attrs.Factory(dict)
    statements: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    remaining: int = 0
    tombstones: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether no row was rejected."""
        return not self.rejected

    def _line(self) -> str:
        done = "would push" if self.dry_run else "pushed"
        line = f"{done} {rows_of_streams(self.rows, self.streams)} to {self.upstream}, in {self.seconds:.3f} s"
        if self.tables:
            line += " (" + ", ".join(f"{name}: {rows:,}" for name, rows in sorted(self.tables.items())) + ")"
        if self.tombstones:
            line += f"; deleted {units.count(self.tombstones, 'tombstone')} there"
        if self.stopped:
            line += "; stopped early, the next push continues"
        if self.rejected:
            reasons = units.count(len(self.rejected), "reason")
            line += f"; {units.count(self.remaining, 'row')} still to push, rejected for {reasons}"
        elif self.remaining and not self.dry_run:
            line += f"; {units.count(self.remaining, 'row')} still to push"
        return line
