"""Everything edgeshard raises.

    EdgeshardError
    ├── RecordError              a record that cannot be stored as it is
    ├── TableError               a class that cannot be a table
    ├── SchemaConflictError      one column, two declared types
    ├── ShardError
    │   ├── ShardInUseError      another handle has this agent's shard open
    │   ├── ShardClosedError     the handle was closed
    │   ├── ShardForkedError     the handle crossed a fork
    │   ├── ShardPoisonedError   the handle met a failure whose outcome is unknown
    │   └── TransactionError     a transaction used in a way that would break it
    ├── StorageError
    │   ├── StorageBusyError     somebody holds a database locked
    │   ├── DiskFullError        no room
    │   │   └── DiskBudgetError  no room within the store's budget
    │   ├── AccessError          not permitted, or a read-only medium
    │   ├── StorageIOError       the file system failed
    │   ├── DamagedError         a file that SQLite cannot read as a database
    │   ├── ReferenceChangedError  a reference is not what it was when the shard was opened
    │   └── FormatError          a database, but none this version of edgeshard reads
    ├── MergeInProgressError     another merger holds the master
    ├── UpstreamError            PostgreSQL cannot take what is pushed, or not tell what it has
    │   ├── UpstreamUnavailableError  it cannot be reached, or cannot work now; try again later
    │   ├── UpstreamDeniedError  it does not let us in, or not do what a push must do
    │   └── UpstreamUnfitError   it is no database that one can push to
    ├── ConfigurationError       a setting or path that cannot work
    └── QueryError               SQL that the master, or a reference, refused

Every error says what was being done, to which path, and why it failed: ``action path: cause``.
"""

from __future__ import annotations

import os


class EdgeshardError(Exception):
    """The base of all errors of this package.

    Attributes:
        action: what was being done, and to which kind of object ("open shard").
        path: the file or folder concerned, or "" where there is none.
        cause: why it failed, and what to do where that is known.
    """

    def __init__(self, action: str, path: str | os.PathLike[str], cause: str) -> None:
        super().__init__(action, os.fspath(path), cause)
        self.action = action
        self.path = os.fspath(path)
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.action} {self.path}: {self.cause}" if self.path else f"{self.action}: {self.cause}"


class RecordError(EdgeshardError):
    """A record that cannot be stored as it is; nothing of it was written."""


class TableError(EdgeshardError):
    """A class that cannot be a table."""


class SchemaConflictError(EdgeshardError):
    """A column whose declared type contradicts the one already there."""


class ShardError(EdgeshardError):
    """A shard handle that cannot do what was asked."""


class ShardInUseError(ShardError):
    """Another handle, here or in another process, has this agent's shard open."""


class ShardClosedError(ShardError):
    """The shard handle was closed."""


class ShardForkedError(ShardError):
    """The shard handle was opened before a fork and used after it, in the child."""


class ShardPoisonedError(ShardError):
    """The handle met a failure whose outcome is unknown; open the shard anew."""


class TransactionError(ShardError):
    """A transaction used in a way that would break its all-or-nothing."""


class StorageError(EdgeshardError):
    """A database or its file system failed."""


class StorageBusyError(StorageError):
    """Somebody held the database locked for longer than we wait."""


class DiskFullError(StorageError):
    """There is no room for the write; nothing of it is kept."""


class DiskBudgetError(DiskFullError):
    """The store may take no more of the disk; nothing of the write, or of the merge, is kept.

    Attributes:
        used_bytes: what the store takes: shards, master, and their logs.
        limit_bytes: what it may take.
        shards_bytes: what the shards take, with their logs.
        master_bytes: what the master takes, with its log.
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
    """The file or folder may not be read or written by this process."""


class StorageIOError(StorageError):
    """The file system reported an error."""


class DamagedError(StorageError):
    """A file that SQLite cannot read as a database."""


class ReferenceChangedError(StorageError):
    """A reference is not the file that it was when the shard was opened."""


class FormatError(StorageError):
    """A database, but not one that this version of edgeshard reads."""


class MergeInProgressError(EdgeshardError):
    """Another merger holds the master's lock."""


class PostgresError(EdgeshardError):
    """PostgreSQL refused what is pushed; what was committed there before stays, and nothing is lost here."""


class PostgresUnavailableError(PostgresError):
    """PostgreSQL cannot be reached, or cannot work now; a later push goes on where this one ended."""


class PostgresDeniedError(PostgresError):
    """PostgreSQL does not let us in, or not do what a push must do."""


class PostgresUnsuitableError(PostgresError):
    """PostgreSQL has no such database, or one that a push cannot use."""


class ConfigurationError(EdgeshardError):
    """A setting or a path that cannot work."""


class QueryError(EdgeshardError):
    """SQL that the master, or a reference, refused."""
