"""Keep a forked child from sharing a file with a connection that it inherited from its parent.

SQLite notes once for each process and file which locks the process holds, and a fork copies that note, but not the
locks. A new connection of the child would believe the copy, and lock nothing: another process would then truncate or
remove what the child reads and writes (https://sqlite.org/howtocorrupt.html, 2.6). So the child closes what it
inherited before it opens the first database. It does that then, and not in the fork hook, because closing takes
SQLite's own mutexes, and a child that opens no database should depend on none of them.

Closing does nothing to the parent's files and locks if the connection has no write transaction open, and makes no
checkpoint: it unmaps and closes the child's copies of the descriptors. Otherwise the connection cannot be closed:

* A rollback would write to the parent's wal-index, or to a draft.
* If another thread was inside SQLite, it holds mutexes that nobody releases in the child. So a fork waits for other
  threads, but not for long.

Such a connection is kept open forever, and the child refuses to open its files.

Closing any descriptor of a file drops all POSIX locks of the process on it, so what was inherited is closed before
anything is opened, never after.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Protocol

import apsw

from edgeshard.files import fingerprint

Connection = apsw.Connection

_FileId = tuple[int, int]

CAUSE = (
    "the parent process was using it at the moment of the fork: it was within a transaction, or another thread was at "
    "work on it. This child would use it without locks. Open it in a process that was forked at another moment, "
    "spawned, or begun with exec"
)


class InheritedError(apsw.BusyError):
    """The file is open in a connection that this child inherited and cannot close."""


#: The files of each connection of this process, by schema name; None if a file could not be identified.
_files_of: weakref.WeakKeyDictionary[Connection, dict[str, _FileId | None]] = weakref.WeakKeyDictionary()

#: The threads that are opening a connection.
_opening: set[int] = set()

#: Inherited connections that are closed before this process opens a database, and their files.
_to_close: list[tuple[Connection, dict[str, _FileId | None]]] = []
_closing = threading.RLock()  # a signal handler may open a database as well

#: Inherited connections that cannot be closed, and their files.
_kept: list[Connection] = []
_kept_files: set[_FileId] = set()


def open_connection(path: str, flags: int) -> Connection:
    """Open a database, and remember that the connection has it open. The connection itself is not kept alive.

    Raises:
        InheritedError: a connection that cannot be closed has it open.
        apsw.Error: it cannot be opened.
    """
    prepare(path)
    thread = threading.get_ident()
    _opening.add(thread)
    try:
        connection = Connection(path, flags=flags)
    finally:
        _opening.discard(thread)
    watch(connection, path, "main")
    return connection


def prepare(path: str) -> None:
    """Call this before a database is opened or attached.

    Raises:
        InheritedError: a connection that cannot be closed has it open.
    """
    if _to_close:
        with _closing:
            for connection, files in _to_close:
                try:
                    connection.close()
                except apsw.Error:
                    _keep(connection, files)
            _to_close.clear()  # last: another thread opens nothing before that
    if _kept_files and _identify(path) in _kept_files:
        raise InheritedError(CAUSE)


def watch(connection: Connection, path: str, schema: str) -> None:
    """Remember that a connection is about to have another file open."""
    _files_of.setdefault(connection, {})[schema] = _identify(path)


def forget(connection: Connection, schema: str) -> None:
    """Forget a file that was detached."""
    _files_of.get(connection, {}).pop(schema, None)


@contextlib.contextmanager
def watching(connection: Connection, path: str, schema: str) -> Iterator[None]:
    """Remember a file that a statement of the connection has open in the block."""
    watch(connection, path, schema)
    try:
        yield
    finally:
        forget(connection, schema)


def _identify(path: str) -> _FileId | None:
    try:
        return fingerprint.identity(path)
    except OSError:  # whoever opens it reports that
        return None


# -- before a fork, in the parent -------------------------------------------------------------------------------------

#: How long a fork waits at most for other threads to finish what they do with connections, in seconds.
_LONGEST_WAIT_S = 0.1


class Turn(Protocol):
    """A reentrant lock that a thread holds while it uses connections."""

    def acquire(self, blocking: bool, timeout: float, /) -> bool:
        """Take it within this time, in seconds; return whether it was taken."""

    def release(self) -> None:
        """Let another thread have it."""


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


class _Held(threading.local):
    """The locks that this thread holds while it forks."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []


_held = _Held()


def await_turn(turn: Turn) -> None:
    """Have each fork wait briefly for the thread that holds this lock, so that the child can close its connections."""
    with contextlib.suppress(TypeError):  # a lock of another library that cannot be remembered: no fork waits for it
        _turns.add(turn)


def _before_fork() -> None:
    until = time.monotonic() + _LONGEST_WAIT_S
    for turn in list(_turns):
        if turn.acquire(True, max(0.0, until - time.monotonic())):
            _held.turns.append(turn)
    # others, such as one that another thread has opened for a query, have no such lock. Wait for a moment when nobody
    # is inside SQLite at all: then nobody holds a mutex of it that the child will need
    while (_opening or any(map(_is_in_use, list(_files_of)))) and time.monotonic() < until:
        time.sleep(0.0005)


def _is_in_use(connection: Connection) -> bool:
    """Return whether a thread is inside SQLite with it now. This does not get in that thread's way."""
    try:
        connection.txn_state()
    except apsw.ThreadingViolationError:
        return True
    except apsw.Error:  # it is closed
        return False
    return False


def _after_fork() -> None:
    turns, _held.turns = _held.turns, []
    for turn in turns:
        turn.release()


# -- in the child -----------------------------------------------------------------------------------------------------


def _after_fork_in_child() -> None:
    """Sort what was inherited; nothing is closed yet.

    This takes no mutex but those of the connections, and waits for none of them.
    """
    global _closing
    _after_fork()
    _closing = threading.RLock()  # a thread of the parent may have held the other
    _opening.clear()
    inherited = list(_files_of.items())
    _files_of.clear()
    idle = []
    for connection, files in inherited:
        try:
            # also if it is closed by code that runs on after the fork
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if connection.txn_state() == apsw.SQLITE_TXN_WRITE:
                _keep(connection, files)
            else:
                idle.append((connection, files))
        except apsw.ConnectionClosedError:
            pass
        except apsw.Error:  # a thread that is not in this process was using it
            _keep(connection, files)
    for connection, files in idle:
        # that thread may also hold a mutex of a file, for which closing another connection to the file would wait
        if _kept_files.isdisjoint(files.values()):
            _to_close.append((connection, files))
        else:
            _keep(connection, files)


def _keep(connection: Connection, files: dict[str, _FileId | None]) -> None:
    with contextlib.suppress(apsw.Error):  # a thread was using it, and nobody can use it now
        connection.authorizer = _refuse  # code that runs on after the fork may neither commit nor roll back
    _kept.append(connection)
    _kept_files.update(file for file in files.values() if file is not None)


def _refuse(*_: object) -> int:
    return apsw.SQLITE_DENY


def _leave_open_at_exit() -> None:
    """Keep the interpreter from closing inherited connections when it frees all objects."""
    if _kept or _to_close:
        import ctypes  # the only way to keep an object that long

        for connection in (*_kept, *(connection for connection, _ in _to_close)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
    atexit.register(_leave_open_at_exit)
