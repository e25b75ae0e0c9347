"""edgeshard as users run it: one shard per agent, and a merger that watches the store.

The time counts until every row is in the master. At the end ``store.query(..., fresh=True)`` merges the pending rows,
as a user would do who needs them. The master always survives a power cut, whatever the durability of the shards.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

import attrs

from edgeshard.bench.servers import Server
from edgeshard.bench.system import Reader, Setting, Writer
from edgeshard.bench.systems.sqlite_tuned import FileReader, read_rows
from edgeshard.bench.workload import Durability, Result
from edgeshard.store import Store

GUARANTEE: Final = {"process": 'durability="process"', "power": 'durability="power"'}

#: Agent number of the row that creates the table, which readers need before the agents begin.
_TABLE_CREATOR: Final = -1


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
    """The address of a store."""

    root: Path
    durability: Durability

    modules: ClassVar[Sequence[str]] = ()
    in_threads: ClassVar[bool] = False

    def open_writer(self, agent: int) -> Writer:
        """Open one agent's shard."""
        return ShardWriter(self.root, agent, self.durability)

    def open_reader(self) -> Reader:
        """Open the master."""
        return FileReader(Store(self.root).master_path, key="_id")


class Shards:
    """A store with one shard per agent, and a merger that watches it."""

    def __init__(self, setting: Setting) -> None:
        self.place = ShardPlace(setting.folder / "store", setting.durability)
        self._store = Store(self.place.root)
        self._log = setting.folder / "merger.log"
        self._merger: Server | None = None

    def start(self) -> None:
        """Create the table, as the first agent would, and start the merger."""
        with self._store.shard("first") as shard:
            shard.write(Result(_TABLE_CREATOR, 0, 0, ""))
        self._store.merge()
        command = [sys.executable, "-m", "edgeshard.merge", str(self.place.root), "--watch"]
        self._merger = Server(command, self._log)
        self._merger.wait_until(lambda: " watches " in self._log.read_text())

    def servers(self) -> list[int]:
        """Return the merger."""
        return [] if self._merger is None else [self._merger.pid]

    def finish(self) -> None:
        """Merge the pending rows."""
        self._store.query("SELECT 1 AS one", fresh=True)

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all rows of the master."""
        return (
            (agent, number, payload)
            for agent, number, payload in read_rows(self._store.master_path)
            if agent != _TABLE_CREATOR
        )

    def stop(self) -> None:
        """Stop the merger, and merge once more: now that the agents have ended, this reaps their shards."""
        if self._merger is not None:
            self._merger.stop()
            self._merger = None
            self._store.merge()
