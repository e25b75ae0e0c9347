"""The newest timestamps that a store knows: below them no later change may be timestamped."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from edgeshard import format, sqlite
from edgeshard.errors import StorageError
from edgeshard.files import paths
from edgeshard.master import database
from edgeshard.sqlite import Connection, quote

logger = logging.getLogger("edgeshard.shard")


def newest(connection: Connection) -> int:
    """The newest timestamp in an open shard; 0 where there is none.

    Of each table the last row has it: ids and timestamps of a shard grow together.
    """
    sql = "SELECT table_name FROM edgeshard_columns WHERE column_name = ?"
    names = sqlite.fetch(connection, sql, (format.TIMESTAMP,))
    last = (
        sqlite.scalar(connection, f"SELECT {format.TIMESTAMP} FROM {quote(name)} ORDER BY _id DESC LIMIT 1")
        for (name,) in names
    )
    return max((timestamp for timestamp in last if timestamp is not None), default=0)


def newest_in_store(shard_path: str) -> int:
    """The newest timestamp that the master beside a shard's folder knows; 0 where there is none, or it cannot be read.

    A writer must not fail for the master's sake, nor wait for it: what goes wrong is logged, and the shard's own timestamps
    and the wall clock have to do.
    """
    path = str(paths.master(paths.root_of_shard(shard_path)))
    if not os.path.exists(path):
        return 0
    try:
        with sqlite.translate_errors("read timestamps of", path):
            connection = database.open_master(Path(path), writable=False)
            try:
                return int(sqlite.scalar(connection, f"SELECT max(last_timestamp) FROM {format.KEYS}") or 0)
            finally:
                connection.close()
    except StorageError as error:
        logger.warning("%s; changes of this handle may be timestamped before changes that it has", error)
        return 0
