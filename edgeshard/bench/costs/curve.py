"""Define a cost curve, and the scales of the short and the full profile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import attrs

from edgeshard.bench.spread import Spread

#: Seconds, a number per second, or bytes.
Unit = Literal["s", "1/s", "B"]
#: Points of curves, as (x, figure), by the label of the line.
Lines = dict[str, list[tuple[float, Spread]]]


@attrs.frozen
class Curve:
    """A cost as a function of a size.

    Attributes:
        name: the curve's name in `registry.CURVES`.
        title: what is measured.
        x_title: what the x axis counts.
        unit: unit of the figures.
        lines: the figures of each line, with their x.
    """

    name: str
    title: str
    x_title: str
    unit: Unit
    lines: Lines


@attrs.frozen
class Scale:
    """How far the curves go.

    Attributes:
        rounds: how often each point is measured.
        payloads: payload sizes of a row, in bytes.
        row_bytes: payload bytes that are written or merged at a time.
        shards: numbers of shards.
        master_rows: numbers of rows in the master.
        batch_rows: rows of a merge whose cost is measured.
        wakes: how often a merger is woken.
        processes: numbers of processes that compete for processors, and of agents whose bytes are counted.
    """

    rounds: int
    payloads: tuple[int, ...]
    row_bytes: int
    shards: tuple[int, ...]
    master_rows: tuple[int, ...]
    batch_rows: int
    wakes: int
    processes: tuple[int, ...] = (1, 10, 100)


SHORT: Final = Scale(2, (100, 1_000, 10_000), 2_000_000, (1, 10, 100), (10_000, 100_000), 10_000, 3)
FULL: Final = Scale(
    9,
    (100, 1_000, 10_000),
    20_000_000,
    (1, 10, 100, 1_000, 10_000),
    (10_000, 100_000, 1_000_000, 10_000_000),
    10_000,
    50,
)


def empty_lines(labels: Iterable[str]) -> Lines:
    """Return a line without points for each label."""
    return {label: [] for label in labels}
