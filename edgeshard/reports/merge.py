"""What a merge did."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from edgeshard import reports, units
from edgeshard.reports.base import Report
from edgeshard.reports.phrases import count_missing, first_few
from edgeshard.reports.rows import Blocked, Gap, Quarantined

#: The most gaps that the report of a merge lists. There may be any number, and a merger reports each second.
GAPS_MAX = 100


@attrs.frozen(repr=False)
class MergeReport(Report):
    """What one merge did, or what a dry run would do.

    Attributes:
        rows: rows copied into the master.
        truncated: rows deleted from shards, because the master holds them.
        removed: shards removed, because their agent has ended and the master holds all their rows.
        shards: shards and other sources that were opened, because they had changed.
        quarantined: databases that were refused, or that this user may not read, with the reason.
        blocked: rows that were not copied, because their table contradicts the master's; all other rows of the same
            databases were.
        gaps: rows known to exist that the master never held, the first `GAPS_MAX` gaps; `Store.verify` lists all.
        missing_rows: how many rows are missing, in these and all other gaps.
        seconds: how long it took.
        dry_run: whether nothing was changed.
        stopped: whether the merge stopped on request before it had finished; the next one continues.
        dropped: rows deleted from the master because the disk budget had no space for them.
        pruned: what the store's own prune rules deleted afterwards (a watching merger: since the last report), or None
            if there are no rules or no prune was due.
        forgotten_streams: streams of which all rows were pruned long ago, and that the master forgot to stay within
            the disk budget: a copy as old as they are could bring their rows back.
        prune_error: why that prune failed, or "". The merge itself is done.
        refresh_error: why the statements of the store's ``refresh.sql`` failed, or "". The merge itself is done.
    """

    _computed = ("complete",)

    rows: int = 0
    truncated: int = 0
    removed: int = 0
    shards: int = 0
    quarantined: tuple[Quarantined, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    gaps: tuple[Gap, ...] = ()
    missing_rows: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False
    dropped: int = 0
    pruned: reports.PruneReport | None = None
    prune_error: str = ""
    forgotten_streams: int = 0
    refresh_error: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is quarantined, blocked or missing, and the store's own rules and statements were met."""
        rules_met = not self.prune_error and not self.refresh_error and (self.pruned is None or self.pruned.fits)
        return not self.quarantined and not self.blocked and not self.gaps and rules_met

    def _line(self) -> str:
        merged, truncated = ("would merge", "would truncate") if self.dry_run else ("merged", "truncated")
        line = f"{merged} {units.count(self.rows, 'row')} from {units.count(self.shards, 'shard')}"
        line += f", {truncated} {self.truncated:,}, in {self.seconds:.3f} s"
        if self.removed:
            removed = "would remove" if self.dry_run else "removed"
            line += f"; {removed} {units.count(self.removed, 'shard')} of agents that have ended"
        if self.dropped:
            dropped = "would drop" if self.dry_run else "dropped"
            line += f"; {dropped} the oldest rows to stay within the disk budget: {self.dropped:,}"
        if self.forgotten_streams:
            line += f"; forgot the oldest streams without rows, for the same reason: {self.forgotten_streams:,}"
        if self.stopped:
            line += "; stopped early, the next merge continues"
        be = " would be" if self.dry_run else ""
        denied = [each for each in self.quarantined if each.is_denied]
        if len(denied) < len(self.quarantined):
            line += f"; {units.count(len(self.quarantined) - len(denied), 'database')}{be} quarantined"
        if denied:
            line += f"; {_denied(denied)}"
        if self.blocked:
            tables = sorted({each.table for each in self.blocked})
            rows = units.count(sum(each.rows for each in self.blocked), "row")
            line += f"; {rows}{be} blocked of {first_few(tables)}"
        if self.gaps:
            more = " and more" if len(self.gaps) == GAPS_MAX else ""
            line += f"; {count_missing(self.missing_rows, len(self.gaps), dry_run=self.dry_run)}{more}"
        return line + self._afterwards()

    def _afterwards(self) -> str:
        line = "" if self.pruned is None else f"; {self.pruned}"
        if self.prune_error:
            line += f"; old rows could not be pruned: {self.prune_error}"
        if self.refresh_error:
            line += f"; what is derived from the rows is stale: {self.refresh_error}"
        return line


def _denied(denied: Sequence[Quarantined]) -> str:
    """Return which databases this user has no permission for, and whose rows are not counted."""
    names = first_few([each.path for each in denied])
    what = units.count(len(denied), "database")
    return f"no permission for {what}, so the counts lack their rows: {names}: {denied[0].reason}"
