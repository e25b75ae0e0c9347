"""The whole system for a long time: every acknowledged row ends in the master once, and nothing grows that should not.

    python -m tests.campaigns.soak --minutes 30 --seed 7 [--agents 12] [--tempo 1] [--merger watch|loop] [--dir FOLDER]

Writers of all paces come and go, under names that last and names that are used once, and some are killed. Beside them
one watching merger is killed, stopped, continued, told to rescan and told to end, again and again; cron merges, readers
read, verify verifies, and now and then the folder of the shards is replaced. Every actor draws what it does from the
seed; when exactly that falls is up to the machine. In the end a judge compares the master, row by row, with what the
writers were told, and the merger's memory and descriptors are looked at over each of its lives.

It exits with 0 if nothing is lost, doubled or wrong, verify is content, every process ended as it should, and the
bounds of `tests.crash.soak.growth` hold. ``--sabotage lose|double|change`` harms one row before the judge comes: then
it must exit with 1.
"""

from __future__ import annotations

import argparse
import sys

from tests.crash.soak.actors import Options
from tests.crash.soak.campaign import play


def main() -> int:
    """Play for the time that was asked for, and print the outcome."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agents", type=int, default=12, help="writer processes at a time")
    parser.add_argument("--tempo", type=float, default=1.0, help="by how much more often things happen")
    parser.add_argument("--merger", choices=["watch", "loop"], default="watch", help="loop: merges without a watch")
    parser.add_argument("--sabotage", choices=["lose", "double", "change"], default="", help="harm one row at the end")
    parser.add_argument("--dir", help="on the disk of this folder (default: the one for temporary files)")
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
