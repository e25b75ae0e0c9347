"""Simulate power cuts, torn writes and kills, four in a row, below the real package.

    python -m tests.campaigns.powercut --trials 20000 --seed 1 [--resume FILE]
    python -m tests.campaigns.powercut --seed 1 --only 153
    python -m tests.campaigns.powercut --seed 1 --mutant "master at NORMAL"

It prints how often each event happened, and each trial that broke a promise; if there was one, it exits with 1.
``--resume`` saves its progress in FILE, and continues from there. ``--only`` plays one trial, and prints everything that
happened to its disk. ``--mutant`` puts a fault into edgeshard, and ends with the first trial that finds it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.crash.powercut.machine import patched
from tests.crash.powercut.trials import NOTED_EVERY, Tally, play, play_one, playground
from tests.mutants.powercut_mutants import MUTANTS


def main() -> int:
    """Run the campaign, or replay one trial."""
    options = _options()
    _fix_hashes()
    with patched(MUTANTS[options.mutant]() if options.mutant else []):
        return _replay(options.seed, options.only) if options.only is not None else _campaign(options)


def _campaign(options: argparse.Namespace) -> int:
    began = time.monotonic()
    tally = Tally() if options.resume is None else Tally.load(options.resume, options.seed)
    before = tally.counts["trials"]

    def note(tally: Tally) -> bool:
        if options.resume is not None and tally.counts["trials"] % NOTED_EVERY == 0:
            tally.save(options.resume, options.seed)
        return not (options.mutant and tally.violations)

    play(options.trials, options.seed, first=options.first, tally=tally, after_each=note)
    if options.resume is not None:
        tally.save(options.resume, options.seed)
    print(*tally.lines(), sep="\n")
    print(f"{tally.counts['trials'] - before:,} trials in {time.monotonic() - began:.0f} s")
    return 1 if tally.violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.powercut", description="Cut the power, and account for every row."
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="begin with this trial")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="save the progress there, and continue from it")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="play only this trial, and print its log")
    parser.add_argument("--mutant", choices=MUTANTS, help="put this fault into edgeshard, and stop once it is found")
    return parser.parse_args()


def _fix_hashes() -> None:
    """Restart with a fixed hash seed: the order of sets depends on it."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "tests.campaigns.powercut", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})


def _replay(seed: int, number: int) -> int:
    with playground() as folder:
        trial = play_one(folder, f"{seed}-{number}")
    for index, entry in enumerate(trial.log):
        print(index, *entry)
    print(trial.settings)
    print(trial.details or "no violation")
    return 1 if trial.violation else 0


if __name__ == "__main__":
    sys.exit(main())
