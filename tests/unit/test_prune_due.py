"""When a prune is due."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeshard.reports import PruneReport
from edgeshard.retention import due
from edgeshard.retention.due import LastRun, MasterState, is_due
from edgeshard.retention.rules import Rules

LOOK = MasterState(at=1_000.0, clock_s=0.0, state=(1,), file_bytes=0)


AFTER = LastRun(at=0.0, report=PruneReport(rows=1), state=(1,), next_age_s=1.0)


RULES = st.builds(
    Rules,
    older_than_s=st.none() | st.floats(0, 1e9),
    keep_rows=st.none() | st.integers(0, 100),
    max_bytes=st.none() | st.integers(1_000_000, 2_000_000),
    peer_kinds=st.none() | st.just(("postgresql",)),
)


@given(RULES, st.floats(0, 1e9))
def test_an_idle_store_is_never_due_again_before_its_rows_become_too_old(rules: Rules, waited_s: float) -> None:
    assert not due.is_due(rules, AFTER, attrs.evolve(LOOK, at=waited_s))


@given(RULES, st.floats(0, 59), st.floats(0, 1e9))
def test_nothing_but_size_makes_it_due_within_a_minute(rules: Rules, waited_s: float, clock_s: float) -> None:
    look = MasterState(waited_s, clock_s, (2,), file_bytes=1_000_000)
    assert not due.is_due(rules, AFTER, look)


@pytest.mark.parametrize(
    ("rules", "change", "due"),
    [
        (Rules(keep_rows=1), {"state": (2,)}, True),
        (Rules(max_bytes=1_000_000), {"state": (2,)}, True),
        (Rules(older_than_s=60.0), {"state": (2,)}, False),
        (Rules(older_than_s=60.0, peer_kinds=("postgresql",)), {"state": (2,)}, True),
        (Rules(older_than_s=60.0), {"clock_s": 1.0}, True),
        (Rules(older_than_s=86_400.0 * 30), {"clock_s": 1.0}, False),
        (Rules(older_than_s=86_400.0 * 30), {"clock_s": 1.0, "at": 3_600.0}, True),
        (Rules(max_bytes=1_000_000), {"at": 10.0, "file_bytes": 1_100_000}, True),
        (Rules(max_bytes=1_000_000), {"at": 9.0, "file_bytes": 1_100_000}, False),
    ],
)
def test_a_prune_is_due_for_a_reason(rules: Rules, change: dict[str, Any], due: bool) -> None:
    assert due == is_due(rules, AFTER, attrs.evolve(LOOK, **change))


def test_the_first_is_due_at_once_and_one_that_failed_after_a_minute() -> None:
    rules = Rules(keep_rows=1)
    assert due.is_due(rules, None, LOOK)
    assert [False, True] == [due.is_due(rules, LastRun(0.0), attrs.evolve(LOOK, at=at)) for at in (59.0, 60.0)]


@given(RULES, st.integers(0, 10**6), st.integers(0, 10**7), st.booleans())
def test_one_that_is_to_write_less_waits_ten_times_as_long(
    rules: Rules, waited_s: int, size: int, changed: bool
) -> None:
    look = MasterState(waited_s, clock_s=2.0, state=(1 + changed,), file_bytes=size)
    slow = attrs.evolve(look, at=10 * waited_s)
    assert due.is_due(rules, AFTER, look) == due.is_due(rules, AFTER, slow, slowness=10.0)


def test_looking_in_vain_takes_a_hundredth_of_the_time_at_the_most() -> None:
    in_vain = LastRun(at=0.0, report=PruneReport(kept_back=9, seconds=6.0), state=(1,))
    looks = [attrs.evolve(LOOK, at=at, state=(2,)) for at in (599.0, 600.0)]
    assert [False, True] == [due.is_due(Rules(keep_rows=1), in_vain, look) for look in looks]


@pytest.mark.parametrize("report", [PruneReport(rows=1, fits=False), PruneReport(rows=1, can_shrink=False)])
def test_a_size_that_a_prune_cannot_bring_about_does_not_hurry_it(report: PruneReport) -> None:
    past = attrs.evolve(AFTER, report=report)
    assert not due.is_due(Rules(max_bytes=1_000_000), past, attrs.evolve(LOOK, at=30.0, file_bytes=9_000_000))
