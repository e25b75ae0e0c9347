"""Make the master database, and open it for merging or for reading."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeshard import format, sqlite
from edgeshard.errors import ConfigurationError, DamagedError, FormatError, StorageBusyError, StorageError
from edgeshard.files import fingerprint, folders, scan
from edgeshard.files.scan import ShardFile
from edgeshard.master import agent_views, by_hand, catalog, damage, identity
from edgeshard.records import declare
from edgeshard.sqlite import Connection

#: A merger's cache of the master, in KiB. A larger one gains nothing (measured).
_CACHE_KIB = 1_000

#: A cache for reading streams in the order of their ids, which is random, in KiB: enough for 1,000,000 of them.
_ID_ORDER_CACHE_KIB = 64_000

#: How long to wait for a lock only to explain an error better, in seconds.
_EXPLAIN_TIMEOUT_S = 0.1

#: How much of a file to read to find out if it is a text, in bytes: the first page of a master.
_TEXT_BYTES = 4_096

#: How often to open a master that is being replaced.
_ATTEMPTS = 5

#: The size of the master's WAL at which a commit copies it into the database, in bytes.
CHECKPOINT_BYTES = 32_768_000

#: The size to which a checkpoint truncates the WAL once it can be reset, in bytes.
_WAL_BYTES = 64 << 20


def find_master(path: Path, action: str) -> ShardFile | None:
    """Examine the master's file without opening it; return None if it does not exist.

    Raises:
        ConfigurationError: it is a symbolic link, a folder, or another thing that is not a file.
        DamagedError: the file cannot be a database.
    """
    found = scan.find_database(str(path))
    if found is not None and found.defect:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise ConfigurationError(action, path, _explain_no_file(path))
        raise DamagedError(action, path, f"{found.defect}. Move it away, or restore it from a snapshot")
    return found


def _explain_no_file(path: Path) -> str:
    if path.is_symlink():
        # the lock files, the WAL and the index of the WAL would be in two folders, and each has users who see only one
        return (
            f"it is a symbolic link to {os.path.realpath(path)}, and those are not followed. Move the database itself "
            "here, with its -wal, while nothing runs; to keep a store on another disk, link its whole folder"
        )
    what = "a folder" if path.is_dir() else "not a regular file"
    return f"it is {what}, and the master is a database. Move it away; the next merge makes a master"


def ensure_exists(path: Path, action: str) -> None:
    """Refuse what needs a master if there is none yet.

    Raises:
        ConfigurationError: there is no master, or it is not a file.
        DamagedError: the file cannot be a database.
    """
    if find_master(path, action) is None:
        cause = f"there is no master yet; Store.merge makes it (`edgeshard merge {path.parent}`)"
        raise ConfigurationError(action, path, cause)


def ensure_master(path: Path) -> None:
    """Make the master unless it exists, with the table for dicts.

    Raises:
        AccessError, StorageIOError, DiskFullError: it cannot be made.
        ConfigurationError: it is not a file.
        DamagedError: the file exists but is empty, or its WAL exists without it.
    """
    if find_master(path, "open master") is not None:
        return
    folders.make_folder(path.parent)
    damage.forget(path, is_deep=True)  # a new file may get the inode of one that was deleted
    statements = [
        *_define_agent_data(),
        (by_hand.note_deletions(declare.table_of(declare.AgentData).name), ()),
        (identity.INSERT, (format.MASTER,)),
    ]
    script = format.MASTER_TABLES + ";".join(sql for sql, _ in statements)
    bindings = tuple(value for _, values in statements for value in values)
    with sqlite.translate_errors("make master", str(path)):
        sqlite.create(str(path), format.MASTER_PAGE_SIZE, script, bindings, format.IDENTITY, shrinkable=True)


def _define_agent_data() -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the statements that make the table for dicts and its view, with their bindings."""
    agent_data = declare.table_of(declare.AgentData)
    columns = [(column.name, column.type) for column in agent_data.columns]
    yield from catalog.define_columns(agent_data.name, format.MASTER_COLUMNS, columns, is_new=True)
    yield agent_views.create_view(agent_data.name, [name for name, _ in columns]), ()


def open_to_read(path: Path) -> Connection:
    """Open the master to read it. If there is none yet, return an empty one in memory, which cannot be written either.

    Raises:
        StorageError: it cannot be opened as a master of this format.
        ConfigurationError: it is not a file.
    """
    if find_master(path, "open master") is not None:
        return open_master(path, writable=False)
    connection = open_empty(path)
    try:
        with sqlite.translate_errors("open master", str(path)):
            for sql, values in _define_agent_data():
                connection.execute(sql, values)
            connection.pragma("query_only", True)
            sqlite.allow_views(connection)
            sqlite.allow_interrupt(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_empty(path: Path) -> Connection:
    """Make an empty master in memory, in place of one that does not exist yet.

    Raises:
        StorageError: there is not enough memory.
    """
    with sqlite.translate_errors("open master", str(path)):
        return sqlite.open_in_memory(format.MASTER_TABLES)


def open_master(path: Path, *, writable: bool, busy_timeout_s: float = sqlite.BUSY_TIMEOUT_S) -> Connection:
    """Open the master. A connection that can write always commits at synchronous=FULL.

    Args:
        path: the master.
        writable: whether to open it for writing.
        busy_timeout_s: how long each statement waits for another process that has it locked, in seconds.

    Raises:
        ConfigurationError: it is not a file.
        StorageError: it cannot be opened as a master of this format.
    """
    find_master(path, "open master")
    if writable:
        damage.ensure_not_known(path, "open master")
    with sqlite.translate_errors("open master", str(path)):
        try:
            connection = _connect(path, writable=writable, busy_timeout_s=busy_timeout_s)
        except sqlite.DATA_ERRORS as error:
            if sqlite.is_no_database(error) and _is_text(path):
                cause = "it is a text file, not a database; check the path, or move the file away"
                raise FormatError("open master", path, cause) from error
            raise
        try:
            _check_role(connection, path)
            if writable:
                # a restored snapshot is not a WAL database yet, and FULL is durable only in a WAL database
                sqlite.ensure_wal(connection, str(path))
                sqlite.set_synchronous(connection, "FULL")
                sqlite.disable_checkpoint_on_close(connection)
                connection.pragma("cache_size", -_CACHE_KIB)
                set_wal_limits(connection)
                # the process that made the WAL may have died before its name was durable
                folders.sync_path(os.path.dirname(path))
            else:
                sqlite.allow_interrupt(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _is_text(path: Path) -> bool:
    """Return whether a file is a text as far as its beginning shows. No database, however damaged, looks like one."""
    # not with open(): if this process has the master open elsewhere, closing the file would drop SQLite's locks
    with contextlib.closing(sqlite.read_raw(str(path))) as chunks:
        beginning = next(chunks, b"")[:_TEXT_BYTES]
    try:
        # a character may be cut off at the end
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return "\0" not in text


def _connect(path: Path, *, writable: bool, busy_timeout_s: float) -> Connection:
    """Open the file that has the master's name.

    If a restore replaces it after it was opened and before its first lock, we would use it with the WAL of its
    replacement.
    """
    for _ in range(_ATTEMPTS):
        before = fingerprint.identity(path)
        connection = sqlite.connect(str(path), writable=writable, busy_timeout_s=busy_timeout_s)
        try:
            if writable:
                sqlite.disable_checkpoint_on_close(connection)
            sqlite.check_identity(connection, "main", format.IDENTITY, str(path))
            if fingerprint.identity(path) == before:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
    raise StorageBusyError("open master", path, "it was replaced again and again; try again later")


def set_wal_limits(connection: Connection, max_bytes: int | None = None) -> None:
    """Set the size of the WAL at which a commit copies it into the database, in bytes; None: the usual size."""
    connection.pragma("journal_size_limit", _WAL_BYTES if max_bytes is None else max_bytes)
    checkpoint_bytes = CHECKPOINT_BYTES if max_bytes is None else max_bytes
    connection.wal_autocheckpoint(max(1, checkpoint_bytes // int(connection.pragma("page_size"))))


def prepare_id_order(connection: Connection) -> None:
    """Let a connection read the streams in the order of their ids without reading each page many times."""
    connection.pragma("cache_size", -_ID_ORDER_CACHE_KIB)


def _check_role(connection: Connection, path: Path) -> None:
    role, _ = identity.role_and_agent(connection)
    if role == format.BUNDLE:
        cause = (
            "it is a bundle, which lacks what its receiver had. Move it away, and bring its rows into a store with "
            "Store.merge([bundle]) (`edgeshard merge`)"
        )
        raise FormatError("open master", path, cause)
    if role != format.MASTER:
        raise FormatError("open master", path, "it is an edgeshard database, but not a master")


@contextlib.contextmanager
def translate_errors(action: str, path: Path) -> Iterator[None]:
    """Raise edgeshard's errors in place of those that reading a master's own tables raises.

    A number that is too large raises an OverflowError when it is bound, and so does a damaged time in the master. So a
    caller's arguments must be checked before the block, and a caller's functions must not raise within it.

    Raises:
        DamagedError: the tables are not as edgeshard makes them.
        StorageError: they cannot be read for another reason.
    """
    with sqlite.translate_errors(action, str(path)):
        try:
            yield
        except sqlite.DATA_ERRORS as error:
            if not sqlite.is_bad_schema(error):
                raise
            raise _explain_bad_schema(action, path, error) from error


def _explain_bad_schema(action: str, path: Path, error: Exception) -> StorageError:
    connection = sqlite.connect(str(path), writable=False, busy_timeout_s=_EXPLAIN_TIMEOUT_S)
    try:
        found = catalog.made_by_hand(connection)
    except sqlite.DATA_ERRORS:  # our own tables cannot be read even for that
        found = []
    finally:
        connection.close()
    if found:
        return StorageError(action, path, catalog.explain_made_by_hand(error, found))
    return DamagedError(action, path, f"its own tables are not as edgeshard makes them: {error}")
