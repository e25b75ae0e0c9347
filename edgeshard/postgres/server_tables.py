"""Inspect record tables in PostgreSQL, and create or alter them as they are needed."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.postgres import citus, indexes, names, own_tables, schema, schema_changes
from edgeshard.postgres.schema import PgColumn, ServerTable, Table
from edgeshard.postgres.schema_changes import TableChanges
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.postgres.values import PG_TYPES
from edgeshard.records.renames import Arrow
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

#: The indexes of a table that a push created, that are over whole columns, and that the user may replace: each column,
#: in order.
_WHOLE_INDEXES: Final = """
SELECT index.relname, a.attname FROM pg_class t
JOIN pg_namespace s ON s.oid = t.relnamespace
JOIN pg_index i ON i.indrelid = t.oid
JOIN pg_class index ON index.oid = i.indexrelid
JOIN edgeshard_indexes created ON created.name = index.relname
CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
WHERE s.nspname = current_schema() AND t.relname = $1 AND 0 <> ALL (i.indkey::int2[])
AND pg_has_role(t.relowner, 'USAGE') AND has_schema_privilege(s.oid, 'CREATE')
ORDER BY index.relname, k.place
"""


@attrs.frozen
class Fitted:
    """A table that can take the master's rows.

    Attributes:
        table: the master's table, with the columns that its rows fill.
        statements: what was done for that.
        schema_version: the version of the schema that this made, or None if nothing had to be done.
    """

    table: Table
    statements: tuple[str, ...] = ()
    schema_version: int | None = None


def ensure_table(server: Server, table: Table, *, distribute: bool = False) -> Fitted:
    """Make a table fit for the master's rows.

    Args:
        server: the server.
        table: the master's table.
        distribute: whether to distribute it as well, in the same transaction; see `citus`.

    Raises:
        SchemaConflictError: it cannot be made fit.
    """
    starts: set[str] = set()
    replaced: list[str] = []
    for _ in range(_ATTEMPTS + len(table.indexes)):
        fit, changes = changes_for(server, table, has_own_tables=True, starts=starts, distribute=distribute)
        if changes == TableChanges():
            return Fitted(fit, tuple(replaced))
        statement = ""
        try:
            with server.transaction():
                own_tables.lock_schema(server)
                # another device may have been faster
                fit, changes = changes_for(server, table, has_own_tables=True, starts=starts, distribute=distribute)
                for statement in changes.statements:
                    server.execute(statement)
                version = own_tables.record_changes(server, table, changes)
            return Fitted(fit, (*replaced, *changes.statements), version)
        except ServerError as error:
            too_small = {name for name, sql in changes.indexes.items() if sql == statement} - starts
            if error.is_created_meanwhile:
                message = error.message
            elif error.is_limit_exceeded and too_small:
                message = error.message
                starts |= too_small
            elif error.is_limit_exceeded and (more := index_starts(server, table, whole_indexes(server, table))):
                message = error.message  # values that move to another column do not fit into its indexes
                replaced += more
            elif error.is_definition_rejected:
                cause = (
                    f"PostgreSQL cannot have this table: {error.message} ({error.state}); rename what that message "
                    "names"
                )
                raise schema.conflict(table.name, cause) from error
            else:
                raise
    raise schema.conflict(table.name, f"PostgreSQL does not create it: {message}")


def changes_for(
    server: Server,
    table: Table,
    *,
    has_own_tables: bool,
    starts: Set[str] = frozenset(),
    distribute: bool = False,
) -> tuple[Table, TableChanges]:
    """Return the master's table with the columns that its rows will fill, and what PostgreSQL's needs for that.

    Args:
        server: the server.
        table: the master's table.
        has_own_tables: whether our own tables exist there.
        starts: the names of new indexes to create over starts (see `indexes`).
        distribute: whether it is to be distributed as well; see `citus`.

    Raises:
        SchemaConflictError: it cannot be made fit.
    """
    fit, changes = _changes_for(server, table, has_own_tables, starts)
    if distribute:
        exists = bool(pg_types(server, table.pg_name))
        more = citus.distribute_statements(server, table, exists=exists)
        changes = attrs.evolve(changes, statements=(*changes.statements, *more))
    return fit, changes


def _changes_for(server: Server, table: Table, has_own_tables: bool, starts: Set[str]) -> tuple[Table, TableChanges]:
    recorded = own_tables.renames_of(server, table.pg_name) if has_own_tables else frozenset()
    columns = pg_types(server, table.pg_name)
    if not table.history_of:
        fit = schema_changes.fit(table, recorded, columns)
        return fit, schema_changes.plan_changes(fit, _inspect(server, fit, columns, recorded, has_own_tables), starts)
    owners = own_tables.renames_of(server, table.history_of) if has_own_tables else frozenset()
    fit = schema_changes.fit(table, recorded | owners, columns)
    whole = schema_changes.with_all_columns(fit, pg_types(server, table.history_of), columns)
    return fit, schema_changes.plan_changes(whole, _inspect(server, whole, columns, recorded, has_own_tables), starts)


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


def _inspect(
    server: Server, table: Table, columns: Mapping[str, str], recorded: frozenset[Arrow], has_own_tables: bool
) -> ServerTable:
    primary_key = tuple(name for (name,) in server.execute(_PRIMARY_KEY, (table.pg_name,)))
    wanted = [names.index_name(table.pg_name, index) for index in table.indexes]
    created = own_tables.created_indexes(server, wanted) if wanted and has_own_tables else frozenset()
    older = schema_changes.pg_renames(table)
    unmoved = frozenset(old for old, new in older if _is_unmoved(server, table, columns, old, new))
    inexact = frozenset(column.name for column in table.sent if _is_inexact(server, table, columns, column))
    key = own_tables.key_of(server, table) if own_tables.has_keys(server) else None
    return ServerTable(columns, primary_key, created, unmoved, inexact, key, recorded)


def _is_unmoved(server: Server, table: Table, columns: Mapping[str, str], old: str, new: str) -> bool:
    """Return whether a column exists under two names, and rows have a value only under the older one."""
    # if all that exist are older names, the first of these is about to become the new one
    candidates = [new, *(name for name, end in schema_changes.pg_renames(table) if end == new)]
    current = next((name for name in candidates if name in columns), old)
    if old not in columns or old == current:
        return False
    sql = f"SELECT 1 FROM {quote(table.pg_name)} WHERE {quote(old)} IS NOT NULL AND {quote(current)} IS NULL LIMIT 1"
    return bool(server.execute(sql))


def _is_inexact(server: Server, table: Table, columns: Mapping[str, str], column: PgColumn) -> bool:
    """Return whether a column that is to become a real has integers that a real would round."""
    candidates = {column.name, *(old for old, new in schema_changes.pg_renames(table) if new == column.name)}
    integers = [each for each in candidates if column.type == "real" and columns.get(each) == "bigint"]
    sql = "SELECT 1 FROM {0} WHERE {1} NOT BETWEEN -{2} AND {2} LIMIT 1"
    return any(server.execute(sql.format(quote(table.pg_name), quote(each), EXACT_MAX)) for each in integers)


# -- indexes that rows do not fit into --------------------------------------------------------------------------------


def whole_indexes(server: Server, table: Table) -> dict[str, list[str]]:
    """Return the columns of each index that a row might not fit into, and that the user may replace.

    These are some of those that pushes created, and none if the server is not PostgreSQL: others have no such limit.
    """
    if not server.is_postgresql:
        return {}
    found: dict[str, list[str]] = {}
    for index, column in server.execute(_WHOLE_INDEXES, (table.pg_name,)):
        found.setdefault(index, []).append(column)
    types = pg_types(server, table.pg_name)
    return {
        name: columns for name, columns in found.items() if not indexes.has_limit(types[column] for column in columns)
    }


def drop_index(name: str) -> str:
    """Return the statement that drops an index."""
    return f"DROP INDEX IF EXISTS {quote(name)}"


def index_starts(server: Server, table: Table, wanted: Iterable[str]) -> list[str]:
    """Replace indexes over whole columns by indexes over their starts, and return the statements that did it.

    What another device has replaced meanwhile is left as it is.
    """
    statements = []
    with server.transaction():
        own_tables.lock_schema(server)
        found, types = whole_indexes(server, table), pg_types(server, table.pg_name)
        for name in found.keys() & wanted:
            statements += [
                drop_index(name),
                indexes.create_index(name, table.pg_name, found[name], types, starts=True),
            ]
        for statement in statements:
            server.execute(statement)
    return statements


# -- sending rows -----------------------------------------------------------------------------------------------------


def column_list(table: Table) -> str:
    """Return the columns that rows are sent with, in their order, as SQL."""
    return ", ".join(["_stream", "_seq", *(quote(column.name) for column in table.sent)])


def cast(server: Server, column: PgColumn, value: Any) -> None:
    """Have the server convert a value to the type of its column.

    Raises:
        ServerError: the type does not accept it.
    """
    server.execute(f"SELECT CAST($1 AS {PG_TYPES[column.type]})", (value,))


def has_row(server: Server, table: Table, stream_id: bytes, seq: int) -> bool:
    """Return whether a table has the row with this address."""
    sql = f"SELECT 1 FROM {quote(table.pg_name)} WHERE _stream = $1 AND _seq = $2"
    return bool(server.execute(sql, (uuid.UUID(bytes=stream_id), seq)))


def is_fit(server: Server, table: Table) -> bool:
    """Return whether a table can take the master's rows as it is."""
    try:
        return changes_for(server, table, has_own_tables=True)[1] == TableChanges()
    except SchemaConflictError:
        return False
