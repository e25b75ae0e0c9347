"""What a prune did."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.phrases import first_few


@attrs.frozen(repr=False)
class PrunableTable(Report):
    """The rows of a table that a prune would delete.

    Attributes:
        name: the table.
        rows: how many rows.
        oldest_at: when the oldest of them arrived in this master, to the minute, or None if that is unknown.
        newest_at: the same of the newest one.
        freed_bytes: an estimate of what they and their part of the indexes take, which becomes free.
    """

    name: str
    rows: int
    oldest_at: datetime.datetime | None
    newest_at: datetime.datetime | None
    freed_bytes: int

    def _line(self) -> str:
        return f"{self.name}: {units.count(self.rows, 'row')}, about {units.size(self.freed_bytes)}"


@attrs.frozen(repr=False)
class PruneReport(Report):
    """What one prune did, or what a dry run would do.

    Attributes:
        rows: rows deleted from the master.
        tables: of a dry run, the rows that it would delete, by table; otherwise ().
        by_reason: the same rows, by rule.
        kept_back: rows that a rule selected but that stayed, because no peer holds them, or because the rest of their
            transaction stays.
        tombstones_behind: tombstones that are old enough but stayed, because older changes may still arrive.
        behind: where these changes may come from, and what to do, one sentence each.
        tombstones_unheard: tombstones that stayed, because a database that has given a receipt does not know of them.
        unheard: the ids of these databases, in hexadecimal.
        awaiting: the ids of databases whose receipts await confirmation, so that rows in them were kept, too.
        unconfirmed: rows that stayed although the clock says that they are too old: it went ahead, and that awaits
            confirmation (see `Store.clock`). Rows of all tables count.
        used_bytes: size of the master's pages in use and of its WAL.
        file_bytes: size of the master's file.
        wal_bytes: size of its WAL.
        free_bytes: free space inside the file, which later rows fill.
        retired_streams: streams of which all rows were pruned, and that now take less space.
        forgotten_streams: streams of which all rows were pruned long ago, and that are now forgotten: a copy as old as
            they are could bring their rows back.
        shrunk_bytes: by how much the file became smaller.
        can_shrink: whether the file can become smaller. If not, its free space is only filled again.
        fits: whether the master is within the size that the rules allow; True if no rule limits the size.
        seconds: how long it took.
        dry_run: whether nothing was changed. Then the sizes are those before the prune, and `fits` is a forecast.
        stopped: whether the prune stopped on request before it had finished; the next one continues.
    """

    _computed = ("complete",)

    rows: int = 0
    by_reason: Mapping[str, int] = attrs.Factory(dict)
    kept_back: int = 0
    tombstones_behind: int = 0
    behind: tuple[str, ...] = ()
    tombstones_unheard: int = 0
    unheard: tuple[str, ...] = ()
    awaiting: tuple[str, ...] = ()
    unconfirmed: int = 0
    used_bytes: int = 0
    file_bytes: int = 0
    wal_bytes: int = 0
    free_bytes: int = 0
    shrunk_bytes: int = 0
    can_shrink: bool = True
    fits: bool = True
    seconds: float = 0.0
    dry_run: bool = False
    stopped: bool = False
    retired_streams: int = 0
    forgotten_streams: int = 0
    tables: tuple[PrunableTable, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the rules were met: the same as `fits`, under the name that all reports have."""
        return self.fits

    def _line(self) -> str:
        line = f"{'would prune' if self.dry_run else 'pruned'} {units.count(self.rows, 'row')}"
        if len(self.by_reason) > 1:
            line += f" ({', '.join(f'{reason}: {rows:,}' for reason, rows in self.by_reason.items())})"
        if self.kept_back:
            line += f", {self._kept(self.kept_back, 'row')} that no other database holds"
            if self.awaiting:
                line += f" (receipts that await confirmation, see status: {first_few(self.awaiting)})"
        if self.unconfirmed:
            line += (
                f", {self._kept(self.unconfirmed, 'row')} because the clock went ahead, and that awaits confirmation"
            )
            line += " (see Store.clock, `edgeshard clock`)"
        line += self._tombstones_kept()
        if self.forgotten_streams:
            forgot, streams = (
                "would forget" if self.dry_run else "forgot",
                units.count(self.forgotten_streams, "stream"),
            )
            line += f", {forgot} {streams} without rows"
        line += f", in {self.seconds:.3f} s; {self._sizes()}"
        if self.stopped:
            line += "; stopped early, the next prune continues"
        if not self.fits:
            line += f"; the master {'would still be' if self.dry_run else 'is still'} larger than the rules allow"
        return line

    def _kept(self, number: int, noun: str) -> str:
        return f"{'would keep' if self.dry_run else 'kept'} {units.count(number, noun)}"

    def _sizes(self) -> str:
        line = f"{units.size(self.used_bytes)} in use, {units.size(self.free_bytes)} free in the file"
        if self.tables:
            line += f", about {units.size(sum(table.freed_bytes for table in self.tables))} would become free"
        if self.shrunk_bytes:
            line += f", {units.size(self.shrunk_bytes)} given back to the disk"
        if not self.can_shrink:
            line += (
                " (this file cannot become smaller; later rows fill the free space. While nothing else has the file "
                "open, PRAGMA auto_vacuum=INCREMENTAL and VACUUM in an SQLite shell change that)"
            )
        return line

    def _tombstones_kept(self) -> str:
        line = ""
        if self.tombstones_behind:
            line += (
                f", {self._kept(self.tombstones_behind, 'tombstone')} because older changes may still arrive "
                f"({first_few(self.behind)})"
            )
        if self.tombstones_unheard:
            line += (
                f", {self._kept(self.tombstones_unheard, 'tombstone')} that not all databases with a receipt know of "
                f"({first_few(self.unheard)}: push or export to them, then record their next receipts; "
                "Store.forget_peer (`edgeshard forget-peer`) forgets one that will never return)"
            )
        return line


def combine_prunes(reports: Sequence[PruneReport]) -> PruneReport | None:
    """Combine the reports of successive prunes of one master, or return None if there are none."""
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
        tombstones_behind=sum(report.tombstones_behind for report in reports),
        behind=tuple(sorted({cause for report in reports for cause in report.behind})),
        tombstones_unheard=sum(report.tombstones_unheard for report in reports),
        unheard=tuple(sorted({peer for report in reports for peer in report.unheard})),
        awaiting=tuple(sorted({peer for report in reports for peer in report.awaiting})),
        unconfirmed=sum(report.unconfirmed for report in reports),
        shrunk_bytes=sum(report.shrunk_bytes for report in reports),
        retired_streams=sum(report.retired_streams for report in reports),
        forgotten_streams=sum(report.forgotten_streams for report in reports),
        fits=all(report.fits for report in reports),
        seconds=sum(report.seconds for report in reports),
        stopped=any(report.stopped for report in reports),
    )
