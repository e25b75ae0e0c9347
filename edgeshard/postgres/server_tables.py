"""Inspect record tables in PostgreSQL, and create or alter them as they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgeshard.postgres import own_tables, schema, schema_changes
from edgeshard.postgres.schema import ServerTable, Table
from edgeshard.postgres.schema_changes import TableChanges
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.postgres.values import PG_TYPES
from edgeshard.records.types import EXACT_MAX
from edgeshard.sqlite import quote

#: How often to create or alter a table while another device does so, too.
_ATTEMPTS: Final = 10

_COLUMNS: Final = """
SELECT column_name, data_type, numeric_precision, datetime_precision FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = $1
"""

_PRIMARY_KEY: Final = """
SELECT k.column_name FROM information_schema.table_constraints c
JOIN information_schema.key_column_usage k ON k.constraint_name = c.constraint_name
AND k.constraint_schema = c.constraint_schema AND k.table_name = c.table_name
WHERE c.constraint_type = 'PRIMARY KEY' AND c.table_schema = current_schema() AND c.table_name = $1
ORDER BY k.ordinal_position
"""


def ensure_table(server: Server, table: Table) -> tuple[str, ...]:
    """Make a table fit for the master's rows, and return the statements that did so.

    Raises:
        SchemaConflictError: it cannot be made fit.
    """
    for _ in range(_ATTEMPTS):
        if changes_for(server, table, has_own_tables=True) == TableChanges():
            return ()
        try:
            with server.transaction():
                own_tables.lock_schema(server)
                changes = changes_for(server, table, has_own_tables=True)  # another device may have been faster
                for statement in changes.statements:
                    server.execute(statement)
                own_tables.record_changes(server, table, changes)
            return changes.statements
        except ServerError as error:
            if error.is_created_meanwhile:
                message = error.message
            elif error.is_definition_rejected:
                cause = (
                    f"PostgreSQL cannot have this table: {error.message} ({error.state}); rename what that message "
                    "names"
                )
                raise schema.conflict(table.name, cause) from error
            else:
                raise
    raise schema.conflict(table.name, f"PostgreSQL does not create it: {message}")


def changes_for(server: Server, table: Table, *, has_own_tables: bool) -> TableChanges:
    """Return what a table needs before it can take the master's rows.

    Args:
        server: the server.
        table: the master's table.
        has_own_tables: whether our own tables exist there.

    Raises:
        SchemaConflictError: it cannot be made fit.
    """
    if table.history_of:
        owner, there = pg_types(server, table.history_of), pg_types(server, table.pg_name)
        table = schema_changes.with_all_columns(table, owner, there)
    return schema_changes.plan_changes(table, _inspect(server, table, has_own_tables=has_own_tables))


def has_keys_table(server: Server) -> bool:
    """Return whether edgeshard_keys exists."""
    return bool(pg_types(server, schema.KEYS))


def pg_types(server: Server, name: str) -> dict[str, str]:
    """Return the PostgreSQL type of each column of a table; {} if there is no such table."""
    return {column: _pg_type(*rest) for column, *rest in server.execute(_COLUMNS, (name,))}


def _pg_type(name: str, numeric_precision: int | None, datetime_precision: int | None) -> str:
    """Return a type, with its precision if values would be rounded to it."""
    if name == "numeric" and numeric_precision is not None:
        return f"numeric of {numeric_precision} digits"
    if name == "timestamp with time zone" and datetime_precision not in (None, 6):
        return f"timestamp({datetime_precision}) with time zone"
    return name


def _inspect(server: Server, table: Table, *, has_own_tables: bool) -> ServerTable:
    columns = pg_types(server, table.pg_name)
    primary_key = tuple(name for (name,) in server.execute(_PRIMARY_KEY, (table.pg_name,)))
    names = [schema.index_name(table.pg_name, index) for index in table.indexes]
    indexes = own_tables.created_indexes(server, names) if names and has_own_tables else frozenset()
    unmoved = frozenset(old for old, new in table.renames if _is_unmoved(server, table, columns, old, new))
    inexact = frozenset(
        name.lower() for name, type_ in table.columns if _is_inexact(server, table, columns, name, type_)
    )
    key = own_tables.key_of(server, table) if has_keys_table(server) else None
    return ServerTable(columns, primary_key, indexes, unmoved, inexact, key)


def _is_unmoved(server: Server, table: Table, columns: Mapping[str, str], old: str, new: str) -> bool:
    """Return whether a column exists under two names, and rows have a value only under the older one."""
    # if all that exist are older names, the first of these is about to become the new one
    names = [new, *(name for name, end in table.renames if end == new)]
    current = next((name for name in names if name in columns), old)
    if old not in columns or old == current:
        return False
    sql = f"SELECT 1 FROM {quote(table.pg_name)} WHERE {quote(old)} IS NOT NULL AND {quote(current)} IS NULL LIMIT 1"
    return bool(server.execute(sql))


def _is_inexact(server: Server, table: Table, columns: Mapping[str, str], name: str, column_type: str) -> bool:
    """Return whether a column that is to become a real has integers that a real would round."""
    names = {name.lower(), *(old for old, new in table.renames if new == name.lower())}
    integers = [each for each in names if column_type == "real" and columns.get(each) == "bigint"]
    sql = "SELECT 1 FROM {0} WHERE {1} NOT BETWEEN -{2} AND {2} LIMIT 1"
    return any(server.execute(sql.format(quote(table.pg_name), quote(each), EXACT_MAX)) for each in integers)


# -- sending rows -----------------------------------------------------------------------------------------------------


def column_list(table: Table) -> str:
    """Return the columns that rows are sent with, in their order, as SQL."""
    return ", ".join(["_stream", "_seq", *(quote(name.lower()) for name, _ in table.columns)])


def find_rejecting_column(server: Server, table: Table, values: Sequence[Any]) -> tuple[str, str] | None:
    """Return the first column whose type does not accept its value, and the server's message; None if all do.

    Args:
        server: the server, in no transaction.
        table: the master's table.
        values: one for each column, as parameters.
    """
    for (column, column_type), value in zip(table.columns, values, strict=True):
        try:
            server.execute(f"SELECT CAST($1 AS {PG_TYPES[column_type]})", (value,))
        except ServerError as error:
            if not error.is_row_rejected:
                raise
            return column, error.message
    return None
