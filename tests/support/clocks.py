"""Clocks that a test sets by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from edgeshard.records import hlc, machine_clock

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


class Machine:
    """A machine with a true time, a wall clock that may show another one, and boots: the fixture `machine`.

    Attributes:
        true_s: the true time, in seconds since 1970.
        error_s: by how much the wall clock is ahead of it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.true_s = float(machine_clock.SENSIBLE_S + 1_000 * DAY_S)
        self.error_s = 0.0
        self._booted_s, self._boots = self.true_s - 100.0, 1
        monkeypatch.setattr(time, "time", self.wall_s)
        monkeypatch.setattr(hlc, "now_us", lambda: int(self.wall_s() * 1_000_000))
        monkeypatch.setattr(machine_clock, "wall_s", self.wall_s)
        monkeypatch.setattr(machine_clock, "boottime_s", lambda: self.true_s - self._booted_s)
        monkeypatch.setattr(machine_clock, "boot_id", lambda: f"boot {self._boots}")

    def wall_s(self) -> float:
        return self.true_s + self.error_s

    def run(self, days: float) -> None:
        """Let time pass while the machine is on."""
        self.true_s += days * DAY_S

    def be_off(self, days: float) -> None:
        """Let time pass while it is off, and start it again."""
        self.true_s += days * DAY_S
        self._booted_s, self._boots = self.true_s - 20.0, self._boots + 1

    def show_1970(self) -> None:
        """Let the wall clock begin in 1970."""
        self.error_s = 30.0 - self.true_s
