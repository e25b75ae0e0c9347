"""The hybrid logical clock that timestamps changes of keyed tables: one number, microseconds since 1970.

A timestamp is what the wall clock reads, or one more than the last timestamp, whichever is higher. So it never runs
backwards, and still tells roughly when. A handle starts above everything that its store knew when it was opened, so a
later change of the same store counts as later, even if the wall clock was changed in between.

If the wall clock jumps ahead, the damage is bounded: a handle's timestamps run at most a year ahead of the newest that
its store knew when it was opened (if it knew any). Beyond that, each timestamp is one more than the last.

No timestamp is above `format.TIMESTAMP_MAX`. A store that has met that one, which only a forged or damaged database
brings, gives all later changes the same; of equal timestamps the stream and the seq decide, so that in one shard the
later change still counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from edgeshard import format

#: Microseconds of a day.
DAY_US: Final = 24 * 3600 * 1_000_000

#: How far a handle's timestamps may run ahead of the newest that its store knew when it was opened: 366 days.
AHEAD_MAX_US: Final = 366 * DAY_US

#: A change whose timestamp is this far ahead of a merger's clock is reported: a day.
REPORTED_AHEAD_US: Final = DAY_US


def now_us() -> int:
    """Return the wall clock in microseconds since 1970."""
    return time.time_ns() // 1_000


def clock(floor: int) -> Callable[[], int]:
    """Return a function that gives the next timestamp. Threads that share it must hold a lock.

    Args:
        floor: the newest timestamp that the store knows; 0 if it knows none.
    """
    last = floor
    ceiling = min(floor + AHEAD_MAX_US if floor else format.TIMESTAMP_MAX, format.TIMESTAMP_MAX)

    def timestamp() -> int:
        nonlocal last
        wall = now_us()
        last = wall if last < wall <= ceiling else min(last + 1, format.TIMESTAMP_MAX)
        return last

    return timestamp
