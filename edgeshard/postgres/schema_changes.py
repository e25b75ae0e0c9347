"""Plan the statements that make a table of PostgreSQL fit for the master's rows. Pure.

Columns follow what agents renamed or widened, and never become narrower. A user's view follows a renamed column; but if
it uses a column that must be widened, PostgreSQL refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.postgres.schema import (
    CREATE_KEYS,
    INDEX_COLUMNS_MAX,
    KEYS,
    NAME_MAX,
    PRIMARY_KEY,
    ServerTable,
    Table,
    conflict,
    index_name,
)
from edgeshard.postgres.values import COLUMN_TYPES, PG_TYPES, long_pg_type
from edgeshard.records import keys, types
from edgeshard.records.keys import Key
from edgeshard.sqlite import quote


@attrs.frozen
class TableChanges:
    """What a table in PostgreSQL needs before it can take the master's rows.

    Attributes:
        statements: the SQL to run, in order.
        added: the columns that it adds, each with its column type.
        indexes: the names of the indexes that it creates.
        renamed: the columns that it renames, as (old, new).
        widened: the columns that it gives a wider type, each with its new column type.
    """

    statements: tuple[str, ...] = ()
    added: tuple[tuple[str, str], ...] = ()
    indexes: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    widened: tuple[tuple[str, str], ...] = ()


def plan_changes(table: Table, there: ServerTable) -> TableChanges:
    """Return what makes PostgreSQL's table one that takes the rows of the master's.

    Raises:
        SchemaConflictError: nothing can.
    """
    _check_names(table)
    fixed = keys.fixed(table.key, there.key)
    renamed = _renames(table, there, fixed)
    if renamed:
        current = {dict(renamed).get(name, name): pg_type for name, pg_type in there.columns.items()}
        there = attrs.evolve(there, columns=current)
    widened = _check_table(table, there, fixed) if there.exists else ()
    added = tuple((name.lower(), type_) for name, type_ in table.columns if name.lower() not in there.columns)
    if there.exists:
        statements = _alterations(table, there, renamed, widened, added)
        statements += _move_statements(table, there, fixed)
    else:
        columns = ", ".join(["_stream uuid NOT NULL", "_seq bigint NOT NULL", *_declarations(added)])
        statements = [f"CREATE TABLE {quote(table.pg_name)} ({columns}, PRIMARY KEY (_stream, _seq))"]
    indexes = {index_name(table.pg_name, index): index for index in table.indexes}
    created = tuple(name for name in indexes if name not in there.indexes)
    for name in created:
        # the first columns of a longer index find nearly the same rows
        columns = ", ".join(quote(column.lower()) for column in indexes[name][:INDEX_COLUMNS_MAX])
        statements.append(f"CREATE INDEX IF NOT EXISTS {quote(name)} ON {quote(table.pg_name)} ({columns})")
    if table.key is not None:
        statements += _key_statements(table, table.key, there)
    elif there.key is not None:
        raise _unknown_key(table, there.key)
    return TableChanges(tuple(statements), added, created, renamed, widened)


def with_all_columns(history: Table, owner: Mapping[str, str], there: Mapping[str, str]) -> Table:
    """Return a history extended by the columns that other masters gave its table: versions move with all columns.

    Args:
        history: the history, as the master has it.
        owner: the PostgreSQL type of each column of the keyed table.
        there: the PostgreSQL type of each column that PostgreSQL's history has.
    """
    known = {name.lower() for name, _ in history.columns}
    known.update(old for old, new in history.renames if new not in owner)  # it is about to be renamed
    more = []
    for name, pg_type in owner.items():
        column_type = COLUMN_TYPES.get(pg_type)
        if column_type is not None and name not in known and name not in PRIMARY_KEY:
            before = COLUMN_TYPES.get(there.get(name, pg_type), column_type)
            more.append((name, types.widest(before, column_type) or column_type))
    return attrs.evolve(history, columns=(*history.columns, *more))


# -- checks -----------------------------------------------------------------------------------------------------------


def _check_names(table: Table) -> None:
    for name in (table.name, *(column for column, _ in table.columns)):
        if len(name) > NAME_MAX:
            raise conflict(table.name, f"the name {name} is longer than PostgreSQL allows ({NAME_MAX} characters)")


def _check_not_fixed(table: Table, fixed: frozenset[str], columns: Iterable[str], what: str) -> None:
    for column in fixed.intersection(columns):
        cause = (
            f"column {column} {what}, but it belongs to the table's key or conflict rule, so it must keep its name and "
            "type. Give the class another table name"
        )
        raise conflict(table.name, cause)


def _check_table(table: Table, there: ServerTable, fixed: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Refuse a table that cannot take the master's rows; return the columns that need a wider type first."""
    key_types = tuple(there.columns.get(column) for column in PRIMARY_KEY)
    if there.primary_key != PRIMARY_KEY or key_types != ("uuid", "bigint"):
        cause = (
            "PostgreSQL has a table of this name that was not made by a push: its primary key is not (_stream uuid, "
            "_seq bigint). Rename that table, or push into another schema (options=-csearch_path=...)"
        )
        raise conflict(table.name, cause)
    widened = []
    for name, column_type in table.columns:
        pg_type = there.columns.get(name.lower())
        if pg_type is None or pg_type == long_pg_type(column_type):
            continue
        _check_not_fixed(table, fixed, (name.lower(),), f"is {pg_type} in PostgreSQL, and {column_type} here")
        before = COLUMN_TYPES.get(pg_type, "")
        if not before or types.widest(before, column_type) != column_type:
            next_step = (
                "Columns never become narrower: merge what was pushed there from elsewhere into this master as well, "
                "or rename the column"
                if before
                else "Rename the column"
            )
            cause = (
                f"column {name} is {pg_type} in PostgreSQL, and {column_type} here, which needs "
                f"{long_pg_type(column_type)}"
            )
            raise conflict(table.name, f"{cause}. {next_step}")
        if types.may_not_fit(before, column_type) and name.lower() in there.inexact:
            cause = (
                f"column {name} is real here, but has integers beyond 2^53 in PostgreSQL, which a real would round. "
                "Make the field Decimal, which stores both exactly, or rename it"
            )
            raise conflict(table.name, cause)
        widened.append((name.lower(), column_type))
    return tuple(widened)


# -- columns ----------------------------------------------------------------------------------------------------------


def _renames(table: Table, there: ServerTable, fixed: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return which columns to rename: those that exist only under an older name, the first one of several."""
    renamed: dict[str, str] = {}
    for old, new in table.renames:
        if old in there.columns and new not in there.columns and new not in renamed.values():
            _check_not_fixed(table, fixed, (old, new), f"would be renamed in PostgreSQL ({old} to {new})")
            renamed[old] = new
    return tuple(renamed.items())


def _declarations(columns: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{quote(name)} {PG_TYPES[column_type]}" for name, column_type in columns]


def _alterations(
    table: Table,
    there: ServerTable,
    renamed: Iterable[tuple[str, str]],
    widened: Iterable[tuple[str, str]],
    added: Iterable[tuple[str, str]],
) -> list[str]:
    alter = f"ALTER TABLE {quote(table.pg_name)}"
    statements = [f"{alter} RENAME COLUMN {quote(old)} TO {quote(new)}" for old, new in renamed]
    for name, column_type in widened:
        converted = _convert(quote(name), there.columns[name], PG_TYPES[column_type])
        statements.append(f"{alter} ALTER COLUMN {quote(name)} TYPE {PG_TYPES[column_type]} USING {converted}")
    return statements + [f"{alter} ADD COLUMN {declaration}" for declaration in _declarations(added)]


def _move_statements(table: Table, there: ServerTable, fixed: frozenset[str]) -> list[str]:
    """Return what moves values to the new name if a column exists under both; the older column stays, and is NULL."""
    ours = {name.lower(): column_type for name, column_type in table.columns}
    statements = []
    for old, new in table.renames:
        if old not in there.unmoved or new not in ours:
            continue
        _check_not_fixed(table, fixed, (old, new), f"would be renamed in PostgreSQL ({old} to {new})")
        pg_type, column_type = there.columns[old], ours[new]
        before = COLUMN_TYPES.get(pg_type, "")
        is_narrower = types.widest(before, column_type) != column_type
        if is_narrower or (types.may_not_fit(before, column_type) and new in there.inexact):
            cause = (
                f"column {old} is {pg_type} in PostgreSQL. It is called {new} now, which is {column_type} and cannot "
                "store all of its values; rename that column"
            )
            raise conflict(table.name, cause)
        statements.append(
            f"UPDATE {quote(table.pg_name)} SET {quote(new)} = "
            f"{_convert(quote(old), pg_type, PG_TYPES[column_type])}, {quote(old)} = NULL "
            f"WHERE {quote(old)} IS NOT NULL AND {quote(new)} IS NULL"
        )
    return statements


def _convert(value: str, pg_type: str, wider: str) -> str:
    if pg_type == "boolean":
        return f"{value}::integer::{wider}"
    if pg_type == "double precision":
        return f"{value}::text::{wider}"  # without the text in between, PostgreSQL rounds to 15 digits
    return f"{value}::{wider}"


# -- keys -------------------------------------------------------------------------------------------------------------


def _key_statements(table: Table, key: Key, there: ServerTable) -> list[str]:
    columns, rule = ", ".join(column.lower() for column in key.columns), key.conflict.lower()
    if there.key is None and there.exists:
        cause = (
            f"it has the key ({columns}) here, and in PostgreSQL it has none, so its rows there are not versions of "
            "one another; give the class another table name"
        )
        raise conflict(table.name, cause)
    if there.key is None:
        # names are letters, digits and _, so that nothing needs to be escaped
        values = f"'{table.pg_name}', '{columns}', '{rule}'"
        return [CREATE_KEYS, f"INSERT INTO {KEYS} VALUES ({values}) ON CONFLICT DO NOTHING"]
    if there.key.folded != key.folded:
        cause = (
            f"it has the key ({columns}) with conflict {rule!r} here, and in PostgreSQL "
            f"({', '.join(there.key.columns)}) with {there.key.conflict!r}; give the class another table name"
        )
        raise conflict(table.name, cause)
    return []


def _unknown_key(table: Table, key: Key) -> SchemaConflictError:
    cause = (
        f"another master gave it the key ({', '.join(key.columns)}) in PostgreSQL, and this one knows no key for it; "
        "give the class another table name"
    )
    return conflict(table.name, cause)
