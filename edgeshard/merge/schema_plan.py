"""Decide how a source's table and the target's become one: renamed, widened and new columns. Nothing is written.

If two tables cannot become one without loss, a SchemaConflictError is raised, which blocks that source's rows. The
resulting columns do not depend on the order of the sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from edgeshard.errors import SchemaConflictError
from edgeshard.records import promote, renames, types
from edgeshard.records.columns import mixes_dicts
from edgeshard.records.renames import Arrow
from edgeshard.sources.source import SourceTable
from edgeshard.sqlite import Connection, quote

#: The table that dicts go to.
AGENT_DATA = "agent_data"

_KEPT = "No row of the shard is lost: it can be merged into a store of its own"

ADVICE = (
    f"{_KEPT}. Let its agent write to a shard with another name, and give the class's table or column another name (a "
    "field with another name is `renamed` only if it means the same)"
)

_RENAME_ADVICE = f"{_KEPT}. Make both classes use one name, with `renamed`, or use another table"

OTHER_TABLE_ADVICE = (
    f"{_KEPT}. Let its agent write to a shard with another name, and give the class's table another name"
)

_PART_OF_KEY = (
    "the table's key or conflict rule uses it: such a column keeps its name and its type, because it decides which "
    f"rows are versions of one another. {OTHER_TABLE_ADVICE}"
)


@attrs.frozen
class TablePlan:
    """What a table of the target will be.

    Attributes:
        columns: the type of each column, by its name in lower case.
        spelling: how each column is spelt, by its name in lower case.
        final_names: the current name for each older name, all in lower case.
        new_renames: the renames that the target does not know yet.
        new_columns: the spelling and the type of each column that the target does not have under any name.
    """

    columns: Mapping[str, str]
    spelling: Mapping[str, str]
    final_names: Mapping[str, str]
    new_renames: tuple[Arrow, ...]
    new_columns: tuple[tuple[str, str], ...]

    def final_name(self, column: str) -> str:
        """Return a column's current name, in lower case."""
        return self.final_names.get(column.lower(), column.lower())


def plan_table(
    known_columns: Mapping[str, str] | None,
    known_renames: Sequence[Arrow],
    table: SourceTable,
    path: str,
    fixed: frozenset[str] = frozenset(),
) -> TablePlan:
    """Plan the table that holds both the target's rows and the source's.

    Args:
        known_columns: the type of each of the target's columns, by name in lower case; None if it has no such table.
        known_renames: the renames that the target knows.
        table: the source's table.
        path: the source, for errors.
        fixed: the columns of a key or of its conflict rule, in lower case. They keep their name and type.

    Raises:
        SchemaConflictError: no type holds the values of both columns, or renames contradict one another, or a fixed
            column would change.
    """
    known = {(old.lower(), new.lower()) for old, new in known_renames}
    new_renames = tuple((old, new) for old, new in table.renames if (old.lower(), new.lower()) not in known)
    _ensure_not_renamed(table, [*known, *new_renames], fixed, path)
    try:
        final_names = renames.ends([*known_renames, *new_renames])
    except renames.UnclearError as error:
        raise SchemaConflictError("merge", path, f"table {table.name}: {error}. {_RENAME_ADVICE}") from error
    names = [final_names.get(column.lower(), column.lower()) for column, _ in table.columns]
    if known_columns and (cause := mixes_dicts(table.name, known_columns, names)):
        raise SchemaConflictError("merge", path, f"{cause}. {OTHER_TABLE_ADVICE}")
    spelling = {new.lower(): new for _, new in [*known_renames, *new_renames]}
    columns: dict[str, str] = {}
    for column, type_ in (known_columns or {}).items():
        _add_or_widen(columns, final_names.get(column, column), type_, table.name, fixed, path)
    present = set(columns)
    for column, type_ in table.columns:
        name = final_names.get(column.lower(), column.lower())
        spelling.setdefault(name, column)
        _add_or_widen(columns, name, type_, table.name, fixed, path)
    new_columns = tuple((spelling[column], type_) for column, type_ in columns.items() if column not in present)
    return TablePlan(columns, spelling, final_names, new_renames, new_columns)


def _ensure_not_renamed(table: SourceTable, arrows: Iterable[Arrow], fixed: frozenset[str], path: str) -> None:
    for old, new in arrows:
        if not fixed.isdisjoint((old.lower(), new.lower())):
            cause = f"column {table.name}.{new} was called {old} before, and {_PART_OF_KEY}"
            raise SchemaConflictError("merge", path, cause)


def _add_or_widen(
    columns: dict[str, str], column: str, type_: str, table: str, fixed: frozenset[str], path: str
) -> None:
    """Add a column, or widen the one that is there so that it holds this type as well."""
    present = columns.setdefault(column, type_)
    wider = types.widest(present, type_)
    # every master has the table of dicts from its beginning, and relies on its columns
    if wider is None or (table.lower() == AGENT_DATA and wider != present):
        cause = f"column {table}.{column} is {type_} in this shard and {present} in the master. {ADVICE}"
        raise SchemaConflictError("merge", path, cause)
    if present != type_ and column in fixed:
        cause = f"column {table}.{column} is {type_} in this shard and {present} in the master, and {_PART_OF_KEY}"
        raise SchemaConflictError("merge", path, cause)
    columns[column] = wider


def map_columns(connection: Connection, table: SourceTable, plan: TablePlan) -> SourceTable:
    """Return the source's table with the expressions that copy its rows into the target's, which is as planned."""
    values_by_name: dict[str, list[tuple[str, str]]] = {}
    checks: list[tuple[str, str]] = []
    for column, type_ in table.columns:
        name, wider = f"s.{quote(column)}", plan.columns[plan.final_name(column)]
        value = promote.converted(connection, name, type_, wider)
        values_by_name.setdefault(plan.final_name(column), []).append((column, value))
        if types.may_not_fit(type_, wider):
            checks.append((promote.does_not_fit(name), _explain_too_large(table.name, column)))
    into = []
    for name, parts in values_by_name.items():
        parts.sort(key=lambda part: part[0].lower() != name)  # the column that has this name already comes first
        values = ", ".join(value for _, value in parts)
        into.append((plan.spelling.get(name, name), values if len(parts) == 1 else f"coalesce({values})"))
        checks += _disagreements(table.name, name, parts)
    return attrs.evolve(table, into=tuple(into), checks=tuple(checks))


def _disagreements(table: str, final_name: str, parts: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield SQL conditions for different values in columns that become one, each with the reason to refuse the row."""
    for at, (column, value) in enumerate(parts):
        for other, other_value in parts[at + 1 :]:
            condition = f"{value} IS NOT NULL AND {other_value} IS NOT NULL AND {value} IS NOT {other_value}"
            yield condition, explain_disagreement(table, final_name, column, other)


def explain_disagreement(table: str, final_name: str, column: str, other: str) -> str:
    """Explain that rows have different values in two columns that renames make one."""
    return (
        f"table {table} has rows with different values in {column} and {other}, and the renames make both "
        f"{final_name}. {_RENAME_ADVICE}"
    )


def _explain_too_large(table: str, column: str) -> str:
    return (
        f"column {table}.{column} has integers beyond 2^53, and other agents declare it as real, which would round "
        f"them. {_KEPT}. Declare the field as Decimal, which holds both, or give it another name"
    )
