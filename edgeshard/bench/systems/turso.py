"""Turso (``pyturso``): SQLite rewritten in Rust, in its MVCC mode, in which transactions of connections overlap.

Turso locks its file for one process, so agents that are processes cannot share it. The system for processes tries to,
and reports that the second one is refused. The system for threads runs all agents as threads of one process. No other
system is measured like that.

Turso and its MVCC mode are beta. Whatever it raises is shown in the table.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import attrs

from edgeshard.bench.servers import python_environment
from edgeshard.bench.system import BusyError, NotRunError, Reader, Setting, Writer, require_modules
from edgeshard.bench.systems.sqlite_tuned import INSERT, SYNCHRONOUS, TABLE
from edgeshard.bench.systems.unordered_ids import UnorderedIds
from edgeshard.bench.workload import Durability, Result

#: At NORMAL the rows of a process that was killed were there, up to the last one that was acknowledged (measured).
GUARANTEE: Final = {
    "process": "journal_mode=mvcc, synchronous=NORMAL",
    "power": "journal_mode=mvcc, synchronous=FULL",
}
#: The second process's module. Not imported here: it runs in its own process.
_SECOND_PROCESS: Final = f"{__package__}.turso_second_process"


def _open(path: str) -> Any:
    import turso

    connection = turso.connect(path, isolation_level=None)  # we begin our transactions ourselves
    connection.execute("PRAGMA journal_mode = 'mvcc'").fetchone()
    return connection


class TursoWriter:
    """One agent's connection."""

    def __init__(self, path: str, durability: Durability) -> None:
        import turso

        self._error = turso.Error
        self._busy = importlib.import_module("turso.lib").Busy  # its types do not export it
        self._connection = _open(path)
        self._connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")

    def write(self, row: Result) -> None:
        """Write one row."""
        self.write_many((row,))

    def write_many(self, rows: Sequence[Result]) -> None:
        """Write rows in one transaction."""
        values = [(row.agent, row.number, row.at_ns, row.payload) for row in rows]
        connection = self._connection
        try:
            connection.execute("BEGIN CONCURRENT")
            if len(values) == 1:
                connection.execute(INSERT, values[0])
            else:
                connection.executemany(INSERT, values)
            connection.execute("COMMIT")
        except self._error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error.__context__, self._busy):  # its public classes do not tell it from a full disk
                raise BusyError from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class TursoReader:
    """A reader's connection."""

    def __init__(self, path: str) -> None:
        self._connection = _open(path)
        self._ids = UnorderedIds()

    def fresh(self) -> list[int]:
        """Return `at_ns` of the rows that became visible since the last call."""
        sql = "SELECT id, at_ns FROM result WHERE id > ?"
        return self._ids.new(self._connection.execute(sql, (self._ids.after,)).fetchall())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@attrs.frozen
class TursoPlace:
    """The path of the database."""

    path: str
    durability: Durability
    in_threads: bool

    modules: ClassVar[Sequence[str]] = ("turso",)

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all agents write to one file
        """Open the database for one agent."""
        return TursoWriter(self.path, self.durability)

    def open_reader(self) -> Reader:
        """Open the database for a reader."""
        return TursoReader(self.path)


class Turso:
    """One Turso database for all agents.

    Args:
        setting: the parameters.
        in_threads: whether agents are threads of one process.
    """

    def __init__(self, setting: Setting, *, in_threads: bool) -> None:
        self.place = TursoPlace(str(setting.folder / "results.db"), setting.durability, in_threads)
        self._processes = 1 if in_threads else setting.agents

    def start(self) -> None:
        """Create the database, and check that the agents' processes can open it together.

        Raises:
            NotRunError: Turso is not installed, or refuses a second process.
        """
        require_modules(["turso"])
        connection = _open(self.place.path)
        try:
            connection.execute(TABLE)
            refusal = _second_process(self.place.path) if self._processes > 1 else ""
        finally:
            connection.close()
        if refusal:
            version = importlib.metadata.version("pyturso")
            raise NotRunError(f"a second process is refused (pyturso {version}: {refusal})")

    def servers(self) -> list[int]:
        """Return no servers."""
        return []

    def finish(self) -> None:
        """Do nothing: every committed row can be read."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all rows. The agents' process has ended."""
        connection = _open(self.place.path)
        try:
            yield from connection.execute("SELECT agent, number, payload FROM result").fetchall()
        finally:
            connection.close()

    def stop(self) -> None:
        """Do nothing."""


def _second_process(path: str) -> str:
    """Return the class of the error of another process that opens a database we have open, or ""."""
    process = subprocess.run(
        [sys.executable, "-m", _SECOND_PROCESS, path],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=python_environment(),
    )
    return process.stdout


def with_processes(setting: Setting) -> Turso:
    """Create the system for agents that are processes."""
    return Turso(setting, in_threads=False)


def with_threads(setting: Setting) -> Turso:
    """Create the system for agents that are threads of one process."""
    return Turso(setting, in_threads=True)
