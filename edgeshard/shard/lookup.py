"""References: SQLite databases that an agent only reads, to look things up while it writes its shard.

They are attached to a connection of their own, beside the shard's, whose main database is empty. So a look-up takes
part in no transaction of the shard, waits for none, and cannot spoil one where a reference is damaged: SQLite, once it
has met a damaged page in any attached database, refuses every further write of the open transaction. (To attach them
to the writing connection is no faster.)

A reference is whatever SQLite can read, not only databases of ours, and is read with care: nothing in its schema is
trusted, SQL that changes anything or reaches another file is refused as it is prepared, and no look-up goes on for
ever. Its views, and virtual tables such as FTS5, can be used.

What a handle looks up comes from the files as they were when it was opened. Each look-up asks, after it has read,
whether they still are. SQLite itself would not notice a library that is made anew by the same script and copied over
the old one: the counter by which it knows its cache to be stale would be the same, and it would mix the two.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

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
)
from edgeshard.files import fingerprint, paths, scan
from edgeshard.files.os_errors import explain_os_error
from edgeshard.records import codecs
from edgeshard.sqlite import Connection
from edgeshard.sqlite.rows import row_class

#: References of one shard: as many databases as SQLite attaches unless it is built otherwise; each takes descriptors.
REFERENCES_MAX: Final = 10

#: Steps of SQLite's virtual machine in one look-up, half a minute of a processor: a view of a stranger, or a damaged
#: page that leads back to itself, would keep it busy for ever.
LOOKUP_STEPS: Final = 2_000_000_000

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

_OWN_NAMES: Final = ("main", "temp")

_OWN_PREFIXES: Final = ("sqlite_", format.PREFIX)

#: How long a look-up waits for somebody who writes the file (which nobody should), in seconds.
_PATIENCE_S: Final = 5.0

#: SQLite's own default for a database; what is looked up again and again stays in memory.
_CACHE_KIB: Final = 2_000

_NEEDS_FILES: Final = (
    "it cannot be opened where it is: most likely it is a WAL database in a folder that cannot be written, and SQLite "
    "needs files beside it. Make it one that needs none (PRAGMA journal_mode = DELETE) before it is put there"
)

_HALF_WRITTEN: Final = (
    "its last writer was interrupted, and left a journal beside it that only a writer can undo; open it once with a "
    "program that may write it"
)

_CHANGED: Final = (
    "it was changed, replaced or removed since it was opened, and no rows of two versions are ever mixed; open it anew "
    "(a shard with its references)"
)

#: A file by inode, size in bytes, and time of its last change in nanoseconds; None: there is none.
_FileState = fingerprint.State | None

References = Mapping[str, str | os.PathLike[str]]


@attrs.frozen
class Reference:
    """A database that is attached, and the state in which it was found.

    Attributes:
        name: its schema name in SQL.
        path: the file, with symbolic links followed.
        state: of the file.
        log_state: of its log, where it has one.
        has_log: whether it is a WAL database.
    """

    name: str
    path: str
    state: _FileState
    log_state: _FileState
    has_log: bool = False

    def is_unchanged(self) -> bool:
        """Whether it is as it was when it was opened."""
        return self.state == _look(self.path) and not (self.has_log and self.log_state != _look_at_log(self.path))


class Lookups:
    """The references of one shard, open for reading; threads may share them."""

    def __init__(self, references: References) -> None:
        connection = sqlite.open_in_memory("")
        try:
            sqlite.set_busy_timeout(connection, _PATIENCE_S)
            self._references = _attach_all(connection, references)
            self._budget = sqlite.limit_steps(connection)
            sqlite.allow_only_reading(connection, [reference.name for reference in self._references])
        except BaseException:
            connection.close()
            raise
        self._connection: Connection | None = connection
        self._lock = threading.RLock()
        self._is_busy = False
        self._paths = ", ".join(reference.path for reference in self._references)

    def lookup(self, sql: str, params: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """The rows of a SELECT over the references; see `Shard.lookup`."""
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

    def _select(self, connection: Connection, sql: str, params: Any) -> list[Any]:
        self._budget.allow(LOOKUP_STEPS)
        try:
            names, rows = sqlite.select(connection, sql, codecs.bindable(params))
            found = list(map(row_class(names), rows))
        except (sqlite.DatabaseFailure, *sqlite.QUERY_MISTAKES, *sqlite.EXHAUSTED) as error:
            _refuse_changed(self._references)  # first: what it read may be of two versions
            self._budget.allow(LOOKUP_STEPS)
            raise self._explain(connection, error) from error
        _refuse_changed(self._references)
        return found

    def _explain(self, connection: Connection, error: Exception) -> EdgeshardError:
        if isinstance(error, sqlite.EXHAUSTED):
            cause = f"it took more than {LOOKUP_STEPS:,} steps, or the memory there is, and was ended ({error})"
            return QueryError("look up", self._paths, cause)
        if sqlite.is_mistake(error):
            return QueryError("look up", self._paths, self._explain_mistake(connection, error))
        culprit = _damaged(self._references, connection) if len(self._references) > 1 else None
        return sqlite.explain(error, "look up in reference", culprit.path if culprit else self._paths)

    def _explain_mistake(self, connection: Connection, error: Exception) -> str:
        if sqlite.is_forbidden(error):
            return f"{error}. A look-up only reads references; results are written with shard.write()"
        if isinstance(error, UnicodeDecodeError):
            return "a text in it is not valid UTF-8. Read it with CAST(column AS BLOB)"
        if isinstance(error, KeyError):
            return f"no value was given for the parameter {error}"
        return f"{error}. The references have the tables {self._tables(connection)}"

    def _tables(self, connection: Connection) -> str:
        found = []
        for reference in self._references:
            sql = (
                f"SELECT name FROM {sqlite.quote(reference.name)}.sqlite_schema "
                "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY 1"
            )
            with sqlite.translate_errors("look up in reference", reference.path):
                found += [f"{reference.name}.{name}" for (name,) in sqlite.fetch(connection, sql)]
        return ", ".join(found) or "(none)"

    def close(self) -> None:
        """Close them; waits for a look-up that another thread makes."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def leave_to_parent(self) -> Connection | None:
        """After a fork, in the child: the connection, which must be kept, and never be used or closed here."""
        self._lock = threading.RLock()  # a thread of the parent may have held the other
        return self._connection


# -- opening ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def attached_references(connection: Connection, references: References | None) -> Iterator[None]:
    """For the block, which reads the connection's own database, attach references to it.

    Raises:
        ConfigurationError: a name or a path that cannot be one, or too many.
        ReferenceChangedError: one was changed meanwhile.
        StorageError: one cannot be read.
    """
    if references is None:
        yield
        return
    attached = _attach_all(connection, references)
    try:
        yield
    except sqlite.DatabaseFailure as error:
        _refuse_changed(attached)
        # an error says not of which of them it is
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
    """The first that SQLite finds something wrong with."""
    return next((each for each in references if not sqlite.is_sound(connection, each.name)), None)


def _attach_all(connection: Connection, references: References) -> list[Reference]:
    found = [_find(name, path) for name, path in _checked(references).items()]
    return [_attach(connection, reference) for reference in found]


def _checked(references: References) -> References:
    if not isinstance(references, Mapping):
        raise ConfigurationError("open reference", "", 'reference= takes a mapping, such as {"patterns": path}')
    if not 1 <= len(references) <= REFERENCES_MAX:
        cause = f"a shard has 1 to {REFERENCES_MAX} references, not {len(references)}"
        raise ConfigurationError("open reference", "", cause)
    seen: set[str] = set()
    for name, path in references.items():
        _check(name, path)
        if name.lower() in seen:
            raise ConfigurationError("open reference", path, f"two references have the name {name!r} for SQLite")
        seen.add(name.lower())
    return references


def _check(name: str, path: str | os.PathLike[str]) -> None:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        cause = f"the path of reference {name!r} is a str or a Path, not {type(path).__name__}"
        raise ConfigurationError("open reference", "", cause)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        cause = f"the name {name!r} is none; it has up to 64 letters, digits and _, and begins with no digit"
        raise ConfigurationError("open reference", path, cause)
    if name.lower() in _OWN_NAMES or name.lower().startswith(_OWN_PREFIXES):
        raise ConfigurationError("open reference", path, f"the name {name!r} is taken; choose another")


def _find(name: str, path: str | os.PathLike[str]) -> Reference:
    """The file, not yet opened, and its state before that."""
    real = os.path.realpath(path)  # SQLite is told to follow no link
    found = scan.find_database(real)
    if found is None:
        raise ConfigurationError("open reference", real, "there is no such file")
    if found.defect:
        raise ConfigurationError("open reference", found.path, found.defect)
    return Reference(name, real, _look(real), _look_at_log(real))


def _attach(connection: Connection, reference: Reference) -> Reference:
    try:
        sqlite.attach(connection, reference.path, reference.name, cache_kib=_CACHE_KIB)
        has_log = sqlite.is_wal(connection, reference.name)
    except sqlite.DATA_ERRORS as error:
        raise _explain_opening(error, reference.path) from error
    return attrs.evolve(reference, has_log=has_log)


def _explain_opening(error: Exception, path: str) -> EdgeshardError:
    if sqlite.has_hot_journal(error):
        return StorageBusyError("open reference", path, _HALF_WRITTEN)
    if not os.access(path, os.R_OK):
        return AccessError("open reference", path, "permission denied")
    if sqlite.needs_files_beside(error):
        return AccessError("open reference", path, f"{_NEEDS_FILES} ({error})")
    if sqlite.is_bad_schema(error):
        return DamagedError("open reference", path, f"SQLite does not attach it: {error}")
    return sqlite.explain(error, "open reference", path)


def _look_at_log(path: str) -> _FileState:
    """The state of the log; None where there is none, or an empty one: each reader of a WAL database leaves that."""
    state = _look(paths.wal(path))
    return state if state is not None and state[1] else None


def _look(path: str) -> _FileState:
    try:
        return fingerprint.state(path)
    except OSError as error:
        raise explain_os_error(error, "look at reference", path) from error
