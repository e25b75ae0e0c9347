"""Find what a store's folder holds: the rows of its master, and the files of its agents."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import apsw

import edgeshard


def numbers(store: edgeshard.Store) -> list[int]:
    """Return the field n of all dicts in the master, in order of n, duplicates included."""
    return sorted(record.data["n"] for record in store.read(edgeshard.AgentData))


def contradictions(report: edgeshard.VerifyReport) -> tuple[object, ...]:
    """Return what is wrong with a master from which nobody deleted rows by hand: then rows that are gone are lost."""
    return (*report.errors, *report.by_hand)


def entries_without_stream(path: Path) -> list[tuple[str, int]]:
    """Return (table, number) of what a master or bundle records of streams that it does not list.

    What another program deleted is recorded by a trigger, which knows no streams: that table is left out.
    """
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        sql = (
            "SELECT t.name, c.name FROM pragma_table_list t JOIN pragma_table_info(t.name) c "
            "WHERE t.schema = 'main' AND t.type = 'table' AND c.name IN ('stream_no', '_stream') "
            "AND t.name <> '_edgeshard_deleted_by_hand'"
        )
        return [
            (table, number)
            for table, column in list(connection.execute(sql))
            for (number,) in connection.execute(
                f'SELECT DISTINCT "{column}" FROM "{table}" '
                f'WHERE "{column}" NOT IN (SELECT stream_no FROM _edgeshard_streams)'
            )
        ]
    finally:
        connection.close()


def shard_path(store: edgeshard.Store, agent: str) -> Path:
    """Return where the shard of an agent with a plain name is."""
    return store.root / "shards" / f"{agent}.db"


def write_apart(store: edgeshard.Store, agent: str, *records: Any) -> None:
    """Give the store a shard whose agent has not seen the store's master: it refuses no class that does not fit it."""
    store.root.joinpath("shards").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.root.parent) as folder:
        apart = edgeshard.Store(folder)
        with apart.shard(agent) as shard:
            shard.write_many(records)
        shutil.move(shard_path(apart, agent), shard_path(store, agent))


def new_store(root: Path | str, **settings: Any) -> edgeshard.Store:
    """Return a store that exists, and is empty unless it existed before."""
    store = edgeshard.Store(root, **settings)
    store.init()
    return store
