"""Read the clocks of this machine: the wall clock, which people and programs set, and one that nobody can set.

The second one (*boottime*) counts the seconds since the machine was started, also while it is suspended. Together with
the id of the boot it measures the time between two readings, in this process or in another one. Linux has both. Where
they are missing, a process has an id and a monotonic clock of its own, and the time between two processes is unknown.
"""

from __future__ import annotations

import functools
import secrets
import time
from pathlib import Path
from typing import Final

import attrs

from edgeshard.files import fingerprint

#: 2026-01-01. No edgeshard that keeps times existed earlier, so a wall clock that shows an earlier time was never set.
SENSIBLE_S: Final = 1_767_225_600

#: CLOCK_BOOTTIME as a file. Libraries that give one program another time (libfaketime) leave it alone.
_UPTIME: Final = Path("/proc/uptime")


@attrs.frozen
class ClockReading:
    """What the clocks of a machine showed at one moment.

    Attributes:
        wall_s: the wall clock, in seconds since 1970.
        boot_id: identifies the boot, or the process where the system names no boots.
        boottime_s: seconds by the clock that nobody can set; comparable only with readings of the same boot.
    """

    wall_s: float
    boot_id: str
    boottime_s: float

    @property
    def is_set(self) -> bool:
        """Whether the wall clock was ever set: it does not show a time before edgeshard existed, such as 1970."""
        return self.wall_s >= SENSIBLE_S


def read() -> ClockReading:
    """Read all clocks."""
    return ClockReading(wall_s(), boot_id(), boottime_s())


def wall_s() -> float:
    """Return the wall clock, in seconds since 1970."""
    return time.time()


def boot_id() -> str:
    """Return what identifies this boot of the machine, or this process where the system names no boots."""
    return fingerprint.boot_id() or _process_id()


def boottime_s() -> float:
    """Return the seconds since the boot that `boot_id` identifies."""
    try:
        with _UPTIME.open(encoding="ascii") as file:
            return float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@functools.cache
def _process_id() -> str:
    return f"process {secrets.token_hex(16)}"
