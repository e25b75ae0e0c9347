"""A keyed table of last known values, and a plain one for the same rows."""

from __future__ import annotations

import attrs

import edgeshard


@edgeshard.table(key="sensor")
@attrs.frozen
class LastKnown:
    sensor: str
    value: float


@attrs.frozen
class Reading:
    sensor: str
    value: float


def values(store: edgeshard.Store) -> dict[str, float]:
    """Return the last known value of each sensor."""
    return {row.sensor: row.value for row in store.query("SELECT sensor, value FROM last_known")}
