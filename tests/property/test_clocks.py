"""Laws of clocks: whatever the clocks of a device show, no row is pruned early, all are in the end, the last write wins.

The scenarios, and what is checked, are in `tests.support.simulated_clocks`; `python -m tests.campaigns.clocks` plays
many more of them.
"""

from __future__ import annotations

import pytest

from tests.support import simulated_clocks


@pytest.mark.parametrize("seed", [*range(8), 230, 469])  # the last two restart with a clock that is behind
def test_whatever_the_clocks_show_nothing_is_pruned_early_and_the_last_write_wins(seed: int) -> None:
    simulated_clocks.play(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1_000, 1_300, 30))
def test_the_same_at_length(first: int) -> None:
    for seed in range(first, first + 30):
        simulated_clocks.play(seed)
