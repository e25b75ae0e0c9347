"""The systems that are compared, one module each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from edgeshard.bench.system import Setting, System
from edgeshard.bench.systems import hybrid, postgres, queue, shards, sqlite_default, sqlite_tuned


@attrs.frozen
class Entry:
    """A system, as it is chosen and shown.

    Attributes:
        title: what it is called in tables.
        make: makes one.
        guarantee: what it gives for each durability, in its own terms.
    """

    title: str
    make: Callable[[Setting], System]
    guarantee: dict[str, str]


SYSTEMS: Final[dict[str, Entry]] = {
    "sqlite-default": Entry("shared SQLite, by default", sqlite_default.Default, sqlite_default.GUARANTEE),
    "sqlite-tuned": Entry("shared SQLite, tuned", sqlite_tuned.Tuned, sqlite_tuned.GUARANTEE),
    "queue": Entry("Redis queue + SQLite", queue.Queue, queue.GUARANTEE),
    "postgres": Entry("PostgreSQL", postgres.Postgres, postgres.GUARANTEE),
    "edgeshard": Entry("edgeshard", shards.Shards, shards.GUARANTEE),
    "hybrid-postgres": Entry("hybrid: library + PostgreSQL", hybrid.with_postgres, postgres.GUARANTEE),
    "hybrid-edgeshard": Entry("hybrid: library + edgeshard", hybrid.with_shards, shards.GUARANTEE),
}
