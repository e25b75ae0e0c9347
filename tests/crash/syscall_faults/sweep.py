"""Sweep over faults: let every system call and every SQL statement of a scenario fail once, or from there on.

A *point* is a call (SQLite's, or edgeshard's own), a kind of failure, and whether only this call fails or also all that
follow. For kind "memory" it is a limit of SQLite's heap, in steps of `_HEAP_STEP` bytes: larger allocations fail. After
each point nothing fails any more, and the rows in the master are compared with what the writers were told: once with the
handles still in use, and once with the files as a kill would have left them at that moment.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import attrs

import edgeshard
from tests.crash.syscall_faults.injector import KINDS, ONCE_ONLY, Fault, Injector
from tests.crash.syscall_faults.scenarios import SCENARIOS
from tests.crash.syscall_faults.scenarios.account import Account

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
    """Counts of what the sweep did.

    Attributes:
        points: how many runs reached their fault.
        passed_over: how many of them raised no error, because the work was done all the same.
        missed: how many runs did not reach their fault.
        errors: the classes of the errors that were raised.
        violations: what went wrong, each with its point.
    """

    points: int = 0
    passed_over: int = 0
    missed: int = 0
    errors: collections.Counter[str] = attrs.Factory(collections.Counter)
    violations: list[str] = attrs.Factory(list)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
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
    """Runs points, each in its own folder."""

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
        """Run a point, with all checks.

        Returns:
            What the writers were told, and whether the fault happened.

        Raises:
            AssertionError, Exception: a promise was broken.
        """
        self._runs += 1
        root = self._folder / f"run{self._runs}" / "store"
        root.mkdir(parents=True)
        account = Account(root)
        before = _descriptors()
        scenario = SCENARIOS[point.scenario](account)
        gc.disable()  # it would close what was left open, sometimes
        try:
            next(scenario)
            with self._armed(fault):
                next(scenario)
            hit = self._injector.hits > 0 or bool(account.errors)
            # nobody else has these files open, so copying them in this process drops no locks
            image = root.parent / "image" / "store"
            shutil.copytree(root, image, ignore=shutil.ignore_patterns("*-shm"))
            told = account.copy(image)
            next(scenario, None)
            check(account)
            check(told)
            scenario.close()
            assert not _descriptors() - before, f"descriptors are left open: {_descriptors() - before}"
        finally:
            scenario.close()
            gc.enable()
        shutil.rmtree(root.parent)
        return account, hit

    def points(self, scenario: str, kinds: list[str]) -> list[Point]:
        """Return all points of a scenario."""
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
        """Run a point, and return its own tally."""
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

    @property
    def trace(self) -> list[tuple[str, str]]:
        """Return the calls of the last run, in order."""
        return self._injector.trace


def check(account: Account) -> None:
    """Check that a merge brings every acknowledged row once, and no refused row, whatever happened."""
    store = edgeshard.Store(account.root)
    sources = [account.root / name for name in account.sources]
    store.init()  # a fault may have kept the first agent from making it
    account.finish(store)
    report = store.merge(sources)
    if report.quarantined:  # a merge reports what it failed to delete; the next one deletes it
        report = store.merge(sources)
    assert report.complete, report
    account.check(account.numbers(store))
    verified = store.verify()
    assert verified.ok, verified


def _descriptors() -> collections.Counter[str]:
    names: collections.Counter[str] = collections.Counter()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names[os.readlink(f"/proc/self/fd/{entry}").removesuffix(" (deleted)")] += 1
    return collections.Counter({name: count for name, count in names.items() if not name.startswith("/proc")})
