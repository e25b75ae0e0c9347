"""What each of the compared systems must do, in the order in which it is asked to.

start                     make its files, start its servers
place.open_writer         in each agent's process; then write, again and again
place.open_reader         in a reader's process, where staleness is measured
finish                    return when every acknowledged row is where any reader finds it
read_back                 all rows
stop                      end its servers
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from edgeshard.bench.workload import Durability, Result


class NotRunError(Exception):
    """A system that cannot be measured here; the text says why."""


class BusyError(Exception):
    """A write that was refused because others write: nothing of it was kept."""


class Writer(Protocol):
    """One agent's way into a system. Both methods return when what they wrote is committed.

    Both raise BusyError where the system refused; the agent then tries again.
    """

    def write(self, row: Result, /) -> object:
        """Write one row in a commit of its own."""

    def write_many(self, rows: Sequence[Result], /) -> object:
        """Write rows in one commit."""

    def close(self) -> None:
        """Write no more."""


class Reader(Protocol):
    """A reader of the final database."""

    def fresh(self) -> list[int]:
        """`Result.at_ns` of the rows that have become visible since the last call."""

    def close(self) -> None:
        """Read no more."""


class Place(Protocol):
    """Where agents and readers find a system. It is sent to their processes, and holds nothing open."""

    @property
    def modules(self) -> Sequence[str]:
        """What their parent imports, so that not each of them has to."""

    def open_writer(self, agent: int) -> Writer:
        """Open the system for one agent, in its own process."""

    def open_reader(self) -> Reader:
        """Open the final database for a reader, in its own process."""


@attrs.frozen
class Setting:
    """What a system is made with.

    Attributes:
        folder: its own, empty.
        durability: what an acknowledged row has to survive.
        agents: how many will write.
        cache: a folder for what the measurements of one run can share.
        postgres: the connection string of a PostgreSQL server to use; None: start one.
        redis: the URL of a server that speaks Redis' protocol; None: start one.
    """

    folder: Path
    durability: Durability
    agents: int
    cache: Path
    postgres: str | None = None
    redis: str | None = None


class System(Protocol):
    """One way to store what many agents write."""

    @property
    def place(self) -> Place:
        """Where agents find it, once it is started."""

    def start(self) -> None:
        """Make its files and start its servers.

        Raises:
            NotRunError: it cannot run here.
        """

    def servers(self) -> list[int] | None:
        """The ids of its processes besides the agents', without their children; None: they are not ours to look at."""

    def finish(self) -> None:
        """Return when every acknowledged row can be read. The agents have written all, and still are connected."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """All rows of the final database, as (agent, number, payload)."""

    def stop(self) -> None:
        """End its servers, also after a failure. What was written stays in the folder; stopping twice is fine."""


def need(modules: Iterable[str]) -> None:
    """See that modules are installed.

    Raises:
        NotRunError: one is not.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise NotRunError(f"{', '.join(missing)} not installed; pip install 'edgeshard[bench]'")
