"""Reap: remove the shards of agents that have ended, once the master holds their rows durably, and their lock files.

This happens under the lock that an agent takes to open its shard: an agent that starts at this moment waits for some
milliseconds, finds no file, and makes one. A program that does not take that lock, such as the sqlite3 shell, has the
database open: then the shard stays. A lock file is removed by the process that holds it; a process that waited for it
finds that its file no longer has a name (filelock checks the count of links), and takes the new one.

The WAL is emptied and removed first, durably. So if the merger is killed on the way, a whole database is left, even
after a power cut, and the next merge removes it.
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
from edgeshard.files import fingerprint, folders, lock_holder, locks, paths
from edgeshard.master import catalog, identity, streams
from edgeshard.sources.source import Source
from edgeshard.sources.streams import shard_blocks
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")

#: A WAL shorter than this, in bytes, is copied into its database in no time.
_SHORT_WAL_BYTES = 256 << 10


def remove(shard: Source, durable: Mapping[bytes, int]) -> bool:
    """Remove a shard, unless a process has it open or it holds a row that is not durable elsewhere.

    Args:
        shard: the shard, as it was read before the master's last commit.
        durable: the last seq of each stream that the master holds, by stream id.

    Returns:
        Whether it was removed.

    Raises:
        EdgeshardError: it cannot be removed.
    """
    lock = paths.lock_path(shard.path)
    with sqlite.translate_errors("remove shard", shard.path):
        _shorten_wal(shard.path)
        held = locks.lock(lock)
        if held is None:
            return False
        note = lock_holder.leave_note(lock, "merge")
        try:
            if not _remove_database(attrs.evolve(shard, schema="main"), durable):
                return False
            _unlink(lock)
            return True
        finally:
            lock_holder.remove_note(lock, note)
            held.release()


def _shorten_wal(path: str) -> None:
    """Empty a long WAL before the lock is taken: an agent that comes back waits for the lock."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(paths.wal(path)).st_size > _SHORT_WAL_BYTES:
            sqlite.remove_empty_wal(path)


def _remove_database(shard: Source, durable: Mapping[bytes, int]) -> bool:
    before = fingerprint.identity(shard.path)
    connection = sqlite.connect(shard.path, writable=True, busy_timeout_s=0.0)
    try:
        sqlite.begin_exclusive(connection)
        if fingerprint.identity(shard.path) != before or not _is_removable(connection, shard, durable):
            return False
        connection.execute("COMMIT")  # the exclusive lock stays
        sqlite.truncate_wal(connection)
        # closing must not delete the WAL of a database that is made meanwhile
        sqlite.disable_checkpoint_on_close(connection)
        for suffix in (paths.SHM, paths.WAL, paths.JOURNAL):
            _unlink(Path(shard.path + suffix))
        # a power cut might take the database's name and leave the WAL's: its agent would be refused from then on
        folders.sync_folder(os.path.dirname(shard.path))
        _unlink(Path(shard.path))
        return True
    except sqlite.BUSY:
        return False
    finally:
        connection.close()


def _is_removable(connection: Connection, shard: Source, durable: Mapping[bytes, int]) -> bool:
    """Return whether it is the shard that was read, and has nothing that the master may lack."""
    if identity.database_id(connection) != shard.database_id:
        return False
    names = set(catalog.record_tables(connection))
    if names != {table.name for table in shard.tables}:
        return False
    listed = sqlite.fetch(connection, "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
    known = {*format.COMMON_TABLES, *format.OPTIONAL_SHARD_TABLES, *names}
    if not {name for (name,) in listed if not name.startswith("sqlite_")} <= known:
        return False  # a user keeps a table in it
    ids = streams.ids_by_number(connection)
    blocks = shard_blocks(connection, shard)
    return all(block.last <= durable.get(ids.get(stream_no, b""), 0) for stream_no, block in blocks.items())


def remove_leftovers(lock: Path, unfinished: Iterable[str]) -> None:
    """Remove what killed openings of a shard left, unless an agent holds the lock and may be about to open it.

    Args:
        lock: the agent's lock file; it is removed as well if it has no shard.
        unfinished: the names of the files that were left when a process that made the shard was killed.

    Raises:
        AccessError, StorageIOError: something cannot be removed.
    """
    held = locks.lock(lock)
    if held is None:
        return
    try:
        with sqlite.translate_errors("remove leftovers of", str(lock)):
            for name in unfinished:
                _unlink(lock.with_name(name))
            if not any(
                os.path.lexists(f"{lock.with_suffix('')}{suffix}") for suffix in (paths.SHARD, paths.wal(paths.SHARD))
            ):
                _unlink(lock)
    finally:
        held.release()


def has_agent_ended(shard_path: str) -> bool:
    """Return whether no process has the shard open; False if that cannot be determined."""
    try:
        return not locks.is_locked(paths.lock_path(shard_path))
    except StorageError as error:
        logger.debug("%s", error)
        return False


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
