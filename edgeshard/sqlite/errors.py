"""Classify SQLite's errors, and translate them into edgeshard's: the messages that users see are here.

All decisions go by exception class or result code, never by the text of a message.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import apsw

from edgeshard import format
from edgeshard.errors import (
    AccessError,
    DamagedError,
    DiskFullError,
    EdgeshardError,
    StorageBusyError,
    StorageError,
    StorageIOError,
)
from edgeshard.files import os_errors

#: Any error that SQLite reports.
DatabaseFailure = apsw.Error

#: The row cannot be stored as it is.
ROW_REFUSED = (apsw.ConstraintError, apsw.TooBigError)

#: Another connection holds a lock; nothing was done.
BUSY = (apsw.BusyError, apsw.LockedError, apsw.ProtocolError)

#: Reading took more memory, or reading a schema more steps (see `guards.SCHEMA_STEPS`), than it is allowed.
EXHAUSTED = (apsw.NoMemError, apsw.InterruptError, MemoryError)

#: What reading a database that is damaged, or that another program wrote, may raise. A full disk is not among these.
DATA_ERRORS = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.IOError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.SQLError,
    apsw.SchemaChangeError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.PermissionsError,
    apsw.AuthError,
    *BUSY,
    *EXHAUSTED,
    # what Python raises for text that is not UTF-8, for values of other types, and for numbers that are too large
    TypeError,
    ValueError,
    OverflowError,
)

#: The error of rolling back to, or releasing, a savepoint that no longer exists.
NO_SUCH_SAVEPOINT = apsw.SQLError

#: A mistake in the SQL or in its bindings.
QUERY_MISTAKES = (
    apsw.SQLError,
    apsw.BindingsError,
    apsw.ReadOnlyError,
    apsw.AuthError,
    KeyError,  # the mapping of parameters lacks one
    TypeError,
    ValueError,
)

# The first class that fits decides: our error class, and the cause that it gives.
_TRANSLATIONS: list[tuple[type[apsw.Error], type[StorageError], str]] = [
    (
        apsw.BusyError,
        StorageBusyError,
        "another process holds it locked; try again, or find out which process keeps it open",
    ),
    (apsw.LockedError, StorageBusyError, "another statement holds it locked"),
    (apsw.ProtocolError, StorageBusyError, "another process keeps its WAL locked"),
    (apsw.FullError, DiskFullError, "the disk is full; nothing of this write was kept, free some space and try again"),
    (apsw.ReadOnlyError, AccessError, "it is read-only; check the permissions of the file and its folder"),
    (apsw.PermissionsError, AccessError, "permission denied"),
    (apsw.AuthError, AccessError, "permission denied"),
    (apsw.CorruptError, DamagedError, "the database is damaged"),
    (apsw.NotADBError, DamagedError, "it is not a SQLite database"),
    (apsw.IOError, StorageIOError, "the file system reported an error"),
    (apsw.CantOpenError, StorageIOError, "it cannot be opened"),
    (apsw.InterruptError, DamagedError, "it has more tables, indexes, views and triggers than any database of ours"),
    (apsw.NoMemError, StorageError, "there is not enough memory to read it"),
    (apsw.TooBigError, StorageError, f"it has a row of more than {format.ROW_BYTES_MAX:,} bytes"),
]

# SQLite refused the statement before anything of it reached the disk: the row is certainly not there.
_REFUSED = (
    *BUSY,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.RangeError,
    apsw.SQLError,
    apsw.BindingsError,
)


def is_refused(error: apsw.Error) -> bool:
    """Return whether `error` proves that nothing of the statement was committed."""
    return isinstance(error, _REFUSED)


def is_full(error: BaseException) -> bool:
    """Return whether the disk is full. The commit was not written then, but the tail of the WAL is undefined."""
    return isinstance(error, apsw.FullError)


def is_bad_data(error: apsw.Error) -> bool:
    """Return whether the copied data caused `error`: our own ids are fresh, and our SQL fits the checked schema."""
    causes = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.SQLError, apsw.SchemaChangeError)
    return isinstance(error, causes)


def is_exhaustion(error: Exception) -> bool:
    """Return whether reading took more memory or more steps than it is allowed."""
    return isinstance(error, EXHAUSTED)


def is_damage(error: Exception) -> bool:
    """Return whether the file is damaged or not a database. Reading it fails in the same way until it changes."""
    return isinstance(error, (apsw.CorruptError, apsw.NotADBError, apsw.InterruptError))


def is_short_read(error: Exception) -> bool:
    """Return whether a file ended where a page should be."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHORT_READ


def spoils_transaction(error: Exception) -> bool:
    """Return whether, after `error`, the connection can write nothing more in its open transaction.

    After SQLITE_CORRUPT in any attached database, SQLite fails each further write of the open transaction, to whichever
    database, with SQLITE_CORRUPT (https://sqlite.org/src, SQLITE_CorruptRdOnly).
    """
    return isinstance(error, apsw.CorruptError)


def is_write(error: Exception) -> bool:
    """Return whether a statement tried to write where only reading is allowed."""
    return isinstance(error, apsw.ReadOnlyError)


def is_bad_schema(error: Exception) -> bool:
    """Return whether `error`, raised by our own SQL, means that the tables or their texts are not as we made them."""
    return isinstance(error, (apsw.SQLError, apsw.SchemaChangeError, TypeError, ValueError, OverflowError))


def is_mistake(error: Exception) -> bool:
    """Return whether the SQL or its bindings caused `error`."""
    return isinstance(error, QUERY_MISTAKES)


def is_forbidden(error: Exception) -> bool:
    """Return whether a statement tried to do more than read."""
    return isinstance(error, (apsw.AuthError, apsw.ReadOnlyError))


def has_hot_journal(error: Exception) -> bool:
    """Return whether a transaction was interrupted that only a writer can roll back."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK


def cannot_make_side_files(error: Exception) -> bool:
    """Return whether `error`, of a readable file, means that SQLite cannot create its -wal and -shm files."""
    return isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError))


def explain(error: Exception, action: str, path: str) -> EdgeshardError:
    """Return our error for one of apsw's, or for one that unexpected values raised."""
    if isinstance(error, MemoryError):
        return StorageError(action, path, "there is not enough memory to read it")
    if not isinstance(error, apsw.Error):
        return DamagedError(action, path, f"it holds impossible values: {error}")
    if has_hot_journal(error):
        # a restored snapshot is not a WAL database before its first merge
        cause = "its last writer was interrupted, and left a journal that only a writer can roll back; merge first"
        return StorageBusyError(action, path, cause)
    if isinstance(error, (apsw.CantOpenError, apsw.IOError)) and os_errors.is_out_of_descriptors():
        return os_errors.out_of_descriptors(action, path)
    for class_, ours, cause in _TRANSLATIONS:
        if isinstance(error, class_):
            if class_ is apsw.CantOpenError and not _is_accessible(path):
                return AccessError(action, path, "permission denied, or a read-only medium")
            return ours(action, path, f"{cause} ({error})")
    return StorageError(action, path, f"{type(error).__name__}: {error}")


def _is_accessible(path: str) -> bool:
    folder = os.path.dirname(path)
    return os.access(folder, os.W_OK | os.X_OK) and (not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK))


@contextlib.contextmanager
def translate_errors(action: str, path: str) -> Iterator[None]:
    """Raise edgeshard's errors in place of apsw's and the operating system's."""
    try:
        yield
    except apsw.Error as error:
        raise explain(error, action, path) from error
    except OSError as error:
        raise os_errors.explain_os_error(error, action, path) from error
