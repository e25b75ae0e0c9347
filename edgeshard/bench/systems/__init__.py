"""The compared systems, one module each, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from edgeshard.bench.system import Setting, System
from edgeshard.bench.systems import hybrid, postgres, queue, shards, sqlite_default, sqlite_locked, sqlite_tuned, turso


@attrs.frozen
class Entry:
    """How to show and create a system.

    Attributes:
        title: its name in tables.
        make: creates the system.
        guarantee: for each durability, the settings that provide it, in the system's own terms.
    """

    title: str
    make: Callable[[Setting], System]
    guarantee: dict[str, str]


SYSTEMS: Final[dict[str, Entry]] = {
    "sqlite-default": Entry("shared SQLite, defaults", sqlite_default.Default, sqlite_default.GUARANTEE),
    "sqlite-tuned": Entry("shared SQLite, tuned", sqlite_tuned.Tuned, sqlite_tuned.GUARANTEE),
    "sqlite-flock": Entry("shared SQLite, tuned, flock", sqlite_locked.with_flock, sqlite_locked.GUARANTEE),
    "sqlite-fair": Entry("shared SQLite, tuned, fair lock", sqlite_locked.with_tickets, sqlite_locked.GUARANTEE),
    "turso": Entry("Turso MVCC, processes", turso.with_processes, turso.GUARANTEE),
    "turso-threads": Entry("Turso MVCC, threads of 1 process", turso.with_threads, turso.GUARANTEE),
    "queue": Entry("Redis queue + SQLite", queue.Queue, queue.GUARANTEE),
    "postgres": Entry("PostgreSQL", postgres.Postgres, postgres.GUARANTEE),
    "edgeshard": Entry("edgeshard", shards.Shards, shards.GUARANTEE),
    "hybrid-postgres": Entry("hybrid: library + PostgreSQL", hybrid.with_postgres, postgres.GUARANTEE),
    "hybrid-edgeshard": Entry("hybrid: library + edgeshard", hybrid.with_shards, shards.GUARANTEE),
}
