"""Report what of the clock awaits confirmation, and confirm it. `master.clock_trust` has the rules."""

from __future__ import annotations

from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.master import arrivals, clock_trust, database, extents, store_clock
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.records import machine_clock
from edgeshard.records.machine_clock import ClockReading
from edgeshard.reports import ClockReport
from edgeshard.sqlite import Connection

#: A clock that is behind by more than this is to be looked at, in seconds: a day.
_BEHIND_S = 86_400.0


def without_master() -> ClockReport:
    """Return the report for a store without a master."""
    return ClockReport(arrivals.utc_time(machine_clock.wall_s()))


def report(path: Path) -> ClockReport:
    """Report what the clock shows, and what of it awaits confirmation in a master.

    Raises:
        StorageError: the master cannot be read.
    """
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("read clock of", path), sqlite.read_snapshot(connection):
            return load(connection)
    finally:
        connection.close()


def load(connection: Connection) -> ClockReport:
    """Return the same, in the caller's snapshot."""
    reading = machine_clock.read()
    if store_clock.load(connection) is None:
        return ClockReport(arrivals.utc_time(reading.wall_s))
    return _describe(connection, store_clock.now(connection), reading)


def confirm(path: Path, *, dry_run: bool) -> ClockReport:
    """Confirm the clock in a master; see `Store.confirm_clock`.

    Raises:
        ConfigurationError: the clock was never set.
        StorageError: the master cannot be read or written.
    """
    reading = machine_clock.read()
    if not reading.is_set:
        cause = f"the clock shows {arrivals.utc_time(reading.wall_s).date()}: it was never set. Set it first"
        raise ConfigurationError("confirm clock of", path, cause)
    connection = database.open_master(path, writable=not dry_run)
    try:
        with database.translate_errors("confirm clock of", path):
            if dry_run:
                with sqlite.read_snapshot(connection):
                    before = load(connection)
            else:
                with sqlite.immediate(connection):
                    before = load(connection)
                    store_clock.confirm(connection)
    finally:
        connection.close()
    return attrs.evolve(before, awaits_confirmation=False, confirmed=True, dry_run=dry_run)


def _describe(connection: Connection, clock: TrustedClock, reading: ClockReading) -> ClockReport:
    if not clock.is_known:
        return ClockReport(arrivals.utc_time(reading.wall_s))
    behind_s = clock_trust.lag_s(clock, reading)
    behind_s = behind_s if behind_s > clock_trust.TOLERANCE_S else 0.0
    rows = extents.row_count_below(connection, clock.jumps[-1].next_id) if clock.jumps else 0
    return ClockReport(
        arrivals.utc_time(reading.wall_s),
        arrivals.utc_time(clock.trusted_s),
        ahead_s=clock.latest_s - clock.trusted_s,
        rows=rows,
        confirmed_in_s=clock.confirmed_in_s,
        behind_s=behind_s,
        awaits_confirmation=behind_s > _BEHIND_S or (rows > 0 and clock.is_large_jump_waiting),
    )
