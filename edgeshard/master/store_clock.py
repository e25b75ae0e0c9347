"""Own _edgeshard_clock: the trusted time of a master, as of the last reading of this machine's clocks.

`clock_trust` decides what follows from a reading. A reading is made in each transaction that brings rows, in a prune
with a rule by age, and in a merge without rows if the clock is not as the last reading lets expect.
"""

from __future__ import annotations

import json
import math
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.master import arrivals, clock_trust, identity
from edgeshard.master.clock_trust import Advance, Jump, Mark, TrustedClock
from edgeshard.records import machine_clock
from edgeshard.records.json_values import to_json
from edgeshard.sqlite import Connection

#: How often a reading without news is kept, in seconds: rows arrive more often.
_KEPT_EVERY_S: Final = arrivals.RESOLUTION_S

#: How often a merge without rows makes a reading while a jump waits for confirmation, in seconds.
_WITNESSED_EVERY_S: Final = 3_600.0


def load(connection: Connection) -> TrustedClock | None:
    """Return the clock as of the last reading, or None if there was none."""
    names = [field.name for field in attrs.fields(TrustedClock)]  # those of the columns
    rows = sqlite.fetch(connection, f"SELECT {', '.join(names)} FROM main._edgeshard_clock WHERE clock_id = 1")
    if not rows:
        return None
    values = dict(zip(names, rows[0], strict=True))
    values["is_known"] = bool(values["is_known"])
    values["jumps"] = tuple(Jump(*jump) for jump in json.loads(values["jumps"]))
    values["marks"] = tuple(Mark(*mark) for mark in json.loads(values["marks"]))
    return TrustedClock(**values)


def now(connection: Connection) -> TrustedClock:
    """Return the clock as it is now; only read."""
    return _advance(connection, identity.next_id(connection))[1].clock


def observe(connection: Connection, next_id: int | None = None) -> TrustedClock:
    """Make a reading, in the caller's transaction, and record arrivals anew that follow from it.

    Args:
        connection: the master, in a transaction that may write.
        next_id: the id of the first row that arrives now; None: of the next row that will arrive.
    """
    last, advanced = _advance(connection, identity.next_id(connection) if next_id is None else next_id)
    if _is_kept(last, advanced):
        _keep(connection, advanced)
    return advanced.clock


def observe_if_news(connection: Connection) -> TrustedClock:
    """Make a reading, and write only if something follows from it; no transaction is open.

    Returns:
        The clock as it is now.
    """
    with sqlite.read_snapshot(connection):
        last, advanced = _advance(connection, identity.next_id(connection))
    if last is not None and not advanced.is_news and not _has_waited(last, advanced):
        return advanced.clock
    with sqlite.immediate(connection):
        return observe(connection)


def witness(connection: Connection) -> None:
    """Make a reading in a merge that brings no rows, unless the master had none yet; no transaction is open."""
    if load(connection) is not None:
        observe_if_news(connection)


def confirm(connection: Connection) -> TrustedClock:
    """Record that the wall clock is right now, in the caller's transaction; see `clock_trust.confirm`."""
    next_id, reading = identity.next_id(connection), machine_clock.read()
    last = load(connection) or clock_trust.start(reading, next_id)
    advanced = clock_trust.confirm(last, reading, next_id)
    _keep(connection, advanced)
    return advanced.clock


def passed_us(connection: Connection) -> int:
    """Return a time that has surely passed, in microseconds since 1970; 0 if none is confirmed."""
    clock = load(connection)
    if clock is None or not clock.is_known or not clock.is_confirmed:
        return 0
    elapsed_s = 0.0
    if clock.boot_id == machine_clock.boot_id():
        elapsed_s = max(0.0, machine_clock.boottime_s() - clock.boottime_s)
    return int((clock.trusted_s + elapsed_s) * 1_000_000)


def _advance(connection: Connection, next_id: int) -> tuple[TrustedClock | None, Advance]:
    last, reading = load(connection), machine_clock.read()
    if last is None:
        return None, Advance(clock_trust.start(reading, next_id), is_news=True)
    return last, clock_trust.advance(last, reading, next_id)


def _is_kept(last: TrustedClock | None, advanced: Advance) -> bool:
    return last is None or advanced.is_news or advanced.clock.boottime_s >= last.boottime_s + _KEPT_EVERY_S


def _has_waited(last: TrustedClock, advanced: Advance) -> bool:
    return bool(last.jumps) and advanced.clock.boottime_s >= last.boottime_s + _WITNESSED_EVERY_S


def _keep(connection: Connection, advanced: Advance) -> None:
    clock = advanced.clock
    if advanced.is_news:
        for shift in advanced.shifts:
            arrivals.move(connection, shift.first_id, shift.end_id, math.ceil(shift.seconds))
        arrivals.limit(connection, int(clock.latest_s))
        if advanced.is_set_now:
            arrivals.record(connection, 1, clock)
    connection.execute(
        "INSERT OR REPLACE INTO main._edgeshard_clock(clock_id, boot_id, boottime_s, wall_s, trusted_s, witnessed_s, "
        "based_at, is_known, boot_first_id, unsure_from, corrections, jumps, marks) "
        "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            clock.boot_id, clock.boottime_s, clock.wall_s, clock.trusted_s, clock.witnessed_s, clock.based_at,
            int(clock.is_known), clock.boot_first_id, clock.unsure_from, clock.corrections,
            to_json([[jump.seconds, jump.seen_at, jump.kept_from, jump.next_id] for jump in clock.jumps]),
            to_json([[mark.at, mark.next_id] for mark in clock.marks]),
        ),
    )  # fmt: skip
