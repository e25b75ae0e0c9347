"""Make databases that claim rows of another agent's stream, as a hostile or mistaken participant would."""

from __future__ import annotations

from pathlib import Path

import edgeshard
from edgeshard import sqlite
from tests.support.hostile_shards import edit
from tests.support.last_known import LastKnown


def stream_of_shard(path: Path) -> str:
    """Return the id of the newest stream of a shard, in hexadecimal."""
    connection = sqlite.connect(str(path), writable=False)
    try:
        sql = "SELECT lower(hex(stream_id)) FROM _edgeshard_streams ORDER BY stream_no DESC LIMIT 1"
        return str(sqlite.scalar(connection, sql))
    finally:
        connection.close()


def rows_in_shard(path: Path, table: str = "agent_data") -> int:
    """Return how many rows a shard's file has, truncated or not."""
    if not path.exists():
        return 0
    connection = sqlite.connect(str(path), writable=False)
    try:
        return int(sqlite.scalar(connection, f"SELECT count(*) FROM {table}"))
    finally:
        connection.close()


def forged_rows(folder: Path, agent: str, stream: str, rows: int) -> Path:
    """Return a master with other rows under the first addresses of an agent's stream."""
    store = edgeshard.Store(folder)
    with store.shard(agent) as shard:
        shard.write_many({"n": -n} for n in range(1, rows + 1))
    store.merge()
    return _claiming(store.master_path, stream)


def forged_shard(folder: Path, agent: str, stream: str, rows: int) -> Path:
    """Return a shard with other rows under the first addresses of an agent's stream."""
    with edgeshard.Store(folder).shard(agent) as shard:
        shard.write_many({"n": -n} for n in range(1, rows + 1))
    return _claiming(Path(shard.path), stream)


def superseded_rows(folder: Path, agent: str, stream: str, rows: int) -> Path:
    """Return a master that says it held, and superseded, the first rows of an agent's stream."""
    store = edgeshard.Store(folder)
    with store.shard(agent) as shard:
        shard.write_many(LastKnown("of the forger", float(n)) for n in range(rows + 1))
    store.merge()
    return _claiming(store.master_path, stream)


def _claiming(path: Path, stream: str) -> Path:
    edit(path, f"UPDATE _edgeshard_streams SET stream_id = x'{stream}'")
    return path
