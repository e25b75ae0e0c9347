"""Decide how much of what the wall clock shows is trusted. Pure functions over small values; `store_clock` keeps them.

Rows are deleted by age, for good, so their age must not depend on one reading of a clock that anybody can set. A master
therefore counts a time of its own, the *trusted time*:

* It goes on by the time that a clock measures which nobody can set (see `records.machine_clock`): exactly, for as long
  as the machine is not switched off.
* If the wall clock shows a later time, that is a *jump*: the machine may have been off, or the clock is wrong. A jump
  waits for confirmation, and makes no row older before. It is confirmed once the wall clock has stayed ahead by that
  much for `CONFIRMED_AFTER_S` of *witnessed* time. This is measured time, and from one reading to the next at most a
  day more if the wall clock says so: readings on ten days are needed, however short the machine runs each day.
* A jump is discarded once the wall clock shows an earlier time again, as after a glitch.
* A wall clock that lags behind the trusted time, or that was never set, changes nothing. But if the trusted time itself
  is not confirmed, because the first reading is not that old, then it is moved back, and all arrivals with it.

Rows get their time of arrival from the `latest` time, which includes the jumps that wait: if in doubt, a row counts as
younger. When a jump is confirmed, rows that arrived before it become older by it, with three exceptions, which are
moved along (`Shift`):

* Rows that arrived since the machine was started, if the wall clock jumped while it ran: the clock was wrong before, as
  it is at the first start, and how much time has passed since is measured.
* Rows that arrived since the first of several restarts at which the wall clock was behind: how much of the jump had
  passed before they arrived is not known.
* Rows that arrived within `CONFIRMED_AFTER_S` before a jump of more than `LARGE_S`: the clock had not been right for
  long enough, so it may have been wrong by the jump when they arrived. If the trusted time itself was not confirmed by
  then, these are all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from edgeshard.records.machine_clock import SENSIBLE_S, ClockReading

_DAY_S: Final = 86_400.0

#: For how long a jump must last before it is confirmed: longer than a glitch of a week.
CONFIRMED_AFTER_S: Final = 10 * _DAY_S

#: Jumps of less than this are not noticed, in seconds; nor is a clock that lags behind by less.
TOLERANCE_S: Final = 60.0

#: A machine that is switched off every night makes smaller jumps than this; larger ones are reported.
LARGE_S: Final = 1.5 * _DAY_S

#: Jumps within this time count as one, so that a machine that is always being restarted has few of them.
_COALESCED_S: Final = 0.5 * _DAY_S

#: How often the wall clock of a running machine may jump ahead before it is believed that time passes unmeasured: then
#: the machine is a virtual one that is paused now and then.
_CORRECTIONS_MAX: Final = 2


@attrs.frozen
class Jump:
    """The wall clock went ahead of the trusted time, and that waits for confirmation.

    Attributes:
        seconds: by how much.
        seen_at: the witnessed time at which it was noticed, in seconds.
        kept_from: rows with ids from this one on, and below `next_id`, do not become older by it.
        next_id: the id of the first row that arrived after it was noticed.
    """

    seconds: float
    seen_at: float
    kept_from: int
    next_id: int


@attrs.frozen
class Mark:
    """Which rows had arrived at some witnessed time: those with ids below `next_id`."""

    at: float
    next_id: int


@attrs.frozen
class TrustedClock:
    """The trusted time of a master, and what it depends on, as of the last reading. All times in seconds.

    Attributes:
        boot_id: the boot of that reading.
        boottime_s: what the measuring clock showed then.
        wall_s: what the wall clock showed then, or should have shown, if it was not set.
        trusted_s: the trusted time, since 1970.
        witnessed_s: the witnessed time, since the first reading.
        based_at: the witnessed time at which the trusted time was last taken from the wall clock.
        is_known: whether the wall clock was ever set, so that the trusted time means anything.
        boot_first_id: the id of the first row that arrived in this boot.
        unsure_from: the id of the first row that arrived after a restart at which the wall clock was behind, so that
            nobody knows for how long the machine was off; 0 if there was none since the wall clock was last right.
        corrections: how often the wall clock jumped ahead in this boot.
        jumps: what waits for confirmation, the oldest first.
        marks: the rows that had arrived at some times, one for each day that may still matter.
    """

    boot_id: str
    boottime_s: float
    wall_s: float
    trusted_s: float
    witnessed_s: float = 0.0
    based_at: float = 0.0
    is_known: bool = False
    boot_first_id: int = 1
    unsure_from: int = 0
    corrections: int = 0
    jumps: tuple[Jump, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def latest_s(self) -> float:
        """The time if all jumps are confirmed: what arrives now counts as arriving then."""
        return self.trusted_s + sum(jump.seconds for jump in self.jumps)

    @property
    def is_confirmed(self) -> bool:
        """Whether the trusted time has lasted for long enough since it was taken from the wall clock."""
        return self.witnessed_s >= self.based_at + CONFIRMED_AFTER_S

    @property
    def last_change_id(self) -> int:
        """The id of the first row that arrived after the last restart or jump; its arrival must be recorded anew."""
        return max([self.boot_first_id, *(jump.next_id for jump in self.jumps)])

    @property
    def is_large_jump_waiting(self) -> bool:
        """Whether a jump larger than those of a machine that is off every night awaits confirmation."""
        return any(jump.seconds > LARGE_S for jump in self.jumps)

    @property
    def confirmed_in_s(self) -> float:
        """In how much witnessed time the last of the jumps will be confirmed; 0 if there is none."""
        return max(0.0, self.jumps[-1].seen_at + CONFIRMED_AFTER_S - self.witnessed_s) if self.jumps else 0.0


@attrs.frozen
class Shift:
    """Recorded arrivals to move: of rows with ids from `first_id` on and below `end_id`, by this many seconds."""

    first_id: int
    end_id: int
    seconds: float


@attrs.frozen
class Advance:
    """What follows from a reading.

    Attributes:
        clock: the clock after it.
        shifts: the arrivals to move, in this order.
        is_set_now: whether the wall clock was set for the first time: all earlier rows count as arriving now.
        is_news: whether the clock differs from what the last reading let expect, so that it must be kept.
    """

    clock: TrustedClock
    shifts: tuple[Shift, ...] = ()
    is_set_now: bool = False
    is_news: bool = False


def start(reading: ClockReading, next_id: int) -> TrustedClock:
    """Return the clock of a master that had no reading yet.

    Args:
        reading: the first one.
        next_id: the id of the next row.
    """
    trusted_s = max(reading.wall_s, float(SENSIBLE_S))
    return TrustedClock(
        reading.boot_id,
        reading.boottime_s,
        reading.wall_s,
        trusted_s,
        is_known=reading.is_set,
        boot_first_id=next_id,
        marks=(Mark(0.0, next_id),),
    )


def advance(clock: TrustedClock, reading: ClockReading, next_id: int) -> Advance:
    """Return what follows from the next reading.

    Args:
        clock: the clock after the last reading.
        reading: the new one.
        next_id: the id of the next row.
    """
    is_same_boot = reading.boot_id == clock.boot_id and reading.boottime_s >= clock.boottime_s
    measured_s = reading.boottime_s - clock.boottime_s if is_same_boot else 0.0
    unmeasured_s = reading.wall_s - clock.wall_s - measured_s
    credit_s = min(max(0.0, unmeasured_s), _DAY_S) if reading.is_set and clock.is_known else 0.0
    after = attrs.evolve(
        clock,
        boot_id=reading.boot_id,
        boottime_s=reading.boottime_s,
        wall_s=reading.wall_s if reading.is_set else clock.wall_s + measured_s,
        trusted_s=clock.trusted_s + measured_s,
        witnessed_s=clock.witnessed_s + measured_s + credit_s,
        boot_first_id=clock.boot_first_id if is_same_boot else next_id,
        corrections=clock.corrections if is_same_boot else 0,
    )
    after = attrs.evolve(after, marks=_marks(clock.marks, clock.witnessed_s, after.witnessed_s, next_id))
    is_set_now = reading.is_set and not clock.is_known
    ahead_s = reading.wall_s - after.trusted_s
    if not is_same_boot and (not reading.is_set or ahead_s < _waiting_s(clock) - TOLERANCE_S):
        after = attrs.evolve(after, unsure_from=after.unsure_from or next_id)
    shifts: tuple[Shift, ...] = ()
    if is_set_now:
        trusted_s = max(after.trusted_s, reading.wall_s)
        after = attrs.evolve(after, is_known=True, trusted_s=trusted_s, based_at=after.witnessed_s, unsure_from=0)
    elif reading.is_set and ahead_s < -TOLERANCE_S and not after.is_confirmed:
        after = attrs.evolve(after, trusted_s=reading.wall_s, based_at=after.witnessed_s, jumps=(), unsure_from=0)
        shifts = (Shift(0, next_id, ahead_s),)
    elif reading.is_set:
        after = _compare(after, ahead_s, next_id, is_same_boot=is_same_boot)
    due = [jump for jump in after.jumps if after.witnessed_s >= jump.seen_at + CONFIRMED_AFTER_S]
    is_news = is_set_now or not is_same_boot or bool(shifts) or after.jumps != clock.jumps
    after, confirmed = _confirm(after, due)
    return Advance(after, (*shifts, *confirmed), is_set_now, is_news or bool(due))


def confirm(clock: TrustedClock, reading: ClockReading, next_id: int) -> Advance:
    """Return what follows if somebody says that the wall clock is right now; the arguments are those of `advance`.

    All rows that arrived before a jump become older by it, because somebody knows that this time has passed. If the
    trusted time is ahead of the wall clock, both it and all arrivals are moved back, so that no age changes.
    """
    advanced = advance(clock, reading, next_id)
    behind_s = advanced.clock.trusted_s - reading.wall_s
    moved = (Shift(0, next_id, -behind_s),) if behind_s > TOLERANCE_S else ()
    after = attrs.evolve(
        advanced.clock,
        trusted_s=reading.wall_s,
        based_at=advanced.clock.witnessed_s - CONFIRMED_AFTER_S,
        jumps=(),
        unsure_from=0,
    )
    return Advance(after, (*advanced.shifts, *moved), advanced.is_set_now, is_news=True)


def lag_s(clock: TrustedClock, reading: ClockReading) -> float:
    """Return by how many seconds the wall clock is behind the trusted time of a clock that was advanced to now."""
    return max(0.0, clock.trusted_s - reading.wall_s) if clock.is_known else 0.0


def _compare(clock: TrustedClock, ahead_s: float, next_id: int, *, is_same_boot: bool) -> TrustedClock:
    """Note a jump if the wall clock is further ahead than before; discard as much of the jumps as it is less ahead."""
    waiting_s = _waiting_s(clock)
    if ahead_s > waiting_s + TOLERANCE_S:
        corrections = clock.corrections + is_same_boot
        is_correction = is_same_boot and corrections <= _CORRECTIONS_MAX
        seconds = ahead_s - waiting_s
        kept_from = clock.boot_first_id if is_correction else next_id
        if seconds > LARGE_S:
            kept_from = min(kept_from, clock.marks[0].next_id) if clock.is_confirmed else 0
        if clock.unsure_from:
            kept_from = min(kept_from, clock.unsure_from)
        jump = Jump(seconds, clock.witnessed_s, kept_from, next_id)
        return attrs.evolve(clock, corrections=corrections, jumps=_append(clock.jumps, jump), unsure_from=0)
    if ahead_s < waiting_s - TOLERANCE_S:
        jumps = _lower(clock.jumps, waiting_s - max(0.0, ahead_s))
        # what a discarded jump was to explain is left to the next one
        unsure = [jump.kept_from or 1 for jump in clock.jumps[len(jumps) :]]
        if clock.unsure_from:
            unsure.append(clock.unsure_from)
        return attrs.evolve(clock, jumps=jumps, unsure_from=min(unsure, default=0))
    return attrs.evolve(clock, unsure_from=0)


def _waiting_s(clock: TrustedClock) -> float:
    return sum(jump.seconds for jump in clock.jumps)


def _append(jumps: tuple[Jump, ...], new: Jump) -> tuple[Jump, ...]:
    last = jumps[-1] if jumps else None
    is_one = last is not None and new.seen_at - last.seen_at < _COALESCED_S and new.seconds <= LARGE_S >= last.seconds
    if last is None or not is_one:
        return (*jumps, new)
    kept_from = min(last.kept_from, new.kept_from)
    return (*jumps[:-1], Jump(last.seconds + new.seconds, last.seen_at, kept_from, new.next_id))


def _lower(jumps: tuple[Jump, ...], by_s: float) -> tuple[Jump, ...]:
    """Discard this much of the jumps, the last ones first."""
    kept = list(jumps)
    while kept and kept[-1].seconds <= by_s + TOLERANCE_S:
        by_s -= kept.pop().seconds
    if kept and by_s > 0:
        kept[-1] = attrs.evolve(kept[-1], seconds=kept[-1].seconds - by_s)
    return tuple(kept)


def _confirm(clock: TrustedClock, due: Sequence[Jump]) -> tuple[TrustedClock, tuple[Shift, ...]]:
    """Confirm these jumps, the oldest that the clock has."""
    shifts = [Shift(jump.kept_from, jump.next_id, jump.seconds) for jump in due if jump.kept_from < jump.next_id]
    seconds = sum(jump.seconds for jump in due)
    return attrs.evolve(clock, trusted_s=clock.trusted_s + seconds, jumps=clock.jumps[len(due) :]), tuple(shifts)


def _marks(marks: tuple[Mark, ...], before_s: float, now_s: float, next_id: int) -> tuple[Mark, ...]:
    """Mark, each day, what had arrived by the last reading; keep the marks of `CONFIRMED_AFTER_S`, and one before."""
    if before_s - marks[-1].at >= _DAY_S:
        marks = (*marks, Mark(before_s, next_id))
    while len(marks) > 1 and marks[1].at <= now_s - CONFIRMED_AFTER_S:
        marks = marks[1:]
    return marks
