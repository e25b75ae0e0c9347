"""Sizes and durations as people read them."""

from __future__ import annotations

import pytest

from edgeshard.cli import output


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("0 B", output.size(0)),
        ("999 B", output.size(999)),
        ("1.0 kB", output.size(1000)),
        ("1.2 MB", output.size(1_200_000)),
        ("4.0 GB", output.size(4_000_000_000)),
        ("7.5 TB", output.size(7_500_000_000_000)),
        ("0 s", output.duration(0.9)),
        ("119 s", output.duration(119.9)),
        ("2 min", output.duration(120)),
        ("119 min", output.duration(7199)),
        ("26 h", output.duration(26 * 3600)),
        ("9 d", output.duration(9.5 * 86400)),
    ],
)
def test_sizes_and_durations_as_people_read_them(expected: str, actual: str) -> None:
    assert expected == actual
