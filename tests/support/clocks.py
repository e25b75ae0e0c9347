"""Clocks that a test sets by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeshard.records import machine_clock

DAY_S = 86_400


class Clock:
    """A clock that is set by hand: the fixture `clock`."""

    def __init__(self) -> None:
        self.now_s = float(machine_clock.SENSIBLE_S + 100 * DAY_S)

    def __call__(self) -> float:
        return self.now_s


class Boottime:
    """The clock that nobody can set, of a machine that is never off: time passes where its wall clock goes ahead.

    It shows what the wall clock shows, as long as that is not set back.
    """

    def __init__(self, wall_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._last_s = self._now_s = wall_s()

    def __call__(self) -> float:
        wall_s = self._wall_s()
        self._now_s += max(0.0, wall_s - self._last_s)
        self._last_s = wall_s
        return self._now_s


def set_machine_clock(monkeypatch: pytest.MonkeyPatch, wall_s: Callable[[], float]) -> None:
    """Let masters take the time from a wall clock that the test sets; time passes where it goes ahead."""
    monkeypatch.setattr(machine_clock, "wall_s", wall_s)
    monkeypatch.setattr(machine_clock, "boottime_s", Boottime(wall_s))
