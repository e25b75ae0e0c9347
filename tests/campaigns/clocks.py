"""The long campaign of simulated clocks: is a row ever pruned early, or kept too long, and does the last write win?

    python -m tests.campaigns.clocks [--trials 2000] [--seed 1]

Each trial is a device in one of the scenarios of `tests.support.simulated_clocks`: 1970 at the first boot, two years idle,
glitches of 20 years both ways for an hour or a week, a year off, a clock that is a year behind. It takes a fifth of a
second of processor time. A failure is printed with its seed, which plays the same again: --seed SEED --trials 1.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.support import simulated_clocks


def main() -> int:
    """Play the trials; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.clocks", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; default: %(default)s")
    given = parser.parse_args()
    played: Counter[str] = Counter()
    failures = 0
    for seed in range(given.seed, given.seed + given.trials):
        try:
            played[simulated_clocks.play(seed)] += 1
        except AssertionError as error:
            failures += 1
            print(f"seed {seed}: {error}", flush=True)
    scenarios = ", ".join(f"{name} {count}" for name, count in sorted(played.items()))
    print(f"{given.trials} trials from seed {given.seed}: {failures} failures ({scenarios})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
