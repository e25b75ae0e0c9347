"""Read a master's table with a record class of one version, although agents of other versions write it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        narrowing: the columns whose type is wider in the master: position in the row, column, type there, and the
            function that converts a value to the class's type.
        path: the master, for errors.
        table: the table, for errors.
    """

    columns: str
    narrowing: tuple[tuple[int, Column, str, Callable[[Any], Any]], ...]
    path: str
    table: str

    def narrowed(self, row: tuple[Any, ...]) -> Sequence[Any]:
        """Return the values of a row after its id, converted to the types of the class.

        Raises:
            SchemaConflictError: a value does not fit.
        """
        if not self.narrowing:
            return row[1:]
        values = list(row)
        for at, column, type_, narrow in self.narrowing:
            if values[at] is None:
                continue
            try:
                values[at] = narrow(values[at])
            except (ValueError, ArithmeticError) as error:
                cause = (
                    f"row {row[0]} of {self.table}: column {column.name} is {type_} there, {column.type} in this "
                    f"class, and {error}. {_ADVICE}"
                )
                raise SchemaConflictError("read", self.path, cause) from error
        return values[1:]


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
    for at, column in enumerate(table.columns, 1):
        end = ends.get(column.name.lower(), column.name.lower())
        # a column that no agent has written yet reads as NULL
        names.append(quote(column.name if end == column.name.lower() else end) if end in known else "NULL")
        narrow = _narrowing(table, column, known.get(end, column.type), path)
        if narrow is not None:
            narrowing.append((at, column, known[end], narrow))
    return Projection(", ".join(names), tuple(narrowing), path, table.name)


def _narrowing(table: Table, column: Column, stored: str, path: str) -> Callable[[Any], Any] | None:
    if types.widest(stored, column.type) is None and format.STORED_AS[stored] != format.STORED_AS[column.type]:
        cause = f"column {table.name}.{column.name} is {stored} there and {column.type} in this class. {_ADVICE}"
        raise SchemaConflictError("read", path, cause)
    return types.narrowing(stored, column.type)
