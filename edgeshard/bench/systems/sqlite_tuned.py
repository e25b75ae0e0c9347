"""One SQLite database for all agents, opened as SQLite's experts advise.

Write-ahead log, rare checkpoints, a busy timeout that outlasts any wait, statements that are compiled once, and
transactions that take the write lock at once. Readers and writers do not wait for each other; writers wait for writers.

What SQLite's files are read by here, for this system and others, is apsw, edgeshard's own library of SQLite; the
default system's agents use the standard library's, and no process uses both on one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs

from edgeshard.bench.system import BusyError, Reader, Setting, Writer
from edgeshard.bench.workload import Durability, Result
from edgeshard.sqlite import BUSY, Connection

GUARANTEE: Final = {"process": "WAL, synchronous=NORMAL", "power": "WAL, synchronous=FULL"}

TABLE: Final = "CREATE TABLE result(id INTEGER PRIMARY KEY, agent INTEGER, number INTEGER, at_ns INTEGER, payload TEXT)"
INSERT: Final = "INSERT INTO result(agent, number, at_ns, payload) VALUES (?, ?, ?, ?)"
SYNCHRONOUS: Final = {"process": "NORMAL", "power": "FULL"}
_BUSY_TIMEOUT_MS: Final = 60_000
#: A writer copies the log into the database when it has so many pages: 40 MB. At the default, 1,000, one agent wrote a
#: fifth less, and ten a tenth less (measured); larger wins no more.
_CHECKPOINT_PAGES: Final = 10_000


class TunedWriter:
    """One agent's connection."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self._connection = open_tuned(path, durability)
        self._execute = self._connection.execute

    def write(self, row: Result) -> None:
        """Write one row."""
        try:
            self._execute(INSERT, (row.agent, row.number, row.at_ns, row.payload))
        except BUSY as error:
            raise BusyError from error

    def write_many(self, rows: Sequence[Result]) -> None:
        """Write rows in one transaction."""
        try:
            insert_many(self._connection, [(row.agent, row.number, row.at_ns, row.payload) for row in rows])
        except BUSY as error:
            raise BusyError from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class FileReader:
    """A reader of a SQLite file, which sees rows in the order in which they came.

    Args:
        path: the file.
        table: the table's name.
        key: its key, which counts up.
        value: what is read of each row.
    """

    def __init__(self, path: Path, table: str = "result", key: str = "id", value: str = "at_ns") -> None:
        self._connection = Connection(str(path))
        self._connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
        self._last = 0
        self._sql = f"SELECT {key}, {value} FROM {table} WHERE {key} > ? ORDER BY {key}"

    def fresh(self) -> list[int]:
        """When the rows were written that came since the last call."""
        rows: list[Any] = self._connection.execute(self._sql, (self._last,)).fetchall()
        if rows:
            self._last = rows[-1][0]
        return [at_ns for _, at_ns in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@attrs.frozen
class TunedPlace:
    """A SQLite file."""

    path: Path
    durability: Durability

    modules: ClassVar[Sequence[str]] = ()

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all of them write into one file
        """Open it for an agent."""
        return TunedWriter(self.path, self.durability)

    def open_reader(self) -> Reader:
        """Open it for a reader."""
        return FileReader(self.path)


class Tuned:
    """One SQLite database for all agents, tuned."""

    def __init__(self, setting: Setting) -> None:
        self.place = TunedPlace(setting.folder / "results.db", setting.durability)

    def start(self) -> None:
        """Make the database."""
        make(self.place.path)

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


def make(path: Path) -> None:
    """Make a database in WAL mode, with the table."""
    connection = Connection(str(path))
    try:
        connection.pragma("journal_mode", "WAL")
        connection.execute(TABLE)
    finally:
        connection.close()


def open_tuned(path: Path, durability: Durability) -> Connection:
    """Open such a database for writing."""
    connection = Connection(str(path))
    connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
    connection.pragma("synchronous", SYNCHRONOUS[durability])
    connection.wal_autocheckpoint(_CHECKPOINT_PAGES)
    return connection


def insert_many(connection: Connection, rows: Sequence[tuple[int, int, int, str]]) -> None:
    """Insert rows in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(INSERT, rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def rows_of(path: Path, table: str = "result") -> Iterator[tuple[int, int, str]]:
    """All rows of a SQLite file."""
    connection = Connection(str(path))
    try:
        connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
        yield from connection.execute(f"SELECT agent, number, payload FROM {table}")
    finally:
        connection.close()
