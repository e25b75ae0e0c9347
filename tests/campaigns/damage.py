"""Merge thousands of damaged shards; see `tests.support.damaged_shards`.

    python -m tests.campaigns.damage --trials 10000 --seed 1 --out damage.jsonl

The output has one line per trial; a campaign that was stopped continues from there. ``--only N`` replays one trial.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import attrs

from tests.support.damaged_shards import FAULTS, Trial, play, table, work


def main() -> None:
    """Play the missing trials, and print a table of their outcomes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.damage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file of results; only trials that it lacks are played")
    parser.add_argument("--only", type=int, help="play only this trial, and print its outcome")
    options = parser.parse_args()
    if options.only is not None:
        work(options.seed, [options.only])
    else:
        trials = _play_missing(options.seed, options.trials, options.out)
        print(table(trials))
        faults = [trial for trial in trials if trial.outcome in FAULTS]
        for trial in faults:
            print(trial, file=sys.stderr)
        sys.exit(bool(faults))


def _play_missing(seed: int, count: int, out: Path | None) -> list[Trial]:
    trials = []
    if out is not None and out.exists():
        trials = [Trial(**json.loads(line)) for line in out.read_text().splitlines() if line.endswith("}")]
    # they are played in order
    for trial in play(seed, list(range(max((trial.number + 1 for trial in trials), default=0), count))):
        trials.append(trial)
        if out is not None:
            with out.open("a") as file:
                file.write(json.dumps(attrs.asdict(trial)) + "\n")
    return trials


if __name__ == "__main__":
    main()
