"""Devices whose clocks are simulated, and what must hold whatever those clocks show.

A device has a true time, a wall clock that may show another one, and the clock that nobody can set, which starts anew
when the device is switched on. Its master is a real one, in memory: arrivals, the trusted time and what a rule by age
selects come from edgeshard, the passing of time does not. A scenario takes milliseconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from unittest import mock

import attrs

from edgeshard import format, sqlite
from edgeshard.master import arrivals, identity, store_clock
from edgeshard.master.clock_trust import CONFIRMED_AFTER_S
from edgeshard.records import hlc, machine_clock

HOUR_S, DAY_S, YEAR_S = 3_600.0, 86_400.0, 365.25 * 86_400.0

#: The rule of all scenarios: rows older than this are pruned.
AGE_S = 30 * DAY_S

#: Rows are dated to the minute, and jumps of up to a minute are not noticed.
_EXACT_S = 300.0


class Timeline:
    """The true time, and the device whose clocks edgeshard reads at the moment."""

    def __init__(self) -> None:
        self.true_s = machine_clock.SENSIBLE_S + 5 * YEAR_S
        self.current: Device | None = None

    @property
    def device(self) -> Device:
        assert self.current is not None
        return self.current

    def wall_s(self) -> float:
        return self.true_s + self.device.error_s

    def now_us(self) -> int:
        return int(self.wall_s() * 1_000_000)

    def boottime_s(self) -> float:
        return self.true_s - self.device.booted_s

    def boot_id(self) -> str:
        return f"{id(self.device)} {self.device.boots}"


@attrs.frozen
class Write:
    """A change of a keyed table: when it was made, its timestamp, and whether its writer's clock was right."""

    true_s: float
    timestamp: int
    was_right: bool


class Device:
    """One device: its clocks, its master, and its rows by id, each with the true time of its arrival."""

    def __init__(self, timeline: Timeline, rng: random.Random) -> None:
        self.timeline, self.rng = timeline, rng
        self.error_s = 0.0  # of the wall clock
        self.boots = 0
        self.booted_s = timeline.true_s
        self.rows: dict[int, float] = {}
        self.next_id = 1
        self.known = 0  # the newest timestamp that the store knows
        self.handle: hlc.HybridClock | None = None
        self.writes: list[Write] = []
        self.connection = sqlite.open_in_memory(format.MASTER_TABLES)
        identity.insert(self.connection, format.MASTER)

    # -- clocks -------------------------------------------------------------------------------------------------------

    def set_year(self, moved_s: float) -> None:
        """Move the wall clock away from the true time."""
        self.error_s = moved_s

    def show_1970(self) -> None:
        self.error_s = 60.0 - self.timeline.true_s

    def reboot(self, off_s: float, *, keeps_time: bool = True) -> None:
        """Switch the device off, and on again; without `keeps_time` its clock goes on from where it was."""
        self.handle = None
        self.timeline.true_s += off_s
        self.boots += 1
        self.booted_s = self.timeline.true_s - 20.0
        if not keeps_time:
            self.error_s -= off_s

    # -- what it does -------------------------------------------------------------------------------------------------

    def merge(self, rows: int = 1) -> None:
        """Merge some rows, and prune by the rule; nothing may be pruned that the true time would keep."""
        self.timeline.current = self
        first_id = self.next_id
        if rows:
            for _ in range(rows):
                self.rows[self.next_id] = self.timeline.true_s
                self.next_id += 1
            arrivals.record(self.connection, first_id, store_clock.observe(self.connection, first_id))
            identity.set_next_id(self.connection, self.next_id)
        else:
            store_clock.witness(self.connection)
        self._prune()

    def _prune(self) -> None:
        clock = store_clock.observe_if_news(self.connection)
        first = arrivals.first_since(self.connection, clock.trusted_s - AGE_S)
        bound = self.next_id if first is None else first
        for row_id in [row_id for row_id in self.rows if row_id < bound]:
            age_s = self.timeline.true_s - self.rows.pop(row_id)
            assert age_s >= AGE_S, f"row {row_id} was pruned after {age_s / DAY_S:.2f} days"
        if self.rows:
            arrivals.forget_before(self.connection, min(self.rows))

    def write(self) -> None:
        """Change a keyed table, by the clock of a handle that is rarely opened anew, as a shard does."""
        self.timeline.current = self
        if self.handle is not None and self.rng.random() < 0.1:
            self.handle = None
        for _ in range(2):
            if self.handle is None:
                self.handle = hlc.clock([self.known], store_clock.passed_us(self.connection))
            try:
                timestamp = self.handle.next()
                break
            except hlc.ClockSetBackError:
                self.handle = None
        assert 0 <= timestamp <= format.TIMESTAMP_MAX
        self.known = max(self.known, timestamp)
        self.writes.append(Write(self.timeline.true_s, timestamp, abs(self.error_s) < 1.0))

    def oldest_age_s(self) -> float:
        return self.timeline.true_s - min(self.rows.values(), default=self.timeline.true_s)


def days(device: Device, count: float, *, is_off_at_night: bool) -> Iterator[None]:
    """Let days pass on a device; yield when something may be done, a few times a day."""
    end_s = device.timeline.true_s + count * DAY_S
    while device.timeline.true_s < end_s:
        for _ in range(4):
            left_s = end_s - device.timeline.true_s
            if left_s <= 0:
                return
            device.timeline.true_s += min(left_s, (8 if is_off_at_night else 24) / 4 * HOUR_S)
            yield
        if is_off_at_night:
            device.reboot(16 * HOUR_S)


def live(device: Device, count: float, *, is_off_at_night: bool, rows: int = 1) -> None:
    """Let days pass, with merges and changes."""
    for _ in days(device, count, is_off_at_night=is_off_at_night):
        device.write()
        device.merge(rows if device.rng.random() < 0.8 else 0)


# -- scenarios ----------------------------------------------------------------------------------------------------------
# Each takes a device and whether it is off at night, and ends with a clock that is right.


def first_boot_in_1970(device: Device, *, is_off_at_night: bool) -> None:
    device.show_1970()
    for _ in range(device.rng.randint(1, 4)):
        live(device, device.rng.choice((0.02, 0.3, 3.0, 12.0)), is_off_at_night=False)
        if device.rng.random() < 0.4:
            device.reboot(device.rng.choice((60.0, HOUR_S, 20 * DAY_S)))
            device.show_1970()
    device.set_year(0.0)


def two_years_idle(device: Device, *, is_off_at_night: bool) -> None:
    live(device, device.rng.uniform(1, 60), is_off_at_night=is_off_at_night)
    if device.rng.random() < 0.5:
        device.reboot(2 * YEAR_S)
    else:
        device.timeline.true_s += 2 * YEAR_S  # without a merge; a handle stays open


def glitch(device: Device, *, is_off_at_night: bool) -> None:
    live(device, device.rng.choice((0.1, 5.0, 40.0)), is_off_at_night=is_off_at_night)
    for _ in range(device.rng.randint(1, 2)):
        device.set_year(device.rng.choice((20, -20)) * YEAR_S)
        if device.rng.random() < 0.3:
            device.reboot(device.rng.choice((60.0, HOUR_S)))
        live(device, device.rng.choice((HOUR_S / DAY_S, 7.0)), is_off_at_night=is_off_at_night)
        if device.rng.random() < 0.3:
            device.reboot(device.rng.choice((60.0, HOUR_S)))
        device.set_year(0.0)
        live(device, device.rng.choice((0.1, 9.0, 25.0)), is_off_at_night=is_off_at_night)


def a_year_off(device: Device, *, is_off_at_night: bool) -> None:
    """The device is off for a year. Its clock is right at once, or goes on from where it was for some days."""
    live(device, device.rng.uniform(1, 60), is_off_at_night=is_off_at_night)
    device.reboot(YEAR_S, keeps_time=device.rng.random() < 0.4)
    if device.error_s:
        live(device, device.rng.choice((0.02, 1.0, 6.0)), is_off_at_night=device.rng.random() < 0.3)
        device.set_year(0.0)


def wrong_by_a_year(device: Device, *, is_off_at_night: bool) -> None:
    """The clock is a year behind from the start, for a long time, and jumps to the right time while the device runs."""
    device.set_year(-YEAR_S)
    live(device, device.rng.choice((1.0, 20.0, 60.0)), is_off_at_night=False)
    device.set_year(0.0)


def nothing(device: Device, *, is_off_at_night: bool) -> None:
    live(device, 20, is_off_at_night=is_off_at_night)


SCENARIOS: tuple[Callable[..., None], ...] = (
    first_boot_in_1970,
    two_years_idle,
    glitch,
    a_year_off,
    wrong_by_a_year,
    nothing,
)


def play(seed: int, scenario: Callable[..., None] | None = None) -> str:
    """Play one scenario, by default any, and check it.

    Returns:
        Its name.

    Raises:
        AssertionError: a row was pruned too early or is kept too long, or an older change wins over a newer one.
    """
    rng = random.Random(seed)
    timeline = Timeline()
    timeline.true_s += rng.uniform(0, YEAR_S)
    device, other = Device(timeline, rng), Device(timeline, rng)
    with (
        mock.patch.object(machine_clock, "wall_s", timeline.wall_s),
        mock.patch.object(machine_clock, "boottime_s", timeline.boottime_s),
        mock.patch.object(machine_clock, "boot_id", timeline.boot_id),
        mock.patch.object(hlc, "now_us", timeline.now_us),
    ):
        scenario = scenario or rng.choice(SCENARIOS)
        is_off_at_night = rng.random() < 0.4
        scenario(device, is_off_at_night=is_off_at_night)
        ended_s = timeline.true_s
        _meet(device, other)
        # the stated time: what a jump keeps longer is as old as the rule says after the jump is confirmed
        for _ in days(device, (AGE_S + 2 * CONFIRMED_AFTER_S) / DAY_S + 2, is_off_at_night=is_off_at_night):
            rng.choice((device, other)).write()
            device.merge()
            if rng.random() < 0.1:
                _meet(device, other)
        assert min(device.rows.values()) >= ended_s, f"{scenario.__name__}: rows are kept for too long"
        # in the long run, a device that is always on prunes to the minute, others once a night is confirmed
        live(device, AGE_S / DAY_S, is_off_at_night=is_off_at_night)
        delay_s = CONFIRMED_AFTER_S + 2 * DAY_S if is_off_at_night else 6 * HOUR_S + _EXACT_S
        assert device.oldest_age_s() <= AGE_S + delay_s, f"{device.oldest_age_s() / DAY_S:.1f} days"
    _check_order([*device.writes, *other.writes], scenario.__name__)
    for each in (device, other):
        each.connection.close()
    return scenario.__name__


def _meet(device: Device, other: Device) -> None:
    """Merge what each has into the other, as by way of a hub."""
    device.known = other.known = max(device.known, other.known)


def _check_order(writes: list[Write], name: str) -> None:
    """Check that of the changes whose writers' clocks were right, the later one has the higher timestamp."""
    last: Write | None = None
    for write in sorted((write for write in writes if write.was_right), key=lambda write: write.true_s):
        is_later = last is None or write.timestamp > last.timestamp or write.true_s == last.true_s
        assert is_later, f"{name}: {write} follows {last}"
        last = write
