"""Sizes and durations as people read them."""

from __future__ import annotations

_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))

_DURATIONS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def size(count_bytes: int) -> str:
    """A number of bytes: "1.2 MB"."""
    for unit_bytes, unit in _SIZES:
        if count_bytes >= unit_bytes:
            return f"{count_bytes / unit_bytes:.1f} {unit}"
    return f"{count_bytes} B"


def duration(time_s: float) -> str:
    """A time in whole units, rounded down: "3 min", "26 h", "9 d"."""
    for unit_s, unit in _DURATIONS:
        if time_s >= 2 * unit_s:  # "2 h" says less than "100 min"
            return f"{int(time_s // unit_s)} {unit}"
    return f"{int(time_s)} s"
