"""Everything edgeshard raises.

    EdgeshardError
    ├── RecordError                  a record cannot be stored
    ├── TableError                   a class cannot be a table
    ├── SchemaConflictError          two declarations of one column or key contradict each other
    ├── UnreadableRowError           a row does not fit the class that reads it
    ├── ShardError
    │   ├── ShardInUseError          another handle has this agent's shard open
    │   ├── ShardClosedError         the handle is closed
    │   ├── ShardForkedError         the handle was opened before a fork
    │   ├── ShardPoisonedError       a write failed with an unknown outcome
    │   └── TransactionError         a transaction was used in a way that would break it
    ├── StorageError
    │   ├── StorageBusyError         another process has the database locked
    │   ├── DiskFullError            there is no space on the disk
    │   │   └── DiskBudgetError      there is no space within the store's disk budget
    │   ├── AccessError              permission denied, or a read-only medium
    │   ├── StorageIOError           the file system failed
    │   │   └── OutOfDescriptorsError    this process may open no further file
    │   ├── DamagedError             SQLite cannot read the file as a database
    │   ├── ReferenceChangedError    a reference file was changed or replaced
    │   └── FormatError              a database, but not one that this version of edgeshard reads
    ├── MergeInProgressError         another merger works on the master
    │   ├── StoreWatchedError        a watcher merges the store's rows
    │   └── WatcherStalledError      a merger holds the store, and merges nothing
    ├── PostgresError
    │   ├── PostgresUnavailableError PostgreSQL cannot be reached, or cannot work now
    │   ├── PostgresDeniedError      PostgreSQL refuses the login or a permission
    │   └── PostgresUnsuitableError  the database does not exist, or a push cannot use it
    ├── UpgradedError                edgeshard was upgraded on the disk while this process ran
    ├── ConfigurationError           an argument, a setting or a path is not valid
    └── QueryError                   an SQL statement, or its parameters, are mistaken

Every message says what was being done, to what, why it failed, and what to do: ``action path: cause``. It is one line,
whatever the names in it are: see `printable`.
"""

from __future__ import annotations

import datetime
import json
import os


def printable(text: object) -> str:
    """Return a text as one line that controls no terminal and forges no line of a log.

    All that people read goes through this: errors, reports, lines of the log, tables. A file or an agent can be called
    anything. What is not printable (line breaks, escape sequences, marks that reverse the direction of writing, lone
    surrogates) is escaped as in JSON, so that a JSON text stays one.
    """
    line = str(text)
    return line if line.isprintable() else "".join(map(_printable_character, line))


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]  # which JSON does not escape


def quoted(value: object, chars_max: int = 80) -> str:
    """Return a value that a caller gave as an error quotes it: the beginning of its repr.

    An object of a caller's class may have a repr that fails, and Python prints no int of more than 4300 digits: then
    only the type is named.
    """
    try:
        text = repr(value)
    except Exception:  # the error that we are about to raise matters more than this one
        text = f"a value of type {type(value).__name__} that cannot be printed"
    return text[:chars_max]


class EdgeshardError(Exception):
    """Base of all errors of this package: catch it to handle any of them.

    Attributes:
        action: what was being done ("open shard").
        path: the file, folder or database concerned, or "" if there is none.
        cause: why it failed, and what to do.
    """

    def __init__(self, action: str, path: str | os.PathLike[str], cause: str) -> None:
        super().__init__(action, os.fspath(path), cause)
        self.action = action
        self.path = os.fspath(path)
        self.cause = cause

    def __str__(self) -> str:
        where = f"{self.action} {self.path}" if self.path else self.action
        return printable(f"{where}: {self.cause}")


class RecordError(EdgeshardError):
    """A record cannot be stored as it is.

    Nothing of it was written, and the shard stays usable. The message names the class and the field, for a value inside
    a dict or list also its path, and says what to write instead.
    """


class TableError(EdgeshardError):
    """A class cannot be a table.

    Nothing was written. The message names the field or the setting: correct the class.
    """


class SchemaConflictError(EdgeshardError):
    """Two declarations of one table contradict each other, such as two types of one column, or two keys.

    Nothing was written. Give the field or the table another name, or use the type that is already there.
    """


class UnreadableRowError(EdgeshardError):
    """A row cannot be read as an instance of the class, or its JSON cannot be decoded.

    `Store.read` with ``on_error="skip"`` leaves such rows out, and `Store.query` shows what they hold. Of a row that a
    query returned only the place in the result is known, which the message has; the attributes are empty.

    Attributes:
        table: the row's table.
        row_id: its ``_id`` in the master, or in the shard.
        agent: the agent that wrote it.
        stream: the id of its stream, in hexadecimal.
        seq: its seq in the stream.
    """

    def __init__(
        self,
        action: str,
        path: str | os.PathLike[str],
        cause: str,
        table: str = "",
        row_id: int = 0,
        agent: str = "",
        stream: str = "",
        seq: int = 0,
    ) -> None:
        super().__init__(action, path, cause)
        self.args = (*self.args, table, row_id, agent, stream, seq)
        self.table = table
        self.row_id = row_id
        self.agent = agent
        self.stream = stream
        self.seq = seq


class ShardError(EdgeshardError):
    """Base of errors in how a shard handle was used."""


class ShardInUseError(ShardError):
    """Another handle, in this process or another, has this agent's shard open.

    Give each worker an agent name of its own, as in ``store.shard(f"worker-{os.getpid()}")``, or close the other handle
    first.

    Attributes:
        pid: the process that has it open; None if that cannot be determined, or it is in another container.
        since: since when, in UTC; None if that cannot be determined.
    """

    def __init__(
        self,
        action: str,
        path: str | os.PathLike[str],
        cause: str,
        pid: int | None = None,
        since: datetime.datetime | None = None,
    ) -> None:
        super().__init__(action, path, cause)
        self.args = (*self.args, pid, since)
        self.pid = pid
        self.since = since


class ShardClosedError(ShardError):
    """The shard handle was closed before it was used. Open the shard again with `Store.shard`."""


class ShardForkedError(ShardError):
    """The shard handle was opened before a fork and used after it, in the child, or was to be copied or pickled.

    Give the `Store` to the child, and open the shard there, after the fork: ``store.shard(f"worker-{os.getpid()}")``.

    It is also raised if the child opens the shard, and the parent was using it at the moment of the fork: a transaction
    was open, or another thread was at work on it. Only a process that was forked at another moment, spawned, or begun
    with exec can open it.
    """


class ShardPoisonedError(ShardError):
    """A write failed, and whether its rows were stored is unknown. The handle refuses further writes.

    Close it and open the shard again. `Shard.write` returns the seqs of the rows that certainly were stored.
    """


class TransactionError(ShardError):
    """A transaction was used in a way that would break "all or nothing", or another thread has one open for too long.

    Use one ``with shard.transaction():`` at a time, in one thread, and do not await, yield or wait for others in it.
    """


class StorageError(EdgeshardError):
    """Base of failures of a database or its file system. The message says what to do."""


class StorageBusyError(StorageError):
    """Another process kept a database or a file locked for longer than we wait.

    Nothing was changed. Try again, or find out which process keeps it open.
    """


class DiskFullError(StorageError):
    """There is no space on the disk. Nothing of the write was kept.

    Free some space, then write it again.
    """


class DiskBudgetError(DiskFullError):
    """There is no space within the store's disk budget. Nothing of the write, or of the merge, was kept.

    Merge, prune, or raise the budget (`Store.note_budget`), then try again.

    Attributes:
        used_bytes: what the store uses: all files in its folder, except for what is set aside for merging.
        limit_bytes: what it may use.
        shards_bytes: what the shards use, with their WALs.
        master_bytes: what the master uses, with its WAL.
    """

    def __init__(
        self,
        action: str,
        path: str | os.PathLike[str],
        cause: str,
        used_bytes: int = 0,
        limit_bytes: int = 0,
        shards_bytes: int = 0,
        master_bytes: int = 0,
    ) -> None:
        super().__init__(action, path, cause)
        self.args = (*self.args, used_bytes, limit_bytes, shards_bytes, master_bytes)
        self.used_bytes = used_bytes
        self.limit_bytes = limit_bytes
        self.shards_bytes = shards_bytes
        self.master_bytes = master_bytes


class AccessError(StorageError):
    """This process may not read or write a file or folder, or the medium is read-only.

    Check the permissions of the file and its folder, and which user runs the process.
    """


class StorageIOError(StorageError):
    """The file system reported an error. Check the disk, its file system and its cable."""


class OutOfDescriptorsError(StorageIOError):
    """This process, or the machine, may open no further file. No file is at fault, and none was changed.

    Raise the limit (`ulimit -n`, or ``LimitNOFILE=`` of a systemd unit), or close what is not needed, and try again.
    """


class DamagedError(StorageError):
    """SQLite cannot read a file as a database, or the file contradicts itself.

    For a shard, run `Store.salvage`, then move it away. For the master, restore a snapshot, or move it away and merge
    its sources again.
    """


class ReferenceChangedError(StorageError):
    """A reference database was changed or replaced after the shard was opened. Open the shard again."""


class FormatError(StorageError):
    """The file is a database, but not one that this version of edgeshard reads.

    It belongs to another program, has another role than expected, or has a newer format: the message says which.
    """


class MergeInProgressError(EdgeshardError):
    """Another merger works on the master, or a process has the store for itself, such as a restore.

    Nothing needs to be done: that merger merges the rows. Or wait for it (`Store.merge(lock_wait=...)`).
    """


class StoreWatchedError(MergeInProgressError):
    """A watcher is at work on the store, and merges its rows: a merge of its own has nothing to do.

    To see all rows written so far, use `Store.query` with ``fresh=True``, or `Store.merge_now`.

    Attributes:
        pid: the watcher's process, or None if it is not known, or of another container.
    """

    def __init__(self, action: str, path: str | os.PathLike[str], cause: str, pid: int | None = None) -> None:
        super().__init__(action, path, cause)
        self.args = (*self.args, pid)
        self.pid = pid


class WatcherStalledError(MergeInProgressError):
    """A watcher, or another merger, has the store for itself but merges nothing: it is stopped, or hangs.

    Rows are pending until it goes on, or has ended and another merger merges them. The message says which it is.
    """


class PostgresError(EdgeshardError):
    """PostgreSQL refused a push. What was committed there before stays, and nothing is lost here."""


class PostgresUnavailableError(PostgresError):
    """PostgreSQL cannot be reached, or cannot work at the moment. Push again later; it continues where it stopped."""


class PostgresDeniedError(PostgresError):
    """PostgreSQL refuses the login, or lacks a permission that a push needs. Check the password and the grants."""


class PostgresUnsuitableError(PostgresError):
    """The database does not exist, or a push cannot use it. Check the DSN; the message says what the database lacks."""


class ConfigurationError(EdgeshardError):
    """An argument, a setting or a path is not valid. The message names it and says what would be valid."""


class UpgradedError(EdgeshardError):
    """The package was upgraded or removed while this process ran, and a part of it was not loaded yet.

    What is loaded still works, such as shards that are open. Restart the process.
    """


class QueryError(EdgeshardError):
    """An SQL statement, or its parameters, are mistaken. Nothing was changed. The message shows the right form."""
