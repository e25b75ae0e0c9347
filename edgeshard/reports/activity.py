"""What happened in a store lately."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import attrs

from edgeshard import units
from edgeshard.reports.base import Report


@attrs.frozen(repr=False)
class AgentRows(Report):
    """How many rows of an agent arrived, in each period of an `Arrivals`.

    Attributes:
        agent: the agent.
        rows: the rows of each period, the oldest first.
    """

    agent: str
    rows: tuple[int, ...]

    @property
    def total(self) -> int:
        """The rows of all periods."""
        return sum(self.rows)


@attrs.frozen(repr=False)
class Arrivals(Report):
    """How many rows arrived in a master, by agent and time. Rows that were pruned since then are not counted.

    Attributes:
        begins_at: when the first period begins, by the clock that arrivals are recorded by.
        period_s: how long each period is, in seconds.
        agents: the busiest agents, the one with the most rows first.
        other_agents: how many other agents had rows.
        other_rows: their rows of each period, together.
    """

    begins_at: datetime.datetime
    period_s: int
    agents: tuple[AgentRows, ...]
    other_agents: int
    other_rows: tuple[int, ...]

    @property
    def total(self) -> int:
        """The rows of all agents."""
        return sum(agent.total for agent in self.agents) + sum(self.other_rows)


@attrs.frozen(repr=False)
class DayWritten(Report):
    """What was written to a store's files in a day.

    Attributes:
        day: the day, ISO 8601, UTC.
        bytes: bytes written, as far as they are counted.
        rows: rows merged.
    """

    day: str
    bytes: int
    rows: int


@attrs.frozen(repr=False)
class Activity(Report):
    """What `Store.activity` found: what happened in a store lately.

    Attributes:
        at: when the store was read, by the wall clock.
        last_hour: rows that arrived in the last hour, by the minute; None if no time of arrival is recorded, because
            nothing was merged or the clock was never set.
        last_day: rows that arrived in the last 24 hours, by the half hour; None as above.
        days: bytes written on each day from the first of the last 30 that has any, the oldest first.
        last_seqs: the highest seq known to exist in each stream that the master lacks rows of, by the stream's id.
    """

    at: datetime.datetime
    last_hour: Arrivals | None = None
    last_day: Arrivals | None = None
    days: tuple[DayWritten, ...] = ()
    last_seqs: Mapping[str, int] = attrs.Factory(dict)

    def _line(self) -> str:
        hour, day = (0 if found is None else found.total for found in (self.last_hour, self.last_day))
        return f"{units.count(hour, 'row')} arrived in the last hour, and {day:,} in the last 24 hours"
