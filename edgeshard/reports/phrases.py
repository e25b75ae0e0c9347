"""Phrases that the lines of several reports have in common."""

from __future__ import annotations

from collections.abc import Sequence

from edgeshard import units

#: Names of agents or databases in one line of a report, before the rest is only counted.
_NAMED_MAX = 5


def rows_of_streams(rows: int, streams: int) -> str:
    """Return how many rows of how many streams."""
    return f"{units.count(rows, 'row')} of {units.count(streams, 'stream')}"


def count_missing(rows: int, gaps: int, *, dry_run: bool = False) -> str:
    """Return how many rows are missing in how many gaps, or would be."""
    return f"{units.count(rows, 'row')}{' would be' if dry_run else ''} missing in {units.count(gaps, 'gap')}"


def first_few(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f"; and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return "; ".join(names[:_NAMED_MAX]) + more
