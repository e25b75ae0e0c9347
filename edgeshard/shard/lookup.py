"""References: SQLite databases that an agent only reads, to look things up while it writes its shard.

They are attached to a connection of their own, next to the shard's, whose main database is empty. So a look-up takes
no part in a transaction of the shard, waits for none, and cannot spoil one if a reference is damaged: once SQLite has
met a damaged page in any attached database, it refuses every further write of the open transaction. (Attaching them to
the writing connection would be no faster.)

A reference is anything that SQLite can read, not only a database of edgeshard's, and is read with care: nothing in its
schema is trusted, SQL that changes anything or reaches another file is refused when it is prepared, and no look-up runs
forever. Its views, and virtual tables such as FTS5, can be used.

A handle reads the files as they were when it was opened. Each look-up checks, after it has read, that they still are.
SQLite itself would not detect that a reference was rebuilt by the same script and copied over the old one: the counter
by which it detects a stale cache would be the same, and it would mix the two.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import (
    AccessError,
    ConfigurationError,
    DamagedError,
    EdgeshardError,
    QueryError,
    ReferenceChangedError,
    ShardClosedError,
    StorageBusyError,
    TransactionError,
    quoted,
)
from edgeshard.files import fingerprint, paths, scan
from edgeshard.files.os_errors import explain_os_error
from edgeshard.options import Params, References
from edgeshard.records import queries
from edgeshard.records.names import is_reserved
from edgeshard.records.queries import Call
from edgeshard.records.rows import Rows
from edgeshard.sqlite import Connection

#: The most references of one shard: as many databases as SQLite attaches by default. Each takes file descriptors.
REFERENCES_MAX: Final = 10

#: The most steps of SQLite's virtual machine in one look-up, half a minute of a processor: a foreign view, or a damaged
#: page that points back to itself, could keep it busy forever.
LOOKUP_STEPS: Final = 2_000_000_000

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

_RESERVED_NAMES: Final = ("main", "temp")

#: How long a look-up waits for a writer of the file (which should have none), in seconds.
_BUSY_TIMEOUT_S: Final = 5.0

#: SQLite's own default for a database: what is looked up again and again stays in memory.
_CACHE_KIB: Final = 2_000

_NEEDS_FILES: Final = (
    "it cannot be opened where it is: most likely it is a WAL database in a folder that cannot be written, and SQLite "
    "needs other files next to it. Convert it (PRAGMA journal_mode = DELETE) before you put it there"
)

_HALF_WRITTEN: Final = (
    "its last writer was interrupted, and left a journal next to it that only a writer can undo; open it once with a "
    "program that may write it"
)

_CHANGED: Final = (
    "it was changed, replaced or removed since it was opened, and rows of two versions are never mixed; open the shard "
    "again, with its references"
)

#: A file's inode, size in bytes and time of last change in nanoseconds; None if there is no file.
_FileState = fingerprint.State | None


@attrs.frozen
class Reference:
    """A database to attach, and the state in which it was found.

    Attributes:
        name: its schema name in SQL.
        path: the file, with symbolic links followed.
        state: the state of the file.
        wal_state: the state of its WAL, if it has one.
        is_wal: whether it is a WAL database.
    """

    name: str
    path: str
    state: _FileState
    wal_state: _FileState
    is_wal: bool = False

    def is_unchanged(self) -> bool:
        """Return whether the files are as they were when it was opened."""
        return self.state == _state(self.path) and not (self.is_wal and self.wal_state != _wal_state(self.path))


class Lookups:
    """The references of one shard, open for reading; threads may share them.

    Args:
        references: their files, by name.

    Raises:
        ConfigurationError: a name or a path is invalid, or there are too many.
        StorageError: a reference cannot be read.
    """

    def __init__(self, references: References) -> None:
        _check_all(references)
        with sqlite.translate_errors("open reference", ", ".join(os.fspath(path) for path in references.values())):
            connection = sqlite.open_in_memory("")
            try:
                sqlite.set_busy_timeout(connection, _BUSY_TIMEOUT_S)
                self._references = _attach_all(connection, references)
                self._budget = sqlite.limit_steps(connection)
                sqlite.allow_only_reading(connection, [reference.name for reference in self._references])
            except BaseException:
                connection.close()
                raise
        self._connection: Connection | None = connection
        self._lock = threading.RLock()
        sqlite.await_turn(self._lock)
        self._is_busy = False
        self._paths = ", ".join(reference.path for reference in self._references)
        on_write = "A look-up only reads references; results are written with shard.write()"
        self._call = Call("look up", self._paths, "lookup(sql, {})", on_write, self._explain_tables)

    def lookup(self, sql: str, params: Params) -> Rows:
        """Return the rows of a SELECT over the references; see `Shard.lookup`."""
        with self._lock:
            if self._connection is None:
                raise ShardClosedError("look up", self._paths, "the shard was closed; open it again")
            if self._is_busy:
                cause = "a look-up is under way; do not look up from a signal handler or finalizer that interrupts one"
                raise TransactionError("look up", self._paths, cause)
            self._is_busy = True
            try:
                return self._select(self._connection, sql, params)
            finally:
                self._is_busy = False

    def _select(self, connection: Connection, sql: str, params: Params) -> Rows:
        self._budget.allow(LOOKUP_STEPS)
        try:
            found = queries.select(connection, self._call, sql, params)
        except EdgeshardError:
            _refuse_changed(self._references)  # what it read may be of two versions
            raise
        except (sqlite.DatabaseFailure, *sqlite.EXHAUSTED) as error:
            _refuse_changed(self._references)  # as above
            self._budget.allow(LOOKUP_STEPS)
            raise self._explain(connection, error) from error
        _refuse_changed(self._references)
        return found

    def _explain(self, connection: Connection, error: Exception) -> EdgeshardError:
        if isinstance(error, sqlite.EXHAUSTED):
            cause = (
                f"it needed more than {LOOKUP_STEPS:,} steps, or more memory than there is, and was stopped ({error}). "
                "Select less, or add an index to the reference"
            )
            return QueryError("look up", self._paths, cause)
        culprit = _damaged(self._references, connection) if len(self._references) > 1 else None
        return sqlite.explain(error, "look up in reference", culprit.path if culprit else self._paths)

    def _explain_tables(self, connection: Connection) -> str:
        self._budget.allow(LOOKUP_STEPS)
        found = []
        for reference in self._references:
            sql = (
                f"SELECT name FROM {sqlite.quote(reference.name)}.sqlite_schema "
                "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%' ESCAPE '~' "
                "AND substr(name, 1, length(?1)) <> ?1 ORDER BY type, name"
            )
            with sqlite.translate_errors("look up in reference", reference.path):
                names = sqlite.fetch(connection, sql, (format.PREFIX,))  # a reference may be a master
            found += [f"{reference.name}.{name}" for (name,) in names]
        return f"The references have the tables {', '.join(found) or '(none)'}"

    def close(self) -> None:
        """Close all references; wait for a look-up in another thread to end."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def leave_to_parent(self) -> None:
        """Wait for no thread of the process that forked this one."""
        self._lock = threading.RLock()  # a thread of the parent may have held the other


# -- opening ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def attached_references(connection: Connection, references: References | None) -> Iterator[None]:
    """Attach references to a connection whose queries run in the block; then check that the references did not change.

    The block may also read the connection's own database. The references stay attached until the connection is closed.

    Raises:
        ConfigurationError: a name or a path is invalid, or there are too many.
        ReferenceChangedError: a reference was changed meanwhile.
        StorageError: a reference cannot be read.
    """
    if references is None:
        yield
        return
    _check_all(references)
    attached = _attach_all(connection, references)
    try:
        yield
    except (sqlite.DatabaseFailure, QueryError) as error:
        _refuse_changed(attached)
        if isinstance(error, QueryError):
            raise
        # the error does not say in which database it happened
        culprit = None if sqlite.is_mistake(error) else _damaged(attached, connection)
        if culprit is not None:
            raise sqlite.explain(error, "query reference", culprit.path) from error
        raise
    _refuse_changed(attached)


def _refuse_changed(references: Iterable[Reference]) -> None:
    for reference in references:
        if not reference.is_unchanged():
            raise ReferenceChangedError("look up in reference", reference.path, _CHANGED)


def _damaged(references: Iterable[Reference], connection: Connection) -> Reference | None:
    """Return the first reference that SQLite finds damaged."""
    return next((each for each in references if not sqlite.is_sound(connection, each.name)), None)


def _attach_all(connection: Connection, references: References) -> list[Reference]:
    found = [_find(name, path) for name, path in references.items()]
    return [_attach(connection, reference) for reference in found]


def _check_all(references: References) -> None:
    if not isinstance(references, Mapping):
        raise ConfigurationError("open reference", "", 'reference= must be a mapping, such as {"patterns": path}')
    if not 1 <= len(references) <= REFERENCES_MAX:
        cause = f"give 1 to {REFERENCES_MAX} references, not {len(references)}"
        raise ConfigurationError("open reference", "", cause)
    seen: set[str] = set()
    for name, path in references.items():
        _check(name, path)
        if name.lower() in seen:
            cause = f"two references have the name {name!r} (SQL ignores case); rename one"
            raise ConfigurationError("open reference", path, cause)
        seen.add(name.lower())


def _check(name: str, path: str | os.PathLike[str]) -> None:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        cause = f"the path of reference {quoted(name)} must be a str or a Path, not {type(path).__name__}"
        raise ConfigurationError("open reference", "", cause)
    path = paths.checked(path, "open reference", f"the path of reference {quoted(name)}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        cause = f"invalid reference name {quoted(name)}: use 1-64 letters, digits or _, and no digit first"
        raise ConfigurationError("open reference", path, cause)
    if name.lower() in _RESERVED_NAMES or is_reserved(name):
        raise ConfigurationError("open reference", path, f"the name {name!r} is reserved; choose another")


def _find(name: str, path: str | os.PathLike[str]) -> Reference:
    """Find the file of a reference, and its state before it is opened."""
    real = os.path.realpath(path)  # SQLite follows no link in it
    found = scan.find_database(real)
    if found is None:
        raise ConfigurationError("open reference", real, "there is no such file; check the path")
    if found.defect:
        raise ConfigurationError("open reference", found.path, found.defect)
    return Reference(name, real, _state(real), _wal_state(real))


def _attach(connection: Connection, reference: Reference) -> Reference:
    try:
        sqlite.attach(connection, reference.path, reference.name, cache_kib=_CACHE_KIB)
        is_wal = sqlite.is_wal(connection, reference.name)
    except sqlite.DATA_ERRORS as error:
        raise _explain_opening(error, reference.path) from error
    return attrs.evolve(reference, is_wal=is_wal)


def _explain_opening(error: Exception, path: str) -> EdgeshardError:
    if sqlite.has_hot_journal(error):
        return StorageBusyError("open reference", path, _HALF_WRITTEN)
    if not os.access(path, os.R_OK):
        return AccessError("open reference", path, "permission denied; make it readable for this user")
    if sqlite.cannot_make_side_files(error):
        return AccessError("open reference", path, f"{_NEEDS_FILES} ({error})")
    if sqlite.is_bad_schema(error):
        return DamagedError(
            "open reference", path, f"SQLite cannot attach it ({error}); build it again, or restore a copy"
        )
    return sqlite.explain(error, "open reference", path)


def _wal_state(path: str) -> _FileState:
    """Return the state of the WAL; None if there is none or an empty one, which readers leave behind."""
    state = _state(paths.wal(path))
    return state if state is not None and state[1] else None


def _state(path: str) -> _FileState:
    try:
        return fingerprint.state(path)
    except OSError as error:
        raise explain_os_error(error, "check reference", path) from error
