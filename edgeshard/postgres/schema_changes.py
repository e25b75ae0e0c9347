"""Plan the statements that make a table of PostgreSQL fit for the master's rows. Pure.

Columns follow what agents renamed or widened, and never become narrower. Our own tables there record the renames that
any master knew. A master that does not know one sends its values by the newest name all the same, and in the widest
type, so the order in which masters push does not matter. A user's view follows a renamed column; but if it uses a
column that must be widened, PostgreSQL refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.postgres import indexes, names
from edgeshard.postgres.schema import (
    CREATE_KEYS,
    KEYS,
    PRIMARY_KEY,
    PgColumn,
    ServerTable,
    Table,
    conflict,
)
from edgeshard.postgres.values import COLUMN_TYPES, PG_TYPES, long_pg_type
from edgeshard.records import keys, renames, types
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import quote


@attrs.frozen
class TableChanges:
    """What a table in PostgreSQL needs before it can take the master's rows.

    Attributes:
        statements: the SQL to run, in order.
        added: the columns that it adds, each with its column type.
        indexes: the statement for each index that it creates, by the index's name; `statements` has them, too.
        renamed: the columns that it renames, as (old, new).
        widened: the columns that it gives a wider type, each with its new column type.
        learned: the renames that no push recorded before, in the master's names.
    """

    statements: tuple[str, ...] = ()
    added: tuple[tuple[str, str], ...] = ()
    indexes: Mapping[str, str] = attrs.Factory(dict)
    renamed: tuple[tuple[str, str], ...] = ()
    widened: tuple[tuple[str, str], ...] = ()
    learned: frozenset[Arrow] = frozenset()


@attrs.frozen
class Recorded:
    """What earlier pushes recorded of a table.

    Attributes:
        columns: the column type of each column.
        renames: the renames of its columns.
        key: its key, or None.
    """

    columns: Mapping[str, str]
    renames: frozenset[Arrow] = frozenset()
    key: Key | None = None


def is_behind(table: Table, recorded: Recorded) -> bool:
    """Return whether PostgreSQL's table lacks a rename, a wider type or a key that the master knows."""
    if not table.renames <= recorded.renames:
        return True
    if table.key is not None and (recorded.key is None or recorded.key.folded != table.key.folded):
        return True
    ends = renames.ends(recorded.renames)
    for name, column_type in table.columns:
        there = recorded.columns.get(names.column_name(ends.get(name.lower(), name)))
        if there is not None and types.widest(there, column_type) != there:
            return True
    return False


def fit(table: Table, recorded: Set[Arrow], there: Mapping[str, str]) -> Table:
    """Return the master's table with the columns that its rows will fill in PostgreSQL, and with all renames.

    Args:
        table: the master's table.
        recorded: the renames that earlier pushes recorded for the table there.
        there: the PostgreSQL type of each column that the table has there; {} if there is no such table.

    Raises:
        SchemaConflictError: the renames contradict one another.
    """
    known = table.renames | recorded
    try:
        ends = renames.ends(known)
    except renames.UnclearError as error:
        cause = f"{error}. Masters pushed classes there that disagree; make them use one name"
        raise conflict(table.name, cause) from error
    sources: dict[str, list[tuple[str, str]]] = {}
    for name, column_type in table.columns:
        sources.setdefault(ends.get(name.lower(), name.lower()), []).append((name, column_type))
    sent = []
    for name, found in sources.items():
        found.sort(key=lambda source: source[0].lower() != name)  # the column that has this name already comes first
        older = [old for old, new in ends.items() if new == name]
        before = [COLUMN_TYPES.get(there.get(names.column_name(each), "")) for each in (name, *older)]
        column_type = _widest([*(type_ for _, type_ in found), *filter(None, before)])
        sent.append(PgColumn(names.column_name(name), column_type, tuple(found)))
    indexes = tuple(
        tuple(dict.fromkeys(names.column_name(ends.get(column.lower(), column)) for column in index))
        for index in table.indexes
    )
    return attrs.evolve(table, renames=frozenset(known), sent=tuple(sent), indexes=indexes)


def _widest(found: Iterable[str]) -> str:
    """Return the widest of the types that can become one with the first. `_check_table` refuses the others."""
    first, *others = found
    for column_type in others:
        first = types.widest(first, column_type) or first
    return first


def plan_changes(table: Table, there: ServerTable, starts: Set[str] = frozenset()) -> TableChanges:
    """Return what makes PostgreSQL's table one that takes the rows of the master's.

    Args:
        table: the master's table, as `fit` returns it.
        there: PostgreSQL's table.
        starts: the names of new indexes that rows of the table do not fit into, unless they are over starts.

    Raises:
        SchemaConflictError: nothing can.
    """
    fixed = keys.fixed(table.key, there.key)
    _check_fixed(table, fixed, there)
    renamed = _renames(table, there)
    if renamed:
        current = {dict(renamed).get(name, name): pg_type for name, pg_type in there.columns.items()}
        there = attrs.evolve(there, columns=current)
    widened = _check_table(table, there) if there.exists else ()
    added = tuple((column.name, column.type) for column in table.sent if column.name not in there.columns)
    if there.exists:
        statements = _alterations(table, there, renamed, widened, added)
        statements += _move_statements(table, there)
    else:
        columns = ", ".join(["_stream uuid NOT NULL", "_seq bigint NOT NULL", *_declarations(added)])
        primary_key = f"CONSTRAINT {quote(names.index_name(table.pg_name, PRIMARY_KEY))} PRIMARY KEY (_stream, _seq)"
        statements = [f"CREATE TABLE {quote(table.pg_name)} ({columns}, {primary_key})"]
    pg_types = {column.name: PG_TYPES[column.type] for column in table.sent}
    created = {}
    for index in table.indexes:
        name = names.index_name(table.pg_name, index)
        if name not in there.indexes:
            created[name] = indexes.create_index(name, table.pg_name, index, pg_types, starts=name in starts)
    statements += created.values()
    if table.key is not None:
        statements += _key_statements(table, table.key, there)
    elif there.key is not None:
        raise _unknown_key(table, there.key)
    return TableChanges(tuple(statements), added, created, renamed, widened, table.renames - there.renames)


def with_all_columns(history: Table, owner: Mapping[str, str], there: Mapping[str, str]) -> Table:
    """Return a history extended by the columns that other masters gave its table: versions move with all columns.

    Args:
        history: the history, as `fit` returns it.
        owner: the PostgreSQL type of each column of the keyed table.
        there: the PostgreSQL type of each column that PostgreSQL's history has.
    """
    known = {column.name for column in history.sent}
    known.update(old for old, new in pg_renames(history) if new not in owner)  # it is about to be renamed
    more = []
    for name, pg_type in owner.items():
        column_type = COLUMN_TYPES.get(pg_type)
        if column_type is not None and name not in known and name not in PRIMARY_KEY:
            before = COLUMN_TYPES.get(there.get(name, pg_type), column_type)
            more.append(PgColumn(name, types.widest(before, column_type) or column_type, ()))
    return attrs.evolve(history, sent=(*history.sent, *more))


def pg_renames(table: Table) -> tuple[tuple[str, str], ...]:
    """Return the older names of columns in PostgreSQL, each with the name that it has now."""
    ends = renames.ends(table.renames).items()
    return tuple((names.column_name(old), names.column_name(new)) for old, new in ends)


# -- checks -----------------------------------------------------------------------------------------------------------


def _check_fixed(table: Table, fixed: frozenset[str], there: ServerTable) -> None:
    """Refuse to rename or widen a column of the table's key or conflict rule."""

    def refuse(column: str, what: str) -> None:
        cause = (
            f"column {column} {what}, but it belongs to the table's key or conflict rule, so it must keep its name and "
            "type. Give the class another table name"
        )
        raise conflict(table.name, cause)

    for old, new in sorted(table.renames):
        for column in sorted(fixed.intersection((old, new))):
            refuse(column, f"would be renamed in PostgreSQL ({old} to {new})")
    for filled in table.sent:
        pg_type = there.columns.get(filled.name)
        for name, column_type in filled.sources:
            if name.lower() in fixed and pg_type not in (None, long_pg_type(column_type)):
                refuse(name, f"is {pg_type} in PostgreSQL, and {column_type} here")


def _check_table(table: Table, there: ServerTable) -> tuple[tuple[str, str], ...]:
    """Refuse a table that cannot take the master's rows; return the columns that need a wider type first."""
    key_types = tuple(there.columns.get(column) for column in PRIMARY_KEY)
    if there.primary_key != PRIMARY_KEY or key_types != ("uuid", "bigint"):
        cause = (
            "PostgreSQL has a table of this name that was not made by a push: its primary key is not (_stream uuid, "
            "_seq bigint). Rename that table, or push into another schema (options=-csearch_path=...)"
        )
        raise conflict(table.name, cause)
    widened = []
    for column in table.sent:
        name, column_type = next(iter(column.sources), (column.name, column.type))
        if any(types.widest(each, column.type) != column.type for _, each in column.sources):
            together = " and ".join(f"{source} ({each})" for source, each in column.sources)
            cause = f"renames make {together} one column, but no type can store the values of both. Rename one of them"
            raise conflict(table.name, cause)
        pg_type = there.columns.get(column.name)
        if pg_type is None or pg_type == long_pg_type(column.type):
            continue
        before = COLUMN_TYPES.get(pg_type, "")
        if not before or types.widest(before, column.type) != column.type:
            cause = (
                f"column {name} is {pg_type} in PostgreSQL, and {column_type} here, which needs "
                f"{long_pg_type(column_type)}. Rename the column"
            )
            raise conflict(table.name, cause)
        if types.may_not_fit(before, column.type) and column.name in there.inexact:
            cause = (
                f"column {name} is real here, but has integers beyond 2^53 in PostgreSQL, which a real would round. "
                "Make the field Decimal, which stores both exactly, or rename it"
            )
            raise conflict(table.name, cause)
        widened.append((column.name, column.type))
    return tuple(widened)


# -- columns ----------------------------------------------------------------------------------------------------------


def _renames(table: Table, there: ServerTable) -> tuple[tuple[str, str], ...]:
    """Return which columns to rename: those that exist only under an older name, the first one of several."""
    renamed: dict[str, str] = {}
    for old, new in pg_renames(table):
        if old in there.columns and new not in there.columns and new not in renamed.values():
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


def _move_statements(table: Table, there: ServerTable) -> list[str]:
    """Return what moves values to the new name if a column exists under both; the older column stays, and is NULL."""
    ours = {column.name: column.type for column in table.sent}
    statements = []
    for old, new in pg_renames(table):
        if old not in there.unmoved or new not in ours:
            continue
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
