"""One SQLite database for all agents, opened as most programs do: ``sqlite3.connect(path)``, and nothing more.

A rollback journal, synchronous=FULL, a timeout of 5 seconds, transactions that the library begins by itself. An agent
that gets "database is locked" tries again, as a program that must not lose the row has to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from edgeshard.bench.system import BusyError, Reader, Setting, Writer
from edgeshard.bench.systems.sqlite_tuned import INSERT, TABLE, FileReader, rows_of
from edgeshard.bench.workload import Result
from edgeshard.sqlite import Connection

GUARANTEE: Final = dict.fromkeys(
    ("process", "power"), "rollback journal, synchronous=FULL: survives a power cut, whatever was asked"
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
    """A SQLite file."""

    path: Path

    modules: ClassVar[Sequence[str]] = ()

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all of them write into one file
        """Open it for an agent."""
        return DefaultWriter(self.path)

    def open_reader(self) -> Reader:
        """Open it for a reader."""
        return FileReader(self.path)


class Default:
    """One SQLite database for all agents, by default."""

    def __init__(self, setting: Setting) -> None:
        self.place = DefaultPlace(setting.folder / "results.db")

    def start(self) -> None:
        """Make the database."""
        connection = Connection(str(self.place.path))
        try:
            connection.execute(TABLE)
        finally:
            connection.close()

    def servers(self) -> list[int]:
        """There are none."""
        return []

    def finish(self) -> None:
        """Do nothing: what is committed can be read."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """All rows."""
        return rows_of(self.place.path)

    def stop(self) -> None:
        """Do nothing."""
