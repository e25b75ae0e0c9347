"""Stamps of changes: a hybrid logical clock in one number, microseconds since 1970.

A timestamp is what the wall clock says, or one more than the last, whichever is higher: so it never runs back, and says
about when. A handle begins above whatever its store knew as it opened, so that a later change of the same store counts
as later, whatever was done to the clock between.

A clock that jumps ahead is bounded: a handle's timestamps run at most a year ahead of the newest that its store knew as it
opened (where it knew any). Beyond that each timestamp is one more than the last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from edgeshard import format

#: Microseconds of a day.
DAY_US: Final = 24 * 3600 * 1_000_000

#: How far a handle's timestamps may run ahead of the newest that its store knew as it opened: 366 days, in microseconds.
AHEAD_MAX_US: Final = 366 * DAY_US

#: A change that is timestamped so far ahead of a merger's clock is reported: a day, in microseconds.
REPORTED_AHEAD_US: Final = DAY_US


def now_us() -> int:
    """The wall clock, in microseconds since 1970."""
    return time.time_ns() // 1_000


def clock(floor: int) -> Callable[[], int]:
    """A function that gives the next timestamp. Whoever calls it from several threads holds a lock.

    Args:
        floor: the newest timestamp that the store knows; 0: none.
    """
    last = floor
    ceiling = min(floor + AHEAD_MAX_US if floor else format.TIMESTAMP_MAX, format.TIMESTAMP_MAX)

    def timestamp() -> int:
        nonlocal last
        wall = now_us()
        last = wall if last < wall <= ceiling else last + 1
        return last

    return timestamp
