"""The hybrid logical clock: which timestamp a reading of the wall clock gives, by what is known otherwise."""

from __future__ import annotations

import pytest

from edgeshard import format
from edgeshard.records import hlc, machine_clock
from tests.support.clocks import DAY_S, Machine

HOUR_US, YEAR_US = 3_600_000_000, 366 * hlc.DAY_US


def wall_us(machine: Machine) -> int:
    return int(machine.wall_s() * 1_000_000)


@pytest.mark.parametrize("known_ago_us", [HOUR_US, YEAR_US, 9 * YEAR_US])
@pytest.mark.parametrize("is_passed", [True, False])
def test_a_clock_is_followed_however_long_nothing_was_written(
    machine: Machine, known_ago_us: int, is_passed: bool
) -> None:
    known = wall_us(machine) - min(known_ago_us, wall_us(machine) - machine_clock.SENSIBLE_S * 1_000_000)
    clock = hlc.clock([known], known if is_passed else 0)
    assert clock.next() == wall_us(machine)
    machine.run(12 * 366)  # the handle stays open
    assert clock.next() == wall_us(machine)


def test_before_the_clock_is_set_nothing_known_is_passed_over(machine: Machine) -> None:
    known = wall_us(machine)
    machine.show_1970()
    assert [30_000_000, 30_000_001] == [(fresh := hlc.clock([])).next(), fresh.next()]
    assert known + 1 == hlc.clock([known]).next()
    assert known + hlc.DAY_US + 1 == hlc.clock([known], known + hlc.DAY_US).next()
    machine.error_s = 0.0
    assert known == fresh.next()


@pytest.mark.parametrize("ahead_us", [2 * HOUR_US + 1, YEAR_US, format.TIMESTAMP_MAX])
def test_what_is_far_ahead_of_the_clock_is_not_continued(machine: Machine, ahead_us: int) -> None:
    near = wall_us(machine) + HOUR_US
    far = min(wall_us(machine) + ahead_us, format.TIMESTAMP_MAX)
    assert wall_us(machine) == hlc.clock([far]).next()
    assert near + 1 == hlc.clock([near, far]).next()


def test_a_handle_whose_clock_was_ahead_begins_a_new_stream_but_not_inside_a_transaction(machine: Machine) -> None:
    is_in_transaction = False
    machine.error_s = 3 * 3_600.0
    clock = hlc.clock([], 0, lambda: is_in_transaction)
    first = clock.next()
    machine.error_s = 3_600.5
    assert (False, first + 1) == (clock.is_set_back(), clock.next())
    machine.error_s = 0.0
    assert clock.is_set_back()
    with pytest.raises(hlc.ClockSetBackError):
        clock.next()
    is_in_transaction = True
    assert first + 2 == clock.next()


def test_a_clock_behind_what_has_surely_passed_is_not_followed(machine: Machine) -> None:
    passed = wall_us(machine)
    machine.error_s = -100.0 * DAY_S
    clock = hlc.clock([passed - hlc.DAY_US], passed)
    assert [passed + 1, passed + 2] == [clock.next(), clock.next()]
    assert not clock.is_set_back()


def test_a_clock_that_is_too_far_ahead_is_followed_once_it_stays_there(machine: Machine) -> None:
    known = wall_us(machine)
    machine.error_s = 20 * 366.0 * DAY_S
    clock = hlc.clock([known], known)
    assert known + 1 == clock.next()
    machine.run(9)
    assert known + 9 * hlc.DAY_US == clock.next()  # the reference moves with the time that is measured
    machine.run(1.1)
    assert wall_us(machine) == clock.next()
    assert wall_us(machine) == hlc.clock([known], wall_us(machine) - hlc.DAY_US).next()  # a master has confirmed it


def test_no_timestamp_is_above_the_highest(machine: Machine) -> None:
    machine.error_s = format.TIMESTAMP_MAX / 1e6 - machine.true_s
    clock = hlc.clock([format.TIMESTAMP_MAX])
    assert [format.TIMESTAMP_MAX] * 2 == [clock.next(), clock.next()]
