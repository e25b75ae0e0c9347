"""The long campaign over random fleets: writes, drains, copies, restores, bundles, merges of anything into anything.

    python tests/hub_trials.py --trials 2000 --seed 1

A trial is a fleet of its own, with a seed of its own; a failure says which, and ``--only N`` plays that one again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import attrs
from fleet_model import Fleet, play

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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Play random fleets against their model.")
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="play this trial alone")
    options = parser.parse_args()
    if options.only is not None:
        play_trial(options.seed, options.only, Tally())
    else:
        print(play_trials(options.trials, options.seed, options.seconds))


if __name__ == "__main__":
    main()
