"""Find a shard's agent by its file's name, and list all shard files with their sizes, without opening any."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from edgeshard.errors import ConfigurationError
from edgeshard.files import paths, scan
from edgeshard.master import retired, shard_states, streams
from edgeshard.sqlite import Connection


def agents_by_stem(connection: Connection) -> dict[str, str]:
    """Map the names of shard files, without ".db", to their agents, for all agents that a master knows."""
    found = {}
    for agent in {*streams.agents(connection), *retired.agents(connection)}:
        with contextlib.suppress(ConfigurationError):  # a foreign database may know names that no shard can have
            found[paths.shard_stem(agent)] = agent
    return found


def agent_of(stem: str, agents: Mapping[str, str]) -> str | None:
    """Return the agent of a shard by its file's name alone, or None if the name does not say.

    Args:
        stem: the file's name, without ".db".
        agents: what `agents_by_stem` returned.
    """
    try:
        return agents.get(stem) or (stem if paths.shard_stem(stem) == stem else None)
    except ConfigurationError:
        return None


def size_bytes(path: str) -> int:
    """Return the size of a shard and its WAL; a missing file counts as 0."""
    return _size(path) + _size(paths.wal(path))


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
    noted = {name: reason for name, _, reason, _, _ in shard_states.load_notes(connection)}
    return [
        (
            file.name,
            agents.get(paths.stem_of(file.name)),
            size_bytes(file.path),
            file.defect or noted.get(file.name) or None,
        )
        for file in scan.shard_files(folder)
    ]
