"""Open databases, attach others to them, and run transactions."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import apsw

from edgeshard.errors import FormatError, StorageIOError
from edgeshard.files import fingerprint, os_errors, paths
from edgeshard.options import BUSY_TIMEOUT_S
from edgeshard.sqlite import forks, guards, temp_files
from edgeshard.sqlite.rows import quote

Connection = apsw.Connection

# https://sqlite.org/wal.html#walresetbug: before 3.51.3, several connections that write and checkpoint one WAL database
# can corrupt it, and that is what we do all day. 3.52 was withdrawn.
if apsw.SQLITE_VERSION_NUMBER < 3051003 or 3052000 <= apsw.SQLITE_VERSION_NUMBER < 3053000:
    raise ImportError(f"edgeshard needs SQLite 3.51.3 or later and not 3.52, apsw brings {apsw.sqlite_lib_version()}")

#: What a copy reads is read once, in order. A hundred caches of SQLite's default size would take 200 MB.
_ATTACHED_CACHE_KIB = 200


def connect(path: str, *, writable: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Connection:
    """Open an existing database, hardened against anything it may contain.

    Raises:
        InheritedError: this process inherited an open connection to it that it cannot close; see `forks`.
        apsw.Error: it cannot be opened. Callers wrap this in `translate_errors`.
    """
    mode = apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY
    # URI lets ATTACH take "?mode=ro"; an absolute path is never mistaken for a URI
    connection = forks.open_connection(path, mode | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW)
    try:
        set_busy_timeout(connection, busy_timeout_s)
        guards.harden(connection)
        temp_files.choose(connection)
        if writable:
            guards.restrict(connection)
    except BaseException:
        connection.close()  # otherwise the traceback keeps it open
        raise
    return connection


def connect_untrusted(path: str, busy_timeout_s: float) -> Connection:
    """Open a database that we do not trust, only to read it, and read its schema; Ctrl-C ends long statements.

    Raises:
        apsw.Error: it cannot be opened. Callers wrap this in `translate_errors`.
    """
    connection = connect(path, writable=False, busy_timeout_s=busy_timeout_s)
    try:
        guards.restrict(connection)
        with guards.limit_steps_in_block(connection, guards.SCHEMA_STEPS):
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        guards.allow_interrupt(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_in_place(path: str, *, busy_timeout_s: float, file: tuple[int, int] | None = None) -> Connection | None:
    """Open for writing the file that has this name, which then cannot be removed; return None if it was just removed.

    If `file` is given, a device and an inode, None is returned as well if another file has this name now.

    The connection is at ``synchronous=NORMAL``; see `set_synchronous`.

    If a file is removed after it was opened and before its first lock, we would read and write it with the WAL of the
    next file of this name, and closing it would delete that WAL.

    Raises:
        apsw.Error, OSError: it cannot be opened. Callers wrap this in `translate_errors`.
    """
    before = fingerprint.identity(path)
    if file is not None and before != file:
        return None
    connection = connect(path, writable=True, busy_timeout_s=busy_timeout_s)
    try:
        disable_checkpoint_on_close(connection)
        try:
            set_synchronous(connection, "NORMAL")  # reads the schema, for which it takes the shared lock
        finally:
            is_in_place = before is not None and fingerprint.identity(path) == before
        if is_in_place:
            enable_checkpoint_on_close(connection)
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def open_in_memory(script: str) -> Connection:
    """Make a database without a file, to which others can be attached.

    Raises:
        apsw.Error: there is not enough memory. Callers wrap this in `translate_errors`.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOFOLLOW
    connection = forks.open_connection(":memory:", flags)
    try:
        connection.execute(script)
        guards.harden(connection)
        temp_files.choose(connection)
        guards.restrict(connection)
    except BaseException:
        connection.close()
        raise
    return connection


# -- settings ---------------------------------------------------------------------------------------------------------


class _Waiting(threading.local):
    """Whether the connections that this thread uses wait for locks."""

    is_allowed = True


_waiting = _Waiting()


def set_busy_timeout(connection: Connection, timeout_s: float) -> None:
    """Set how long its statements wait for other connections' locks, in seconds; a negative time waits forever."""
    connection.set_busy_handler(_busy_handler(timeout_s))


def _busy_handler(timeout_s: float) -> Any:
    """Return a busy handler that sleeps briefly: SQLite's own sleeps for up to 100 ms at a time."""
    deadline = 0.0

    def wait(calls: int) -> bool:
        nonlocal deadline
        if not _waiting.is_allowed:
            return False
        now = time.monotonic()
        if calls == 0:
            deadline = now + timeout_s if timeout_s >= 0 else math.inf
        time.sleep(0.0002 if calls < 50 else 0.002)
        return now < deadline

    return wait


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Let no connection that this thread uses in the block wait for another one's lock, whatever its busy timeout."""
    before, _waiting.is_allowed = _waiting.is_allowed, False
    try:
        yield
    finally:
        _waiting.is_allowed = before


def set_synchronous(connection: Connection, level: str) -> None:
    """Set the durability of commits: at NORMAL they survive a kill, at FULL each also survives a power cut."""
    connection.pragma("synchronous", level)


def disable_checkpoint_on_close(connection: Connection) -> None:
    """Let the connection close without SQLite's exclusive lock, which makes readers without a busy timeout fail.

    The WAL then stays next to the database; `maintenance.shrink_wal` empties it.
    """
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def enable_checkpoint_on_close(connection: Connection) -> None:
    """Undo `disable_checkpoint_on_close`."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def ensure_wal(connection: Connection, path: str) -> None:
    """Turn the database into a WAL database, unless it is one.

    Raises:
        StorageIOError: its file system does not support WAL.
    """
    mode = connection.pragma("journal_mode", "WAL")
    if mode != "wal":
        cause = f"it has journal_mode {mode} and cannot be changed to WAL; the file system lacks shared memory"
        raise StorageIOError("open database", path, cause)


def is_wal(connection: Connection, schema: str) -> bool:
    """Return whether an attached database is a WAL database."""
    return bool(connection.pragma("journal_mode", schema=schema) == "wal")


@contextlib.contextmanager
def secure_delete(connection: Connection) -> Iterator[None]:
    """Let the connection overwrite with zeros what it deletes in the block."""
    connection.pragma("secure_delete", True)
    try:
        yield
    finally:
        connection.pragma("secure_delete", False)


# -- attached databases -----------------------------------------------------------------------------------------------


def attach(connection: Connection, path: str, schema: str, cache_kib: int = _ATTACHED_CACHE_KIB) -> None:
    """Attach `path` read-only. (BEGIN IMMEDIATE would lock an attached database that is writable.)

    Raises:
        OutOfDescriptorsError: this process may open no further file.
        InheritedError: this process inherited an open connection to it that it cannot close; see `forks`.
        apsw.Error: it cannot be attached for another reason.
    """
    forks.prepare(path)
    forks.watch(connection, path, schema)
    try:
        with guards.limit_steps_in_block(connection, guards.SCHEMA_STEPS):  # attaching reads the schema
            connection.execute(
                "ATTACH ? AS " + quote(schema), (f"file://{urllib.parse.quote(os.fsencode(path))}?mode=ro",)
            )
    except BaseException as error:
        forks.forget(connection, schema)
        # here, because those who handle the error may close files first
        if isinstance(error, (apsw.CantOpenError, apsw.IOError)) and os_errors.is_out_of_descriptors():
            raise os_errors.out_of_descriptors("read database", path) from error
        raise
    try:
        connection.pragma("cache_size", -cache_kib, schema=schema)
    except apsw.Error:
        detach(connection, schema)
        raise


def detach(connection: Connection, schema: str) -> None:
    """Detach what `attach` attached."""
    connection.execute("DETACH " + quote(schema))
    forks.forget(connection, schema)


def _identity_of(connection: Connection, schema: str) -> tuple[int, int]:
    """Return the application id and format version in the file's header."""
    return connection.pragma("application_id", schema=schema), connection.pragma("user_version", schema=schema)


def check_identity(connection: Connection, schema: str, expected: tuple[int, int], path: str) -> None:
    """Check that a database is ours, and of this format.

    Raises:
        FormatError: it belongs to another program, or has another version of the format.
    """
    application_id, version = _identity_of(connection, schema)
    if application_id != expected[0]:
        cause = "it is not an edgeshard database (application_id differs); check the path, or move the file away"
        raise FormatError("open database", path, cause)
    if version != expected[1]:
        raise FormatError(
            "open database",
            path,
            f"it has format {version}, but this edgeshard reads format {expected[1]}; use the version that made it",
        )


# -- transactions -----------------------------------------------------------------------------------------------------


def _begin_immediate(connection: Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


@contextlib.contextmanager
def immediate(connection: Connection, begin: Callable[[Connection], object] = _begin_immediate) -> Iterator[None]:
    """Run the block as one write transaction: commit at its end, or roll back if it raises.

    A block that finds nothing to do may roll back by itself.

    Args:
        connection: the connection.
        begin: begins the transaction.
    """
    try:
        begin(connection)
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def read_snapshot(connection: Connection) -> Iterator[None]:
    """Run the block as one read transaction: all its statements see the same snapshot."""
    connection.execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def begin_in_empty_wal(connection: Connection) -> bool:
    """Begin a write transaction; if the WAL is empty, its commit makes no fsync, although the connection is at NORMAL.

    At NORMAL, SQLite syncs the header of a WAL, and then the WAL's name, before it writes the first frame. The header
    matters when a WAL is written from its start again: if the new header were lost, old frames would count again. An
    empty WAL has none. And a checkpoint syncs the WAL, and its name, before it changes the database. So this must not
    checkpoint, and the caller sets `synchronous` and `wal_autocheckpoint` again after the transaction.

    Returns:
        Whether the caller has to do that, because these settings were changed. If this raises, it has to as well.
    """
    if _is_wal_empty(connection):
        set_synchronous(connection, "OFF")
        connection.wal_autocheckpoint(0)
        connection.execute("BEGIN IMMEDIATE")
        if _is_wal_empty(connection):  # now nobody else can write to it
            return True
        connection.execute("ROLLBACK")
        set_synchronous(connection, "NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        return True
    connection.execute("BEGIN IMMEDIATE")
    return False


@contextlib.contextmanager
def immediate_in_empty_wal(connection: Connection, autocheckpoint_pages: int) -> Iterator[None]:
    """Run the block as `immediate` does; if the WAL is empty, the commit makes no fsync: see `begin_in_empty_wal`.

    Args:
        connection: a connection at NORMAL that may make a checkpoint when it is closed.
        autocheckpoint_pages: its `wal_autocheckpoint`, which it has again after the transaction.
    """
    if not _is_wal_empty(connection):
        with immediate(connection):
            yield
        return
    disable_checkpoint_on_close(connection)
    try:
        with immediate(connection, begin_in_empty_wal):
            yield
    finally:
        set_synchronous(connection, "NORMAL")
        connection.wal_autocheckpoint(autocheckpoint_pages)
        enable_checkpoint_on_close(connection)  # last: a checkpoint that does not sync the WAL could lose rows


def _is_wal_empty(connection: Connection) -> bool:
    try:
        return fingerprint.size(paths.wal(connection.filename)) == 0
    except OSError:  # no reason to refuse a row
        return False


def begin_exclusive(connection: Connection) -> None:
    """Begin a transaction during which no other process can connect.

    Raises:
        apsw.BusyError: another process is connected.
    """
    connection.pragma("locking_mode", "EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
