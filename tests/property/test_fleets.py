"""Random fleets with all features at once keep every promise; see `tests.support.fleets`. The campaign plays thousands."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.fleets import importing, steps, trials
from tests.support.fleets.trials import Options
from tests.support.forms import others_slow, short_and_full


@pytest.mark.parametrize("form", steps.FORMS)
@pytest.mark.parametrize(("fleets", "longest"), short_and_full((2, 30), (40, trials.LONGEST)))
def test_random_fleets_keep_every_promise(form: str, fleets: int, longest: int) -> None:
    options = Options(seed=1, form=form, longest=longest)
    for number in range(fleets):
        trials.play_trial(options, number)


@pytest.mark.parametrize("fleets", short_and_full(1, 20))
def test_each_imported_line_is_there_once_whatever_is_killed_or_put_back(fleets: int) -> None:
    others = ("merge", "drain", "close", "copy", "restore", "forget", "erase", "kill_merger", "move_clock")
    without = steps.STEPS.keys() - {*importing.NAMES, *others}
    counts: Counter[str] = Counter()
    for number in range(fleets):
        counts += trials.play_trial(Options(seed=4, without=without, longest=30), trials.IMPORTS_EVERY * number)
    assert counts["lines imported"]
    if fleets > 1:  # where a kill hits depends on how fast this machine is
        assert counts.keys() >= {"imports killed", "imports refused", "lines that came again"}


@pytest.mark.slow
def test_a_fleet_ends_in_postgresql_with_the_same_rows(pg: str) -> None:
    trials.play_trial(Options(seed=1, longest=20, dsn=pg), 0)


@pytest.mark.parametrize("form", others_slow(steps.FORMS, ["honest"]))
def test_a_seed_plays_the_same_fleet_again(form: str) -> None:
    options = Options(seed=2, form=form, longest=20)
    assert trials.play_trial(options, 0) == trials.play_trial(options, 0)


def test_a_step_can_be_left_out_by_its_name() -> None:
    assert "write" in {step.name for step in steps.deck("honest")}
    assert "write" not in {step.name for step in steps.deck("honest", ["write"])}
    assert {step.name for step in steps.deck("hostile")} > {step.name for step in steps.deck("honest")}
