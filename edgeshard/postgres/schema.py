"""Describe record tables as the master has them and as PostgreSQL has them, and our own tables there. Pure.

Names are in lower case in PostgreSQL: SQLite folds case, and so does PostgreSQL for names that are not quoted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.records.keys import Key, companions

#: The format of our own tables there; a server with another one needs a later edgeshard.
FORMAT: Final = 1

#: The longest name in bytes. PostgreSQL cuts off a longer one without an error.
NAME_MAX: Final = 63

#: The most columns of an index there (INDEX_MAX_KEYS).
INDEX_COLUMNS_MAX: Final = 32

PRIMARY_KEY: Final = ("_stream", "_seq")

#: Our own tables there. They use nothing that a distributed database lacks: no sequences, triggers or foreign keys.
OWN_TABLES: Final[Mapping[str, str]] = {
    "edgeshard_database": "one integer PRIMARY KEY, id uuid NOT NULL, format integer NOT NULL",
    "edgeshard_streams": "stream uuid PRIMARY KEY, agent_id text NOT NULL, began_at text NOT NULL, "
    "last_seq bigint NOT NULL",
    "edgeshard_ranges": "stream uuid NOT NULL, first bigint NOT NULL, last bigint NOT NULL, "
    "PRIMARY KEY (stream, first)",
    "edgeshard_columns": "table_name text NOT NULL, column_name text NOT NULL, type text NOT NULL, "
    "PRIMARY KEY (table_name, column_name)",
    "edgeshard_indexes": "name text PRIMARY KEY",
}

#: Lists the keyed tables. It is created with the first of them.
KEYS: Final = "edgeshard_keys"

CREATE_KEYS: Final = (
    f"CREATE TABLE IF NOT EXISTS {KEYS} (table_name text PRIMARY KEY, columns text NOT NULL, conflict text NOT NULL)"
)


@attrs.frozen
class Table:
    """A record table of the master.

    Attributes:
        name: its name in the master.
        columns: its columns in order, each with its column type.
        indexes: the columns of each of its indexes.
        key: its key, or None if it is not a keyed table.
        renames: older names of columns in lower case, each with the name that it has now.
        history_of: the PostgreSQL name of the keyed table whose history this is, or "".
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    key: Key | None = None
    renames: tuple[tuple[str, str], ...] = ()
    history_of: str = ""

    @property
    def pg_name(self) -> str:
        """Return its name in PostgreSQL."""
        return self.name.lower()

    @property
    def pg_family(self) -> tuple[str, ...]:
        """Return the PostgreSQL names of the table and, if it is keyed, of its tombstones and history."""
        return (self.pg_name,) if self.key is None else (self.pg_name, *companions({self.pg_name: self.key}))

    @property
    def column_types(self) -> tuple[str, ...]:
        """Return the types of its columns, in order."""
        return tuple(column_type for _, column_type in self.columns)


@attrs.frozen
class ServerTable:
    """A table as PostgreSQL has it; without columns if it has none of that name.

    Attributes:
        columns: the PostgreSQL type of each column, with its precision if that is not the type's own.
        primary_key: the columns of its primary key, in order.
        indexes: the names of those of its indexes that a push has ever created.
        unmoved: older names of columns that exist under both names, if some rows have a value only under the older one.
        inexact: integer columns with values that a double precision would round.
        key: the key that an earlier push recorded, or None.
    """

    columns: Mapping[str, str]
    primary_key: tuple[str, ...]
    indexes: frozenset[str] = frozenset()
    unmoved: frozenset[str] = frozenset()
    inexact: frozenset[str] = frozenset()
    key: Key | None = None

    @property
    def exists(self) -> bool:
        """Return whether PostgreSQL has such a table."""
        return bool(self.columns)


def relatives(table: Table, tables: Sequence[Table]) -> list[Table]:
    """Return a table and those that must exist with it: a keyed table, its tombstones and its history."""
    for owner in tables:
        if owner.key is not None and table.pg_name in owner.pg_family:
            return [each for each in tables if each.pg_name in owner.pg_family]
    return [table]


def index_name(pg_table: str, columns: tuple[str, ...]) -> str:
    """Return the name of an index in PostgreSQL. A digest distinguishes names that would be too long."""
    name = "_".join([pg_table, *(column.lower() for column in columns), "idx"])
    if len(name) <= NAME_MAX:
        return name
    return f"{name[:46]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}_idx"


def conflict(table: str, cause: str) -> SchemaConflictError:
    """Return the error for a table that cannot be pushed."""
    return SchemaConflictError("push table", table, cause)
