"""Read a master's table with a record class of one version, although agents of other versions write it too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from edgeshard import format
from edgeshard.errors import SchemaConflictError
from edgeshard.master import catalog
from edgeshard.records import renames, types
from edgeshard.records.columns import Column, Table
from edgeshard.sqlite import Connection, quote

_ADVICE = "Read it with a class whose field has that type, or with `query`"


@attrs.frozen
class Projection:
    """What to select from a table, and how to convert it for a class.

    Attributes:
        columns: SQL of the columns, in the order of the class's.
        narrowing: for each column, the function that converts a value to the class's type, which raises a ValueError
            if it does not fit; None if the master has that type.
    """

    columns: str
    narrowing: tuple[Callable[[Any], Any] | None, ...]


def project(connection: Connection, table: Table, path: str) -> Projection | None:
    """Return how to read a table, or None if the master has no such table.

    Raises:
        SchemaConflictError: a column has a type that the class cannot read.
    """
    _, known = catalog.columns_of_table(connection, table.name)
    if not known:
        return None
    ends = renames.ends(catalog.load_renames(connection).get(table.name.lower(), ()))
    names, narrowing = [], []
    for column in table.columns:
        end = ends.get(column.name.lower(), column.name.lower())
        # a column that no agent has written yet reads as NULL
        names.append(quote(column.name if end == column.name.lower() else end) if end in known else "NULL")
        narrowing.append(_narrowing(table, column, known.get(end, column.type), path))
    return Projection(", ".join(names), tuple(narrowing))


def _narrowing(table: Table, column: Column, stored: str, path: str) -> Callable[[Any], Any] | None:
    if types.widest(stored, column.type) is None and format.STORED_AS[stored] != format.STORED_AS[column.type]:
        cause = f"column {table.name}.{column.name} is {stored} there and {column.type} in this class. {_ADVICE}"
        raise SchemaConflictError("read", path, cause)
    narrow = types.narrowing(stored, column.type)
    return None if narrow is None else partial(_narrowed, narrow, stored, column.type)


def _narrowed(narrow: Callable[[Any], Any], stored: str, wanted: str, value: Any) -> Any:
    try:
        return narrow(value)
    except (ValueError, ArithmeticError) as error:
        cause = f"the column is {stored} in the master, {wanted} in this class, and {error}. {_ADVICE}"
        raise ValueError(cause) from error
