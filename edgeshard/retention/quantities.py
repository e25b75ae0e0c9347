"""Parse ages, row counts and sizes, as people write them."""

from __future__ import annotations

import datetime
import re
from typing import Final

from edgeshard.errors import quoted

#: The smallest size that a rule may have, in bytes: a number without its unit would delete everything.
MIN_MAX_BYTES: Final = 1_000_000

#: The largest size, in bytes: a million TB, which no file system has, and well within what SQLite can count.
MAX_MAX_BYTES: Final = 10**18

#: The largest number of rows: more than a master can hold, and well within what SQLite can count.
MAX_ROWS: Final = 10**18 - 1

_AGE_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_SIZE_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.ASCII)

#: 1000 years: an older age is a mistake.
_AGE_MAX_S = 1_000 * 365.25 * 86_400


def age_s(age: str | float | datetime.timedelta) -> float:
    """Parse an age: "30d", "12h", "90m" (minutes), "2w", "45s", a timedelta, or a number of seconds.

    Returns:
        The age in seconds.

    Raises:
        ValueError: it is invalid; the text says what is expected.
    """
    if isinstance(age, datetime.timedelta):
        value = age.total_seconds()
    elif isinstance(age, str):
        found = _AGE.fullmatch(age.strip().lower())
        if found is None or found[2] not in _AGE_UNITS_S:
            raise ValueError(f"age must be a number and a unit, such as 30d, 12h, 90m or 45s, got {quoted(age)}")
        value = float(found[1]) * _AGE_UNITS_S[found[2]]
    elif isinstance(age, (int, float)) and not isinstance(age, bool):
        value = age
    else:
        raise ValueError(f"age must be a text such as 30d, a timedelta, or a number of seconds, got {quoted(age)}")
    if not 0 <= value <= _AGE_MAX_S:  # nor NaN
        raise ValueError(f"age must be between 0 and 1000 years, got {quoted(age)}")
    return float(value)


def size_bytes(size: str | int) -> int:
    """Parse a size: "500M" or "500MB" (millions), "2G", "512MiB" (2**20), or a number of bytes.

    Returns:
        The size in bytes.

    Raises:
        ValueError: it is invalid, less than `MIN_MAX_BYTES`, or more than `MAX_MAX_BYTES`.
    """
    if isinstance(size, str):
        found = _SIZE.fullmatch(size.strip().lower())
        if found is None or (found[3] and not found[2]):
            raise ValueError(f"size must be a number and a unit, such as 500M, 2G or 512MiB, got {quoted(size)}")
        value = float(found[1]) * (1024 if found[3] else 1000) ** _SIZE_EXPONENTS[found[2]]
    elif isinstance(size, (int, float)) and not isinstance(size, bool):
        value = size
    else:
        raise ValueError(f"size must be a text such as 500M, or a number of bytes, got {quoted(size)}")
    if value > MAX_MAX_BYTES:
        raise ValueError(f"size must be at most {MAX_MAX_BYTES // 10**12}T, got {quoted(size)}")
    if not value >= MIN_MAX_BYTES:  # nor is NaN
        raise ValueError(f"size must be at least 1M, got {quoted(size)}")
    return int(value)


def row_count(rows: int) -> int:
    """Check a number of rows.

    Raises:
        ValueError: it is not a whole number, negative, or more than `MAX_ROWS`.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise ValueError(f"number of rows must be a whole number, at least 0, got {quoted(rows)}")
    if rows > MAX_ROWS:
        raise ValueError(f"number of rows must be at most {MAX_ROWS}, got {quoted(rows)}")
    return rows
