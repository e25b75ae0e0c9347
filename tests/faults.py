"""The fault sweep: every system call of a write, a merge, a close, a snapshot fails once, and from there on.

    python tests/faults.py                         the full sweep
    python tests/faults.py --every 20              every 20th point
    python tests/faults.py --scenario write --kind full --at 17 --sticky     one point, with its traceback

A *point* is a call (SQLite's, or edgeshard's own), a kind of failure, and whether it is this call alone or all that
follow. For kind "memory" it is a limit of SQLite's heap in steps of `_HEAP_STEP` bytes: what goes beyond it fails. After each
point all is healed, and the rows in the master are compared with what the writers were told: with the handles going on,
and with the files as a kill would have left them at that moment.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import apsw
import attrs
import fault_scenarios
from fault_scenarios import SCENARIOS, Account, Sample
from injection import KINDS, ONCE_ONLY, Fault, Injector

import edgeshard
from edgeshard import sqlite
from edgeshard.sqlite import maintenance

MEMORY = "memory"
_HEAP_STEP = 512


@attrs.frozen
class Point:
    """One run of a scenario."""

    scenario: str
    fault: Fault

    def __str__(self) -> str:
        sticky = " --sticky" if self.fault.sticky else ""
        return f"--scenario {self.scenario} --kind {self.fault.kind} --at {self.fault.at}{sticky}"


@attrs.define
class Tally:
    """What the sweep did.

    Attributes:
        points: how many runs met their fault.
        passed_over: how many of them no caller was told of, because the work was done all the same.
        missed: how many runs did not come to their fault.
        errors: the classes of the errors that came.
        violations: what went wrong, each with its point.
    """

    points: int = 0
    passed_over: int = 0
    missed: int = 0
    errors: collections.Counter[str] = attrs.Factory(collections.Counter)
    violations: list[str] = attrs.Factory(list)

    def add(self, other: Tally) -> None:
        """Count another one's in."""
        self.points += other.points
        self.passed_over += other.passed_over
        self.missed += other.missed
        self.errors += other.errors
        self.violations += other.violations

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items()))
        return (
            f"{self.points} points, {self.passed_over} passed over, {self.missed} missed, "
            f"{len(self.violations)} violations; {errors or 'no errors'}"
        )


# -- one point --------------------------------------------------------------------------------------------------------


class Sweep:
    """Runs points, in a folder of its own for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._injector = Injector()
        self._runs = 0

    @contextlib.contextmanager
    def _armed(self, fault: Fault | None) -> Iterator[None]:
        random.seed(0)
        memory = fault is not None and fault.kind == MEMORY
        self._injector.arm(None if memory else fault)
        if fault is not None and memory:
            apsw.hard_heap_limit(apsw.memory_used() + fault.at * _HEAP_STEP)
        try:
            yield
        finally:
            apsw.hard_heap_limit(0)
            self._injector.heal()

    def run(self, point: Point, fault: Fault | None) -> tuple[Account, bool]:
        """One run, and all checks.

        Returns:
            What the writers were told, and whether the fault came.

        Raises:
            AssertionError, Exception: a promise was broken.
        """
        self._runs += 1
        root = self._folder / f"run{self._runs}" / "store"
        root.mkdir(parents=True)
        account = Account(root)
        before = _descriptors()
        scenario = SCENARIOS[point.scenario](account)
        try:
            next(scenario)
            with self._armed(fault):
                next(scenario)
            hit = self._injector.hits > 0 or bool(account.errors)
            # nobody else has these files open, whose locks a copy in this process would take away
            image = root.parent / "image" / "store"
            shutil.copytree(root, image, ignore=shutil.ignore_patterns("*-shm"))
            told = account.copy(image)
            next(scenario, None)
            check(account)
            check(told)
        finally:
            scenario.close()
        assert not _descriptors() - before, f"descriptors are left open: {_descriptors() - before}"
        shutil.rmtree(root.parent)
        return account, hit

    def points(self, scenario: str, kinds: list[str]) -> list[Point]:
        """All points of a scenario."""
        high = apsw.memory_high_water(True)
        self.run(Point(scenario, Fault("error", 0, False)), None)
        high = apsw.memory_high_water(True) - min(high, apsw.memory_used())
        calls = [call for call, _ in self._injector.trace]
        found = []
        for kind in kinds:
            if kind == MEMORY:
                found += [Point(scenario, Fault(kind, at, True)) for at in range(high // _HEAP_STEP)]
                continue
            sticky = [False] if kind in ONCE_ONLY else [False, True]
            numbers = [number for number, call in enumerate(calls) if call in KINDS[kind]]
            found += [Point(scenario, Fault(kind, at, stays)) for stays in sticky for at in numbers]
        return found

    def try_point(self, point: Point) -> Tally:
        """One run, as a tally of its own."""
        tally = Tally()
        try:
            account, hit = self.run(point, point.fault)
        except Exception as error:
            tally.points = 1
            where = self._injector.trace[point.fault.at] if point.fault.at < len(self._injector.trace) else ""
            tally.violations.append(f"{point}  {where}\n    {type(error).__name__}: {error}")
            return tally
        tally.points, tally.missed = int(hit), int(not hit)
        tally.passed_over = int(hit and not account.errors)
        tally.errors.update(account.errors)
        return tally


def check(account: Account) -> None:
    """Whatever happened, a merge brings every row that was acknowledged, once, and no row that was refused."""
    store = edgeshard.Store(account.root)
    sources = [account.root / name for name in account.sources]
    report = store.merge(sources)
    if report.quarantined:  # what a merge failed to delete, it says; the next one does it
        report = store.merge(sources)
    assert report.complete, report
    account.check([row.data["n"] for row in store.read(edgeshard.AgentData)] + [row.n for row in store.read(Sample)])
    verified = store.verify()
    assert verified.ok, verified


def _descriptors() -> collections.Counter[str]:
    names: collections.Counter[str] = collections.Counter()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names[os.readlink(f"/proc/self/fd/{entry}").removesuffix(" (deleted)")] += 1
    return collections.Counter({name: count for name, count in names.items() if not name.startswith("/proc")})


# -- mutants ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _passing_over_failed_commits(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        with contextlib.suppress(apsw.Error):
            connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


#: The package broken on purpose: what is replaced, and by what.
MUTANTS: dict[str, tuple[object, str, object]] = {
    "every failure refuses": (sqlite, "is_refused", lambda error: True),
    "a failed commit is passed over": (sqlite, "immediate", _passing_over_failed_commits),
    "half a database is published": (maintenance, "truncate_wal", lambda connection: None),
    "a full disk is none": (sqlite, "is_full", lambda error: False),
}


# -- the command ------------------------------------------------------------------------------------------------------


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
        print(f"{scenario}: {tally} ({time.monotonic() - began:.0f} s)", flush=True)
        total.add(tally)
    return total


def main() -> int:
    """The command; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description="Let every system call fail, and account for every row.")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--kind", action="append", choices=[*KINDS, MEMORY])
    parser.add_argument("--every", type=int, default=1, help="try every n-th point only")
    parser.add_argument("--offset", type=int, default=0, help="and begin with this one")
    parser.add_argument("--at", type=int, help="one point, with its traceback")
    parser.add_argument("--sticky", action="store_true")
    parser.add_argument("--once", action="store_true", help="no sticky faults")
    parser.add_argument("--mutant", choices=MUTANTS, help="break the package on purpose, and see it found")
    options = parser.parse_args()
    apsw.shutdown()
    apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, True)  # without it there is no limit to the heap
    apsw.initialize()
    # faults are of calls, not of a disk: one in memory is as good
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="edgeshard-faults-", dir=fast) as folder, contextlib.ExitStack() as patches:
        fault_scenarios.make_small(lambda *what: patches.enter_context(mock.patch.object(*what)))
        if options.mutant:
            owner, name, mutant = MUTANTS[options.mutant]
            patches.enter_context(mock.patch.object(owner, name, mutant))
        sweep = Sweep(Path(folder))
        if options.at is not None:
            point = Point(options.scenario[0], Fault(options.kind[0], options.at, options.sticky))
            try:
                account, hit = sweep.run(point, point.fault)
            except Exception:
                for number, call in enumerate(sweep._injector.trace):
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
