"""Play random fleets against their model: writes, copies, restores, bundles, merges of anything into anything.

Each trial has its own fleet and its own seed.
"""

from __future__ import annotations

import random
import sys
import time

import attrs

from tests.support.fleet_model import Fleet, play

LONGEST = 80


@attrs.define
class Tally:
    """Counts of what the trials did."""

    trials: int = 0
    rows: int = 0
    merges: int = 0
    merges_with_gaps: int = 0
    copies: int = 0
    bundles: int = 0
    lossy: int = 0


def play_trial(seed: int, number: int, tally: Tally) -> None:
    """Play one fleet, from its first row until everything is everywhere."""
    chance = random.Random(f"{seed}-{number}")
    fleet = Fleet()
    try:
        play(fleet, chance.choice, chance.randrange(5, LONGEST))
        fleet.settle()
    except BaseException:
        print(f"trial {number} of seed {seed} failed: --seed {seed} --only {number}", file=sys.stderr)
        raise
    finally:
        fleet.remove()
    tally.trials += 1
    tally.rows += len(fleet.written)
    tally.merges += fleet.merges
    tally.merges_with_gaps += fleet.merges_with_gaps
    tally.copies += len(fleet.images)
    tally.bundles += fleet.bundles
    tally.lossy += fleet.is_lossy


def play_trials(trials: int, seed: int, seconds: float = float("inf")) -> Tally:
    """Play a number of trials, or as many as begin within a number of seconds."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    for number in range(trials):
        if time.monotonic() > deadline:
            break
        play_trial(seed, number, tally)
    return tally
