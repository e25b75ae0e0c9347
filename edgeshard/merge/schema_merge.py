"""How a source's table and the target's become one: columns that were renamed, or got a wider kind, or are new.

`planned` decides, and writes nothing; `apply` changes the target, in the merge's own transaction: killed in it, the
master is as it was. What cannot be decided without loss is a SchemaConflictError, which holds back that source alone.
The columns that come of it are the same in whatever order the sources come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.format.blocks import Block
from edgeshard.master import catalog
from edgeshard.records import codecs, promote, renames, types
from edgeshard.records.renames import Arrow
from edgeshard.sources.source import Source, SourceTable
from edgeshard.sqlite import Connection, quote

#: The table that dicts go to.
_DICTS = "agent_data"

_KEPT = "Nothing of it is lost: it can be merged into a store of its own"

_ADVICE = (
    f"{_KEPT}. Let its agent write to a shard of another name, with a class whose table or column has another name (a "
    "field of another name says `renamed` only where it means the same)"
)

_HOW_TO_RENAME = f"{_KEPT}. Let the classes of both agree on one name, by `renamed`, or use another table"

_OF_A_KEY = (
    "the table's key, or its conflict rule, has it: there a column keeps its name and its type, for it says which rows "
    f"are versions of one another. {_KEPT}. Let its agent write to a shard of another name, with a class whose table "
    "has another name"
)


@attrs.frozen
class Plan:
    """What a target's table will be.

    Attributes:
        columns: the kind of each column, by its name in lower case.
        spelling: how each is spelt.
        ends: the name that older names stand for; all in lower case.
        arrows: the renames that the target does not know yet.
        new: the columns that the target has by no name, spelt, with their kinds.
    """

    columns: Mapping[str, str]
    spelling: Mapping[str, str]
    ends: Mapping[str, str]
    arrows: tuple[Arrow, ...]
    new: tuple[tuple[str, str], ...]

    def end(self, column: str) -> str:
        """The name in the end of a column, in lower case."""
        return self.ends.get(column.lower(), column.lower())


def planned(
    known: Mapping[str, str] | None,
    arrows: Iterable[Arrow],
    table: SourceTable,
    path: str,
    fixed: frozenset[str] = frozenset(),
) -> Plan:
    """What the table will be.

    Args:
        known: the kinds of the target's columns by their names in lower case; None: it has no such table.
        arrows: the renames that it knows.
        table: the source's.
        path: the source, for errors.
        fixed: the columns, in lower case, of a key, or of its conflict rule, which keep their name and kind.

    Raises:
        SchemaConflictError: two kinds of a column have none that holds both, or renames contradict one another, or
            a fixed column would not be what it was.
    """
    before = {(old.lower(), new.lower()) for old, new in arrows}
    brought = tuple((old, new) for old, new in table.renames if (old.lower(), new.lower()) not in before)
    if brought and len(before) + len(brought) > format.COLUMNS_MAX:
        cause = f"table {table.name} would have more than {format.COLUMNS_MAX} renames. {_KEPT}"
        raise SchemaConflictError("merge", path, cause)
    _ensure_fixed(table, [*before, *brought], fixed, path)
    try:
        ends = renames.ends([*arrows, *brought])
    except renames.UnclearError as error:
        raise SchemaConflictError("merge", path, f"table {table.name}: {error}. {_HOW_TO_RENAME}") from error
    spelling = {new.lower(): new for _, new in [*arrows, *brought]}
    columns: dict[str, str] = {}
    for column, kind in (known or {}).items():
        _join(columns, ends.get(column, column), kind, table.name, fixed, path)
    there = set(columns)
    for column, kind in table.columns:
        end = ends.get(column.lower(), column.lower())
        spelling.setdefault(end, column)
        _join(columns, end, kind, table.name, fixed, path)
    new = tuple((spelling[column], kind) for column, kind in columns.items() if column not in there)
    return Plan(columns, spelling, ends, brought, new)


def _ensure_fixed(table: SourceTable, arrows: Iterable[Arrow], fixed: frozenset[str], path: str) -> None:
    for old, new in arrows:
        if not fixed.isdisjoint((old.lower(), new.lower())):
            cause = f"column {table.name}.{new} was called {old} before, and {_OF_A_KEY}"
            raise SchemaConflictError("merge", path, cause)


def _join(columns: dict[str, str], column: str, kind: str, table: str, fixed: frozenset[str], path: str) -> None:
    there = columns.setdefault(column, kind)
    wider = types.widest(there, kind)
    # every master has the table of dicts from its beginning, and counts on its columns
    if wider is None or (table.lower() == _DICTS and wider != there):
        cause = f"column {table}.{column} is {kind} in this shard and {there} in the master. {_ADVICE}"
        raise SchemaConflictError("merge", path, cause)
    if there != kind and column in fixed:
        cause = f"column {table}.{column} is {kind} in this shard and {there} in the master, and {_OF_A_KEY}"
        raise SchemaConflictError("merge", path, cause)
    columns[column] = wider


# -- the source's rows ------------------------------------------------------------------------------------------------


def fitted(connection: Connection, table: SourceTable, plan: Plan) -> SourceTable:
    """The source's table with how its rows go into the target's, once that is as planned."""
    found: dict[str, list[tuple[str, str]]] = {}
    checks: list[tuple[str, str]] = []
    for column, kind in table.columns:
        name, wider = f"s.{quote(column)}", plan.columns[plan.end(column)]
        value = promote.converted(connection, name, kind, wider)
        found.setdefault(plan.end(column), []).append((column, value))
        if types.may_not_fit(kind, wider):
            checks.append((promote.does_not_fit(name), _why_not_fit(table.name, column)))
    into = []
    for end, parts in found.items():
        parts.sort(key=lambda part: part[0].lower() != end)
        values = ", ".join(value for _, value in parts)
        into.append((plan.spelling.get(end, end), values if len(parts) == 1 else f"coalesce({values})"))
        checks += _disagreements(table.name, end, parts)
    return attrs.evolve(table, into=tuple(into), checks=tuple(checks))


def ensure_fit(connection: Connection, origin: Source, table: SourceTable, piece: Block) -> None:
    """Refuse rows that the target could not hold without loss.

    Raises:
        SchemaConflictError: one of them is of these.
    """
    for condition, cause in table.checks:
        sql = (
            f"SELECT 1 FROM {quote(origin.schema)}.{quote(table.name)} s NOT INDEXED "
            f"WHERE _id BETWEEN ? AND ? AND ({condition}) LIMIT 1"
        )
        if sqlite.scalar(connection, sql, (piece.first_id, piece.last_id)) is not None:
            raise SchemaConflictError("merge", origin.path, cause)


def _disagreements(table: str, end: str, parts: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for at, (column, value) in enumerate(parts):
        for other, its in parts[at + 1 :]:
            condition = f"{value} IS NOT NULL AND {its} IS NOT NULL AND {value} IS NOT {its}"
            yield condition, _why_both(table, end, column, other)


def _why_both(table: str, end: str, column: str, other: str) -> str:
    return (
        f"table {table} has rows with both {column} and {other}, which are different, and by the renames both are "
        f"{end}. {_HOW_TO_RENAME}"
    )


def _why_not_fit(table: str, column: str) -> str:
    return (
        f"column {table}.{column} has integers beyond 2^53, and is real for other agents: a real would round them. "
        f"{_KEPT}. Make the field Decimal, which holds both, or give it another name"
    )


# -- the target's columns ---------------------------------------------------------------------------------------------


def apply(connection: Connection, name: str, known: dict[str, str], plan: Plan, path: str, *, indexed: bool) -> None:
    """Rename and widen columns of a table that is there, and note renames; new columns are the caller's.

    Args:
        connection: in a transaction.
        name: the table.
        known: the kinds of its columns; as they are then, afterwards.
        plan: what it is to be.
        path: the source that asks for it, for errors.
        indexed: whether its indexes are built.

    Raises:
        SchemaConflictError: values do not fit, or contradict one another.
    """
    for old, new in plan.arrows:
        connection.execute("INSERT INTO main.edgeshard_renames VALUES (?, ?, ?)", (name, old.lower(), new))
    moved = [column for column in known if plan.end(column) != column]
    wider = [column for column, kind in known.items() if plan.columns[plan.end(column)] != kind]
    if not moved and not wider:
        return
    try:
        indexes = _without_indexes(connection, name, {*moved, *wider, *map(plan.end, moved)}, indexed=indexed)
        for column in wider:
            _widen(connection, name, column, known[column], plan.columns[plan.end(column)], path)
            known[column] = plan.columns[plan.end(column)]
        for column in moved:
            end = plan.end(column)
            _move(connection, name, column, end, plan.spelling.get(end, end), path, is_there=end in known)
            known[end] = known.pop(column)
        for index in indexes:
            ensure_index(connection, name, dict.fromkeys(map(plan.end, index)), indexed=indexed)
    except sqlite.DATA_ERRORS as error:
        if not sqlite.is_bad_schema(error):
            raise
        cause = f"table {name} of the master cannot be changed as this shard's agent asks: {error}. {_MADE_BY_USER}"
        raise SchemaConflictError("merge", path, cause) from error


_MADE_BY_USER = (
    "A view, an index or a trigger that was made in the master by hand may name the column: drop it, merge, and make "
    "it again"
)


def _widen(connection: Connection, table: str, column: str, kind: str, wider: str, path: str) -> None:
    if promote.has_unfit(connection, table, column, kind, wider):
        cause = f"column {table}.{column} is real in this shard, and has integers beyond 2^53 in the master"
        raise SchemaConflictError("merge", path, f"{cause}: a real would round them. {_ADVICE}")
    for statement in catalog.promotion(connection, table, column, kind, wider):
        connection.execute(*statement)


def _move(connection: Connection, table: str, column: str, end: str, spelt: str, path: str, *, is_there: bool) -> None:
    """Give a column its name in the end; where there is such a column, give that its values."""
    old, new, whole = quote(column), quote(end), f"main.{quote(table)}"
    noted = "main.edgeshard_columns"
    its = "WHERE table_name = ? AND column_name = ? COLLATE NOCASE"
    if not is_there:
        connection.execute(f"ALTER TABLE {whole} RENAME COLUMN {old} TO {quote(spelt)}")
        connection.execute(f"UPDATE {noted} SET column_name = ? {its}", (spelt, table, column))
        return
    both = f"SELECT 1 FROM {whole} WHERE {old} IS NOT NULL AND {new} IS NOT NULL AND {old} IS NOT {new} LIMIT 1"
    if sqlite.scalar(connection, both) is not None:
        raise SchemaConflictError("merge", path, f"in the master, {_why_both(table, end, column, end)}")
    connection.execute(f"UPDATE {whole} SET {new} = {old} WHERE {old} IS NOT NULL AND {new} IS NULL")
    connection.execute(f"ALTER TABLE {whole} DROP COLUMN {old}")
    connection.execute(f"DELETE FROM {noted} {its}", (table, column))


# -- indexes ----------------------------------------------------------------------------------------------------------


def _without_indexes(connection: Connection, table: str, columns: set[str], *, indexed: bool) -> list[list[str]]:
    """Drop, and forget, those of our indexes that are over one of these columns."""
    noted = "main.edgeshard_indexes WHERE table_name = ?"
    dropped = []
    for (text,) in sqlite.fetch(connection, f"SELECT columns FROM {noted}", (table,)):
        index = json.loads(text)
        if columns.intersection(column.lower() for column in index):
            dropped.append(index)
            connection.execute(f"DELETE FROM {noted} AND columns = ?", (table, text))
            if indexed:
                connection.execute(f"DROP INDEX IF EXISTS main.{quote(_index_name(table, index))}")
    return dropped


def ensure_index(connection: Connection, table: str, columns: Iterable[str], *, indexed: bool) -> None:
    """Note an index, and make it, unless it is known."""
    index = list(columns)
    text = codecs.to_json(index)
    known = sqlite.scalar(
        connection, "SELECT 1 FROM main.edgeshard_indexes WHERE table_name = ? AND columns = ?", (table, text)
    )
    if known is None:
        connection.execute("INSERT INTO main.edgeshard_indexes VALUES (?, ?)", (table, text))
    if known is None and indexed:
        name = quote(_index_name(table, index))
        connection.execute(f"CREATE INDEX main.{name} ON {quote(table)}({', '.join(map(quote, index))})")


def _index_name(table: str, columns: Iterable[str]) -> str:
    return f"{table} by {', '.join(columns)}"
