"""Write amounts for people: counts with their noun, bytes and durations. JSON and metrics have plain numbers."""

from __future__ import annotations

import datetime
import math
from typing import Final

_SIZES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

_DURATIONS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def count(number: int, noun: str, plural: str = "") -> str:
    """Format how many there are of something: "1 row", "1,200 rows".

    Args:
        number: how many.
        noun: what is counted, in the singular.
        plural: its plural, unless that is the singular with an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(count_bytes: float) -> str:
    """Format a number of bytes in decimal units: "1.2 MB"."""
    sign, rest = "-" if count_bytes < 0 else "", abs(count_bytes)
    for unit_bytes, unit in _SIZES:
        if rest >= unit_bytes:
            return f"{sign}{rest / unit_bytes:.1f} {unit}"
    return f"{sign}{rest:.0f} B"


def size_at_least(count_bytes: float) -> str:
    """Format a number of bytes that somebody has to provide: as `size`, but rounded up."""
    unit_bytes = next((unit_bytes for unit_bytes, _ in _SIZES if count_bytes >= unit_bytes), 1)
    return size(math.ceil(count_bytes / unit_bytes * 10) / 10 * unit_bytes)


def duration(time_s: float) -> str:
    """Format a time in whole units, rounded down: "3 min", "26 h", "9 d"."""
    for unit_s, unit in _DURATIONS:
        if time_s >= 2 * unit_s:  # "2 h" says less than "100 min"
            return f"{int(time_s // unit_s)} {unit}"
    return f"{int(time_s)} s"


def ago(when: datetime.datetime | None, at: datetime.datetime) -> str:
    """Format how long before `at` something was: "3 min ago", or "never" if `when` is None."""
    return "never" if when is None else f"{duration(max(0.0, (at - when).total_seconds()))} ago"


def process(what: str, pid: int | None) -> str:
    """Name a process: "a watcher (pid 4711)", without its number if that is not known."""
    return what if pid is None else f"{what} (pid {pid})"
