"""Sharded, offline-first edge storage: one SQLite file per writer, one master database for all readers.

    >>> import edgeshard
    >>> store = edgeshard.Store("data")
    >>> with store.shard("door-3") as shard:  # in each worker, under its own name
    ...     seq = shard.write({"action": "opened"})
    >>> store.merge().rows  # anywhere, at any time
    1
    >>> store.query("SELECT agent_id, data ->> 'action' AS action FROM agent_data")
    [Row(agent_id='door-3', action='opened')]

Workers never wait for each other: each has its own file, a *shard*. A merge copies the rows of all shards into the
master, exactly once, and truncates the shards. Start with `Store`; ``edgeshard help`` lists the guides.

Every error is an `EdgeshardError` and says what to do.
"""

# ruff: noqa: I001  -- the aliases re-export the errors that are not in __all__; sorted, each would be a statement

import logging

from edgeshard.errors import (
    AccessError as AccessError,
    ConfigurationError as ConfigurationError,
    DamagedError as DamagedError,
    DiskBudgetError as DiskBudgetError,
    DiskFullError,
    EdgeshardError,
    FormatError as FormatError,
    MergeInProgressError,
    OutOfDescriptorsError as OutOfDescriptorsError,
    PostgresDeniedError as PostgresDeniedError,
    PostgresError as PostgresError,
    PostgresUnavailableError as PostgresUnavailableError,
    PostgresUnsuitableError as PostgresUnsuitableError,
    QueryError,
    RecordError,
    ReferenceChangedError as ReferenceChangedError,
    SchemaConflictError,
    ShardClosedError as ShardClosedError,
    ShardError as ShardError,
    ShardForkedError as ShardForkedError,
    ShardInUseError,
    ShardPoisonedError,
    StorageBusyError as StorageBusyError,
    StorageError as StorageError,
    StorageIOError as StorageIOError,
    TableError as TableError,
    TransactionError as TransactionError,
    UnreadableRowError as UnreadableRowError,
)
from edgeshard.records.declare import AgentData, table
from edgeshard.records.rows import Row as Row, Rows as Rows
from edgeshard.reports import Gap, MergeReport, VerifyReport
from edgeshard.shard.shard import Shard
from edgeshard.store import Store

# what most programs need; the other errors can be imported from here as well
__all__ = [
    "AgentData",
    "DiskFullError",
    "EdgeshardError",
    "Gap",
    "MergeInProgressError",
    "MergeReport",
    "QueryError",
    "RecordError",
    "SchemaConflictError",
    "Shard",
    "ShardInUseError",
    "ShardPoisonedError",
    "Store",
    "VerifyReport",
    "table",
]

# a library stays silent unless its user asks: https://docs.python.org/3/howto/logging.html#library-config
logging.getLogger(__name__).addHandler(logging.NullHandler())
