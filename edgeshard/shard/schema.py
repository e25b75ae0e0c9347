"""Adapt the tables of a shard to a record class: make a table, add or widen columns, record keys and renames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.master import catalog
from edgeshard.master.catalog import Statement
from edgeshard.records import declare, keys, limits, promote, renames, types
from edgeshard.records.columns import Column, Table, mixes_dicts
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow
from edgeshard.sqlite import Connection, quote

_ADVICE: Final = "Give the field, or the table, another name"

_AGENT_DATA: Final = declare.table_of(declare.AgentData)

_KEY_KEEPS_TYPE: Final = (
    "The column belongs to the table's key or its conflict rule, so it keeps its type. Give the table another name"
)


def changes(connection: Connection, table: Table, path: str) -> Iterator[Statement]:
    """Yield the statements that adapt the shard to a class; execute each before asking for the next.

    Raises:
        SchemaConflictError: the class contradicts the table in the shard.
    """
    if table.deletes_from is not None:
        yield from changes(connection, table.deletes_from, path)
    name, known = catalog.columns_of_table(connection, table.name)
    keyed = catalog.load_keys(connection)
    recorded = {each.lower(): key for each, key in keyed.items()}.get(name.lower())
    _ensure_same_key(name, table, recorded if known else table.key, path)
    if known and (cause := mixes_dicts(name, known, [column.name.lower() for column in table.columns])):
        raise SchemaConflictError("write to shard", path, f"{cause}; give these another table name")
    fixed = keys.fixed((table.deletes_from or table).key)  # no class may widen these
    recorded_renames = catalog.load_renames(connection).get(name.lower(), [])
    new_renames = _new_renames(recorded_renames, table, path)
    yield from catalog.add_renames(connection, name, new_renames)
    for column in table.columns:
        stored = known.get(column.name.lower(), column.type)
        wider = types.widest(stored, column.type)
        if wider is None or (stored != column.type and column.name.lower() in fixed):
            cause = f"column {table.name}.{column.name} is {stored} there and {column.type} in this class"
            advice = _ADVICE if wider is None else _KEY_KEEPS_TYPE
            raise SchemaConflictError("write to shard", path, f"{cause}. {advice}")
        if wider != stored:
            yield from _widen(connection, name, column.name, stored, wider, path)
    if table.deletes_from is None:
        _ensure_no_companion(connection, keyed, name, table.key, path)
    if table.key is not None and recorded is None:
        yield from catalog.add_key(connection, name, table.key)
    elif table.key is not None and recorded is not None and table.key.history and not recorded.history:
        yield catalog.enable_history(name)
    own = (
        [(format.TIMESTAMP, format.OWN_COLUMNS[format.TIMESTAMP])]
        if table.is_timestamped and format.TIMESTAMP not in known
        else []
    )
    new = own + [(column.name, column.type) for column in table.columns if column.name.lower() not in known]
    arrows = [*recorded_renames, *new_renames]
    _ensure_within_limits(connection, name, table, [*known, *(column for column, _ in new)], keyed, arrows, path)
    yield from catalog.define_columns(name, format.SHARD_COLUMNS, new, is_new=not known)
    for index in table.indexes:
        yield from catalog.insert_index(connection, name, index)
    yield from catalog.raise_priority(connection, name, table.priority)


def newest_timestamps(connection: Connection) -> list[int]:
    """Return the timestamp of the last row of each table in an open shard.

    In one stream, ids and timestamps grow together. A stream with lower ones follows only if the clock was ahead.
    """
    last = (
        sqlite.scalar(connection, f"SELECT {format.TIMESTAMP} FROM {quote(name)} ORDER BY _id DESC LIMIT 1")
        for name in catalog.tables_with_column(connection, format.TIMESTAMP)
    )
    return [timestamp for timestamp in last if timestamp is not None]


def as_stored(connection: Connection, table: Table) -> Table:
    """Return the table with the types that its columns have in the shard, where newer agents widened them."""
    _, known = catalog.columns_of_table(connection, table.name)
    columns = tuple(_as_stored(column, known.get(column.name.lower(), column.type)) for column in table.columns)
    return table if columns == table.columns else attrs.evolve(table, columns=columns)


def _as_stored(column: Column, stored: str) -> Column:
    if stored == column.type:
        return column
    if types.is_same_value(column.type, stored):
        return attrs.evolve(column, type=stored)
    return attrs.evolve(column, type=stored, encode=partial(_encode_wider, column, stored), quick=None)


def _encode_wider(column: Column, stored: str, value: Any) -> Any:
    return types.widened(column.encode(value), column.type, stored)


def _widen(connection: Connection, table: str, column: str, stored: str, wider: str, path: str) -> Iterator[Statement]:
    if promote.has_unfit(connection, table, column, stored, wider):
        cause = (
            f"column {table}.{column} has integers beyond 2^53 in the shard, which a float would round. Merge first, "
            "which truncates the shard; or make the field Decimal, which holds both"
        )
        raise SchemaConflictError("write to shard", path, cause)
    yield from catalog.widen_column(connection, table, column, stored, wider)


def _new_renames(known: Sequence[Arrow], table: Table, path: str) -> list[Arrow]:
    """Return those renames of a class that the shard does not know yet."""
    new = [(old.lower(), to) for old, to in table.renames if (old.lower(), to) not in known]
    try:
        ends = renames.ends([*known, *new])
    except renames.UnclearError as error:
        raise SchemaConflictError("write to shard", path, f"table {table.name}: {error}") from error
    fields = {column.name.lower() for column in table.columns}
    for old, end in ends.items():
        if old in fields and end in fields:
            cause = f"{table.name}.{old} is what {end} was called before. {_ADVICE}"
            raise SchemaConflictError("write to shard", path, cause)
    return new


def _ensure_same_key(name: str, table: Table, there: Key | None, path: str) -> None:
    """Check that a class declares the key that the table has in the shard, or none if it has none.

    Args:
        name: the table, as the shard spells it.
        table: the table of the class.
        there: the table's key in the shard.
        path: the shard.

    Raises:
        SchemaConflictError: the keys differ, or only one of the two has a key.
    """
    if (table.key and table.key.folded) != (there and there.folded):
        cause = f"table {name} has {keys.describe(there)} there, and {keys.describe(table.key)} in this class"
        raise SchemaConflictError("write to shard", path, f"{cause}; give the class another table name")


def _ensure_within_limits(
    connection: Connection,
    name: str,
    table: Table,
    columns: Sequence[str],
    keyed: Mapping[str, Key],
    arrows: Sequence[Arrow],
    path: str,
) -> None:
    """Refuse a class with which the shard would have more than a master accepts.

    Raises:
        SchemaConflictError: a limit would be exceeded.
    """
    keyed = keyed if table.key is None else {**keyed, name: table.key}
    indexes = [*catalog.indexes_of(connection, name), *table.indexes]
    if excess := limits.excess(columns, indexes, keyed.get(name), arrows):
        cause = f"table {name} would have {excess} in the shard, with those of the agent's other classes. {_ADVICE}"
        raise SchemaConflictError("write to shard", path, cause)
    # a master has the table of dicts from its beginning
    tables: dict[str, list[str]] = {_AGENT_DATA.name: [column.name for column in _AGENT_DATA.columns]}
    for each, column, _ in catalog.all_columns(connection):
        tables.setdefault(each.lower(), []).append(column)
    if excess := limits.excess_of_all(tables | {name.lower(): columns}, keyed):
        cause = f"a master of the shard would have {excess}. Use fewer classes, or several stores"
        raise SchemaConflictError("write to shard", path, cause)


def _ensure_no_companion(
    connection: Connection, keyed: Mapping[str, Key], name: str, key: Key | None, path: str
) -> None:
    """Check that neither the table, nor any other in the shard, has the name of another keyed table's companion.

    Raises:
        SchemaConflictError: one of them has.
    """
    if key is not None:
        keyed = {**keyed, name: key}
    if not (owners := keys.companions(keyed)):
        return
    timestamped = {*catalog.tables_with_column(connection, format.TIMESTAMP)} - keyed.keys()  # these are companions
    for each in {name, *catalog.record_tables(connection)} - timestamped:
        if (owner := owners.get(each.lower())) is not None:
            cause = f"table {each} is where deletions or earlier versions of table {owner} go"
            raise SchemaConflictError("write to shard", path, f"{cause}; give the class another name")
