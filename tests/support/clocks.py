"""Clocks that a test sets by hand."""

from __future__ import annotations

from edgeshard.master import arrivals

DAY_S = 86_400


class Clock:
    """A clock that is set by hand: the fixture `clock`."""

    def __init__(self) -> None:
        self.now_s = float(arrivals.SENSIBLE_S + 100 * DAY_S)

    def __call__(self) -> float:
        return self.now_s
