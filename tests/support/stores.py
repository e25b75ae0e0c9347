"""Find what a store's folder holds: the rows of its master, and the files of its agents."""

from __future__ import annotations

from pathlib import Path

import edgeshard


def numbers(store: edgeshard.Store) -> list[int]:
    """Return the field n of all dicts in the master, in order of n, duplicates included."""
    return sorted(record.data["n"] for record in store.read(edgeshard.AgentData))


def shard_path(store: edgeshard.Store, agent: str) -> Path:
    """Return where the shard of an agent with a plain name is."""
    return store.root / "shards" / f"{agent}.db"
