"""One SQLite database for all agents, opened as SQLite experts recommend.

WAL mode, rare checkpoints, a busy timeout longer than any wait, statements compiled once, and transactions that take
the write lock at their start. Readers and writers do not wait for each other, but writers wait for other writers.

This module reads the SQLite files of other systems too. It uses apsw, like edgeshard. The agents of the default system
use the standard library's sqlite3; no process opens one file with both.
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
#: A writer checkpoints when the WAL has this many pages (40 MB). At SQLite's default, 1,000, one agent wrote a fifth
#: less and ten wrote a tenth less (measured); larger values gain nothing.
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
    """A reader of a SQLite file whose rows appear in the order of their keys.

    Args:
        path: the file.
        table: name of the table.
        key: name of its ascending integer key.
        value: name of the column to read.
    """

    def __init__(self, path: Path, table: str = "result", key: str = "id", value: str = "at_ns") -> None:
        self._connection = Connection(str(path))
        self._connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
        self._last = 0
        self._sql = f"SELECT {key}, {value} FROM {table} WHERE {key} > ? ORDER BY {key}"

    def fresh(self) -> list[int]:
        """Return `value` of the rows that became visible since the last call."""
        rows: list[Any] = self._connection.execute(self._sql, (self._last,)).fetchall()
        if rows:
            self._last = rows[-1][0]
        return [value for _, value in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@attrs.frozen
class TunedPlace:
    """The path of the database."""

    path: Path
    durability: Durability

    modules: ClassVar[Sequence[str]] = ()
    in_threads: ClassVar[bool] = False

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all agents write to one file
        """Open the database for one agent."""
        return TunedWriter(self.path, self.durability)

    def open_reader(self) -> Reader:
        """Open the database for a reader."""
        return FileReader(self.path)


class Tuned:
    """One SQLite database for all agents, with tuned settings."""

    def __init__(self, setting: Setting) -> None:
        self.place = TunedPlace(setting.folder / "results.db", setting.durability)

    def start(self) -> None:
        """Create the database."""
        create_database(self.place.path)

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


def create_database(path: Path) -> None:
    """Create a database in WAL mode, with the table."""
    connection = Connection(str(path))
    try:
        connection.pragma("journal_mode", "WAL")
        connection.execute(TABLE)
    finally:
        connection.close()


def open_tuned(path: Path, durability: Durability) -> Connection:
    """Open the database for writing, with the tuned settings."""
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


def read_rows(path: Path, table: str = "result") -> Iterator[tuple[int, int, str]]:
    """Yield all rows of a SQLite file."""
    connection = Connection(str(path))
    try:
        connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
        yield from connection.execute(f"SELECT agent, number, payload FROM {table}")
    finally:
        connection.close()
