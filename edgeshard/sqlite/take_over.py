"""Keep everyone else from a database while its file is moved away, whatever state it is in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import apsw

from edgeshard.files import fingerprint
from edgeshard.sqlite import forks
from edgeshard.sqlite.connection import Connection, connect, disable_checkpoint_on_close
from edgeshard.sqlite.errors import BUSY

#: How long to wait before asking again for a lock, in seconds.
_RETRY_S = 0.01


@contextlib.contextmanager
def exclusively(path: str, *, busy_timeout_s: float) -> Iterator[bool]:
    """Run the block while no other connection has the database open, or can read it.

    A database that can be read becomes one with a rollback journal: its WAL is copied into it and removed. So its file
    is all of it, and whoever opened it a moment ago, and waits for it, needs no file of the same name later.

    Yields:
        Whether the file is all of the database. If not, it cannot be read; its WAL and journal are as they were.

    Raises:
        apsw.BusyError: another connection has it open.
        apsw.Error: the file cannot be opened or locked.
    """
    with contextlib.ExitStack() as held:
        is_whole = False
        if fingerprint.size(path) > 0:  # SQLite deletes the WAL of an empty database
            connection = connect(path, writable=True, busy_timeout_s=busy_timeout_s)
            disable_checkpoint_on_close(connection)  # nor may it delete the WAL of one that it cannot read
            try:
                _leave_wal(connection)
                is_whole = True
                held.callback(connection.close)
            except BUSY:
                connection.close()
                raise
            except apsw.Error:  # damaged, or there is no space for what is in its WAL
                connection.close()
        if not is_whole:
            held.enter_context(_locked(path, busy_timeout_s))
        yield is_whole


def _leave_wal(connection: Connection) -> None:
    """Turn a database into one with a rollback journal, and lock it.

    Raises:
        apsw.BusyError: another connection has it open, or made it a WAL database again.
    """
    # unlike with locking_mode=EXCLUSIVE, the journal of this very change is deleted, not emptied
    connection.pragma("journal_mode", "DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    if connection.pragma("journal_mode") != "delete":
        raise apsw.BusyError


@contextlib.contextmanager
def _locked(path: str, busy_timeout_s: float) -> Iterator[None]:
    """Hold SQLite's exclusive lock of a file that need not be a database.

    Raises:
        apsw.BusyError: another connection has it open.
    """
    forks.prepare(path)
    file = apsw.VFSFile("", path, [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MAIN_DB, 0])
    try:
        deadline = time.monotonic() + busy_timeout_s
        while True:
            try:
                file.xLock(apsw.SQLITE_LOCK_SHARED)
                file.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)
                break
            except BUSY:
                file.xUnlock(apsw.SQLITE_LOCK_NONE)
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)
        yield
    finally:
        file.xUnlock(apsw.SQLITE_LOCK_NONE)
        file.xClose()
