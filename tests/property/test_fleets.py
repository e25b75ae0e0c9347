"""Random fleets with all features at once keep every promise; see `tests.support.fleets`. The campaign plays thousands."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.support.fleets import agents, ending, importing, merging, pushing, steps, trials
from tests.support.fleets.fleet import Fleet
from tests.support.fleets.trials import Options
from tests.support.fleets.upstream import Upstream
from tests.support.forms import others_slow, short_and_full


@pytest.mark.parametrize("form", steps.FORMS)
@pytest.mark.parametrize(("fleets", "longest"), short_and_full((2, 30), (28, trials.LONGEST)))
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


#: Steps in an order in which each finds something to do.
_ROUND = (
    *("forget_peer", "write_unfit", "write", "write_unfit", "push_store", "write", "kill_push", "push_store"),
    *("constrain_server", "write_unfit", "drain", "push_store", "retry_rejected", "snapshot", "write_unfit", "drain"),
    *("push_store", "dismiss_rejected", "retry_rejected", "compare_with_server", "constrain_server", "write_unfit"),
    *("drain", "push_store", "retry_rejected", "restore", "push_store", "erase"),
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_each_row_is_pushed_once_or_rejected_or_dismissed(pg: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in (agents, merging, pushing):
        monkeypatch.setattr(family, "DEVICES", ("boat",))  # so that each step is about the same rows
    chance, fleet = random.Random(seed), Fleet(seed=f"pushes {seed}")
    fleet.server = Upstream(pg)
    try:
        for name in (*_ROUND, *_ROUND):
            fleet.say(name)
            fleet.counts[name] += steps.STEPS[name].play(fleet, chance.choice) is not False
        ending.settle(fleet)
        pushing.finish(fleet)
    except BaseException:
        print("\n".join(fleet.log))
        raise
    finally:
        fleet.remove()
    assert fleet.counts.keys() >= {*_ROUND, "rows dismissed", "rows compared with PostgreSQL"}
    assert all(fleet.counts[each] for each in ("rows rejected by the server", "rejected rows that were pushed later"))


@pytest.mark.parametrize("form", others_slow(steps.FORMS, ["honest"]))
def test_a_seed_plays_the_same_fleet_again(form: str) -> None:
    options = Options(seed=2, form=form, longest=20)
    assert trials.play_trial(options, 0) == trials.play_trial(options, 0)


def test_a_step_can_be_left_out_by_its_name() -> None:
    assert "write" in {step.name for step in steps.deck("honest")}
    assert "write" not in {step.name for step in steps.deck("honest", ["write"])}
    assert {step.name for step in steps.deck("hostile")} > {step.name for step in steps.deck("honest")}
