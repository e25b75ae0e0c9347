"""The master that a merger keeps open between passes, and whether it is still the file that has its name."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.errors import StorageIOError
from edgeshard.files import fingerprint, paths
from edgeshard.master import database, identity, replaced, write_stats
from edgeshard.sqlite import Connection

#: A WAL with this much, in bytes, is checkpointed while the next shards are truncated.
_LONG_WAL_BYTES: Final = 24 << 20

#: A shorter one is not worth a thread.
_THREAD_BYTES: Final = 4 << 20


class MasterHandle:
    """The master of one store, opened for merging.

    Args:
        path: the master's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: Connection | None = None
        self._files: tuple[object, object] = (None, None)
        self._wal_bytes = 0  # what the WAL has since its last restart

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

        Raises:
            StorageError: it cannot be made or opened.
        """
        database.ensure_master(self._path)
        replaced.remove_second_names(self._path)
        file = fingerprint.identity(self._path)
        self._connection = database.open_master(self._path, writable=True)
        identity.generation(self._connection)  # a read makes the WAL
        self._files = (file, fingerprint.identity(paths.wal(self._path)))
        return self._connection

    def is_in_place(self) -> bool:
        """Return whether the files that are open, the database and its WAL, still have their names."""
        return self._files == (fingerprint.identity(self._path), fingerprint.identity(paths.wal(self._path)))

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

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def defer_checkpoints(self) -> None:
        """Have commits leave a checkpoint to `checkpointing`, unless the WAL becomes far too long."""
        page_bytes = int(self.connection.pragma("page_size"))

        def note(connection: Connection, _: str, pages: int) -> int:
            self._wal_bytes = pages * page_bytes
            if self._wal_bytes >= 2 * database.CHECKPOINT_BYTES:
                # as in SQLite's own hook, an error is left to the next commit, which meets it again
                with contextlib.suppress(sqlite.DatabaseFailure):
                    sqlite.checkpoint_in_hook(connection)
            return 0

        self.connection.set_wal_hook(note)  # replaces wal_autocheckpoint

    @contextlib.contextmanager
    def checkpointing(self, meter: write_stats.Meter) -> Iterator[None]:
        """Checkpoint a long WAL while the block truncates shards: both mostly wait for the disk.

        The block must not use the connection.

        Args:
            meter: counts what is written.
        """
        if self._wal_bytes < _LONG_WAL_BYTES:
            yield
            return
        wal_bytes, self._wal_bytes = self._wal_bytes, 0
        if wal_bytes < _THREAD_BYTES:
            self._checkpoint()
            yield
            return
        count = write_stats.WriteCount()
        thread = threading.Thread(target=self._checkpoint, args=(count,), name="edgeshard checkpoint")
        thread.start()
        try:
            yield
        finally:
            thread.join()
            meter.add_bytes(count.bytes)

    def _checkpoint(self, count: write_stats.WriteCount | None = None) -> None:
        # as after SQLite's own checkpoints, an error is left to the next commit, which meets it again
        with write_stats.counted() as found, contextlib.suppress(sqlite.DatabaseFailure):
            sqlite.checkpoint(self.connection)
        if count is not None:
            count.bytes = found.bytes

    def shrink_wal(self) -> None:
        """Copy the WAL into the database and empty it, if no reader uses it at this moment."""
        if fingerprint.size(paths.wal(self._path)):
            sqlite.shrink_wal(self.connection)

    def close(self) -> None:
        """Close the master if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
