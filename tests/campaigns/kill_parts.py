"""Kill processes in one part of their work at a time; see `tests.crash.kills.parts`.

python -m tests.campaigns.kill_parts --kills 400 --seed 1                     each part, with 400 SIGKILLs
python -m tests.campaigns.kill_parts --part unlocked --kills 1000 --seed 2    one part
"""

from __future__ import annotations

import argparse
import time

from tests.crash.kills.parts import KILLS_A_ROUND, PARTS, play


def main() -> None:
    """Play rounds of each part until enough processes were killed, and print what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.kill_parts", description="Kill and stop processes in a part of their work."
    )
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--kills", type=int, default=KILLS_A_ROUND, help="kills per part")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for part in options.part or PARTS:
        began = time.monotonic()
        print(f"{part}: {play(part, options.kills, options.seed)}, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
