"""What a merge says it did. Values only."""

from __future__ import annotations

from typing import Any

import attrs

from edgeshard.prune.report import PruneReport


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
class SetAside:
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
    quarantined: tuple[SetAside, ...] = ()
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
