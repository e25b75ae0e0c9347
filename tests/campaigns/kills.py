"""Kill writers and mergers for a long time; see `tests.crash.kills.writers_and_mergers`.

python -m tests.campaigns.kills --rounds 50 --rows 20000 --seed 1
"""

from __future__ import annotations

import argparse

from tests.crash.kills.writers_and_mergers import play


def main() -> None:
    """Play rounds, each with its own seed, and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.kills", description="Kill writers and mergers, and account for every row."
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=20_000, help="rows per writer")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(play(options.rounds, options.rows, options.seed))


if __name__ == "__main__":
    main()
