"""Ages and sizes as users write them."""

from __future__ import annotations

from typing import Any

import pytest

from edgeshard.errors import quoted
from edgeshard.retention import quantities
from tests.support.clocks import DAY_S


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * DAY_S), (" 12 H ", 43_200), ("90m", 5_400), ("1.5h", 5_400), ("2w", 14 * DAY_S), ("0s", 0), (7, 7)],
)
def test_ages(text: str | int, seconds: float) -> None:
    assert seconds == quantities.age_s(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "d",
        "-1d",
        "30 years",
        "nan",
        "1e3d",
        "٣d",
        float("nan"),
        -1,
        "9999999d",
        "9" * 5_000 + "d",
        10**5_000,
        -(10**400),
    ],
    ids=quoted,
)
def test_what_is_no_age_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="age must be"):
        quantities.age_s(text)


@pytest.mark.parametrize(
    ("text", "size"), [("500M", 500_000_000), ("2GB", 2 * 10**9), ("1.5 MiB", 3 << 19), (1_000_000, 1_000_000)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert size == quantities.size_bytes(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "500",
        "999K",
        "-2G",
        "2X",
        "2iB",
        0,
        -1,
        "0.9M",
        "9" * 400 + "M",
        "1000001T",
        10**18 + 1,
        10**5_000,
        float("inf"),
        float("nan"),
    ],
    ids=quoted,
)
def test_what_is_no_size_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="size must be"):
        quantities.size_bytes(text)


@pytest.mark.parametrize("rows", [-1, 1.0, "5", True, None, 10**18, 2**63, 10**5_000, float("nan")], ids=quoted)
def test_what_is_no_number_of_rows_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="number of rows must be"):
        quantities.row_count(rows)


def test_the_largest_quantities() -> None:
    assert 10**18 == quantities.size_bytes("1000000T") == quantities.size_bytes(10**18)
    assert 10**18 - 1 == quantities.row_count(10**18 - 1)
    assert 365_250 * DAY_S == quantities.age_s("365250d")
