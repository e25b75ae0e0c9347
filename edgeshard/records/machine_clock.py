"""Read the clocks of this machine: the wall clock, which people and programs set, and one that nobody can set.

The second one (*boottime*) counts the seconds since the machine was started, also while it is suspended. Together with
the id of the boot it measures the time between two readings, in this process or in another one. Linux has both. Where
they are missing, a process has an id and a monotonic clock of its own, and the time between two processes is unknown.
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from pathlib import Path
from typing import Final

import attrs

from edgeshard.files import fingerprint

#: 2026-01-01. No edgeshard that keeps times existed earlier, so a wall clock that shows an earlier time was never set.
SENSIBLE_S: Final = 1_767_225_600

#: The same as CLOCK_BOOTTIME, from the system itself.
_UPTIME: Final = Path("/proc/uptime")

#: By how much the two may differ because they are read one after the other, in seconds.
_TOLERANCE_S: Final = 1.0


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
    """Return what identifies this boot of the machine, or this process where the time between two is not measured."""
    return f"{fingerprint.boot_id()} {_time_namespace()}" if _is_measured() else _process_id()


def boottime_s() -> float:
    """Return the seconds since the boot that `boot_id` identifies, or of this process's own clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _is_measured() else time.monotonic()


@functools.cache
def _is_measured() -> bool:
    """Return whether all processes of this boot read the same clock.

    They do not if a container has a /proc of its own (lxcfs), or if a library gives this process another time
    (libfaketime): what one of them measured must not be compared with what another did.
    """
    if not hasattr(time, "CLOCK_BOOTTIME") or not fingerprint.boot_id():
        return False
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        uptime_s = float(_UPTIME.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return False
    return before_s - _TOLERANCE_S <= uptime_s <= time.clock_gettime(time.CLOCK_BOOTTIME) + _TOLERANCE_S


@functools.cache
def _time_namespace() -> str:
    """Return the namespace whose clocks this process reads, or "" if the system has none."""
    try:
        return os.readlink("/proc/self/ns/time")
    except OSError:
        return ""


@functools.cache
def _process_id() -> str:
    return f"process {secrets.token_hex(16)}"
