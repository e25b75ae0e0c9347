"""The interface of a compared system, in the order in which the benchmark calls it.

start                     create its files, start its servers
place.open_writer         in each agent's process; the agent then writes repeatedly
place.open_reader         in the reader's process, if staleness is measured
finish                    return when any reader can find every acknowledged row
read_back                 return all rows
stop                      stop its servers
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import attrs

from edgeshard.bench.workload import Durability, Result


class NotRunError(Exception):
    """The system cannot be measured on this machine; the text says why."""


class BusyError(Exception):
    """The system refused a write because of other writers, and stored nothing of it."""


class Writer(Protocol):
    """One agent's connection to a system.

    Both write methods return once their rows are committed. They raise BusyError if the system refuses the write; the
    agent then tries again.
    """

    def write(self, row: Result, /) -> object:
        """Write one row in a commit of its own."""

    def write_many(self, rows: Sequence[Result], /) -> object:
        """Write rows in one commit."""

    def close(self) -> None:
        """Close the connection."""


class Reader(Protocol):
    """A connection that reads the final database."""

    def fresh(self) -> list[int]:
        """Return `Result.at_ns` of the rows that became visible since the last call."""

    def close(self) -> None:
        """Close the connection."""


class Place(Protocol):
    """The address of a started system. It is pickled to the agents' processes, so it holds nothing open."""

    @property
    def modules(self) -> Sequence[str]:
        """Modules that the agents' parent imports before it forks, so that not every agent has to."""

    @property
    def in_threads(self) -> bool:
        """Whether agents are threads of one process, because the system allows no second one."""

    def open_writer(self, agent: int) -> Writer:
        """Open the system for one agent, in its own process or thread."""

    def open_reader(self) -> Reader:
        """Open the final database for a reader, in its own process."""


@attrs.frozen
class Setting:
    """The parameters that a system is created with.

    Attributes:
        folder: an empty folder for this system alone.
        durability: what an acknowledged row has to survive.
        agents: how many agents will write.
        cache: a folder for what the trials of one run can share.
        postgres: connection string of a PostgreSQL server to use; None starts one.
        redis: URL of a server that speaks the Redis protocol; None starts one.
    """

    folder: Path
    durability: Durability
    agents: int
    cache: Path
    postgres: str | None = None
    redis: str | None = None


class System(Protocol):
    """One way to store the rows of many agents."""

    @property
    def place(self) -> Place:
        """The address for agents, valid once the system is started."""

    def start(self) -> None:
        """Create the files and start the servers.

        Raises:
            NotRunError: the system cannot run here.
        """

    def servers(self) -> list[int] | None:
        """Return the process ids of its servers, without their children, or None if it uses the user's servers."""

    def finish(self) -> None:
        """Wait until every acknowledged row can be read. The agents have written everything but are still connected."""

    def read_back(self) -> Iterator[tuple[int, int, str]]:
        """Return all rows of the final database as (agent, number, payload)."""

    def stop(self) -> None:
        """Stop the servers, also after a failure. The rows stay in the folder. Stopping twice is harmless."""


def require_modules(modules: Iterable[str]) -> None:
    """Check that modules are installed.

    Raises:
        NotRunError: at least one is missing.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise NotRunError(f"{', '.join(missing)} not installed; pip install 'edgeshard[bench]'")
