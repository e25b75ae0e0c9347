"""Create, back up, checkpoint and measure database files."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Generator, Iterator
from typing import Any

import apsw

from edgeshard.files import fingerprint, modes, os_errors, paths
from edgeshard.files.atomic_file import publish, remove_unfinished
from edgeshard.sqlite import forks
from edgeshard.sqlite.connection import (
    Connection,
    connect,
    connect_in_place,
    immediate,
    read_snapshot,
    without_waiting,
)
from edgeshard.sqlite.errors import BUSY
from edgeshard.sqlite.rows import quote

#: Pages that a backup copies at a time: 4 MB of a master. Fewer cost more steps and gain nothing (measured).
_BACKUP_PAGES = 1_000

#: Where the header of a database has its write and read versions, and their values in a WAL database.
_VERSIONS_AT, _WAL_VERSIONS = 18, b"\2\2"

#: What precedes each page in a WAL (https://sqlite.org/fileformat2.html, 4.1).
_FRAME_HEADER_BYTES = 24

#: How much of a file is read at a time, in bytes.
_RAW_CHUNK_BYTES = 1 << 20

#: auto_vacuum=INCREMENTAL.
_INCREMENTAL = 2

#: How often to begin to make a database that others remove before it is finished.
_ATTEMPTS = 5


# -- creating ---------------------------------------------------------------------------------------------------------


def create(
    path: str,
    page_size: int,
    script: str,
    bindings: tuple[Any, ...],
    identity: tuple[int, int],
    *,
    shrinkable: bool = False,
    wal: bool = True,
) -> bool:
    """Create a database atomically: build it under another name, make it durable, then link it into place.

    Args:
        path: the database.
        page_size: the size of its pages.
        script: the SQL that makes its tables.
        bindings: the parameters of `script`.
        identity: application id and format version.
        shrinkable: whether free pages can be returned to the file system (auto_vacuum=INCREMENTAL). That costs one page
            in 800, for pointers back to each page's parent.
        wal: whether it is a WAL database; if not, it has a rollback journal.

    Returns:
        True if this call created it, False if another process was faster.

    Raises:
        DiskFullError: the file system can hold no further file.
        apsw.Error, OSError: it cannot be created for another reason. Callers wrap this in `translate_errors`.
    """
    for _ in range(_ATTEMPTS):
        unfinished = paths.unfinished(path, secrets.token_hex(4))
        os.close(modes.create_file(unfinished))
        try:
            _build(unfinished, page_size, script, bindings, identity, shrinkable=shrinkable, wal=wal)
            return publish(unfinished, path)
        except (apsw.Error, OSError) as error:
            # a merger that does not wait for merge.lock takes it for a leftover
            if not os.path.lexists(unfinished):
                continue
            if isinstance(error, apsw.CantOpenError) and os_errors.has_no_inodes(path):
                # here, because there is one again once the unfinished file is removed
                raise os_errors.disk_full("create database", path, path) from error
            raise
        finally:
            remove_unfinished(unfinished)
    raise FileNotFoundError(errno.ENOENT, "it was removed again and again while it was made", path)


def _build(
    path: str,
    page_size: int,
    script: str,
    bindings: tuple[Any, ...],
    identity: tuple[int, int],
    *,
    shrinkable: bool,
    wal: bool,
) -> None:
    connection = forks.open_connection(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        settings: dict[str, int | str] = {"page_size": page_size, "auto_vacuum": _INCREMENTAL if shrinkable else 0}
        settings |= {"journal_mode": "WAL" if wal else "DELETE", "synchronous": "OFF"}
        for name, value in settings.items():
            connection.pragma(name, value)
        _fill(connection, script, bindings, identity)
        if wal:
            truncate_wal(connection)  # closing would do this as well, but without reporting an error
    finally:
        connection.close()


def create_without_wal(
    path: str,
    page_size: int,
    script: str,
    bindings: tuple[Any, ...],
    identity: tuple[int, int],
    *,
    shrinkable: bool = False,
) -> Connection:
    """Turn an empty file into a database that needs no other file (no WAL), and leave it open; for arguments see above.

    Nothing of it is durable before the file is synced; after an interruption, begin again.
    """
    connection = connect(path, writable=True)
    try:
        settings: dict[str, int | str] = {"page_size": page_size, "auto_vacuum": _INCREMENTAL if shrinkable else 0}
        settings |= {"journal_mode": "MEMORY", "synchronous": "OFF"}
        for name, value in settings.items():
            connection.pragma(name, value)
        _fill(connection, script, bindings, identity)
    except BaseException:
        connection.close()
        raise
    return connection


def _fill(connection: Connection, script: str, bindings: tuple[Any, ...], identity: tuple[int, int]) -> None:
    with immediate(connection):
        connection.execute(script, bindings)
        connection.pragma("application_id", identity[0])
        connection.pragma("user_version", identity[1])


def copy_with_pages(connection: Connection, path: str, page_size: int) -> None:
    """Copy a database that has no WAL into an empty file, with pages of another size. Nothing of it is durable yet."""
    connection.pragma("page_size", page_size)
    with forks.watching(connection, path, "copy"):
        connection.execute("VACUUM INTO ?", (path,))


def mark_as_wal(path: str) -> None:
    """Make a WAL database of one that is closed and has no journal, by its header; nothing of it is durable yet."""
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.pwrite(handle, _WAL_VERSIONS, _VERSIONS_AT)
    finally:
        os.close(handle)


def back_up(connection: Connection, path: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy one snapshot of a database into an empty file, as a database that needs no other file (no WAL).

    Args:
        connection: the database; others may keep writing to it.
        path: the file, of zero length. When this returns, nothing of it is durable yet.
        progress: called with (pages copied, pages to copy) from time to time.
    """
    copy = forks.open_connection(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        # after an interruption the caller begins again, so neither a journal nor fsyncs on the way are of use
        copy.pragma("journal_mode", "OFF")
        copy.pragma("synchronous", "OFF")
        with read_snapshot(connection):
            # without an open snapshot each commit of another connection restarts the backup, and while a merger
            # works it never ends
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            with copy.backup("main", connection, "main") as backup:
                while not backup.step(_BACKUP_PAGES):
                    if progress is not None:
                        progress(backup.page_count - backup.remaining, backup.page_count)
                pages = backup.page_count
        copy.pragma("journal_mode", "DELETE")
        if progress is not None:
            progress(pages, pages)
    finally:
        copy.close()


# -- the WAL ----------------------------------------------------------------------------------------------------------


def wal_pages_written(connection: Connection) -> int:
    """Return how many pages the connection has written to its WAL since it was opened (takes 0.1 µs).

    Of a database without a WAL, these are the pages written to the database itself.
    """
    pages: int = connection.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]
    return pages


def wal_bytes_written(connection: Connection) -> int:
    """Return how many bytes the connection has written to its WAL since it was opened."""
    pages = wal_pages_written(connection)
    return pages * (int(connection.pragma("page_size")) + _FRAME_HEADER_BYTES) if pages else 0


def checkpoint(connection: Connection) -> None:
    """Copy the WAL into the database as far as no reader is in the way (PASSIVE makes no connection wait)."""
    # a checkpoint of a database that the connection has not read yet does nothing
    connection.execute("SELECT 1 FROM main.sqlite_schema LIMIT 1").fetchall()
    with contextlib.suppress(*BUSY):  # another connection is checkpointing
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)


def checkpoint_in_hook(connection: Connection) -> None:
    """Copy the WAL into the database as far as no reader is in the way; for use within a hook.

    Raises:
        apsw.BusyError: another connection is checkpointing.
    """
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)


def restart_wal(connection: Connection) -> None:
    """Copy the whole WAL into the database, and wait until the next commit can write it from its start.

    Raises:
        apsw.BusyError: a reader uses it for longer than the busy timeout.
    """
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)


def truncate_wal(connection: Connection) -> None:
    """Copy the whole WAL into the database and truncate it.

    Raises:
        apsw.BusyError: a reader or writer uses it for longer than the busy timeout.
    """
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)


def shrink_wal(connection: Connection) -> bool:
    """Copy the whole WAL into the database and truncate it, unless another connection uses it right now.

    Returns:
        Whether the WAL is empty now.
    """
    checkpoint(connection)
    try:
        with without_waiting():
            connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except BUSY:
        return False
    return True


def remove_empty_wal(path: str) -> None:
    """Let SQLite remove the empty WAL that a reader left: the last connection that may write does so when it closes."""
    with contextlib.suppress(apsw.Error, OSError):  # a read-only medium is left as it is
        connection = connect_in_place(path, busy_timeout_s=0.0)
        if connection is not None:
            connection.close()


def header_says_wal(path: str) -> bool:
    """Return whether the file's header says that it is a WAL database (https://sqlite.org/fileformat2.html, 1.3)."""
    with _raw_file(path) as file:
        return file.xRead(_VERSIONS_AT + 2, 0)[_VERSIONS_AT:] == _WAL_VERSIONS


# -- pages ------------------------------------------------------------------------------------------------------------


def claimed_bytes(connection: Connection, schema: str) -> int:
    """Return how many bytes the pages of a database take, whether its file has them or not."""
    pages: int = connection.pragma("page_count", schema=schema)
    page_bytes: int = connection.pragma("page_size", schema=schema)
    return pages * page_bytes


def used_bytes(connection: Connection, schema: str = "main") -> int:
    """Return how many bytes the pages in use take: the file without its free pages."""
    pages: int = connection.pragma("page_count", schema=schema)
    free: int = connection.pragma("freelist_count", schema=schema)
    page_bytes: int = connection.pragma("page_size", schema=schema)
    return (pages - free) * page_bytes


def is_incremental(connection: Connection) -> bool:
    """Return whether the database can return free pages to the file system (auto_vacuum=INCREMENTAL)."""
    return int(connection.pragma("auto_vacuum")) == _INCREMENTAL


def release_pages(connection: Connection, pages: int) -> None:
    """Return that many free pages to the file system, in the caller's transaction; a checkpoint cuts the file."""
    connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()


def is_sound(connection: Connection, schema: str) -> bool:
    """Return whether SQLite finds no error in an attached database; see `is_cut_off` for one that it does not find."""
    try:
        return connection.execute(f"PRAGMA {quote(schema)}.quick_check(1)").fetchall() == [("ok",)]
    except apsw.Error:
        return False


def is_cut_off(connection: Connection, schema: str) -> bool:
    """Return whether an attached database has more pages than its file: the others are in its WAL, or lost.

    SQLite's check does not find lost bytes at the end of a file: it reads zeros in their place. Reading a long value
    there fails, because SQLite reads it without the page cache (SQLITE_IOERR_SHORT_READ).
    """
    return fingerprint.size(connection.db_filename(schema)) < claimed_bytes(connection, schema)


# -- files as bytes ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _raw_file(path: str) -> Iterator[apsw.VFSFile]:
    """Open a database file to read its bytes.

    This uses SQLite's VFS, so that closing the file drops no lock that this process has on it through a connection.
    """
    file = apsw.VFSFile("", path, [apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB, 0])
    try:
        yield file
    finally:
        file.xClose()


def read_raw(path: str) -> Generator[bytes, None, None]:
    """Yield the bytes of a database file, in order."""
    with _raw_file(path) as file:
        offset = 0
        while chunk := file.xRead(min(_RAW_CHUNK_BYTES, file.xFileSize() - offset), offset):
            yield chunk
            offset += len(chunk)


def sync_file(path: str) -> None:
    """Make a database and its WAL survive a power cut."""
    wal = paths.wal(path)
    if fingerprint.exists(wal):  # SQLite holds no locks on the WAL, so we may open and close it
        handle = os.open(wal, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    with _raw_file(path) as file:
        file.xSync(apsw.SQLITE_SYNC_NORMAL)
