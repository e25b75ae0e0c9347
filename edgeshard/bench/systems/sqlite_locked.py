"""One tuned SQLite database for all agents, behind a lock file that each takes around its commit.

SQLite's own waiting is unfair: whoever is refused sleeps, and others go first. A lock file makes agents wait in the
kernel instead. There are two: a plain flock(2), which is common, and a fair lock; see `lock_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard.bench.system import Setting, Writer
from edgeshard.bench.systems import sqlite_tuned
from edgeshard.bench.systems.lock_files import FileLock, Flock, TicketLock
from edgeshard.bench.systems.sqlite_tuned import Tuned, TunedPlace, TunedWriter
from edgeshard.bench.workload import Durability, Result

GUARANTEE: Final = sqlite_tuned.GUARANTEE


class LockedWriter:
    """One agent's connection, and its lock."""

    def __init__(self, path: Path, durability: Durability, lock: FileLock) -> None:
        self._writer = TunedWriter(path, durability)
        self._lock = lock

    def write(self, row: Result) -> None:
        """Write one row."""
        with self._lock:
            self._writer.write(row)

    def write_many(self, rows: Sequence[Result]) -> None:
        """Write rows in one transaction."""
        with self._lock:
            self._writer.write_many(rows)

    def close(self) -> None:
        """Close the connection and the lock's file."""
        self._writer.close()
        self._lock.close()


@attrs.frozen
class LockedPlace(TunedPlace):
    """The path of the database, and the kind of lock."""

    make_lock: Callable[[Path], FileLock]

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all agents write to one file
        """Open the database for one agent."""
        return LockedWriter(self.path, self.durability, self.make_lock(self.path.with_suffix(".lock")))


class Locked(Tuned):
    """One SQLite database for all agents, with tuned settings and a lock file."""

    def __init__(self, setting: Setting, make_lock: Callable[[Path], FileLock]) -> None:
        super().__init__(setting)
        self.place = LockedPlace(self.place.path, setting.durability, make_lock)


def with_flock(setting: Setting) -> Locked:
    """Create the system with a plain flock."""
    return Locked(setting, Flock)


def with_tickets(setting: Setting) -> Locked:
    """Create the system with a fair lock."""
    return Locked(setting, TicketLock)
