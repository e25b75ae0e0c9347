"""Play histories of stores with a disk budget: real ones, and simulated ones over the pure policy.

    python -m tests.campaigns.budget --trials 1000 --seed 1 --resume budget.jsonl --simulated 9000

The file has one line per history of a real store; a campaign that was stopped continues from there. ``--only N``
replays one. The simulated ones take the seeds from --seed on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import attrs

from tests.support import budget_histories, budget_model
from tests.support.budget_histories import OK, Trial
from tests.support.budget_model import BrokenPromiseError


def main() -> None:
    """Play the missing histories, and print how many ended how."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.budget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=100, help="how many histories of real stores")
    parser.add_argument("--simulated", type=int, default=0, help="how many simulated histories")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", type=Path, help="a file of results; only trials that it lacks are played")
    parser.add_argument("--only", type=int, help="play only this trial, and print its outcome")
    options = parser.parse_args()
    if options.only is not None:
        print(budget_histories.play(options.seed, options.only))
        return
    faults = _simulate(options.seed, options.simulated)
    trials = _play_missing(options.seed, options.trials, options.resume)
    print(_summary(trials))
    faults += [str(trial) for trial in trials if trial.outcome != OK]
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


def _simulate(seed: int, count: int) -> list[str]:
    faults = []
    for each in range(seed, seed + count):
        try:
            budget_model.play(each)
        except BrokenPromiseError as fault:
            faults.append(f"simulated history {each}: {fault}")
    if count:
        print(f"{count} simulated histories: {len(faults)} faults", flush=True)
    return faults


def _play_missing(seed: int, count: int, path: Path | None) -> list[Trial]:
    trials = []
    if path is not None and path.exists():
        trials = [Trial(**json.loads(line)) for line in path.read_text().splitlines() if line.endswith("}")]
    for number in range(max((trial.number + 1 for trial in trials), default=0), count):
        trials.append(budget_histories.play(seed, number))
        if path is not None:
            with path.open("a") as file:
                file.write(json.dumps(attrs.asdict(trials[-1])) + "\n")
    return trials


def _summary(trials: list[Trial]) -> str:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in Counter(each.outcome for each in trials).items())
    written, dropped = sum(each.written for each in trials), sum(each.dropped for each in trials)
    fullest = max((each.largest / each.max_bytes for each in trials), default=0.0)
    return (
        f"{len(trials)} histories of real stores: {outcomes}; {written} rows written, {dropped} dropped, "
        f"{sum(each.refused for each in trials)} refusals; at most {100 * fullest:.1f} % of the budget were used"
    )


if __name__ == "__main__":
    main()
