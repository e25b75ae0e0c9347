"""Summarize the values of several rounds as median, lowest and highest."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import attrs


@attrs.frozen
class Spread:
    """Median and range of one figure over several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def from_values(cls, values: Iterable[float]) -> Spread:
        """Summarize one value per round."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1])
