"""Own _edgeshard_arrivals: when rows arrived in a master, to the minute. This is what "older than" refers to.

Ids are assigned in order of arrival, so a few pairs (id, time) tell the arrival of every row. A merge adds a pair in
the transaction that brings rows, at most once a minute. The times are those of the master's trusted clock
(`clock_trust`), so that no wrong reading of the wall clock makes a row seem older than it is:

* Before the wall clock was set for the first time, no time is recorded, and the rows count as arriving when it is set.
* A jump of the wall clock is counted from the start: if it turns out to be a glitch, `limit` puts the times right.
* Recorded times never fall with the ids: until the clock has caught up, rows count as arriving at the last time.
"""

from __future__ import annotations

import datetime
from typing import Final

from edgeshard import sqlite
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.sqlite import Connection

#: How exact the times are, in seconds.
RESOLUTION_S: Final = 60

#: The table of arrivals, to be joined with the blocks.
ARRIVALS: Final = "main._edgeshard_arrivals"

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

#: How many entries one transaction deletes: those of a week.
FORGOTTEN_MAX: Final = 10_000


def record(connection: Connection, first_id: int, clock: TrustedClock) -> None:
    """Record that rows from `first_id` on arrive now, in the transaction that brings them."""
    if not clock.is_known:
        return
    now = int(clock.latest_s)
    found = sqlite.fetch(connection, "SELECT first_id, at FROM main._edgeshard_arrivals ORDER BY first_id DESC LIMIT 1")
    if not found:
        first_id = 1  # rows that arrived earlier have an unknown age
    # a restart or a jump divides the rows: they may have to be moved apart
    if not found or now >= found[0][1] + RESOLUTION_S or found[0][0] < clock.last_change_id:
        at = max(now, found[0][1]) if found else now
        connection.execute("INSERT OR REPLACE INTO main._edgeshard_arrivals VALUES (?, ?)", (first_id, at))


def move(connection: Connection, first_id: int, end_id: int, by_s: int) -> None:
    """Move the arrivals of the rows with ids from `first_id` on and below `end_id`, in the caller's transaction."""
    connection.execute(
        "UPDATE main._edgeshard_arrivals SET at = at + ? WHERE first_id >= ? AND first_id < ?", (by_s, first_id, end_id)
    )


def limit(connection: Connection, latest_s: int) -> None:
    """Let no row have arrived later than this time, in seconds since 1970, in the caller's transaction."""
    connection.execute("UPDATE main._edgeshard_arrivals SET at = ?1 WHERE at > ?1", (latest_s,))


def first_since(connection: Connection, since_s: float) -> int | None:
    """Return the lowest id that may have arrived after `since_s`, or None if all rows arrived earlier.

    That is 1 if no arrival is recorded.

    Args:
        connection: the master.
        since_s: a trusted time, in seconds since 1970.
    """
    found: int | None = sqlite.scalar(
        connection,
        "SELECT min(first_id) FROM main._edgeshard_arrivals WHERE at > ?",
        (since_s - RESOLUTION_S,),  # the last row of an entry may be this much younger
    )
    is_known = sqlite.scalar(connection, "SELECT 1 FROM main._edgeshard_arrivals LIMIT 1") is not None
    return found if is_known else 1


def oldest_since(connection: Connection, since_s: float) -> int | None:
    """Return the arrival of the oldest row that remains after pruning rows older than `since_s`, both trusted times.

    None if no row remains, or no arrival is recorded.
    """
    sql = "SELECT min(at) FROM main._edgeshard_arrivals WHERE at > ?"
    found: int | None = sqlite.scalar(connection, sql, (since_s - RESOLUTION_S,))
    return found


def time_of_row(connection: Connection, row_id: int) -> datetime.datetime | None:
    """Return when the row with this id arrived, to the minute, or None if that is unknown."""
    sql = "SELECT at FROM main._edgeshard_arrivals WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
    return _time(sqlite.scalar(connection, sql, (row_id,)))


def latest(connection: Connection) -> datetime.datetime | None:
    """Return the last recorded arrival, or None. Rows may have arrived up to a minute later."""
    return _time(sqlite.scalar(connection, "SELECT max(at) FROM main._edgeshard_arrivals"))


def _time(seconds: int | None) -> datetime.datetime | None:
    return None if seconds is None else utc_time(seconds)


def utc_time(seconds: float) -> datetime.datetime:
    """Return the time that is so many seconds after 1970.

    Raises:
        OverflowError: there is no such time: the master that has it is damaged. (`datetime.fromtimestamp` raises an
            OSError for some of these, as if the disk had failed.)
    """
    return _EPOCH + datetime.timedelta(seconds=seconds)


def forget_before(connection: Connection, first_id: int) -> bool:
    """Delete entries that concern no row from `first_id` on, in the caller's transaction.

    Returns:
        Whether there may be more of them: a transaction deletes `FORGOTTEN_MAX`, so that mergers wait for milliseconds.
    """
    connection.execute(
        "DELETE FROM main._edgeshard_arrivals WHERE first_id IN (SELECT first_id FROM main._edgeshard_arrivals "
        "WHERE first_id < (SELECT max(first_id) FROM main._edgeshard_arrivals WHERE first_id <= ?) "
        "ORDER BY first_id LIMIT ?)",
        (first_id, FORGOTTEN_MAX),
    )
    return connection.changes() == FORGOTTEN_MAX
