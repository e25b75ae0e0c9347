"""Sharded, offline-first edge storage: a SQLite file for each writer, one master for all readers.

Read the package in this order: format (what is on disk), tables (records), database (the door to SQLite), definitions
(making tables), shard (the writer), budget, disk and bounded (a writer with a budget), merge (the operator), master,
holdings and receipts (what others have), arrivals and prune (what goes), wear and thrift (what is written), verify,
publishing, snapshot, checksum, bundle, status, store (all of it in one folder), commands (the console script).
"""

import logging

from edgeshard.errors import (
    DiskFullError,
    EdgeshardError,
    MergeInProgressError,
    QueryError,
    RecordError,
    SchemaConflictError,
    ShardInUseError,
    ShardPoisonedError,
)
from edgeshard.inspect.verify import VerifyReport
from edgeshard.records.declare import AgentData, table
from edgeshard.reports import Gap, MergeReport
from edgeshard.shard.shard import Shard
from edgeshard.store import Store

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
