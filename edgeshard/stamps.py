"""The newest stamps that a store knows: below them no later change may be stamped."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from edgeshard import database, format, keys, master
from edgeshard.database import Connection, quote
from edgeshard.errors import StorageError

logger = logging.getLogger("edgeshard.shard")


def newest(connection: Connection) -> int:
    """The newest stamp in an open shard; 0 where there is none.

    Of each table the last row has it: ids and stamps of a shard grow together.
    """
    sql = "SELECT table_name FROM edgeshard_columns WHERE column_name = ?"
    names = database.fetch(connection, sql, (format.STAMP,))
    last = (
        database.scalar(connection, f"SELECT {format.STAMP} FROM {quote(name)} ORDER BY _id DESC LIMIT 1")
        for (name,) in names
    )
    return max((stamp for stamp in last if stamp is not None), default=0)


def newest_in_store(shard_path: str) -> int:
    """The newest stamp that the master beside a shard's folder knows; 0 where there is none, or it cannot be read.

    A writer must not fail for the master's sake, nor wait for it: what goes wrong is logged, and the shard's own stamps
    and the wall clock have to do.
    """
    path = os.path.join(os.path.dirname(os.path.dirname(shard_path)), "master.db")
    if not os.path.exists(path):
        return 0
    try:
        with database.explained("read stamps of", path):
            connection = master.open_master(Path(path), writable=False)
            try:
                if not database.has_table(connection, keys.TABLE):
                    return 0
                return int(database.scalar(connection, f"SELECT max(last_stamp) FROM {keys.TABLE}") or 0)
            finally:
                connection.close()
    except StorageError as error:
        logger.warning("%s; changes of this handle may be stamped before changes that it has", error)
        return 0
