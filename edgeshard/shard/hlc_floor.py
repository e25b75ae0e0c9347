"""Find the newest timestamp that a store knows. A writer gives later changes only newer ones."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from edgeshard import format, sqlite
from edgeshard.errors import StorageError
from edgeshard.files import paths
from edgeshard.master import catalog, database
from edgeshard.sqlite import Connection, quote

logger = logging.getLogger("edgeshard.shard")


def newest(connection: Connection) -> int:
    """Return the newest timestamp in an open shard, or 0 if there is none.

    It is in the last row of each table: ids and timestamps of a shard grow together.
    """
    last = (
        sqlite.scalar(connection, f"SELECT {format.TIMESTAMP} FROM {quote(name)} ORDER BY _id DESC LIMIT 1")
        for name in catalog.tables_with_column(connection, format.TIMESTAMP)
    )
    return max((timestamp for timestamp in last if timestamp is not None), default=0)


def newest_in_store(shard_path: str) -> int:
    """Return the newest timestamp that the store's master knows, or 0 if it knows none or cannot be read.

    A writer neither fails nor waits because of the master. An error is logged, and the shard's own timestamps and the
    wall clock must do.
    """
    path = str(paths.master(paths.root_of_shard(shard_path)))
    if not os.path.exists(path):
        return 0
    try:
        with sqlite.translate_errors("read timestamps of", path):
            connection = database.open_master(Path(path), writable=False)
            try:
                return catalog.newest_timestamp(connection)
            finally:
                connection.close()
    except StorageError as error:
        logger.warning("%s; changes written now may get timestamps before changes that the master has", error)
        return 0
