"""Report what happened in a store lately, from what it records anyway.

Rows are counted from blocks and arrivals, not one by one, so the cost depends on how many merges brought them and not
on how many they are. Like `status`, this disturbs nobody and creates nothing.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.files import paths, scan, store_folder
from edgeshard.master import arrivals, database, extents, store_clock, streams, write_stats
from edgeshard.reports import Activity, AgentRows, Arrivals, DayWritten
from edgeshard.sqlite import Connection

_HOUR_S: Final = 3_600

_DAY_S: Final = 86_400

#: The periods of the last hour and of the last day, in seconds.
_FINE_S: Final = arrivals.RESOLUTION_S

_COARSE_S: Final = 1_800

#: Agents that are reported by name.
_AGENTS_MAX: Final = 7

_DAYS: Final = 30


def activity(root: Path) -> Activity:
    """Report what happened lately; see `Store.activity`."""
    path = paths.master(root)
    at = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    listed = scan.shard_files(store_folder.resolve_shards(root))
    counters = [str(paths.merge_lock(root)), *(paths.lock_path(file.path) for file in listed)]
    if database.find_master(path, "read master") is None:
        return Activity(at)
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("read master", path), sqlite.read_snapshot(connection):
            last_hour, last_day = _arrivals(connection)
            return Activity(
                at,
                last_hour,
                last_day,
                _written_by_day(write_stats.by_day(connection, counters), at.date()),
                {stream_id.hex(): last_seq for _, stream_id, _, last_seq in streams.lacking(connection)},
            )
    finally:
        connection.close()


def _arrivals(connection: Connection) -> tuple[Arrivals, Arrivals] | tuple[None, None]:
    """Return the rows that arrived in the last hour and in the last day, or None for both if that is not recorded."""
    last = arrivals.latest(connection)
    if last is None:
        return None, None
    # arrivals never go back, even if the clock does
    now = max(int(last.timestamp()), int(store_clock.now(connection).latest_s))
    hour_began = _next(now, _FINE_S) - _HOUR_S
    day_began = _next(now, _COARSE_S) - _DAY_S
    agents = {number: agent for number, agent, _ in streams.last_seqs(connection)}
    hour: dict[str, Counter[int]] = {}
    day: dict[str, Counter[int]] = {}
    found = extents.rows_by_arrival(connection, day_began, _COARSE_S, _previous(hour_began, _COARSE_S), _FINE_S)
    for stream_no, began_at, rows in found:
        agent = agents[stream_no]
        day.setdefault(agent, Counter())[(began_at - day_began) // _COARSE_S] += rows
        if began_at >= hour_began:
            hour.setdefault(agent, Counter())[(began_at - hour_began) // _FINE_S] += rows
    return (
        _by_agent(hour, hour_began, _FINE_S, _HOUR_S // _FINE_S),
        _by_agent(day, day_began, _COARSE_S, _DAY_S // _COARSE_S),
    )


def _next(time_s: int, period_s: int) -> int:
    """Return when the period that a time is in ends."""
    return _previous(time_s, period_s) + period_s


def _previous(time_s: int, period_s: int) -> int:
    return time_s - time_s % period_s


def _by_agent(rows: Mapping[str, Counter[int]], began_s: int, period_s: int, periods: int) -> Arrivals:
    """Return the counts, by agent and number of the period, as a report of the busiest agents."""
    busiest = sorted(rows, key=lambda agent: (-rows[agent].total(), agent))
    others: Counter[int] = Counter()
    for agent in busiest[_AGENTS_MAX:]:
        others.update(rows[agent])
    return Arrivals(
        begins_at=datetime.datetime.fromtimestamp(began_s, datetime.UTC),
        period_s=period_s,
        agents=tuple(AgentRows(agent, _filled(rows[agent], periods)) for agent in busiest[:_AGENTS_MAX]),
        other_agents=len(busiest[_AGENTS_MAX:]),
        other_rows=_filled(others, periods),
    )


def _filled(rows: Counter[int], periods: int) -> tuple[int, ...]:
    return tuple(rows[number] for number in range(periods))


def _written_by_day(recorded: Mapping[str, write_stats.WriteCount], today: datetime.date) -> tuple[DayWritten, ...]:
    """Return what was written on each of the last days, with zeros between days that have any."""
    last = [(today - datetime.timedelta(days=age)).isoformat() for age in range(_DAYS - 1, -1, -1)]
    first = min((day for day in last if day in recorded), default=None)
    counts = [(day, recorded.get(day, write_stats.WriteCount())) for day in last if first is not None and day >= first]
    return tuple(DayWritten(day, count.bytes, count.rows) for day, count in counts)
