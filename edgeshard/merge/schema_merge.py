"""Give the target a source's tables: rename, widen and add columns, keys and indexes.

A master's tables are what all its sources declare together. `schema_plan` decides; this changes the target, in the
merge's own transaction: if that is killed, the master is as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.master import agent_views, by_hand, catalog, streams
from edgeshard.merge import keyed_tables, schema_plan
from edgeshard.merge.schema_plan import TablePlan
from edgeshard.merge.target import Target
from edgeshard.records import keys, limits, promote, renames
from edgeshard.sources.source import Source, SourceTable
from edgeshard.sqlite import Connection, quote

_MADE_BY_USER = (
    "A view, an index or a trigger that was made in the master by hand may name the column: drop it, merge, and make "
    "it again"
)


def check(target: Target, origin: Source, table: SourceTable) -> None:
    """Refuse a source's table that cannot become one with the target's; nothing is written.

    Raises:
        SchemaConflictError: the two contradict one another.
    """
    try:
        keyed_tables.check_key(target, origin, table)
        plan = None if _is_unchanged(target, table) else _plan(target, origin, table)
        _ensure_table_within_limits(target, origin, table, plan)
        if plan is not None:
            _ensure_all_within_limits(target, origin, target.spelling.get(table.name.lower(), table.name), plan)
            _ensure_values_fit(target, table, plan, origin.path)
            _check_history(target, origin, table, plan)
    except SchemaConflictError as error:
        raise SchemaConflictError(error.action, error.path, f"{error.cause}{_first_come(target, table)}") from error


def _check_history(target: Target, origin: Source, table: SourceTable, plan: TablePlan) -> None:
    """Refuse to change a table whose history, which has the same columns, cannot follow it."""
    key = target.keys.get(target.spelling.get(table.name.lower(), ""))
    if key is not None and key.history:
        arrows = (*target.renames.get(table.name.lower(), ()), *plan.new_renames)
        history = SourceTable(keys.history_name(table.name), tuple(plan.columns.items()), (), renames=arrows)
        _ensure_values_fit(target, history, _plan(target, origin, history), origin.path)


def _first_come(target: Target, table: SourceTable) -> str:
    """Say whose declaration the master's table follows, and how to decide for the other."""
    name = target.spelling.get(table.name.lower(), "")
    if table.name.lower() not in target.columns or name == schema_plan.AGENT_DATA:
        return ""
    agent = None if table.name.lower() in target.planned else streams.first_agent(target.connection, name)
    first = "the master has no row of it now" if agent is None else f"its oldest row is of agent {agent!r:.200}"
    return (
        f". The table of the master is as the first agents declared it ({first}). To decide for this shard, stop the "
        f"others and call Store.prune(table={name!r}, drop_table=True), which deletes the table and its rows"
    )


def has_all(target: Target, origin: Source) -> bool:
    """Return whether a source would change no table of the target: almost always."""
    return all(_is_unchanged(target, table) for table in origin.tables)


def fit(target: Target, origin: Source) -> tuple[Source, dict[SourceTable, str]]:
    """Find out which of a source's tables can become one with the target's; nothing is written.

    Returns:
        The source with the tables that fit alone, which have the expressions that copy their rows into the target's
        columns; and the others, each with the reason.
    """
    conflicts = _find_conflicts(target, origin)
    tables = [table for table in origin.tables if table not in conflicts]
    return attrs.evolve(origin, tables=tuple(_map_columns(target, origin, table) for table in tables)), conflicts


def ensure_tables(target: Target, origin: Source) -> tuple[Source, dict[SourceTable, str]]:
    """Give the target the tables and columns of a source that fit; return what `fit` does."""
    if not target.keys and all(_is_unchanged(target, table) and table.is_plain for table in origin.tables):
        return origin, {}
    # check all first: no large table is rewritten for one that is then refused
    conflicts = _find_conflicts(target, origin)
    connection, tables = target.connection, list[SourceTable]()
    for group in _groups(origin):
        if not conflicts.keys().isdisjoint(group):
            continue
        connection.execute("SAVEPOINT tables")
        try:
            tables += [_ensure_table(target, origin, table) for table in group]
        except SchemaConflictError as error:
            connection.execute("ROLLBACK TO tables")
            target.reload()
            conflicts.update(dict.fromkeys(group, error.cause))
        connection.execute("RELEASE tables")
    return attrs.evolve(origin, tables=tuple(tables)), conflicts


def plan_tables(target: Target, fitting: Source) -> None:
    """Let the target know a source's tables, which `fit`, without changing the database: for a dry run."""
    for table in fitting.tables:
        folded, name = table.name.lower(), target.spelt(table.name)
        if not _is_unchanged(target, table):
            plan = _plan(target, fitting, table)
            target.planned.add(folded)
            target.columns[folded] = dict(plan.columns)
            target.renames.setdefault(folded, []).extend(plan.new_renames)
        if table.key is not None:
            target.keys.setdefault(name, table.key)


def _find_conflicts(target: Target, origin: Source) -> dict[SourceTable, str]:
    conflicts: dict[SourceTable, str] = {}
    for group in _groups(origin):
        for table in group:
            try:
                check(target, origin, table)
            except SchemaConflictError as error:
                conflicts.update(dict.fromkeys(group, error.cause))
                break
    return conflicts


def _groups(origin: Source) -> list[list[SourceTable]]:
    """Return the source's tables, each keyed one with its companions: without them it would not be the same table."""
    owners = keys.companions({table.name: table.key for table in origin.tables if table.key is not None})
    groups: dict[str, list[SourceTable]] = {}
    for table in origin.tables:
        groups.setdefault(owners.get(table.name.lower(), table.name).lower(), []).append(table)
    return list(groups.values())


def _map_columns(target: Target, origin: Source, table: SourceTable) -> SourceTable:
    if _is_unchanged(target, table):
        return table
    return schema_plan.map_columns(target.connection, table, _plan(target, origin, table))


def _ensure_table(target: Target, origin: Source, table: SourceTable) -> SourceTable:
    name = target.spelt(table.name)
    table = _ensure_columns(target, origin, table)
    final_names = renames.ends(target.renames.get(name.lower(), ()))
    for index in table.indexes:
        columns = dict.fromkeys(final_names.get(column.lower(), column.lower()) for column in index)
        ensure_index(target.connection, name, columns, indexed=target.is_indexed)
    _ensure_key(target, origin, name, table)
    return table


def _ensure_key(target: Target, origin: Source, name: str, table: SourceTable) -> None:
    """Make the target's table keyed if the source's is, with the tables and indexes that it then needs."""
    if table.key is not None:
        keyed_tables.ensure_key(target, name, table.key)
    for companion in keyed_tables.companions(target, name):
        _ensure_columns(target, origin, companion)
    if table.key is not None:
        columns = [column.lower() for column in table.key.columns]
        for each, _ in keys.changed_tables(name, table.key):
            ensure_index(target.connection, target.spelling[each.lower()], columns, indexed=target.is_indexed)


def _plan(target: Target, origin: Source, table: SourceTable) -> TablePlan:
    folded = table.name.lower()
    fixed = keys.fixed(table.key, target.keys.get(target.spelling.get(folded, "")))
    known_renames = target.renames.get(folded, ())
    return schema_plan.plan_table(target.columns.get(folded), known_renames, table, origin.path, fixed)


def _is_unchanged(target: Target, table: SourceTable) -> bool:
    """Return whether the target has the source's columns, and nothing was renamed: almost always."""
    known = target.columns.get(table.name.lower())
    if table.renames or known is None or table.name.lower() in target.renames:
        return False
    return all(known.get(column.lower()) == type_ for column, type_ in table.columns)


def _ensure_columns(target: Target, origin: Source, table: SourceTable) -> SourceTable:
    """Give the target a table's columns; return the table with the expressions that copy its rows into these."""
    if _is_unchanged(target, table):
        return table
    folded, name = table.name.lower(), target.spelt(table.name)
    plan = _plan(target, origin, table)
    _ensure_all_within_limits(target, origin, name, plan)
    is_new, known = folded not in target.columns, target.columns.setdefault(folded, {})
    _ensure_values_fit(target, table, plan, origin.path)  # those of a history were not checked before
    change_table(target, name, known, plan, origin.path)
    if plan.new_columns or is_new:
        for statement in catalog.define_columns(name, format.MASTER_COLUMNS, plan.new_columns, is_new=is_new):
            target.connection.execute(*statement)
        if is_new and target.is_indexed:
            target.connection.execute(by_hand.note_deletions(name))
        known.update({column.lower(): type_ for column, type_ in plan.new_columns})
    if target.is_indexed and (is_new or plan.new_columns or plan.new_renames):
        agent_views.ensure(target.connection, name, known)
    if plan.new_renames:
        target.renames.setdefault(folded, []).extend(plan.new_renames)
    return schema_plan.map_columns(target.connection, table, plan)


def _ensure_table_within_limits(target: Target, origin: Source, table: SourceTable, plan: TablePlan | None) -> None:
    """Limit what the source's table and the target's have together, so that every other database can read it.

    Raises:
        SchemaConflictError: a table would exceed a limit.
    """
    if plan is None and not table.indexes:
        return
    name = target.spelling.get(table.name.lower(), table.name)
    final_name = str.lower if plan is None else plan.final_name
    indexes = {
        tuple(dict.fromkeys(map(final_name, index)))
        for index in [*catalog.indexes_of(target.connection, name), *table.indexes]
    }
    excess = limits.excess(
        target.columns[name.lower()] if plan is None else plan.columns,
        indexes,
        target.keys.get(name, table.key),
        () if plan is None else [*target.renames.get(name.lower(), ()), *plan.new_renames],
    )
    if excess:
        cause = f"table {table.name} would have {excess}, with those that other agents declare"
        raise SchemaConflictError("merge", origin.path, f"{cause}. {schema_plan.OTHER_TABLE_ADVICE}")


def _ensure_all_within_limits(target: Target, origin: Source, name: str, plan: TablePlan) -> None:
    """Limit tables and columns, so that the master opens quickly, and another master can merge it.

    Raises:
        SchemaConflictError: it would have too many tables or columns.
    """
    columns = {table.name.lower(): [column for column, _ in table.columns] for table in origin.tables}
    keyed = {table.name: table.key for table in origin.tables if table.key is not None}
    excess = limits.excess_of_all(columns | target.columns | {name.lower(): plan.columns}, keyed | target.keys)
    if excess:
        cause = f"with its tables the master would have {excess}. Merge it into a store of its own"
        raise SchemaConflictError("merge", origin.path, cause)


# -- existing columns -------------------------------------------------------------------------------------------------


def change_table(target: Target, name: str, types: dict[str, str], plan: TablePlan, path: str) -> None:
    """Rename and widen columns of an existing table, and record renames; the caller adds new columns.

    Args:
        target: the database that is merged into, in a transaction.
        name: the table.
        types: the types of its columns; updated to what they are afterwards.
        plan: what the table will be.
        path: the source that needs it, for errors.

    Raises:
        SchemaConflictError: what was made in the target by hand prevents it.
    """
    connection = target.connection
    for old, new in plan.new_renames:
        catalog.add_rename(connection, name, old, new)
    renamed = [column for column in types if plan.final_name(column) != column]
    widened = [column for column, type_ in types.items() if plan.columns[plan.final_name(column)] != type_]
    if not renamed and not widened:
        return
    try:
        changed = {*renamed, *widened, *map(plan.final_name, renamed)}
        dropped = _drop_indexes(connection, name, changed, indexed=target.is_indexed)
        for column in widened:
            for statement in catalog.widen_column(
                connection, name, column, types[column], plan.columns[plan.final_name(column)]
            ):
                connection.execute(*statement)
            types[column] = plan.columns[plan.final_name(column)]
        for column in renamed:
            final_name = plan.final_name(column)
            is_present = final_name in types
            _rename(connection, name, column, plan, is_present=is_present)
            kept = [(each, type_) for each, type_ in types.items() if each != column or not is_present]
            types.clear()  # a renamed column keeps its place
            types.update((final_name if each == column else each, type_) for each, type_ in kept)
        for index in dropped:
            columns = dict.fromkeys(map(plan.final_name, index))
            ensure_index(connection, name, columns, indexed=target.is_indexed)
    except sqlite.DATA_ERRORS as error:
        if not sqlite.is_bad_schema(error):
            raise
        cause = f"table {name} of the master cannot be changed as this shard's agent asks: {error}. {_MADE_BY_USER}"
        raise SchemaConflictError("merge", path, cause) from error


def _ensure_values_fit(target: Target, table: SourceTable, plan: TablePlan, path: str) -> None:
    """Refuse to change columns of the target whose values would not survive it.

    Raises:
        SchemaConflictError: values do not fit, or contradict one another.
    """
    if table.name.lower() in target.planned:
        return
    connection, name = target.connection, target.spelling.get(table.name.lower(), "")
    types = target.columns.get(table.name.lower(), {})
    for column, type_ in types.items():
        if promote.has_unfit(connection, name, column, type_, plan.columns[plan.final_name(column)]):
            cause = (
                f"column {name}.{column} is real in this shard, and has integers beyond 2^53 in the master, which a "
                f"real would round. {schema_plan.ADVICE}"
            )
            raise SchemaConflictError("merge", path, cause)
    for column, other in itertools.combinations(types, 2):
        if (final_name := plan.final_name(column)) != plan.final_name(other):
            continue
        old, new = (
            promote.converted(connection, quote(each), types[each], plan.columns[final_name])
            for each in (column, other)
        )
        sql = f"SELECT 1 FROM main.{quote(name)} WHERE {old} IS NOT NULL AND {new} IS NOT NULL AND {old} IS NOT {new}"
        if sqlite.scalar(connection, f"{sql} LIMIT 1") is not None:
            cause = f"in the master, {schema_plan.explain_disagreement(name, final_name, column, other)}"
            raise SchemaConflictError("merge", path, cause)


def _rename(connection: Connection, table: str, column: str, plan: TablePlan, *, is_present: bool) -> None:
    """Give a column its current name; if there is a column with that name, move the values into it."""
    name = plan.final_name(column)
    spelt = plan.spelling.get(name, name)
    old, new, qualified = quote(column), quote(name), f"main.{quote(table)}"
    if not is_present:
        connection.execute(f"ALTER TABLE {qualified} RENAME COLUMN {old} TO {quote(spelt)}")
        catalog.rename_column(connection, table, column, spelt)
        return
    connection.execute(f"UPDATE {qualified} SET {new} = {old} WHERE {old} IS NOT NULL AND {new} IS NULL")
    connection.execute(f"ALTER TABLE {qualified} DROP COLUMN {old}")
    catalog.forget_column(connection, table, column)


# -- indexes ----------------------------------------------------------------------------------------------------------


def ensure_index(connection: Connection, table: str, columns: Iterable[str], *, indexed: bool) -> None:
    """Record an index and, if `indexed`, build it, unless it is recorded already."""
    index = list(columns)
    if catalog.add_index(connection, table, index) and indexed:
        connection.execute(catalog.create_index(table, index))


def _drop_indexes(connection: Connection, table: str, columns: set[str], *, indexed: bool) -> list[list[str]]:
    """Drop our indexes over any of these columns, and return the columns of each."""
    dropped = []
    for index in catalog.indexes_of(connection, table):
        if columns.intersection(column.lower() for column in index):
            dropped.append(index)
            catalog.forget_index(connection, table, index)
            if indexed:
                connection.execute(f"DROP INDEX IF EXISTS main.{quote(catalog.index_name(table, index))}")
    return dropped
