"""How long a shard's WAL may become before its writer checkpoints it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeshard.shard import wal_limit
from edgeshard.shard.wal_limit import LEAST_BYTES, MOST_BYTES, are_pages_rewritten, choose_limit

MB = 1_000_000


@pytest.mark.parametrize(
    ("bytes_per_s", "free_bytes", "expected"),
    [
        (0, 1 << 40, LEAST_BYTES),
        (MB, 1 << 40, LEAST_BYTES),
        (5 * MB, 1 << 40, 20 * MB),
        (100 * MB, 1 << 40, MOST_BYTES),
        (100 * MB, 8_000 * MB, 8_000 * MB // 256),
        (100 * MB, 1_000 * MB, LEAST_BYTES),
        (100 * MB, 0, LEAST_BYTES),
    ],
)
def test_the_limit_follows_the_rate_within_what_the_disk_can_spare(
    bytes_per_s: int, free_bytes: int, expected: int
) -> None:
    assert expected == choose_limit(LEAST_BYTES, bytes_per_s, free_bytes)


@given(st.integers(1, LEAST_BYTES), st.floats(0, 1e12), st.integers(0, 1 << 50))
def test_a_hundred_agents_without_a_merger_take_less_than_half_of_the_free_space(
    least: int, bytes_per_s: float, free_bytes: int
) -> None:
    limit = choose_limit(least, bytes_per_s, free_bytes)
    assert least <= limit <= max(least, MOST_BYTES)
    assert limit == least or 100 * limit < free_bytes / 2


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 1 << 50))
def test_who_writes_more_has_no_shorter_limit(one: float, other: float, free_bytes: int) -> None:
    low, high = sorted((one, other))
    least = wal_limit.LEAST_BYTES_AT_POWER
    assert choose_limit(least, low, free_bytes) <= choose_limit(least, high, free_bytes)


@pytest.mark.parametrize(
    ("pages", "rows", "page_bytes", "expected"),
    [
        (0, 0, 1_024, False),
        (1_300, 1_000, 1_024, True),
        (1_500, 1_000, 512, True),
        (500, 1_000, 1_024, True),
        (200, 1_000, 1_024, False),
        (2_000, 1_000, 1_024, False),
        (10_000, 1_000, 1_024, False),
        (150, 1_000, 8_192, False),  # rows of 1 KB in large commits
        (1_300, 1_000, 8_192, False),  # and of 10 KB
    ],
)
def test_small_rows_committed_one_by_one_are_told_from_others(
    pages: int, rows: int, page_bytes: int, expected: bool
) -> None:
    assert expected == are_pages_rewritten(pages, rows, page_bytes)
