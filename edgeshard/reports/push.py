"""What was pushed to PostgreSQL, and what it rejected."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.phrases import rows_of_streams


@attrs.frozen(repr=False)
class Rejected(Report):
    """Rows that a PostgreSQL database cannot store, for one reason. They stay in the master; all others are pushed.

    Attributes:
        database: the database's id, in hexadecimal.
        kind: "nul" (a text has U+0000), "surrogate" (JSON has half of a surrogate pair), "not-utf8", "value" (another
            value that its column cannot store), "agent" (the agent's name has U+0000), "stream" (the database has the
            stream of another agent), "table" (it cannot have the table), or the SQLSTATE with which it rejects them.
        table: the table of the rows that caused it, or "".
        column: the column that caused it, or "" if it is not a single column.
        constraint: the constraint or index there that rejects them, or "".
        reason: why, in the words said of the first of these rows.
        rows: how many rows these are, with all rows of the same transactions.
        ranges: in how many ranges of seqs.
        agent: the agent that wrote the first of them.
        stream: the id of its stream, in hexadecimal.
        first: the first seq of its range.
        last: the last one.
        seq: the row in it that caused it.
        dismissed_why: why a user dismissed them, or "".
        dismissed_at: when, ISO 8601, or "".
    """

    database: str
    kind: str
    table: str
    column: str
    constraint: str
    reason: str
    rows: int
    ranges: int
    agent: str
    stream: str
    first: int
    last: int
    seq: int
    dismissed_why: str = ""
    dismissed_at: str = ""

    @property
    def place(self) -> str:
        """The table and column, or what else it is about."""
        return (f"{self.table}.{self.column}" if self.column and self.table else self.table) or "the stream itself"

    def _line(self) -> str:
        what = "dismissed" if self.dismissed_at else "rejected"
        line = (
            f"{units.count(self.rows, 'row')} {what}: {self.place}: {self.reason}; first in seqs {self.first} to "
            f"{self.last} of stream {self.stream}, agent {self.agent!r}, because of seq {self.seq}"
        )
        return f"{line}; dismissed because: {self.dismissed_why}" if self.dismissed_at else line


@attrs.frozen(repr=False)
class RejectedRange(Report):
    """Consecutive rows of a stream that a PostgreSQL database cannot store.

    Attributes:
        database: the database's id, in hexadecimal.
        agent: the agent that wrote them.
        stream: the stream's id, in hexadecimal.
        first: the first seq.
        last: the last one.
        seq: the first of them that caused it; others are of its transaction, or have the same reason.
        kind, table, column: the reason: see `Rejected`.
        is_dismissed: whether a user dismissed them.
    """

    database: str
    agent: str
    stream: str
    first: int
    last: int
    seq: int
    kind: str
    table: str
    column: str
    is_dismissed: bool = False

    def _line(self) -> str:
        return f"agent {self.agent!r}, stream {self.stream}, seqs {self.first} to {self.last}"


@attrs.frozen(repr=False)
class RejectedReport(Report):
    """The rows that PostgreSQL databases rejected, according to a master.

    Attributes:
        rejected: why rows are rejected, an item for each reason.
        dismissed: the same of rows that a user dismissed: they are not pushed, and no problem any more.
        ranges: their addresses, at most as many as were asked for.
    """

    _computed = ("rows", "complete")

    rejected: tuple[Rejected, ...] = ()
    dismissed: tuple[Rejected, ...] = ()
    ranges: tuple[RejectedRange, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows are rejected, without those that were dismissed."""
        return sum(item.rows for item in self.rejected)

    @property
    def complete(self) -> bool:
        """Whether no row is rejected, or all of these were dismissed."""
        return not self.rejected

    def _line(self) -> str:
        dismissed = sum(item.rows for item in self.dismissed)
        line = f"{units.count(self.rows, 'row')} rejected"
        if self.rejected:
            line += f", for {units.count(len(self.rejected), 'reason')}"
        return f"{line}; {units.count(dismissed, 'row')} dismissed" if dismissed else line


#: The reasons that a line names.
_REASONS_MAX = 5


@attrs.frozen(repr=False)
class PushReport(Report):
    """What one push did, or what a dry run would do.

    Attributes:
        upstream: the PostgreSQL database, as user@host:port/database, without any secret.
        server: the kind of server and its version, such as "PostgreSQL 16.4", "Citus 13.2-1" or "CockroachDB 24.1.0";
            "other" if it is another one that speaks PostgreSQL's protocol.
        rows: rows committed there. If the answer to a commit was lost, its rows count only if they had to be sent
            again.
        streams: streams that these rows belong to.
        tables: rows per table.
        statements: SQL that was run to create tables, columns and indexes for them.
        rejected: rows that PostgreSQL cannot store: an item for each reason, with how many rows it has.
        remaining: rows in the master that PostgreSQL still lacks, including the rejected ones, without dismissed ones.
        tombstones: tombstones that were deleted there, because this master has pruned them.
        seconds: how long it took.
        dry_run: whether nothing was changed.
        stopped: whether the push stopped on request before it had finished; the next one continues.
    """

    _computed = ("complete",)

    upstream: str = ""
    server: str = ""
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
        server = f" ({self.server})" if self.dry_run and self.server else ""
        line = f"{done} {rows_of_streams(self.rows, self.streams)} to {self.upstream}{server}, in {self.seconds:.3f} s"
        if self.tables:
            line += " (" + ", ".join(f"{name}: {rows:,}" for name, rows in sorted(self.tables.items())) + ")"
        if self.tombstones:
            line += f"; deleted {units.count(self.tombstones, 'tombstone')} there"
        if self.stopped:
            line += "; stopped early, the next push continues"
        if self.remaining and not self.dry_run:
            line += f"; {units.count(self.remaining, 'row')} still to push"
        if self.rejected:
            reasons = ", ".join(f"{item.rows:,} {item.kind} ({item.place})" for item in self.rejected[:_REASONS_MAX])
            more = (
                f", and {len(self.rejected) - _REASONS_MAX} more reasons" if len(self.rejected) > _REASONS_MAX else ""
            )
            rows = sum(item.rows for item in self.rejected)
            line += f"; {units.count(rows, 'row')} rejected: {reasons}{more}"
        return line
