"""What was salvaged from a damaged shard."""

from __future__ import annotations

import attrs

from edgeshard import units
from edgeshard.reports.base import Report
from edgeshard.reports.phrases import count_missing, rows_of_streams
from edgeshard.reports.rows import Gap


@attrs.frozen(repr=False)
class SalvageReport(Report):
    """What `Store.salvage` recovered.

    Attributes:
        path: the damaged shard.
        agent: its agent, or "" if that cannot be read.
        rows: rows that could be read.
        merged: how many of them the master did not have.
        streams: streams of the shard that are known.
        gaps: rows of these streams that are known to have existed and that the master does not have.
        unassigned: rows that could be read, but whose stream or table is lost or ambiguous.
        missing_pages: pages at the end of the shard that are cut off; which rows were on them cannot be known.
    """

    _computed = ("complete",)

    path: str
    agent: str = ""
    rows: int = 0
    merged: int = 0
    streams: int = 0
    gaps: tuple[Gap, ...] = ()
    unassigned: int = 0
    missing_pages: int = 0

    @property
    def readable(self) -> bool:
        """Whether anything in the shard could be read."""
        return bool(self.rows or self.streams)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, as far as is known."""
        return self.readable and not self.gaps and not self.unassigned and not self.missing_pages

    def _line(self) -> str:
        if not self.readable:
            return f"nothing in {self.path} can be read{self._cut_off()}"
        line = (
            f"salvaged {rows_of_streams(self.rows, self.streams)} of agent {self.agent!r}, {self.merged:,} of them new"
        )
        if self.gaps:
            line += f"; {count_missing(sum(map(len, self.gaps)), len(self.gaps))}"
        if self.unassigned:
            line += f"; {units.count(self.unassigned, 'row')} of unknown origin left out"
        return line + self._cut_off()

    def _cut_off(self) -> str:
        if not self.missing_pages:
            return ""
        pages = units.count(self.missing_pages, "page")
        return f"; its end is cut off, and with it {pages} of unknown content: salvage a whole copy, if there is one"
