"""The hybrid logical clock that timestamps changes of keyed tables: one number, microseconds since 1970.

A timestamp is what the wall clock reads, or one more than the last timestamp, whichever is higher. So in one stream it
never runs backwards, and still tells roughly when. A handle starts above what its store knew when it was opened, so a
later change of the same store counts as later, even if the wall clock was set back a little in between.

The last change wins by true time, as long as the clocks of its writers were right. So a right clock is always followed,
and what a wrong one left behind is not:

* A timestamp more than `AHEAD_MAX_US` ahead of the wall clock is not continued: a store that knows such a one, from a
  clock that was ahead or from a forged database, goes by its own clock all the same. In one stream timestamps must not
  fall, so a handle that made it begins a new stream.
* Before the wall clock is set (it shows 1970), and while it is behind a time that has surely passed, each timestamp is
  one more than the last. If no timestamp is known at all, it is what that clock shows: everything else is newer.
* A wall clock that is more than `JUMP_MAX_US` ahead of what is known is not followed at first, because no device was
  off for that long. What is known goes on with the time that passes, and includes the trusted time of the store's
  master, so that the clock is followed once it is confirmed, or has stayed there for `BELIEVED_AFTER_S`.

No timestamp is above `format.TIMESTAMP_MAX`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from edgeshard import format
from edgeshard.records import machine_clock

#: Microseconds of a day.
DAY_US: Final = 24 * 3600 * 1_000_000

#: How far timestamps may be ahead of a wall clock that is right: two hours. A clock is often set back by one.
AHEAD_MAX_US: Final = 2 * 3600 * 1_000_000

#: How far the wall clock may be ahead of what is known: ten years.
JUMP_MAX_US: Final = 3_653 * DAY_US

#: After how many seconds a handle follows a wall clock that is further ahead: longer than a glitch of a week.
BELIEVED_AFTER_S: Final = 10 * 86_400.0

#: A change whose timestamp is this far ahead of a merger's clock is reported: a day.
REPORTED_AHEAD_US: Final = DAY_US

_SET_US: Final = machine_clock.SENSIBLE_S * 1_000_000


class ClockSetBackError(Exception):
    """The wall clock was set back by so much that timestamps must fall; only a new stream can have them. Internal."""


def now_us() -> int:
    """Return the wall clock in microseconds since 1970."""
    return time.time_ns() // 1_000


@attrs.frozen
class HybridClock:
    """The clock of one handle. Threads that share it must hold a lock.

    Attributes:
        next: returns the next timestamp. Raises `ClockSetBackError` if it should be lower than the last one.
        is_set_back: returns whether it should be. A transaction, which has only one stream, asks before it begins.
    """

    next: Callable[[], int]
    is_set_back: Callable[[], bool]


def clock(
    known: Iterable[int], passed_us: int = 0, is_in_transaction: Callable[[], bool] = lambda: False
) -> HybridClock:
    """Return a clock that starts above what its store knows.

    Args:
        known: the newest timestamps that the store knows, such as one of each table.
        passed_us: a time that has surely passed, by the trusted clock of the store's master; 0 if none is known.
        is_in_transaction: returns whether the next change belongs to an open transaction.
    """
    known = list(known)
    bounds = _Bounds(passed_us or max((each for each in known if each >= _SET_US), default=0), passed_us)
    wall = now_us()
    start_us = wall if bounds.is_right(wall) else passed_us
    limit = start_us + AHEAD_MAX_US if start_us else format.TIMESTAMP_MAX
    last = max((each for each in known if each <= limit), default=0)
    if bounds.is_behind(wall):
        last = max(last, passed_us)
    ceiling = bounds.ceiling_us(wall)

    def next_timestamp() -> int:
        nonlocal last
        wall = now_us()
        if last < wall <= ceiling:
            last = wall
        elif wall <= last < ceiling and last - wall <= AHEAD_MAX_US:  # as after two changes in one microsecond
            last += 1
        else:
            last = next_if_unusual(wall)
        return last

    def next_if_unusual(wall: int) -> int:
        nonlocal ceiling
        if wall > ceiling:
            ceiling = bounds.ceiling_us(wall)
            if last < wall <= ceiling:
                return wall
        if is_below(wall) and not is_in_transaction():
            raise ClockSetBackError
        return min(max(last + 1, bounds.reference_us() if wall > ceiling else 0), format.TIMESTAMP_MAX)

    def is_below(wall: int) -> bool:
        return last - wall > AHEAD_MAX_US and bounds.is_right(wall)

    return HybridClock(next_timestamp, lambda: is_below(now_us()))


class _Bounds:
    """Within which bounds the wall clock is followed.

    Args:
        known_us: the newest time that is known, of changes that are not from before the clock was set; 0 if none is.
        passed_us: a time that has surely passed; 0 if none is known.
    """

    def __init__(self, known_us: int, passed_us: int) -> None:
        self._opened_s = machine_clock.boottime_s()
        self._known_us = known_us
        self._passed_us = passed_us
        self._refused_s: float | None = None  # since when the wall clock is too far ahead

    def reference_us(self) -> int:
        """Return what time it is by all that is known but the wall clock; 0 if nothing is known."""
        elapsed_s = machine_clock.boottime_s() - self._opened_s
        return self._known_us + int(elapsed_s * 1_000_000) if self._known_us else 0

    def ceiling_us(self, wall: int) -> int:
        """Return up to which time the wall clock is followed, which shows `wall` now."""
        reference = self.reference_us()
        ceiling = min(reference + JUMP_MAX_US if reference else format.TIMESTAMP_MAX, format.TIMESTAMP_MAX)
        if wall <= ceiling:
            self._refused_s = None
            return ceiling
        now_s = machine_clock.boottime_s()
        self._refused_s = now_s if self._refused_s is None else self._refused_s
        return format.TIMESTAMP_MAX if now_s - self._refused_s >= BELIEVED_AFTER_S else ceiling

    def is_behind(self, wall: int) -> bool:
        """Return whether the wall clock was never set, or is behind a time that has surely passed."""
        return wall < _SET_US or wall < self._passed_us - AHEAD_MAX_US

    def is_right(self, wall: int) -> bool:
        """Return whether the wall clock is followed."""
        return not self.is_behind(wall) and wall <= self.ceiling_us(wall)
