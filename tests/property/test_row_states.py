"""Every known row is in exactly one state, and no row is deleted from a shard unless the master had that very row."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeshard.format.ranges import PrunedRange, Range, intersect, size, union
from edgeshard.master.row_states import StreamRows, count_states, divide_absent
from tests.support.few_examples import QUIET
from tests.support.forms import short_and_full
from tests.support.in_memory import IN_MEMORY
from tests.support.row_history import FORGED, RESTORED, STEPS, History
from tests.support.wall_clock import Wall


@pytest.mark.parametrize("examples", short_and_full(3, 100))
def test_each_row_is_in_one_state_and_none_is_deleted_that_the_master_never_had(examples: int, wall: Wall) -> None:
    check_law(wall, settings(max_examples=examples))


@pytest.mark.parametrize("examples", short_and_full(2, 100))
def test_the_same_holds_once_pruned_rows_came_again_after_a_restore(examples: int, wall: Wall) -> None:
    check_law(wall, settings(max_examples=examples), RESTORED)


def check_law(wall: Wall, profile: settings, between: st.SearchStrategy[list[Any]] = FORGED) -> Counter[str]:
    """Raise where the law does not hold; return the highest count of each state.

    Args:
        wall: the clocks.
        profile: how many histories to try.
        between: steps that each history has somewhere.
    """
    seen: Counter[str] = Counter()

    @settings(profile, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    @given(STEPS, between, STEPS)
    def law(before: list[Any], steps: list[Any], after: list[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="edgeshard-states-", dir=IN_MEMORY) as folder:
            history = History(Path(folder), wall)
            try:
                for step in [*before, *steps, *after]:
                    history.step(step)
            finally:
                history.close()
            for state, rows in history.seen.items():
                seen[state] = max(seen[state], rows)

    law()
    return seen


# -- the pure functions -----------------------------------------------------------------------------------------------

_RANGES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda at: Range(at[0], at[0] + at[1])))


@settings(deadline=None, suppress_health_check=QUIET)
@given(st.integers(0, 50), _RANGES, _RANGES, _RANGES, _RANGES, _RANGES, _RANGES, st.data())
def test_the_states_of_a_stream_are_disjoint_and_complete(
    last_seq: int,
    held: list[Range],
    pending: list[Range],
    pruned: list[Range],
    collected: list[Range],
    erased: list[Range],
    accepted: list[Range],
    data: st.DataObject,
) -> None:
    held = intersect(union(held), [Range(1, last_seq)] if last_seq else [])
    notes = [PrunedRange(part, b"own", "keep rows", "") for part in pruned]
    notes += [PrunedRange(part, b"own", "tombstone", "") for part in collected]
    notes += [PrunedRange(part, b"own", "erased", "") for part in erased]
    stream = StreamRows(b"s", "a", last_seq, held, notes, union(accepted))
    absent = divide_absent(stream, pending)
    parts = [absent.pending, absent.collected, absent.erased, absent.pruned, absent.written_off, absent.missing]
    known = union([*([Range(1, last_seq)] if last_seq else []), *pending])
    assert known == union([*held, *(part for parts in parts for part in parts)])
    assert size(known) == size(held) + sum(map(size, parts))
    assert not intersect(absent.missing, [*pending, *pruned, *collected, *erased, *accepted])
    in_blocks = data.draw(st.integers(0, size(held)))
    without_row = data.draw(st.integers(0, in_blocks))
    own_collected = data.draw(st.integers(0, size(held) - in_blocks))
    by_hand = intersect(held, data.draw(_RANGES))
    by_hand = by_hand if size(by_hand) <= size(held) - in_blocks - own_collected else []
    own_erased = data.draw(st.integers(0, size(held) - in_blocks - own_collected - size(by_hand)))
    counted = count_states(
        attrs.evolve(
            stream,
            block_rows=in_blocks,
            superseded_rows=without_row,
            collected_rows=own_collected,
            erased_rows=own_erased,
            by_hand=by_hand,
        ),
        pending,
    )
    assert min(attrs.astuple(counted)) >= 0
    assert size(known) == counted.total
    assert (in_blocks, size(held)) == (
        counted.present + counted.superseded,
        counted.total - sum(map(size, parts)),
    )
