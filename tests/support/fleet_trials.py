"""Random fleets against their model: writes, drains, copies, restores, bundles, merges of anything into anything.

A trial is a fleet of its own, with a seed of its own.
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
    """What the trials did."""

    trials: int = 0
    rows: int = 0
    merges: int = 0
    merges_with_gaps: int = 0
    copies: int = 0
    bundles: int = 0
    lossy: int = 0


def play_trial(seed: int, number: int, tally: Tally) -> None:
    """One fleet, from its first row to the end where all of it is everywhere."""
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
    """So many trials, or as many as begin within so many seconds."""
    tally = Tally()
    deadline = time.monotonic() + seconds
    for number in range(trials):
        if time.monotonic() > deadline:
            break
        play_trial(seed, number, tally)
    return tally
