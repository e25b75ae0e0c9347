"""The README's record, which many tests write."""

from __future__ import annotations

import datetime

import attrs

import edgeshard

NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)


@edgeshard.table(index=["sensor"])
@attrs.frozen
class Reading:
    """The README's record."""

    sensor: str
    celsius: float
    at: datetime.datetime
