"""Translate SQLite's errors into edgeshard's: the causes that users read are here.

All decisions go by exception class or result code, never by the text of a message. The extended result code names the
call that failed. Where it does not name the reason, what surrounds the file is examined: see `_explain_surroundings`.
"""

from __future__ import annotations

import contextlib
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
from edgeshard.files import access, os_errors
from edgeshard.sqlite import forks
from edgeshard.sqlite.errors import has_hot_journal

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
    (
        apsw.ReadOnlyError,
        AccessError,
        "it may not be written, or not be read without making files next to it; check the permissions of its folder",
    ),
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

_NO_TEMPORARY_FILES = (
    "SQLite found no folder for temporary files that it may write to; name one in the environment variable "
    "SQLITE_TMPDIR before the process starts"
)
_LOST_LOCK = (
    "the file system refused or lost a lock on it; keep the store on a local disk whose file system has POSIX locks, "
    "and on a network file system check its lock server"
)
_SHARED_MEMORY = (
    "its shared memory (the file -shm next to it) cannot be made or mapped; check the free memory and the file system, "
    "which must support mmap()"
)
_DEVICE = "look at dmesg, the cable and the disk's health, and at the free space and quotas (`df`, `quota`)"

# What the extended result code says (https://sqlite.org/rescode.html): our error class, and the cause that it gives.
_BY_EXTENDED_CODE: dict[int, tuple[type[StorageError], str]] = {
    apsw.SQLITE_IOERR_GETTEMPPATH: (StorageIOError, _NO_TEMPORARY_FILES),
    apsw.SQLITE_CANTOPEN_NOTEMPDIR: (StorageIOError, _NO_TEMPORARY_FILES),
    **dict.fromkeys(
        (
            apsw.SQLITE_IOERR_LOCK,
            apsw.SQLITE_IOERR_UNLOCK,
            apsw.SQLITE_IOERR_RDLOCK,
            apsw.SQLITE_IOERR_CHECKRESERVEDLOCK,
            apsw.SQLITE_IOERR_SHMLOCK,
        ),
        (StorageIOError, _LOST_LOCK),
    ),
    **dict.fromkeys(
        (apsw.SQLITE_IOERR_SHMOPEN, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMMAP),
        (StorageIOError, _SHARED_MEMORY),
    ),
    apsw.SQLITE_IOERR_NOMEM: (StorageError, "there is not enough memory; end other programs, and try again"),
    apsw.SQLITE_IOERR_READ: (StorageIOError, f"reading it failed; {_DEVICE}"),
    apsw.SQLITE_IOERR_SHORT_READ: (
        StorageIOError,
        "it is shorter than it was: another program truncated it; try again",
    ),
    apsw.SQLITE_IOERR_CORRUPTFS: (StorageIOError, f"its file system is damaged; {_DEVICE}"),
    apsw.SQLITE_IOERR_WRITE: (StorageIOError, f"writing to it failed; {_DEVICE}"),
    apsw.SQLITE_IOERR_TRUNCATE: (StorageIOError, f"changing its size failed; {_DEVICE}"),
    apsw.SQLITE_IOERR_FSYNC: (StorageIOError, f"writing it to the device (fsync) failed; {_DEVICE}"),
    apsw.SQLITE_IOERR_DIR_FSYNC: (StorageIOError, f"writing its folder to the device (fsync) failed; {_DEVICE}"),
    apsw.SQLITE_IOERR_FSTAT: (StorageIOError, f"asking for its size failed; {_DEVICE}"),
    apsw.SQLITE_IOERR_DELETE: (
        StorageIOError,
        "a file next to it cannot be removed; check the permissions of its folder",
    ),
    apsw.SQLITE_IOERR_DELETE_NOENT: (
        StorageIOError,
        "a file next to it was removed by another program; leave them alone",
    ),
    apsw.SQLITE_CANTOPEN_SYMLINK: (
        StorageIOError,
        "it is, or leads through, a symbolic link, which is not followed here; give the path of the file itself",
    ),
    apsw.SQLITE_CANTOPEN_ISDIR: (StorageIOError, "it is a folder where a database is expected; move it away"),
    apsw.SQLITE_CANTOPEN_FULLPATH: (StorageIOError, "its path is too long, or leads nowhere; choose a shorter path"),
    apsw.SQLITE_READONLY_DBMOVED: (
        StorageIOError,
        "it was moved, deleted or replaced while it was open, and nothing more is written to the old file; try again",
    ),
}

#: Errors that name their cause: the surroundings are not examined.
_OF_ITS_OWN = frozenset(
    (
        apsw.SQLITE_IOERR_GETTEMPPATH,
        apsw.SQLITE_CANTOPEN_NOTEMPDIR,
        apsw.SQLITE_CANTOPEN_SYMLINK,
        apsw.SQLITE_CANTOPEN_ISDIR,
        apsw.SQLITE_READONLY_DBMOVED,
    )
)

#: Input and output errors that a full disk can cause. SQLite reports a full disk by itself only when it writes pages.
_GROWING = frozenset(
    (
        apsw.SQLITE_IOERR_SHMOPEN,
        apsw.SQLITE_IOERR_SHMSIZE,
        apsw.SQLITE_IOERR_SHMMAP,
        apsw.SQLITE_IOERR_WRITE,
        apsw.SQLITE_IOERR_TRUNCATE,
        apsw.SQLITE_IOERR_FSYNC,
    )
)


def explain(error: Exception, action: str, path: str) -> EdgeshardError:
    """Return our error for one of apsw's, or for one that unexpected values raised."""
    if isinstance(error, MemoryError):
        return StorageError(action, path, "there is not enough memory to read it")
    if not isinstance(error, apsw.Error):
        return DamagedError(action, path, f"it holds impossible values: {error}")
    if isinstance(error, forks.InheritedError):
        return StorageError(action, path, forks.CAUSE)
    if has_hot_journal(error):
        # a restored snapshot is not a WAL database before its first merge
        cause = "its last writer was interrupted, and left a journal that only a writer can roll back; merge first"
        return StorageBusyError(action, path, cause)
    return (
        _explain_surroundings(error, action, path)
        or _explain_extended(error, action, path)
        or _explain_class(error, action, path)
    )


def _explain_surroundings(error: apsw.Error, action: str, path: str) -> StorageError | None:
    """Return our error if the process, the file system or the permissions are the cause, or None.

    SQLite does not say which error the system reported when a file could not be opened or mapped.
    """
    if not isinstance(error, (apsw.CantOpenError, apsw.IOError, apsw.ReadOnlyError)):
        return None
    extended = getattr(error, "extendedresult", 0)
    if extended in _OF_ITS_OWN:
        return None
    if not isinstance(error, apsw.ReadOnlyError) and os_errors.is_out_of_descriptors():
        return os_errors.out_of_descriptors(action, path)
    if isinstance(error, apsw.IOError) and extended not in _GROWING:
        return None
    if not isinstance(error, apsw.ReadOnlyError) and (os_errors.has_no_inodes(path) or os_errors.has_no_space(path)):
        return os_errors.disk_full(action, path, path)
    if access.is_read_only(path):
        return AccessError(action, path, access.explain_read_only())
    if not isinstance(error, apsw.IOError) and access.is_denied(path):
        return AccessError(action, path, access.explain_denied(path))
    return None


def _explain_extended(error: apsw.Error, action: str, path: str) -> StorageError | None:
    """Return our error for one whose extended result code tells the cause, or None."""
    found = _BY_EXTENDED_CODE.get(getattr(error, "extendedresult", 0))
    return found and found[0](action, path, f"{found[1]} ({error})")


def _explain_class(error: apsw.Error, action: str, path: str) -> StorageError:
    for class_, ours, cause in _TRANSLATIONS:
        if isinstance(error, class_):
            return ours(action, path, f"{cause} ({error})")
    return StorageError(action, path, f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def translate_errors(action: str, path: str) -> Iterator[None]:
    """Raise edgeshard's errors in place of apsw's and the operating system's."""
    try:
        yield
    except apsw.Error as error:
        raise explain(error, action, path) from error
    except OSError as error:
        raise os_errors.explain_os_error(error, action, path) from error
