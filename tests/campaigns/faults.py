"""Run the sweep over failing system calls; see `tests.crash.syscall_faults`.

    python -m tests.campaigns.faults                         the full sweep
    python -m tests.campaigns.faults --every 20              every 20th point
    python -m tests.campaigns.faults --scenario write --kind full --at 17 --sticky     one point, with its traceback

The calls that it replaces stay replaced, so tests run it in a separate process, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from unittest import mock

import apsw

from tests.crash.syscall_faults import scenarios
from tests.crash.syscall_faults.injector import KINDS, Fault
from tests.crash.syscall_faults.scenarios import SCENARIOS
from tests.crash.syscall_faults.sweep import MEMORY, Point, Sweep, Tally
from tests.mutants.syscall_fault_mutants import MUTANTS


def _sweep(sweep: Sweep, options: argparse.Namespace) -> Tally:
    total = Tally()
    for scenario in options.scenario or SCENARIOS:
        began = time.monotonic()
        points = sweep.points(scenario, options.kind or [*KINDS, MEMORY])
        points = [point for point in points if not (options.once and point.fault.sticky)]
        tally = Tally()
        for point in points[options.offset % options.every :: options.every]:
            one = sweep.try_point(point)
            for violation in one.violations:
                print(violation, flush=True)
            tally.add(one)
            if options.mutant and tally.violations:
                break
        print(f"{scenario}: {tally} ({time.monotonic() - began:.0f} s)", flush=True)
        total.add(tally)
    return total


def main() -> int:
    """Run the requested points; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.faults", description="Let every system call fail, and account for every row."
    )
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--kind", action="append", choices=[*KINDS, MEMORY])
    parser.add_argument("--every", type=int, default=1, help="try only every n-th point")
    parser.add_argument("--offset", type=int, default=0, help="begin with this point")
    parser.add_argument("--at", type=int, help="one point, with its traceback")
    parser.add_argument("--sticky", action="store_true")
    parser.add_argument("--once", action="store_true", help="no sticky faults")
    parser.add_argument(
        "--mutant", choices=MUTANTS, help="break the package on purpose, and check that the sweep finds it"
    )
    options = parser.parse_args()
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, True)  # without it the heap cannot be limited
    apsw.initialize()
    # calls fail, not a disk, so a folder in memory is as good
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="edgeshard-faults-", dir=fast) as folder, contextlib.ExitStack() as patches:
        scenarios.make_small(lambda *what: patches.enter_context(mock.patch.object(*what)))
        if options.mutant:
            owner, name, mutant = MUTANTS[options.mutant]
            patches.enter_context(mock.patch.object(owner, name, mutant))
        sweep = Sweep(Path(folder))
        if options.at is not None:
            point = Point(options.scenario[0], Fault(options.kind[0], options.at, options.sticky))
            try:
                account, hit = sweep.run(point, point.fault)
            except Exception:
                for number, call in enumerate(sweep.trace):
                    print(number, *call, "<-" if number == point.fault.at else "")
                traceback.print_exc()
                return 1
            print(account, "hit" if hit else "missed")
            return 0
        total = _sweep(sweep, options)
    print(f"SQLite {apsw.sqlite_lib_version()}, apsw {apsw.apsw_version()}: {total}")
    return 1 if total.violations or not total.points else 0


if __name__ == "__main__":
    sys.exit(main())
