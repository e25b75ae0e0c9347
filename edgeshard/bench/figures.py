"""A figure over several rounds: median, lowest and highest."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

import attrs


@attrs.frozen
class Figure:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """The figure of one value a round."""
        ordered = sorted(values)
        return cls(median(ordered), ordered[0], ordered[-1])
