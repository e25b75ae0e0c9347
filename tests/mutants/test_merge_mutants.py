"""Break a merge on purpose, and expect the laws of merging and random fleets to find it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import edgeshard
from edgeshard.shard import store_master
from tests.integration.merge.test_blocked_rows import check_random_transactions
from tests.mutants.merge_mutants import BLOCKED_MUTANTS, MUTANTS, TRUST_MUTANTS, broken
from tests.property import test_merge_laws as laws
from tests.property import test_row_states as row_states
from tests.support.few_examples import FEW
from tests.support.fleets.trials import Options, play_trial
from tests.support.wall_clock import Wall

pytestmark = pytest.mark.slow

LAWS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "idempotent": (laws.test_merging_again_changes_nothing, ("forget ranges held before",)),
    "commutative": (
        laws.test_the_order_of_merging_makes_no_difference,
        ("take the last seq of the last source", "do not add indexes to an existing table"),
    ),
    "associative": (
        laws.test_hubs_between_make_no_difference,
        ("do not pass on gaps", "do not copy transactions", "do not copy indexes"),
    ),
    "absorbing": (
        laws.test_a_part_merged_before_makes_no_difference_to_the_whole,
        ("do not pass on filled gaps", "copy a stream whole if a row of it is missing"),
    ),
}


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, (_, mutants) in LAWS.items() for mutant in mutants])
def test_each_law_finds_the_mutants_that_break_it(law: str, mutant: str) -> None:
    held: Any = LAWS[law][0]
    many = settings(FEW, max_examples=200, phases=[Phase.generate], derandomize=True, report_multiple_bugs=False)
    with broken(mutant), pytest.raises((AssertionError, edgeshard.EdgeshardError)):
        many(given(st.data())(held.hypothesis.inner_test))()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_random_fleets_find_every_mutant(mutant: str) -> None:
    options = Options(seed=3)
    with broken(mutant), pytest.raises((AssertionError, edgeshard.EdgeshardError)):
        for number in range(200):
            play_trial(options, number)


@pytest.mark.parametrize("mutant", BLOCKED_MUTANTS)
def test_random_fleets_find_every_mutant_of_blocked_rows(mutant: str) -> None:
    options = Options(seed=11)
    with broken(mutant), pytest.raises((AssertionError, edgeshard.EdgeshardError)):
        for number in range(100):
            play_trial(options, number)


@pytest.mark.timeout(900)  # one is found late: after three minutes on a busy machine
@pytest.mark.parametrize("mutant", TRUST_MUTANTS)
def test_the_law_of_row_states_finds_every_mutant_of_trust(mutant: str, wall: Wall) -> None:
    many = settings(max_examples=300, phases=[Phase.generate], derandomize=True, database=None)
    with broken(mutant), pytest.raises(AssertionError):
        row_states.check_law(wall, many)


@pytest.mark.parametrize("mutant", BLOCKED_MUTANTS)
def test_random_transactions_find_every_mutant_of_blocked_rows(mutant: str, tmp_path: Path) -> None:
    with mock.patch.object(store_master, "ensure_fits"), broken(mutant), pytest.raises(AssertionError):
        check_random_transactions(tmp_path, trials=20)
