"""List the files in ``shards/`` from outside: nothing is opened, and no agent is disturbed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from edgeshard.errors import ConfigurationError
from edgeshard.files import paths, scan
from edgeshard.master import shard_states, streams
from edgeshard.sqlite import Connection


def agents_by_stem(connection: Connection) -> dict[str, str]:
    """Map the file names, without ".db", of the shards of all agents that a master knows to these agents."""
    found = {}
    for agent in streams.agents(connection):
        with contextlib.suppress(ConfigurationError):  # a foreign database may know names that no shard can have
            found[paths.shard_stem(agent)] = agent
    return found


def agent_of(stem: str, agents: Mapping[str, str]) -> str | None:
    """Return the agent of a shard by its file's name alone, or None if that does not tell.

    Args:
        stem: the file's name, without ".db".
        agents: what `agents_by_stem` returned.
    """
    try:
        return agents.get(stem) or (stem if paths.shard_stem(stem) == stem else None)
    except ConfigurationError:
        return None


def size_bytes(path: str) -> int:
    """Return the size of a shard and its WAL; a file that is not there has no size."""
    return _size(path) + _size(path + "-wal")


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def listing(connection: Connection, folder: Path) -> list[tuple[str, str | None, int, str | None]]:
    """Return (name, agent, bytes, why it is quarantined) of each shard file, from stat and what the master knows.

    Args:
        connection: the master.
        folder: the folder of the shards.
    """
    agents = agents_by_stem(connection)
    noted = {name: reason for name, _, reason, _ in shard_states.load_notes(connection)}
    return [
        (
            file.name,
            agents.get(file.name.removesuffix(".db")),
            size_bytes(file.path),
            file.defect or noted.get(file.name) or None,
        )
        for file in scan.shard_files(folder)
    ]
