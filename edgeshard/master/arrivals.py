"""Own edgeshard_arrivals: when rows arrived in a master, to the minute. This is what "older than" refers to.

Ids are assigned in order of arrival, so a few pairs (id, time) tell the arrival of every row. A merge adds a pair in
the transaction that brings rows, at most once a minute, by the clock of the machine that merges. Two things go wrong
with the clocks of small devices, and neither may make a row seem older than it is:

* A clock that starts in 1970 at each boot says nothing. Before `SENSIBLE_S` no time is recorded, and the rows count as
  having arrived at the next recorded time.
* A clock may be set back. Recorded times never fall: until the clock has caught up, rows count as having arrived at the
  last recorded time.
"""

from __future__ import annotations

import time
from typing import Final

from edgeshard import sqlite
from edgeshard.sqlite import Connection

#: How exact the times are, in seconds.
RESOLUTION_S: Final = 60

#: How many entries one transaction deletes: those of a week.
FORGOTTEN_MAX: Final = 10_000

#: 2026-01-01. No edgeshard with this table existed earlier, so a clock that shows an earlier time has not been set.
SENSIBLE_S: Final = 1_767_225_600


def record(connection: Connection, first_id: int) -> None:
    """Record that rows from `first_id` on arrive now, in the transaction that brings them."""
    now = int(time.time())
    if now < SENSIBLE_S:
        return
    last = sqlite.scalar(connection, "SELECT at FROM main.edgeshard_arrivals ORDER BY first_id DESC LIMIT 1")
    if last is None:
        first_id = 1  # rows that arrived earlier have an unknown age
    if last is None or now >= last + RESOLUTION_S:
        connection.execute("INSERT INTO main.edgeshard_arrivals VALUES (?, ?)", (first_id, now))


def first_since(connection: Connection, since_s: float) -> int | None:
    """Return the lowest id that may have arrived after `since_s`, or None if all rows arrived earlier.

    That is 1 if no arrival is recorded.

    Args:
        connection: the master.
        since_s: a time, in seconds since 1970.
    """
    found: int | None = sqlite.scalar(
        connection,
        "SELECT min(first_id) FROM main.edgeshard_arrivals WHERE at > ?",
        (since_s - RESOLUTION_S,),  # the last row of an entry may be this much younger
    )
    is_known = sqlite.scalar(connection, "SELECT 1 FROM main.edgeshard_arrivals LIMIT 1") is not None
    return found if is_known else 1


def oldest_since(connection: Connection, since_s: float) -> int | None:
    """Return the arrival of the oldest row that remains after pruning rows older than `since_s`, in seconds since 1970.

    None if no row remains, or no arrival is recorded.
    """
    sql = "SELECT min(at) FROM main.edgeshard_arrivals WHERE at > ?"
    found: int | None = sqlite.scalar(connection, sql, (since_s - RESOLUTION_S,))
    return found


def forget_before(connection: Connection, first_id: int) -> bool:
    """Delete entries that concern no row from `first_id` on, in the caller's transaction.

    Returns:
        Whether there may be more of them: a transaction deletes `FORGOTTEN_MAX`, so that mergers wait for milliseconds.
    """
    connection.execute(
        "DELETE FROM main.edgeshard_arrivals WHERE first_id IN (SELECT first_id FROM main.edgeshard_arrivals "
        "WHERE first_id < (SELECT max(first_id) FROM main.edgeshard_arrivals WHERE first_id <= ?) "
        "ORDER BY first_id LIMIT ?)",
        (first_id, FORGOTTEN_MAX),
    )
    return connection.changes() == FORGOTTEN_MAX
