"""Columns of PostgreSQL's tables that agents renamed or widened since: the statements, which never make one narrower.

Pure. A view of the user over a column that is renamed follows it; over one that is widened, PostgreSQL refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edgeshard import format
from edgeshard.postgres.values import TYPES
from edgeshard.records import types
from edgeshard.sqlite import quote

#: How information_schema.columns names the types, where that differs.
_NAMED: Final = {"timestamptz": "timestamp with time zone"}


def named(kind: str) -> str:
    """The type of a kind, as information_schema.columns names it."""
    return _NAMED.get(TYPES[kind], TYPES[kind])


#: The kind of each type, by that name; what is never a column of a class is never widened.
KIND_OF: Final = {named(kind): kind for kind in TYPES if kind not in format.OWN_COLUMNS.values()}


def holds(there: str, other: str) -> bool:
    """Whether a column of a type takes all values of another type without loss."""
    kind, before = KIND_OF.get(there), KIND_OF.get(other)
    return there == other or (kind is not None and before is not None and types.widest(kind, before) == kind)


def renaming(table: str, renamed: Iterable[tuple[str, str]]) -> list[str]:
    """What gives columns their new names."""
    return [f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(old)} TO {quote(new)}" for old, new in renamed]


def widening(table: str, widened: Iterable[tuple[str, str]], there: Mapping[str, str]) -> list[str]:
    """What gives columns their wider kinds.

    Args:
        table: the table.
        widened: each column, and its kind from now on.
        there: the type of each column.
    """
    return [
        f"ALTER TABLE {quote(table)} ALTER COLUMN {quote(name)} TYPE {TYPES[kind]} "
        f"USING {_converted(quote(name), there[name], TYPES[kind])}"
        for name, kind in widened
    ]


def _converted(value: str, there: str, wider: str) -> str:
    if there == "boolean":
        return f"{value}::integer::{wider}"
    if there == "double precision":
        return f"{value}::text::{wider}"  # without a text between them PostgreSQL rounds to 15 digits
    return f"{value}::{wider}"


def moving(table: str, old: str, new: str, there: str, kind: str) -> str:
    """What brings values to the new name, where a column is there by both; the older one stays, and is empty."""
    return (
        f"UPDATE {quote(table)} SET {quote(new)} = {_converted(quote(old), there, TYPES[kind])}, {quote(old)} = NULL "
        f"WHERE {quote(old)} IS NOT NULL AND {quote(new)} IS NULL"
    )
