"""Describe record tables as the master has them and as PostgreSQL has them, and our own tables there. Pure.

`names` has the rule for what tables and columns are called there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.postgres import names
from edgeshard.records.keys import Key, companions, history_name
from edgeshard.records.renames import Arrow

#: The format of our own tables there; a server with another one needs a later edgeshard.
FORMAT: Final = 1

PRIMARY_KEY: Final = ("_stream", "_seq")

#: Our own tables there. They use nothing that a distributed database lacks: no sequences, triggers or foreign keys.
OWN_TABLES: Final[Mapping[str, str]] = {
    # schema_version: how often a push created or altered record tables
    "edgeshard_database": "one integer PRIMARY KEY, id uuid NOT NULL, format integer NOT NULL, "
    "schema_version bigint NOT NULL",
    "edgeshard_streams": "stream uuid PRIMARY KEY, agent_id text NOT NULL, began_at text NOT NULL, "
    # when rows of it were pushed last, by the server's clock
    "last_seq bigint NOT NULL, pushed_at timestamptz NOT NULL DEFAULT now()",
    "edgeshard_ranges": "stream uuid NOT NULL, first bigint NOT NULL, last bigint NOT NULL, "
    "PRIMARY KEY (stream, first)",
    "edgeshard_columns": "table_name text NOT NULL, column_name text NOT NULL, type text NOT NULL, "
    "PRIMARY KEY (table_name, column_name)",
    "edgeshard_indexes": "name text PRIMARY KEY",
    # as masters know them: names of columns in the master, in lower case
    "edgeshard_renames": "table_name text NOT NULL, old_name text NOT NULL, new_name text NOT NULL, "
    "PRIMARY KEY (table_name, old_name, new_name)",
}

#: Lists the keyed tables. It is created with the first of them.
KEYS: Final = "edgeshard_keys"

CREATE_KEYS: Final = (
    f"CREATE TABLE IF NOT EXISTS {KEYS} (table_name text PRIMARY KEY, columns text NOT NULL, conflict text NOT NULL)"
)


@attrs.frozen
class PgColumn:
    """A column of PostgreSQL, and what it is filled with.

    Attributes:
        name: its name there.
        type: its column type there; it can store the values of all of its sources.
        sources: the master's columns that fill it, each with its column type. There are several if another master knows
            of a rename that makes them one; a row takes the first of them that is not NULL.
    """

    name: str
    type: str
    sources: tuple[tuple[str, str], ...]

    @property
    def is_same(self) -> bool:
        """Return whether it takes one column's values as they are."""
        return len(self.sources) == 1 and self.sources[0][1] == self.type


@attrs.frozen
class Table:
    """A record table of the master.

    Attributes:
        name: its name in the master.
        columns: its columns in order, each with its column type.
        indexes: the columns of each of its indexes.
        key: its key, or None if it is not a keyed table.
        renames: the renames of its columns that the master knows, in lower case.
        history_of: the PostgreSQL name of the keyed table whose history this is, or "".
        fixed: the PostgreSQL names of the columns that decide what is a version of what, and which version is kept.
        sent: the columns of PostgreSQL that its rows fill, once a table there was found or made fit.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    indexes: tuple[tuple[str, ...], ...] = ()
    key: Key | None = None
    renames: frozenset[Arrow] = frozenset()
    history_of: str = ""
    fixed: frozenset[str] = frozenset()
    sent: tuple[PgColumn, ...] = ()

    @property
    def pg_name(self) -> str:
        """Return its name in PostgreSQL."""
        return names.table_name(self.name)

    @property
    def pg_history(self) -> str:
        """Return the PostgreSQL name of its history."""
        return names.table_name(history_name(self.name))

    @property
    def pg_family(self) -> tuple[str, ...]:
        """Return the PostgreSQL names of the table and, if it is keyed, of its tombstones and history."""
        return (self.pg_name, *map(names.table_name, companions({} if self.key is None else {self.name: self.key})))

    @property
    def sent_types(self) -> tuple[str, ...]:
        """Return the types of the columns that its rows fill, in order."""
        return tuple(column.type for column in self.sent)


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
        renames: the renames of columns that earlier pushes recorded.
    """

    columns: Mapping[str, str]
    primary_key: tuple[str, ...]
    indexes: frozenset[str] = frozenset()
    unmoved: frozenset[str] = frozenset()
    inexact: frozenset[str] = frozenset()
    key: Key | None = None
    renames: frozenset[Arrow] = frozenset()

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


def conflict(table: str, cause: str) -> SchemaConflictError:
    """Return the error for a table that cannot be pushed."""
    return SchemaConflictError("push table", table, cause)
