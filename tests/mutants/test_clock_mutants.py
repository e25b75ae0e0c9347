"""Faults in the rules for clocks, each of which the laws of clocks must find within a few scenarios."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from edgeshard.master import arrivals, clock_trust
from edgeshard.master.clock_trust import Jump, TrustedClock
from edgeshard.records import hlc
from edgeshard.records.machine_clock import ClockReading
from tests.support import simulated_clocks
from tests.support.simulated_clocks import a_year_off, first_boot_in_1970, glitch, two_years_idle, wrong_by_a_year

pytestmark = pytest.mark.slow

#: Scenarios of one kind that are played until one fails.
SEEDS = range(60)

_confirm, _advance = clock_trust._confirm, clock_trust.advance


def _without_shifts(clock: TrustedClock, due: Any) -> Any:
    return _confirm(clock, due)[0], ()


def _discard_nothing(jumps: tuple[Jump, ...], _: float) -> tuple[Jump, ...]:
    return jumps


def _do_not_move_the_reference(self: Any) -> int:
    return int(self._known_us)


#: (owner, attribute, replacement, the scenario in which the fault shows).
MUTANTS: dict[str, tuple[Any, str, Any, Callable[..., None]]] = {
    "believe one reading": (clock_trust, "CONFIRMED_AFTER_S", 0.0, glitch),
    "believe a glitch of a week": (clock_trust, "CONFIRMED_AFTER_S", 6 * simulated_clocks.DAY_S, glitch),
    "discard no jump": (clock_trust, "_lower", _discard_nothing, glitch),
    "let arrivals stay in the future": (arrivals, "limit", lambda *_: None, glitch),
    "date arrivals without the jumps that wait": (
        TrustedClock, "latest_s", property(lambda self: self.trusted_s), a_year_off,
    ),
    "make rows of the same boot older": (clock_trust, "_confirm", _without_shifts, wrong_by_a_year),
    "trust the clock that was right only for days": (clock_trust, "LARGE_S", math.inf, a_year_off),
    "take 1970 for a time": (ClockReading, "is_set", property(lambda self: True), first_boot_in_1970),
    "confirm no jump": (clock_trust, "CONFIRMED_AFTER_S", math.inf, two_years_idle),
    "bound timestamps by a floor that stays": (hlc, "JUMP_MAX_US", 366 * hlc.DAY_US, two_years_idle),
    "continue any timestamp": (hlc, "AHEAD_MAX_US", 10**15, glitch),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_laws_of_clocks_find_every_mutant(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, scenario = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(AssertionError):
        for seed in SEEDS:
            simulated_clocks.play(seed, scenario)
