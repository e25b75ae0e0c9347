"""When rows came into a master, to the minute: what "older than" means.

Ids are given in order of arrival, so a few pairs (id, time) say of every row when it came. A merge adds one in the
transaction that brings rows, at most once a minute. By the clock of the machine that merges; two things are wrong
with those of small devices, and neither must make a row seem older than it is:

* A clock that begins in 1970 with each start says nothing. Before `SENSIBLE_S` no time is noted: the rows count as
  come at the next time that is.
* A clock that was set back. Times never fall: rows count as come at the last time noted until it is reached again.
"""

from __future__ import annotations

import time
from typing import Final

from edgeshard import sqlite
from edgeshard.sqlite import Connection

#: How exact it is, in seconds.
RESOLUTION_S: Final = 60

#: 2026-01-01, before which no edgeshard of this kind existed: a clock that says less has not been set.
SENSIBLE_S: Final = 1_767_225_600


def note(connection: Connection, first_id: int) -> None:
    """Note that rows from `first_id` on come now, in the transaction that brings them."""
    now = int(time.time())
    if now < SENSIBLE_S:
        return
    last = sqlite.scalar(connection, "SELECT at FROM main.edgeshard_arrivals ORDER BY first_id DESC LIMIT 1")
    if last is None:
        first_id = 1  # what came before that is of unknown age
    if last is None or now >= last + RESOLUTION_S:
        connection.execute("INSERT INTO main.edgeshard_arrivals VALUES (?, ?)", (first_id, now))


def first_since(connection: Connection, since_s: float) -> int | None:
    """The lowest id that may have come after `since_s`; None where no row that is here did.

    Args:
        connection: the master.
        since_s: a time, in seconds since 1970.
    """
    found: int | None = sqlite.scalar(
        connection,
        "SELECT min(first_id) FROM edgeshard_arrivals WHERE at > ?",
        (since_s - RESOLUTION_S,),  # an entry is that of its last row, too
    )
    is_known = sqlite.scalar(connection, "SELECT 1 FROM edgeshard_arrivals LIMIT 1") is not None
    return found if is_known else 1


def oldest_since(connection: Connection, since_s: float) -> int | None:
    """When the oldest of the rows came that a prune of what is older than `since_s` leaves, in seconds since 1970.

    None where all are older, or nothing is known of any.
    """
    sql = "SELECT min(at) FROM edgeshard_arrivals WHERE at > ?"
    found: int | None = sqlite.scalar(connection, sql, (since_s - RESOLUTION_S,))
    return found


def forget_before(connection: Connection, first_id: int) -> None:
    """Drop what is said of no row from `first_id` on, in the caller's transaction."""
    connection.execute(
        "DELETE FROM edgeshard_arrivals WHERE first_id < "
        "(SELECT max(first_id) FROM edgeshard_arrivals WHERE first_id <= ?)",
        (first_id,),
    )
