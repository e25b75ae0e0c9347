"""Write the current time as text, for rows that are stored many times in a millisecond."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable


def make_clock() -> Callable[[], str]:
    """Return a function that returns the time as ISO 8601 in UTC, to the millisecond.

    It makes a text once in a millisecond: that takes about as long as making the JSON of a small dict. Several threads
    may call it. The clock may be set back.
    """
    now_s, to_datetime, utc = time.time, datetime.datetime.fromtimestamp, datetime.UTC
    text, since_s, until_s = "", 0.0, 0.0

    def now_text() -> str:
        nonlocal text, since_s, until_s
        time_s = now_s()
        if not since_s <= time_s < until_s:
            text = to_datetime(time_s, utc).isoformat(timespec="milliseconds")
            since_s = time_s * 1000 // 1 / 1000
            until_s = since_s + 0.001
        return text

    return now_text
