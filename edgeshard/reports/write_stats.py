"""How much a store writes."""

from __future__ import annotations

import attrs

from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class WriteStats(Report):
    """Bytes that a store has written to its files, as far as they are counted.

    Attributes:
        today_bytes: written today (UTC).
        bytes: written since the first day.
        days: days from the first one to today.
        rows: rows merged in that time.
    """

    today_bytes: int = 0
    bytes: int = 0
    days: int = 0
    rows: int = 0

    @property
    def bytes_a_day(self) -> float | None:
        """Average per day, or None if nothing was counted."""
        return self.bytes / self.days if self.days else None

    @property
    def bytes_a_row(self) -> float | None:
        """Average per merged row, or None if no row was merged."""
        return self.bytes / self.rows if self.rows else None
