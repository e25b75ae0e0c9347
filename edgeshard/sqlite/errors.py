"""Classify SQLite's errors. What users are told about them is in `causes`.

All decisions go by exception class or result code, never by the text of a message.
"""

from __future__ import annotations

import apsw

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


def is_no_database(error: Exception) -> bool:
    """Return whether the file does not begin as a database does."""
    return isinstance(error, apsw.NotADBError)


def is_too_big(error: BaseException) -> bool:
    """Return whether a row, or a value, is larger than a row may be."""
    return isinstance(error, apsw.TooBigError)


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


def is_bad_schema(error: Exception) -> bool:
    """Return whether `error`, raised by our own SQL, means that the tables or their texts are not as we made them."""
    return isinstance(error, (apsw.SQLError, apsw.SchemaChangeError, TypeError, ValueError, OverflowError))


def is_mistake(error: Exception) -> bool:
    """Return whether the SQL or its bindings caused `error`."""
    return isinstance(error, QUERY_MISTAKES)


def is_binding_mistake(error: Exception) -> bool:
    """Return whether the bindings are not those of the statement: too few, too many, or without the right names."""
    return isinstance(error, (apsw.BindingsError, KeyError))


def is_forbidden(error: Exception) -> bool:
    """Return whether a statement tried to do more than read."""
    return isinstance(error, (apsw.AuthError, apsw.ReadOnlyError))


def has_hot_journal(error: Exception) -> bool:
    """Return whether a transaction was interrupted that only a writer can roll back."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK


def cannot_make_side_files(error: Exception) -> bool:
    """Return whether `error`, of a readable file, means that SQLite cannot create its -wal and -shm files."""
    return isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError))
