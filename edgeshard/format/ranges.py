"""Sets of seqs as sorted, disjoint, non-adjacent intervals that include both ends. Pure functions."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Iterable, Sequence
from typing import Final

import attrs


@attrs.frozen
class PrunedRange:
    """Rows of a stream that a database pruned.

    Attributes:
        seqs: the rows.
        database_id: the database.
        reason: the rule that selected them.
        pruned_at: when the last of them was pruned, ISO 8601.
    """

    seqs: Range
    database_id: bytes
    reason: str
    pruned_at: str


@attrs.frozen(order=True)
class Range:
    """The seqs ``first`` to ``last`` of a stream, including both."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


_FIRST: Final = operator.attrgetter("first")


def union(ranges: Iterable[Range]) -> list[Range]:
    """Return the same seqs in as few intervals as possible, in order."""
    given = list(ranges)
    if len(given) < 2:  # almost always
        return given
    result: list[Range] = []
    for item in sorted(given, key=_FIRST):  # comparing Ranges themselves takes ten times as long
        if result and item.first <= result[-1].last + 1:
            result[-1] = Range(result[-1].first, max(result[-1].last, item.last))
        else:
            result.append(item)
    return result


def subtract(ranges: Iterable[Range], holes: Iterable[Range]) -> list[Range]:
    """Return the seqs of `ranges` that are in none of `holes`, in order."""
    result: list[Range] = []
    holes = union(holes)
    if not holes:  # often
        return union(ranges)
    at = 0  # both are sorted: a hole before one range is before all later ones
    for item in union(ranges):
        first = item.first
        while at < len(holes) and holes[at].last < first:
            at += 1
        while at < len(holes) and holes[at].first <= item.last:
            if holes[at].first > first:
                result.append(Range(first, holes[at].first - 1))
            first = holes[at].last + 1
            if holes[at].last > item.last:
                break  # the hole may reach into the next range
            at += 1
        if first <= item.last:
            result.append(Range(first, item.last))
    return result


def intersect(ranges: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """Return the seqs that are in both, in order."""
    others = union(others)
    return [part for item in union(ranges) for part in clip(others, item)]


def clip(ranges: Sequence[Range], to: Range) -> list[Range]:
    """Return the parts of sorted, disjoint ranges that lie in `to`; like `intersect`, but by binary search."""
    clipped = []
    for at in range(bisect.bisect_left(ranges, to.first, key=lambda item: item.last), len(ranges)):
        if ranges[at].first > to.last:
            break
        clipped.append(Range(max(ranges[at].first, to.first), min(ranges[at].last, to.last)))
    return clipped


def add(ranges: list[Range], added: Iterable[Range]) -> None:
    """Add seqs to sorted, disjoint, non-adjacent ranges in place. It looks only at those around what is added."""
    new = union(added)
    if new:
        places = _places_around(ranges, Range(new[0].first, new[-1].last))
        ranges[places] = union([*ranges[places], *new])


def _places_around(ranges: Sequence[Range], to: Range) -> slice:
    first = bisect.bisect_left(ranges, to.first - 1, key=lambda item: item.last)
    return slice(first, bisect.bisect_right(ranges, to.last + 1, lo=first, key=lambda item: item.first))


def size(ranges: Iterable[Range]) -> int:
    """Return the number of seqs in these disjoint intervals."""
    return sum(len(item) for item in ranges)


def prefix(ranges: Iterable[Range], first: int) -> int:
    """Return the last seq of the unbroken run that starts at `first`, or ``first - 1`` if `first` is missing."""
    for item in union(ranges):
        if item.first <= first <= item.last:
            return item.last
    return first - 1
