"""A hybrid: agents look up patterns in a read-only SQLite library, and write results to another system.

The library has 25 patterns. Every agent opens its file read-only, so no reader waits for another. Each row costs one
look-up by id, whose time counts as part of the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard.bench.system import Place, Reader, Setting, System, Writer
from edgeshard.bench.systems.postgres import Postgres
from edgeshard.bench.systems.shards import Shards
from edgeshard.bench.workload import Result
from edgeshard.sqlite import Connection

_PATTERNS: Final = 25
_READ_ONLY: Final = 0x1  # SQLITE_OPEN_READONLY
_SELECT: Final = "SELECT template FROM pattern WHERE id = ?"


def pattern_of(row: Result) -> str:
    """Return the id of the pattern that a result refers to."""
    return f"RECURSIVE_{row.number % _PATTERNS:03}"


class HybridWriter:
    """One agent's connections: to the library, and to the system for results."""

    def __init__(self, library: Path, results: Writer) -> None:
        self._library = Connection(str(library), flags=_READ_ONLY)
        self._results = results

    def write(self, row: Result) -> None:
        """Look up the pattern, and write one row."""
        self._look_up(row)
        self._results.write(row)

    def write_many(self, rows: Sequence[Result]) -> None:
        """Look up the patterns, and write rows in one commit."""
        for row in rows:
            self._look_up(row)
        self._results.write_many(rows)

    def _look_up(self, row: Result) -> None:
        if self._library.execute(_SELECT, (pattern_of(row),)).fetchone() is None:
            raise LookupError(f"no pattern {pattern_of(row)}")

    def close(self) -> None:
        """Close both connections."""
        self._library.close()
        self._results.close()


@attrs.frozen
class HybridPlace:
    """The address of a library and of the system for results."""

    library: Path
    results: Place

    @property
    def modules(self) -> Sequence[str]:
        """The modules of the system for results."""
        return self.results.modules

    @property
    def in_threads(self) -> bool:
        """As the system for results says."""
        return self.results.in_threads

    def open_writer(self, agent: int) -> Writer:
        """Open both for one agent."""
        return HybridWriter(self.library, self.results.open_writer(agent))

    def open_reader(self) -> Reader:
        """Open the final database of the results."""
        return self.results.open_reader()


class Hybrid:
    """A read-only library next to another system.

    Args:
        setting: as for every system.
        make_results: creates the system for results.
    """

    def __init__(self, setting: Setting, make_results: Callable[[Setting], System]) -> None:
        results = setting.folder / "results"
        results.mkdir()
        self._library = setting.folder / "patterns.db"
        self._results = make_results(attrs.evolve(setting, folder=results))

    @property
    def place(self) -> HybridPlace:
        """The address of both."""
        return HybridPlace(self._library, self._results.place)

    def start(self) -> None:
        """Create the library, and start the system for results."""
        connection = Connection(str(self._library))
        try:
            connection.execute("CREATE TABLE pattern(id TEXT PRIMARY KEY, template TEXT NOT NULL) WITHOUT ROWID")
            patterns = ((f"RECURSIVE_{number:03}", f"template {number} " * 50) for number in range(_PATTERNS))
            connection.executemany("INSERT INTO pattern VALUES (?, ?)", patterns)
        finally:
            connection.close()
        self._results.start()

    def servers(self) -> list[int] | None:
        """Return the servers of the system for results."""
        return self._results.servers()

    def finish(self) -> None:
        """Finish the system for results."""
        self._results.finish()

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all results."""
        return self._results.read_back()

    def stop(self) -> None:
        """Stop the system for results."""
        self._results.stop()


def with_postgres(setting: Setting) -> System:
    """Create a hybrid whose results go to PostgreSQL."""
    return Hybrid(setting, Postgres)


def with_shards(setting: Setting) -> System:
    """Create a hybrid whose results go to edgeshard."""
    return Hybrid(setting, Shards)
