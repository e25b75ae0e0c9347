"""One SQLite database for all agents, opened as most programs do: just ``sqlite3.connect(path)``.

This gives a rollback journal, synchronous=FULL, a busy timeout of 5 seconds, and implicit transactions. An agent that
gets "database is locked" tries again, as any program must that cannot afford to lose the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from edgeshard.bench.system import BusyError, Reader, Setting, Writer
from edgeshard.bench.systems.sqlite_tuned import INSERT, TABLE, FileReader, read_rows
from edgeshard.bench.workload import Result
from edgeshard.sqlite import Connection

GUARANTEE: Final = dict.fromkeys(
    ("process", "power"), "rollback journal, synchronous=FULL: survives a power cut in both classes"
)


class DefaultWriter:
    """One agent's connection."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)

    def write(self, row: Result) -> None:
        """Write one row."""
        self.write_many((row,))

    def write_many(self, rows: Sequence[Result]) -> None:
        """Write rows in one transaction."""
        values = [(row.agent, row.number, row.at_ns, row.payload) for row in rows]
        try:
            with self._connection:
                self._connection.executemany(INSERT, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise BusyError from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@attrs.frozen
class DefaultPlace:
    """The path of the database."""

    path: Path

    modules: ClassVar[Sequence[str]] = ()
    in_threads: ClassVar[bool] = False

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all agents write to one file
        """Open the database for one agent."""
        return DefaultWriter(self.path)

    def open_reader(self) -> Reader:
        """Open the database for a reader."""
        return FileReader(self.path)


class Default:
    """One SQLite database for all agents, with default settings."""

    def __init__(self, setting: Setting) -> None:
        self.place = DefaultPlace(setting.folder / "results.db")

    def start(self) -> None:
        """Create the database."""
        connection = Connection(str(self.place.path))
        try:
            connection.execute(TABLE)
        finally:
            connection.close()

    def servers(self) -> list[int]:
        """Return no servers."""
        return []

    def finish(self) -> None:
        """Do nothing: every committed row can be read."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all rows."""
        return read_rows(self.place.path)

    def stop(self) -> None:
        """Do nothing."""
