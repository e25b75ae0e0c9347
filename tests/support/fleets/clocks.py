"""Steps that move the clock of all devices, both ways."""

from __future__ import annotations

from typing import Any

from tests.support.clocks import DAY_S
from tests.support.fleets.fleet import NOON_US, Fleet
from tests.support.fleets.shapes import Pick
from tests.support.fleets.steps import step

#: By how many seconds: an hour, some days, more than the year by which timestamps may run ahead.
_MOVES_S = (1, 3_600, 12 * DAY_S, 400 * DAY_S, -1, -3_600, -30 * DAY_S)


@step(2)
def move_clock(fleet: Fleet, pick: Pick) -> Any:
    """Move the clock, to 1970, or back to the right time."""
    move = pick((*_MOVES_S, "1970", "right", "right"))
    fleet.say(f"  {move}")
    if move == "1970":
        fleet.wall.now_us = 60_000_000
    elif move == "right":
        fleet.wall.now_us = NOON_US
    else:
        fleet.wall.now_us = max(0, fleet.wall.now_us + move * 1_000_000)
