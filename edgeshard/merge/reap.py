"""Remove what agents that are gone left behind: shards whose rows the master holds durably, and lock files.

It is done under the lock that an agent takes to open its shard, so an agent that comes at this moment waits for some
milliseconds, finds no file, and makes one. Whoever does not take that lock, such as the sqlite3 shell, has the database
open: then it stays. A lock file is removed by its holder; whoever waited for it finds that it has no name any more
(filelock looks at its count of links), and takes the one that has.

Killed on the way: the log is emptied and goes first, durably, so what is left, after a power cut too, is a whole
database; the next merge removes it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import StorageError
from edgeshard.files import fingerprint, folders, locks, paths
from edgeshard.files.paths import lock_path
from edgeshard.sources.source import Source
from edgeshard.sources.streams import shard_blocks
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")

#: A log shorter than this is copied into its database in no time.
_SHORT_LOG_BYTES = 256 << 10


def remove(shard: Source, durable: Mapping[bytes, int]) -> bool:
    """Remove a shard, unless somebody has it open or it holds a row that is not durable elsewhere.

    Args:
        shard: the shard, as it was read before the master's last commit.
        durable: the last seq of each stream that the master holds, by stream id.

    Returns:
        Whether it is gone.

    Raises:
        EdgeshardError: it cannot be removed.
    """
    lock = lock_path(shard.path)
    with sqlite.translate_errors("remove shard", shard.path):
        _shorten_log(shard.path)
        held = locks.lock(lock)
        if held is None:
            return False
        try:
            if not _remove_database(attrs.evolve(shard, schema="main"), durable):
                return False
            _unlink(lock)
            return True
        finally:
            held.release()


def _shorten_log(path: str) -> None:
    """Let what takes long be done before the lock is taken: an agent that comes back waits for it."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(paths.wal(path)).st_size > _SHORT_LOG_BYTES:
            sqlite.remove_empty_wal(path)


def _remove_database(shard: Source, durable: Mapping[bytes, int]) -> bool:
    before = fingerprint.identity(shard.path)
    connection = sqlite.connect(shard.path, writable=True, busy_timeout_s=0.0)
    try:
        sqlite.begin_exclusive(connection)
        if fingerprint.identity(shard.path) != before or not _is_spent(connection, shard, durable):
            return False
        connection.execute("COMMIT")  # the exclusive lock stays
        sqlite.truncate_wal(connection)
        sqlite.disable_checkpoint_on_close(
            connection
        )  # closing must not delete the log of a database that is made meanwhile
        for suffix in (paths.SHM, paths.WAL, paths.JOURNAL):
            _unlink(Path(shard.path + suffix))
        # a power cut might take the database's name and leave the log's: its agent would be refused from then on
        folders.sync_folder(os.path.dirname(shard.path))
        _unlink(Path(shard.path))
        return True
    except sqlite.BUSY:
        return False
    finally:
        connection.close()


def _is_spent(connection: Connection, shard: Source, durable: Mapping[bytes, int]) -> bool:
    """Whether it is the shard that was read, and has nothing that the master may lack."""
    if sqlite.scalar(connection, "SELECT database_id FROM edgeshard_database") != shard.database_id:
        return False
    names = {name for (name,) in sqlite.fetch(connection, "SELECT DISTINCT table_name FROM edgeshard_columns")}
    if names != {table.name for table in shard.tables}:
        return False
    listed = sqlite.fetch(connection, "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
    known = {*format.COMMON_TABLES, *format.OPTIONAL_SHARD_TABLES, *names}
    if not {name for (name,) in listed if not name.startswith("sqlite_")} <= known:
        return False  # somebody keeps something of his own in it
    streams = dict(sqlite.fetch(connection, "SELECT stream_no, stream_id FROM edgeshard_streams"))
    blocks = shard_blocks(connection, shard)
    return all(block.last <= durable.get(streams.get(number, b""), 0) for number, block in blocks.items())


def sweep(lock: Path, half_made: Iterable[str]) -> None:
    """Remove what openings that were killed left, unless somebody holds the lock, and may be about to open.

    Args:
        lock: the agent's lock file; it goes, too, where it stands beside no shard.
        half_made: the names of the files that a killed making of the shard left.

    Raises:
        AccessError, StorageIOError: something cannot be removed.
    """
    held = locks.lock(lock)
    if held is None:
        return
    try:
        with sqlite.translate_errors("sweep after agent", str(lock)):
            for name in half_made:
                _unlink(lock.with_name(name))
            if not any(
                os.path.lexists(f"{lock.with_suffix('')}{suffix}") for suffix in (paths.SHARD, paths.wal(paths.SHARD))
            ):
                _unlink(lock)
    finally:
        held.release()


def is_agent_gone(shard_path: str) -> bool:
    """Whether nobody has the shard open; not where that cannot be told."""
    try:
        return not locks.is_locked(lock_path(shard_path))
    except StorageError as error:
        logger.debug("%s", error)
        return False


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
