"""Run the whole system for a long time: no row is lost or duplicated, and nothing grows that should not.

    python -m tests.campaigns.soak --minutes 30 --seed 7 [--agents 12] [--tempo 1] [--merger watch|loop] [--dir FOLDER]

Fast and slow writers come and go, some under lasting names and some under names used once, and some are killed. Next to
them one watching merger is killed, stopped, continued, told to rescan and told to end, again and again. Cron jobs merge,
readers read, verify runs, and now and then the folder of the shards is replaced. Every actor draws its actions from the
seed, but their timing depends on the machine. At the end a judge compares the master, row by row, with what the writers
were told, and the memory and descriptors of each merger process are checked for growth.

It exits with 0 if no row is lost, duplicated or wrong, verify finds no error, every process ended as expected, and the
bounds of `tests.crash.soak.growth` hold. ``--sabotage lose|double|change`` harms one row before the judge runs: then it
must exit with 1.
"""

from __future__ import annotations

import argparse
import sys

from tests.crash.soak.actors import Options
from tests.crash.soak.campaign import play


def main() -> int:
    """Run for the requested time, and print the outcome."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agents", type=int, default=12, help="writer processes at a time")
    parser.add_argument("--tempo", type=float, default=1.0, help="how many times more often things happen")
    parser.add_argument(
        "--merger", choices=["watch", "loop"], default="watch", help="loop: merge at intervals, without watching"
    )
    parser.add_argument("--sabotage", choices=["lose", "double", "change"], default="", help="harm one row at the end")
    parser.add_argument("--dir", help="where to put the store (default: the folder for temporary files)")
    given = parser.parse_args()
    options = Options(
        given.minutes * 60, given.seed, given.agents, given.tempo, given.merger, given.sabotage, given.dir
    )
    outcome = play(options)
    print("\n".join(outcome.lines))
    print("\n".join(f"FAULT: {fault}" for fault in outcome.faults) or "nothing lost, nothing doubled, nothing grew")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
