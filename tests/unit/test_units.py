"""Counts, sizes and durations as people read them."""

from __future__ import annotations

import pytest

from edgeshard import units


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("0 B", units.size(0)),
        ("999 B", units.size(999)),
        ("1.0 kB", units.size(1000)),
        ("1.2 MB", units.size(1_200_000)),
        ("4.0 GB", units.size(4_000_000_000)),
        ("7.5 TB", units.size(7_500_000_000_000)),
        ("-1.5 kB", units.size(-1500)),
        ("0 rows", units.count(0, "row")),
        ("1 row", units.count(1, "row")),
        ("1,200 rows", units.count(1200, "row")),
        ("1 entry", units.count(1, "entry", "entries")),
        ("2 entries", units.count(2, "entry", "entries")),
        ("0 s", units.duration(0.9)),
        ("119 s", units.duration(119.9)),
        ("2 min", units.duration(120)),
        ("119 min", units.duration(7199)),
        ("26 h", units.duration(26 * 3600)),
        ("9 d", units.duration(9.5 * 86400)),
    ],
)
def test_amounts_as_people_read_them(expected: str, actual: str) -> None:
    assert expected == actual
