"""Find out what happened to an open shard behind its writer's back: moved files, lost rows, a fork.

Two accidents would otherwise lose rows silently. If a shard's files are moved, deleted or replaced, its writer goes on
writing to files that no merge reads. If another SQLite library in this process opens and closes the file, the process's
POSIX locks are lost, and another connection may overwrite what was committed.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from filelock import FileLock

from edgeshard import format, sqlite
from edgeshard.errors import StorageError
from edgeshard.files import fingerprint, lock_holder, locks, paths
from edgeshard.log_fields import fields
from edgeshard.master import catalog
from edgeshard.shard import truncations
from edgeshard.sqlite import Connection, quote

logger = logging.getLogger("edgeshard.shard")

MOVED: Final = (
    "its files were moved, deleted or replaced while it was open; rows written since then went to the old files. "
    "Open it again"
)

OVERWRITTEN: Final = (
    "rows that were committed are missing from it: something wrote to it without its locks, which another SQLite "
    "library in this process drops when it closes the file. Open it again, and write again what is in no master"
)


class ShardFiles:
    """The database and the WAL that a writer writes, by device and inode.

    Attributes:
        identities: those of both files after the first commit; None if they are not known yet.
    """

    __slots__ = ("_names", "identities")

    def __init__(self, path: str) -> None:
        self._names = (path, paths.wal(path))
        self.identities: tuple[tuple[int, int], ...] | None = None

    def remember(self) -> None:
        """Remember which files have the shard's names now."""
        self.identities = self._find()

    def are_replaced(self, *, has_written: bool) -> bool:
        """Return whether the shard's names now belong to other files, or to none."""
        found = self._find()
        if self.identities is None and has_written:
            self.identities = found  # they could not be determined after the first commit
        return self.identities is not None and found not in (None, self.identities)

    def _find(self) -> tuple[tuple[int, int], ...] | None:
        """Return the identities of both files: () if one is missing, None if the file system reports an error."""
        try:
            files = [fingerprint.identity(name, follow_symlinks=True) for name in self._names]
            return tuple(file for file in files if file is not None) if all(files) else ()
        except OSError:  # no reason to refuse a row, nor to doubt one that is committed
            return None


class ShardLock:
    """The lock of an open shard, which is lost if its file is removed or replaced: then another handle can take it.

    Two handles that write one shard lose no row: SQLite keeps them apart, and each has a stream of its own. But each
    waits for the other. So the lock is taken again as soon as possible, and the handle goes on meanwhile.

    Attributes:
        held: the lock.
    """

    __slots__ = ("_identity", "_is_told", "_note", "_path", "held")

    def __init__(self, held: FileLock) -> None:
        self.held = held
        self._path = Path(held.lock_file)
        self._note = lock_holder.leave_note(self._path, "agent")
        self._identity = self._find()
        self._is_told = False

    def retake(self) -> None:
        """Take the lock again if it was lost, and log that. A failure is no reason to refuse a row."""
        found = self._find()
        if self._identity is None and found:
            self._identity = found  # it could not be determined when the shard was opened
        if found in (None, self._identity):
            return
        try:
            held = locks.lock(self._path)
        except (OSError, StorageError) as error:
            logger.debug("cannot check the lock: %s", error)
            return
        if held is None:
            if not self._is_told:
                text = (
                    "%s was removed or replaced while the shard was open, and another handle has opened the shard: "
                    "they wait for each other. Close one, and leave the files in the folder of shards to edgeshard"
                )
                logger.warning(text, self._path, extra=fields(shard=self._path))
            self._is_told = True
            return
        logger.warning(
            "%s was removed or replaced while the shard was open; it is locked again",
            self._path,
            extra=fields(shard=self._path),
        )
        self.held.release()
        self.held, self._identity, self._is_told = held, self._find(), False
        self._note = lock_holder.leave_note(self._path, "agent")

    def release(self) -> None:
        """Let another handle, or a merger that removes the shard, have the lock."""
        lock_holder.remove_note(self._path, self._note)
        self.held.release()

    def _find(self) -> tuple[int, ...] | None:
        """Return the identity of the lock's file: () if it is missing, None if the file system reports an error."""
        try:
            return fingerprint.identity(self._path) or ()
        except OSError:  # no reason to refuse a row
            return None


def has_lost_row(connection: Connection, row_id: int) -> bool:
    """Return whether a committed row is neither in the shard nor truncated.

    If so, another connection wrote to the shard as if its lock did not exist. Call it while no row is being written.
    """
    connection.release_memory()  # our own cache may differ from what others read
    with sqlite.read_snapshot(connection):
        if truncations.last_truncated(connection, format.stream_no_of(row_id)) >= format.seq_of(row_id):
            return False
        return not any(
            sqlite.scalar(connection, f"SELECT 1 FROM {quote(name)} WHERE _id = ?", (row_id,))
            for name in catalog.record_tables(connection)
        )


# -- forks ------------------------------------------------------------------------------------------------------------


class _RefusesInChild(Protocol):
    def _refuse_in_child(self) -> None: ...


# Asking for the pid at each write would cost 0.15 of its 7 µs (measured); a fork hook costs a write nothing.
_open_handles: weakref.WeakSet[_RefusesInChild] = weakref.WeakSet()


def watch_forks(handle: _RefusesInChild) -> None:
    """Have the handle refuse all use in a child process."""
    _open_handles.add(handle)


def _after_fork_in_child() -> None:
    for handle in list(_open_handles):
        handle._refuse_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# -- what takes turns in one thread -----------------------------------------------------------------------------------


def running_asker() -> Callable[[], object] | None:
    """Return a function that returns what runs in this thread now, of all that take turns in it; None if nothing does.

    Of two calls, the results are equal if the same asyncio task, trio task and greenlet was running. No framework is
    imported for this, and one that is imported later is not asked: what it runs began after this call.
    """
    modules = sys.modules
    return _running if "asyncio" in modules or "trio" in modules or "greenlet" in modules else None


def _running() -> object:
    modules = sys.modules
    asyncio, trio, greenlet = modules.get("asyncio"), modules.get("trio"), modules.get("greenlet")
    return (
        None if asyncio is None else _asyncio_task(asyncio),
        None if trio is None else _trio_task(trio),
        None if greenlet is None else _greenlet(greenlet),
    )


# AttributeError: another thread is about to import it


def _asyncio_task(asyncio: Any) -> object:
    try:
        return None if asyncio._get_running_loop() is None else asyncio.current_task()
    except AttributeError:
        return None


def _trio_task(trio: Any) -> object:
    try:
        return trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None
    except AttributeError:
        return None


def _greenlet(greenlet: Any) -> object:
    try:
        current = greenlet.getcurrent()
    except AttributeError:
        return None
    return None if current.parent is None else current  # a thread's main greenlet is there before it is imported
