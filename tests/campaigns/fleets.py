"""Play many random fleets against their model; see `tests.support.fleet_model` and `tests.support.fleet_trials`.

    python -m tests.campaigns.fleets --trials 2000 --seed 1

A failure names its trial, and ``--only N`` replays it.
"""

from __future__ import annotations

import argparse

from tests.support.fleet_trials import Tally, play_trial, play_trials


def main() -> None:
    """Play random fleets, and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.fleets", description="Play random fleets against their model."
    )
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="play only this trial")
    options = parser.parse_args()
    if options.only is not None:
        play_trial(options.seed, options.only, Tally())
    else:
        print(play_trials(options.trials, options.seed, options.seconds))


if __name__ == "__main__":
    main()
