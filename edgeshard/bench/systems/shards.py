"""edgeshard as its users run it: a shard for each agent, and the merger that watches the store.

The time counts until every row is in the master: at the end the rest is merged by ``store.query(..., fresh=True)``,
by which a user sees to that. The master always is durable against a power cut, whatever the shards are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from edgeshard.bench.servers import Server
from edgeshard.bench.system import Reader, Setting, Writer
from edgeshard.bench.systems.sqlite_tuned import FileReader, rows_of
from edgeshard.bench.workload import Durability, Result
from edgeshard.store import Store

GUARANTEE: Final = {"process": 'durability="process"', "power": 'durability="power"'}

#: The agent of the row that makes the table: readers begin before the agents do.
_NOBODY: Final = -1


class ShardWriter:
    """One agent's shard."""

    def __init__(self, root: Path, agent: int, durability: Durability) -> None:
        self._shard = Store(root).shard(f"agent-{agent}", durability=durability)
        self.write: Callable[[Result], object] = self._shard.write
        self.write_many: Callable[[Sequence[Result]], object] = self._shard.write_many

    def close(self) -> None:
        """Close the shard."""
        self._shard.close()


@attrs.frozen
class ShardPlace:
    """A store."""

    root: Path
    durability: Durability

    modules: ClassVar[Sequence[str]] = ()

    def open_writer(self, agent: int) -> Writer:
        """Open an agent's shard."""
        return ShardWriter(self.root, agent, self.durability)

    def open_reader(self) -> Reader:
        """Open the master for a reader."""
        return FileReader(Store(self.root).master_path, key="_id")


class Shards:
    """A shard for each agent, and a watching merger."""

    def __init__(self, setting: Setting) -> None:
        self.place = ShardPlace(setting.folder / "store", setting.durability)
        self._store = Store(self.place.root)
        self._log = setting.folder / "merger.log"
        self._merger: Server | None = None

    def start(self) -> None:
        """Make the table, as a first agent does, and start the merger."""
        with self._store.shard("first") as shard:
            shard.write(Result(_NOBODY, 0, 0, ""))
        self._store.merge()
        with open(self._log, "wb"):
            pass
        command = [sys.executable, "-m", "edgeshard.merge", str(self.place.root), "--watch", "-v"]
        self._merger = Server(command, self._log)
        self._merger.wait_until(lambda: "watching the store" in self._log.read_text())

    def servers(self) -> list[int]:
        """The merger."""
        return [] if self._merger is None else [self._merger.pid]

    def finish(self) -> None:
        """Merge what is left."""
        self._store.query("SELECT 1 AS one", fresh=True)

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """All rows of the master."""
        return (
            (agent, number, payload) for agent, number, payload in rows_of(self._store.master_path) if agent != _NOBODY
        )

    def stop(self) -> None:
        """End the merger, and merge once more, now that the agents are gone: that removes their shards."""
        if self._merger is not None:
            self._merger.stop()
            self._merger = None
            self._store.merge()
