"""The master that a merger keeps open between passes, and whether it is still the file that has its name."""

from __future__ import annotations

from pathlib import Path

from edgeshard import sqlite
from edgeshard.errors import StorageBusyError, StorageIOError
from edgeshard.files import fingerprint, paths
from edgeshard.master import database, identity, replaced
from edgeshard.sqlite import Connection


class MasterHandle:
    """The master of one store, opened for merging.

    Args:
        path: the master's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = (str(path), paths.wal(path))  # of the database and its WAL, which are looked at for each shard
        self._connection: Connection | None = None
        self._files: tuple[object, object] = (None, None)
        self._has_failed_sync = False

    @property
    def is_open(self) -> bool:
        """Whether the master is open."""
        return self._connection is not None

    @property
    def connection(self) -> Connection:
        """The connection of an open master."""
        if self._connection is None:
            raise AssertionError(f"{self._path} is not open")
        return self._connection

    def open(self) -> Connection:
        """Open the master, and make it if it does not exist. The caller holds ``merge.lock``.

        What is in its WAL is copied into the database. After an fsync that failed, SQLite may find a commit in the WAL
        that never reached the disk, and that no later fsync writes, because the kernel takes it for written (see
        https://wiki.postgresql.org/wiki/Fsync_Errors). Shards must not be truncated because of such a commit.

        Raises:
            StorageBusyError: an fsync failed, and a reader keeps the WAL from being emptied.
            StorageError: it cannot be made or opened.
        """
        database.ensure_master(self._path)
        replaced.remove_second_names(self._path)
        file = fingerprint.identity(self._path)
        self._connection = database.open_master(self._path, writable=True)
        is_copied = not fingerprint.size(paths.wal(self._path)) or sqlite.shrink_wal(self._connection)
        if self._has_failed_sync and not is_copied:
            self.close()
            cause = (
                "an fsync of it failed, and a program that reads it keeps its WAL in use; no row is deleted from the "
                "shards until the WAL was copied. End the program's transaction"
            )
            raise StorageBusyError("merge into", self._path, cause)
        self._has_failed_sync = False
        identity.generation(self._connection)  # a read makes the WAL
        self._files = (file, fingerprint.identity(paths.wal(self._path)))
        return self._connection

    def is_in_place(self) -> bool:
        """Return whether the files that are open, the database and its WAL, still have their names."""
        return self._files == tuple(map(fingerprint.identity, self._names))

    def ensure_in_place(self) -> None:
        """Refuse to delete rows from shards after they were committed to a file that no longer has its name.

        Raises:
            StorageIOError: the master was moved, deleted or replaced.
        """
        if not self.is_in_place():
            cause = (
                "it was moved, deleted or replaced during the merge; no row was deleted from the shards. Merge again"
            )
            raise StorageIOError("merge into", self._path, cause)

    def shrink_wal(self) -> None:
        """Copy the WAL into the database and empty it, if no reader uses it at this moment."""
        if fingerprint.size(paths.wal(self._path)):
            sqlite.shrink_wal(self.connection)

    def abandon(self, error: BaseException) -> None:
        """Close the master after an error. After one of the disk, what is in the WAL may not have reached it."""
        self._has_failed_sync = self._has_failed_sync or isinstance(error, StorageIOError)
        self.close()

    def close(self) -> None:
        """Close the master if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
