"""What a merge says it did. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen
class Gap:
    """Rows that are known to exist, or to have existed, and are not in the master.

    Attributes:
        agent: whose rows.
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


@attrs.frozen
class Quarantined:
    """A database that was not merged; it stays where it is, as it is.

    Attributes:
        path: the file.
        reason: why, and what to do.
    """

    path: str
    reason: str


@attrs.frozen
class MergeReport:
    """What one merge did, or, for a dry run, would do.

    Attributes:
        rows: rows copied into the master.
        truncated: rows deleted from shards, because the master holds them.
        removed: shards removed, because their agent is gone and the master holds all of theirs.
        shards: shards and other sources that were looked into, because they had changed.
        quarantined: databases that were not merged, with the reason. They are tried again once they change.
        gaps: rows known to exist that the master does not hold.
        seconds: how long it took.
        dry_run: whether nothing was done.
        stopped: whether it was asked to stop before it was through; the rest is merged next time.
        dropped: rows deleted from the master, since the store's budget had no room for them.
        pruned: what went by the store's own rules after it, of a merger that watches: since the last report; None
            where there are no rules, or it was not time for them.
        prune_problem: why that failed, or ""; what was merged stays so.
    """

    rows: int = 0
    truncated: int = 0
    removed: int = 0
    shards: int = 0
    quarantined: tuple[Quarantined, ...] = ()
    gaps: tuple[Gap, ...] = ()
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False
    dropped: int = 0
    pruned: PruneReport | None = None
    prune_problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing was set aside, nothing is missing, and the store's own rules hold."""
        rules_hold = not self.prune_problem and (self.pruned is None or self.pruned.fits)
        return not self.quarantined and not self.gaps and rules_hold

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {**attrs.asdict(self), "complete": self.complete}

    def __str__(self) -> str:
        done = "would merge" if self.dry_run else "merged"
        line = f"{done} {self.rows} rows from {self.shards} shards, truncated {self.truncated}, in {self.seconds:.3f} s"
        if self.removed:
            line += f"; removed {self.removed} shards of agents that are gone"
        if self.dropped:
            line += f"; dropped {self.dropped} of the oldest rows, which the budget had no room for"
        if self.stopped:
            line += "; asked to stop, the rest is merged next time"
        if self.quarantined:
            line += f"; {len(self.quarantined)} set aside"
        if self.gaps:
            line += f"; {sum(map(len, self.gaps))} rows missing in {len(self.gaps)} gaps"
        if self.pruned is not None:
            line += f"; {self.pruned}"
        if self.prune_problem:
            line += f"; old rows could not be pruned: {self.prune_problem}"
        return line


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


#: What is named of what keeps deletions here.
_NAMED_MAX = 5


@attrs.frozen
class PruneReport:
    """What one prune did, or, for a dry run, would do.

    Attributes:
        rows: rows deleted from the master.
        by_reason: the same, by the rule that asked for it.
        kept_back: rows that a rule asked for and that stay, since no peer holds them, or not their whole transaction.
        deletions_behind: deletions of keyed tables that are old enough and stay, since older changes may yet come.
        behind: what may bring them, and what to do, each in a sentence.
        deletions_unheard: deletions that stay, since a database of which there is a receipt does not know of them.
        unheard: the ids of these databases, in hexadecimal.
        used_bytes: what the pages in use take, and the log.
        file_bytes: the size of the master's file.
        log_bytes: the size of its log.
        free_bytes: what lies free in the file, for rows to come.
        shrunk_bytes: by how much the file became smaller.
        can_shrink: whether the file can become smaller; one that an earlier version made cannot, and is filled again.
        fits: whether the master takes no more than what it was to take; True where nothing was said of that.
        seconds: how long it took.
        dry_run: whether nothing was done. The sizes are then those of now, and `fits` is what is expected.
        stopped: whether it was asked to stop before it was through; the next prune goes on.
    """

    rows: int = 0
    by_reason: Mapping[str, int] = attrs.Factory(dict)
    kept_back: int = 0
    deletions_behind: int = 0
    behind: tuple[str, ...] = ()
    deletions_unheard: int = 0
    unheard: tuple[str, ...] = ()
    used_bytes: int = 0
    file_bytes: int = 0
    log_bytes: int = 0
    free_bytes: int = 0
    shrunk_bytes: int = 0
    can_shrink: bool = True
    fits: bool = True
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return attrs.asdict(self)

    def __str__(self) -> str:
        line = f"{'would prune' if self.dry_run else 'pruned'} {self.rows} rows"
        if len(self.by_reason) > 1:
            line += f" ({', '.join(f'{reason}: {rows}' for reason, rows in self.by_reason.items())})"
        if self.kept_back:
            line += f", kept {self.kept_back} back that nobody else holds"
        line += self._deletions_kept()
        line += f", in {self.seconds:.3f} s; {self.used_bytes} bytes in use, {self.free_bytes} free in the file"
        if self.shrunk_bytes:
            line += f", {self.shrunk_bytes} given back to the disk"
        if not self.can_shrink:
            line += ", which is for rows to come: an earlier version made the file, and it cannot become smaller"
        if self.stopped:
            line += "; asked to stop, the next prune goes on"
        if not self.fits:
            line += "; it does not fit into what it was to take"
        return line

    def _deletions_kept(self) -> str:
        line = ""
        if self.deletions_behind:
            line += f", kept {self.deletions_behind} deletions since older changes may yet come ({_some(self.behind)})"
        if self.deletions_unheard:
            line += (
                f", kept {self.deletions_unheard} deletions that not all databases with a receipt know of "
                f"({_some(self.unheard)}: push, or export to them, and note their next receipts)"
            )
        return line


def _some(named: Sequence[str]) -> str:
    """As many as can be read."""
    more = f"; and {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
    return "; ".join(named[:_NAMED_MAX]) + more


def together(reports: Sequence[PruneReport]) -> PruneReport | None:
    """One report of several prunes of a master, one after the other; None where there was none."""
    if not reports:
        return None
    by_reason: Counter[str] = Counter()
    for report in reports:
        by_reason.update(report.by_reason)
    return attrs.evolve(
        reports[-1],  # the sizes are those after the last one
        rows=sum(report.rows for report in reports),
        by_reason=dict(by_reason),
        kept_back=sum(report.kept_back for report in reports),
        deletions_behind=sum(report.deletions_behind for report in reports),
        behind=tuple(sorted({why for report in reports for why in report.behind})),
        deletions_unheard=sum(report.deletions_unheard for report in reports),
        unheard=tuple(sorted({peer for report in reports for peer in report.unheard})),
        shrunk_bytes=sum(report.shrunk_bytes for report in reports),
        fits=all(report.fits for report in reports),
        seconds=sum(report.seconds for report in reports),
        stopped=any(report.stopped for report in reports),
    )
