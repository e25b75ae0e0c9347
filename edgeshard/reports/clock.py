"""What the clock of the machine shows."""

from __future__ import annotations

import datetime

import attrs

from edgeshard import units
from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class ClockAhead(Report):
    """An agent whose changes of a keyed table carry timestamps ahead of this machine's clock, and win until then.

    Attributes:
        agent: the agent.
        table: the table.
        ahead_s: how far ahead its newest change is, in seconds.
    """

    agent: str
    table: str
    ahead_s: float


@attrs.frozen(repr=False)
class ClockReport(Report):
    """The clock of this machine, and the time by which rows of a master become too old.

    Attributes:
        wall: what the clock shows.
        trusted: the time by which rows become too old; None if the clock was never set, or nothing was merged yet.
        ahead_s: by how many seconds the clock went ahead of that, unconfirmed.
        rows: rows that arrived before it went ahead, and become older once that is confirmed.
        confirmed_in_s: after how many seconds it is confirmed by itself, if the clock stays there: of the time in which
            the machine is on, or merges are made each day.
        behind_s: by how many seconds the clock is behind that time.
        awaits_confirmation: whether somebody should look: the clock went ahead by more than a night, or is behind by
            more than a day.
        confirmed: whether the clock was confirmed just now.
        dry_run: whether nothing was changed.
    """

    _computed = ("complete",)

    wall: datetime.datetime
    trusted: datetime.datetime | None = None
    ahead_s: float = 0.0
    rows: int = 0
    confirmed_in_s: float = 0.0
    behind_s: float = 0.0
    awaits_confirmation: bool = False
    confirmed: bool = False
    dry_run: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing awaits confirmation."""
        return not self.awaits_confirmation

    def _line(self) -> str:
        wall = self.wall.isoformat(timespec="seconds")
        if self.confirmed:
            return f"{'would confirm' if self.dry_run else 'confirmed'} the clock, which shows {wall}; {self.effect}"
        if self.trusted is None:
            return f"the clock shows {wall}; rows have no age before it is set, and before the first merge"
        if self.behind_s:
            return (
                f"the clock shows {wall}, {_days(self.behind_s)} behind the time that this store has counted. Rows "
                "become older by the time that is measured. If the clock is wrong, set it; if it is right, confirm it"
            )
        if self.ahead_s:
            return (
                f"the clock shows {wall}; it went ahead by {_days(self.ahead_s)}, and "
                f"{units.count(self.rows, 'row')} will be older by that once it is confirmed, by you or by "
                f"{_days(self.confirmed_in_s)} in which this machine is on or merges each day. Until then deletions by "
                "age wait, and all else goes on. If it is wrong, or was when these rows arrived, do not confirm it; if "
                "that time has really passed, confirm it"
            )
        return f"the clock shows {wall}, and rows become older by it"

    @property
    def effect(self) -> str:
        """What follows if the clock is confirmed."""
        if self.behind_s:
            return f"the time that this store has counted is moved back by {_days(self.behind_s)}, no row's age changes"
        rows = units.count(self.rows, "row")
        return f"the age of {rows} grows by {_days(self.ahead_s)}" if self.ahead_s else "no row's age changes"


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days"
