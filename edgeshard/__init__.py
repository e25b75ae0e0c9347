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

import logging
from typing import TYPE_CHECKING, Final

from edgeshard import lazy
from edgeshard.errors import (
    AccessError,
    ConfigurationError,
    DamagedError,
    DiskBudgetError,
    DiskFullError,
    EdgeshardError,
    FormatError,
    MergeInProgressError,
    OutOfDescriptorsError,
    PostgresDeniedError,
    PostgresError,
    PostgresUnavailableError,
    PostgresUnsuitableError,
    QueryError,
    RecordError,
    ReferenceChangedError,
    SchemaConflictError,
    ShardClosedError,
    ShardError,
    ShardForkedError,
    ShardInUseError,
    ShardPoisonedError,
    StorageBusyError,
    StorageError,
    StorageIOError,
    StoreWatchedError,
    TableError,
    TransactionError,
    UnreadableRowError,
    UpgradedError,
    WatcherStalledError,
)
from edgeshard.format import VERSION
from edgeshard.loading import guard, load_all
from edgeshard.store import Store

if TYPE_CHECKING:
    from edgeshard.records.declare import AgentData, table
    from edgeshard.records.rows import Row as Row
    from edgeshard.records.rows import Rows as Rows
    from edgeshard.reports import Gap, MergeReport, VerifyReport
    from edgeshard.shard.async_write import AsyncWrite
    from edgeshard.shard.shard import Shard

__all__ = [
    "AccessError",
    "AgentData",
    "AsyncWrite",
    "ConfigurationError",
    "DamagedError",
    "DiskBudgetError",
    "DiskFullError",
    "EdgeshardError",
    "FormatError",
    "Gap",
    "MergeInProgressError",
    "MergeReport",
    "OutOfDescriptorsError",
    "PostgresDeniedError",
    "PostgresError",
    "PostgresUnavailableError",
    "PostgresUnsuitableError",
    "QueryError",
    "RecordError",
    "ReferenceChangedError",
    "SchemaConflictError",
    "Shard",
    "ShardClosedError",
    "ShardError",
    "ShardForkedError",
    "ShardInUseError",
    "ShardPoisonedError",
    "StorageBusyError",
    "StorageError",
    "StorageIOError",
    "Store",
    "StoreWatchedError",
    "TableError",
    "TransactionError",
    "UnreadableRowError",
    "UpgradedError",
    "VerifyReport",
    "WatcherStalledError",
    "__version__",
    "load_all",
    "table",
]

__version__ = VERSION

#: What is loaded when it is first used, from these modules. The errors are not among it: to catch one when no file can
#: be opened, it must be there.
_MODULES: Final = {
    "AgentData": "edgeshard.records.declare",
    "AsyncWrite": "edgeshard.shard.async_write",
    "Gap": "edgeshard.reports",
    "MergeReport": "edgeshard.reports",
    "Row": "edgeshard.records.rows",
    "Rows": "edgeshard.records.rows",
    "Shard": "edgeshard.shard.shard",
    "VerifyReport": "edgeshard.reports",
    "table": "edgeshard.records.declare",
}

if not TYPE_CHECKING:  # which would believe that there is every name
    __getattr__ = lazy.loader(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


guard()

# a library stays silent unless its user asks: https://docs.python.org/3/howto/logging.html#library-config
logging.getLogger(__name__).addHandler(logging.NullHandler())
