"""Format numbers for people: bytes, seconds and counts."""

from __future__ import annotations


def size(count: float) -> str:
    """Format a number of bytes with three significant digits: 1.5 KB."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def duration(seconds: float) -> str:
    """Format a time with about two significant digits: 8.4 µs, 26 ms, 2.0 s."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            value = seconds * factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds:.1f} s"


def number(value: float) -> str:
    """Format a number without a unit: 0.1, 10,000,000."""
    return f"{value:g}" if value % 1 else f"{value:,.0f}"
