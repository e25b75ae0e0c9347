"""What follows from a reading of a machine's clocks: tables of readings, and the jumps that wait after each."""

from __future__ import annotations

import attrs
import pytest

from edgeshard.master import clock_trust
from edgeshard.master.clock_trust import CONFIRMED_AFTER_S, Shift, TrustedClock
from edgeshard.records.machine_clock import SENSIBLE_S, ClockReading

DAY_S = 86_400.0
NOON_S = SENSIBLE_S + 1_000 * DAY_S
YEARS_S = 20 * 365.25 * DAY_S


def reading(days: float, ahead_s: float = 0.0, boot: str = "one") -> ClockReading:
    """Return what the clocks show some days after the first reading, if the wall clock is ahead by that much."""
    return ClockReading(NOON_S + days * DAY_S + ahead_s, boot, 100.0 + days * DAY_S)


def begun(days: float = 0.0) -> TrustedClock:
    """Return a clock that was right for some days."""
    return clock_trust.advance(clock_trust.start(reading(0), 1), reading(days), 1).clock


@pytest.mark.parametrize("days", [0.01, 9.99])
@pytest.mark.parametrize("confirmed", [0.0, 30.0])
def test_a_jump_changes_nothing_before_it_lasted_and_is_discarded_after_a_glitch(days: float, confirmed: float) -> None:
    clock = begun(confirmed)
    ahead = clock_trust.advance(clock, reading(confirmed, YEARS_S), 7)
    assert (clock.trusted_s, YEARS_S, True) == (ahead.clock.trusted_s, ahead.clock.jumps[0].seconds, ahead.is_news)
    assert ahead.clock.latest_s == pytest.approx(clock.trusted_s + YEARS_S)
    later = clock_trust.advance(ahead.clock, reading(confirmed + days, YEARS_S), 9)
    assert later.clock.trusted_s == pytest.approx(clock.trusted_s + days * DAY_S)
    after = clock_trust.advance(later.clock, reading(confirmed + days), 9)
    assert ((), True) == (after.clock.jumps, after.is_news)
    assert after.clock.trusted_s == pytest.approx(NOON_S + (confirmed + days) * DAY_S)


def test_a_jump_that_lasts_is_confirmed_and_keeps_what_arrived_in_that_boot_as_old_as_measured() -> None:
    ahead = clock_trust.advance(begun(30), reading(30, YEARS_S), 7).clock
    after = clock_trust.advance(ahead, reading(40, YEARS_S), 9)
    assert ((Shift(1, 7, YEARS_S),), ()) == (after.shifts, after.clock.jumps)
    assert after.clock.trusted_s == pytest.approx(NOON_S + 40 * DAY_S + YEARS_S)


def test_after_a_restart_what_arrived_long_before_becomes_older_and_the_last_ten_days_do_not() -> None:
    clock = clock_trust.start(reading(0), 1)
    for day in range(1, 31):
        clock = clock_trust.advance(clock, reading(day), 100 * day).clock
    off_s = YEARS_S
    ahead = clock_trust.advance(clock, ClockReading(NOON_S + 30 * DAY_S + off_s, "two", 5.0), 3_100).clock
    (jump,) = ahead.jumps
    assert (3_100, True) == (jump.next_id, 1_900 <= jump.kept_from <= 2_200)
    later = ClockReading(NOON_S + 41 * DAY_S + off_s, "two", 11 * DAY_S)
    assert [off_s] == [shift.seconds for shift in clock_trust.advance(ahead, later, 3_200).shifts]


def test_a_device_that_runs_for_a_minute_a_day_confirms_after_readings_on_ten_days() -> None:
    clock = begun(30)
    for day in range(31, 42):
        before = clock
        clock = clock_trust.advance(clock, ClockReading(NOON_S + day * DAY_S, f"boot {day}", 60.0), 7).clock
    assert before.trusted_s == pytest.approx(NOON_S + 30 * DAY_S)
    assert clock.trusted_s == pytest.approx(NOON_S + 31 * DAY_S)
    assert len(clock.jumps) == 10


def test_a_virtual_machine_that_is_paused_each_night_confirms_after_merges_on_ten_days() -> None:
    clock = begun(30)
    for day in range(31, 71):
        clock = clock_trust.advance(clock, attrs.evolve(reading(day), boottime_s=100.0 + 30 * DAY_S), day).clock
    assert 10 * DAY_S <= NOON_S + 70 * DAY_S - clock.trusted_s <= 11 * DAY_S


def test_readings_close_together_confirm_nothing() -> None:
    clock = begun(30)
    for number in range(1_000):
        clock = clock_trust.advance(clock, ClockReading(NOON_S + 30 * DAY_S + YEARS_S, f"boot {number}", 60.0), 7).clock
    assert clock.trusted_s == pytest.approx(NOON_S + 30 * DAY_S)


@pytest.mark.parametrize("boots_a_day", [1, 50])
def test_what_is_kept_is_bounded(boots_a_day: int) -> None:
    clock = begun()
    for number in range(200 * boots_a_day):
        wall_s = NOON_S + (number + 1) * DAY_S / boots_a_day
        clock = clock_trust.advance(clock, ClockReading(wall_s, f"boot {number}", 60.0), number).clock
        assert (True, True) == (len(clock.jumps) <= 21, len(clock.marks) <= 12)
    assert wall_s - clock.trusted_s <= 12 * DAY_S


def test_a_first_reading_that_was_ahead_is_taken_back_with_all_arrivals() -> None:
    clock = clock_trust.advance(clock_trust.start(reading(0, YEARS_S), 1), reading(1, YEARS_S), 5).clock
    after = clock_trust.advance(clock, reading(1.5), 9)
    assert [Shift(0, 9, -YEARS_S)] == [attrs.evolve(shift, seconds=round(shift.seconds)) for shift in after.shifts]
    assert after.clock.trusted_s == pytest.approx(NOON_S + 1.5 * DAY_S)


def test_a_clock_that_lags_or_was_never_set_stops_nothing() -> None:
    clock = clock_trust.advance(begun(30), reading(31, -YEARS_S), 7).clock
    assert clock.trusted_s == pytest.approx(NOON_S + 31 * DAY_S)
    assert not clock.jumps
    clock = clock_trust.advance(clock, ClockReading(0.0, "one", 100.0 + 32 * DAY_S), 7).clock
    assert clock.trusted_s == pytest.approx(NOON_S + 32 * DAY_S)
    assert clock_trust.advance(clock, reading(33), 7).clock.jumps == ()


def test_a_user_confirms_a_jump_and_a_clock_that_is_behind() -> None:
    ahead = clock_trust.advance(begun(30), reading(30, YEARS_S), 7).clock
    after = clock_trust.confirm(ahead, reading(30, YEARS_S), 7)
    assert ((), (), NOON_S + 30 * DAY_S + YEARS_S) == (after.shifts, after.clock.jumps, after.clock.trusted_s)
    back = clock_trust.confirm(after.clock, reading(31), 9)
    assert NOON_S + 31 * DAY_S == back.clock.trusted_s
    assert [(0, 9, -YEARS_S)] == [(shift.first_id, shift.end_id, round(shift.seconds)) for shift in back.shifts]


def test_the_longest_glitch_that_is_promised_is_shorter_than_what_is_confirmed() -> None:
    assert CONFIRMED_AFTER_S - DAY_S > 7 * DAY_S


@pytest.mark.parametrize("is_right_at", ["a restart", "any time"])
@pytest.mark.parametrize("boots", [1, 2, 4])
def test_nobody_knows_how_long_the_machine_was_off_while_its_clock_was_behind(boots: int, is_right_at: str) -> None:
    clock = begun(30)
    for number in range(boots):  # each time it is off for eight hours, and its clock shows a time long ago
        boot = f"behind {number}"
        clock = clock_trust.advance(clock, ClockReading(NOON_S - YEARS_S, boot, 5.0), 100 + 10 * number).clock
        clock = clock_trust.advance(clock, ClockReading(NOON_S - YEARS_S + 60, boot, 65.0), 105 + 10 * number).clock
    boot = "right" if is_right_at == "a restart" else boot
    off_s = boots * DAY_S / 3
    right = ClockReading(NOON_S + 30 * DAY_S + off_s, boot, 66.0)
    (jump,) = clock_trust.advance(clock, right, 300).clock.jumps
    assert jump.seconds == pytest.approx(off_s, abs=1_000.0)
    # the rows since the first of these restarts may have arrived after all of it
    assert (100, 300) == (jump.kept_from, jump.next_id)


def test_after_a_clock_that_was_behind_is_right_the_next_night_makes_rows_older_as_usual() -> None:
    clock = clock_trust.advance(begun(30), ClockReading(NOON_S - YEARS_S, "behind", 5.0), 100).clock
    clock = clock_trust.advance(clock, ClockReading(NOON_S + 30.4 * DAY_S, "behind", 65.0), 110).clock
    clock = clock_trust.advance(clock, ClockReading(NOON_S + 31.2 * DAY_S, "right", 5.0), 120).clock
    assert [100, 120] == [jump.kept_from for jump in clock.jumps]
