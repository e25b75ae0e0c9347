"""What a push says it did. Values only."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class HeldBack:
    """Rows that PostgreSQL cannot take. They stay in the master; all others go on.

    Attributes:
        agent: whose rows.
        stream: the stream's id, in hexadecimal.
        first: the first seq that is held back: a writer's transaction is never divided.
        last: the last one; 4294967295 where the stream is held back from `first` on.
        seq: the row that is the reason.
        table: its table.
        column: the column, or "" where it is not one alone.
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

    def __str__(self) -> str:
        place = f"{self.table}.{self.column}" if self.column else self.table
        return (
            f"agent {self.agent!r}, stream {self.stream}, seqs {self.first} to {self.last} are held back: "
            f"row {self.seq}, {place or 'the stream itself'}: {self.reason}"
        )


@attrs.frozen
class PushReport:
    """What one push did, or, for a dry run, would do.

    Attributes:
        upstream: where to, as user@host:port/database, without any secret.
        rows: rows that were committed there. Those of a commit whose answer was lost count only where they had to be
            pushed again.
        streams: streams that these are of.
        tables: how many of them went into each table.
        statements: what was made there for them: tables, columns, indexes.
        held_back: rows that PostgreSQL cannot take, with the reason.
        remaining: rows in the master that PostgreSQL still lacks, those held back included.
        seconds: how long it took.
        dry_run: whether nothing was done.
        stopped: whether it was asked to stop before it was through; the rest is pushed next time.
    """

    upstream: str = ""
    rows: int = 0
    streams: int = 0
    tables: dict[str, int] = attrs.Factory(dict)
    statements: tuple[str, ...] = ()
    held_back: tuple[HeldBack, ...] = ()
    remaining: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing is held back."""
        return not self.held_back

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {**attrs.asdict(self), "complete": self.complete}

    def __str__(self) -> str:
        done = "would push" if self.dry_run else "pushed"
        line = f"{done} {self.rows} rows of {self.streams} streams to {self.upstream}, in {self.seconds:.3f} s"
        if self.tables:
            line += " (" + ", ".join(f"{name}: {rows}" for name, rows in sorted(self.tables.items())) + ")"
        if self.stopped:
            line += "; asked to stop, the rest is pushed next time"
        if self.held_back:
            line += f"; {self.remaining} rows remain, held back for {len(self.held_back)} reasons"
        elif self.remaining and not self.dry_run:
            line += f"; {self.remaining} rows remain"
        return line
