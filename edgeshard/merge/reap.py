"""Reap: remove the shards of agents that have ended, once the master holds their rows durably, and their lock files.

This happens under the lock that an agent takes to open its shard: an agent that starts at this moment waits for some
milliseconds, finds no file, and makes one. A program that does not take that lock, such as the sqlite3 shell, has the
database open: then the shard stays. A lock file is removed by the process that holds it; a process that waited for it
finds that its file no longer has a name (filelock checks the count of links), and takes the new one.

Shards are removed in groups, so that the folder is synced once for all of a group:

    1. Open the folder. For each shard: take its agent's lock, open it exclusively, check that it is the file that was
       read, that the lock is in the open folder, and that all of its rows are durable in the master. Empty its WAL, and
       note which files belong to it.
    2. Remove the WALs.
    3. Sync the folder.
    4. Remove the databases and the lock files. The locks are held until then.

A shard that fails is left out, and its lock is released. So the WALs are removed first, durably. If the merger is
killed on the way, or the power is cut, each shard is gone or still a whole database, and the next merge removes it.

Only files that were checked are removed: names are looked up in the open folder, whatever became of its path, and right
before a name is removed, it must still lead to the same file (device and inode). If it does not, the shard is left to
the next merge. An agent cannot put a file there, because it needs the lock. Another program could, with a rename in the
microseconds between the last look and the removal: no system call removes a name only if it leads to a certain file.
Giving the file another name first, and looking then, would leave no such window, but two worse ones: for a moment a
file that was put there would be without its name, and for good if the merger is killed then.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import EdgeshardError, OutOfDescriptorsError, StorageError
from edgeshard.files import fingerprint, lock_holder, locks, os_errors, paths
from edgeshard.master import identity, streams
from edgeshard.sources.source import Source
from edgeshard.sources.streams import shard_blocks
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")

#: A WAL shorter than this, in bytes, is copied into its database in no time.
_SHORT_WAL_BYTES: Final = 256 << 10

#: The most shards of a group: an agent that comes back waits until all of its group are removed.
_GROUP_SIZE: Final = 64

#: For how long the first lock of a group is held before the group is closed, in seconds.
_GROUP_S: Final = 0.05

#: What belongs to a database, in the order in which it is removed.
_SIDE_FILES: Final = (paths.SHM, paths.WAL, paths.JOURNAL)

#: Descriptors that a shard of a group takes (its file, its WAL and its lock), and that stay free.
_DESCRIPTORS: Final = 3

_SPARE_DESCRIPTORS: Final = 10


@attrs.define
class Removal:
    """A shard that may be removed.

    Attributes:
        shard: the shard, as it was read before the master's last commit.
        file: device and inode of the file from which it was read; None if it was not attached.
        durable: the last seq of each stream that the master holds, by stream id.
        is_removed: whether it was removed.
        error: why it cannot be removed; None as well if a process has it open, or if the master may lack a row of it.
    """

    shard: Source
    file: tuple[int, int] | None
    durable: Mapping[bytes, int]
    is_removed: bool = False
    error: Exception | None = None

    @functools.cached_property
    def lock(self) -> str:
        """Its agent's lock file."""
        return paths.lock_path(self.shard.path)


@attrs.frozen
class _Held:
    """A shard that is held until it is removed.

    Attributes:
        removal: the shard.
        folder: a descriptor of its folder.
        lock_file: device and inode of its agent's lock file, whose lock is held.
        side_files: the files that belong to its database: their names, and the device and inode of each.
    """

    removal: Removal
    folder: int
    lock_file: tuple[int, int]
    side_files: Sequence[tuple[str, tuple[int, int]]]

    @property
    def name(self) -> str:
        """The name of its database in the folder."""
        return os.path.basename(self.removal.shard.path)

    def remove_side_files(self) -> bool:
        """Remove what belongs to its database; return False if one of the files was replaced."""
        with _recording_errors(self.removal.shard.path, self.removal):
            is_in_place = fingerprint.identity(self.name, folder=self.folder) == self.removal.file
            return is_in_place and all(_unlink_if_same(self.folder, name, file) for name, file in self.side_files)
        return False

    def remove(self) -> None:
        """Remove its database and its lock file, if they were not replaced."""
        with _recording_errors(self.removal.shard.path, self.removal):
            if _unlink_if_same(self.folder, self.name, self.removal.file):
                _unlink_if_same(self.folder, os.path.basename(self.removal.lock), self.lock_file)
                self.removal.is_removed = True


def remove(removals: Sequence[Removal], ensure_durable: Callable[[], object]) -> int:
    """Remove the first of these shards, as many as fit into a group, and record in each what became of it.

    A shard is not removed if a process has it open, if it holds a row that is not durable in the master, or if it is no
    longer the file that was read.

    Args:
        removals: the shards, at least one, all in one folder.
        ensure_durable: called before the first database is removed; it raises if the master is no longer in its place.

    Returns:
        How many of them were in the group.

    Raises:
        OutOfDescriptorsError: this process may open no further file.
        Exception: what `ensure_durable` raised. No database was removed.
    """
    free = os_errors.free_descriptors()
    fitting = _GROUP_SIZE if free is None else (free - _SPARE_DESCRIPTORS) // _DESCRIPTORS
    group = removals[: max(1, min(_GROUP_SIZE, fitting))]
    for each in group:  # before the first lock is taken
        _shorten_wal(each.shard.path)
    folder_path = os.path.dirname(group[0].shard.path)
    with contextlib.ExitStack() as held:
        folder = None
        with _recording_errors(folder_path, *group):
            folder = os.open(folder_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if folder is None:
            return len(group)
        held.callback(os.close, folder)
        # 1. Hold the shards that are proven to be removable.
        ready: list[_Held] = []
        ends_at, count = time.monotonic() + _GROUP_S, 0
        for each in group:
            if count and time.monotonic() > ends_at:
                break
            count += 1
            with _recording_errors(each.shard.path, each), contextlib.ExitStack() as own:
                if (found := _hold(each, folder, own)) is not None:
                    held.push(own.pop_all())
                    ready.append(found)
        # 2. Remove the WALs: no connection that opens one of these databases from now on finds any.
        ready = [shard for shard in ready if shard.remove_side_files()]
        # 3. A power cut might take a database's name and leave the WAL's: its agent would be refused from then on.
        if ready:
            _sync_folder(folder, folder_path, ready)
        # 4. Remove the databases, and the locks last.
        ready = [shard for shard in ready if shard.removal.error is None]
        if ready:
            ensure_durable()
        for shard in ready:
            shard.remove()
    return count


@contextlib.contextmanager
def _recording_errors(path: str, *removals: Removal) -> Iterator[None]:
    """Record an error of the block, which concerns this path, in the removals; it concerns no other shard."""
    try:
        with sqlite.translate_errors("remove shard", path):
            yield
    except OutOfDescriptorsError:
        raise
    except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
        for each in removals:
            each.error = error


def _sync_folder(folder: int, path: str, ready: Sequence[_Held]) -> None:
    with _recording_errors(path, *(each.removal for each in ready)):
        os.fsync(folder)


def _shorten_wal(path: str) -> None:
    """Empty a long WAL before the lock is taken: an agent that comes back waits for the lock."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(paths.wal(path)).st_size > _SHORT_WAL_BYTES:
            sqlite.remove_empty_wal(path)


def _hold(removal: Removal, folder: int, own: contextlib.ExitStack) -> _Held | None:
    """Take a shard's lock and open it exclusively, until `own` is closed; return None if it may not be removed.

    Its WAL is empty then.
    """
    shard = removal.shard.attached_as("main")
    taken = locks.lock_at_once(removal.lock)
    if taken is None:
        return None
    own.callback(locks.release, taken)
    lock_file = fingerprint.identity_of_open(taken)
    if fingerprint.identity(os.path.basename(removal.lock), folder=folder) != lock_file:
        return None
    own.callback(lock_holder.remove_note, taken, lock_holder.leave_note(taken, "merge"))
    if removal.file is None or fingerprint.identity(shard.path) != removal.file:
        return None
    connection = sqlite.connect(shard.path, writable=True, busy_timeout_s=0.0)
    own.callback(connection.close)
    # closing must not delete the WAL of a database that is made meanwhile, or that took its place
    sqlite.disable_checkpoint_on_close(connection)
    try:
        sqlite.begin_exclusive(connection)
        if fingerprint.identity(shard.path) != removal.file:
            return None
        if not _is_removable(connection, shard, removal.durable):
            sqlite.enable_checkpoint_on_close(connection)
            return None
        connection.execute("COMMIT")  # the exclusive lock stays
        sqlite.truncate_wal(connection)
    except sqlite.BUSY:
        return None
    names = [os.path.basename(shard.path) + suffix for suffix in _SIDE_FILES]
    found = [(name, fingerprint.identity(name, folder=folder)) for name in names]
    return _Held(removal, folder, lock_file, [(name, file) for name, file in found if file is not None])


def _is_removable(connection: Connection, shard: Source, durable: Mapping[bytes, int]) -> bool:
    """Return whether it is the shard that was read, and has nothing that the master may lack."""
    if identity.database_id(connection) != shard.database_id:
        return False
    listed = sqlite.fetch(connection, "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
    others = {name for (name,) in listed if not name.startswith("sqlite_")}
    others -= {*format.REQUIRED_TABLES[format.SHARD], *format.OPTIONAL_SHARD_TABLES}
    if others != {table.name for table in shard.tables}:
        return False  # its agent has made a table since it was read, or a user keeps one in it
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
            database = str(lock.with_suffix(paths.SHARD))
            if not any(map(fingerprint.exists, (database, paths.wal(database)))):
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


def _unlink_if_same(folder: int, name: str, file: tuple[int, int] | None) -> bool:
    """Remove a name from an open folder if it leads to this file; return whether it did."""
    if file is None or fingerprint.identity(name, folder=folder) != file:
        return False
    _unlink(name, folder)
    return True


def _unlink(path: str | Path, folder: int | None = None) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path, dir_fd=folder)
