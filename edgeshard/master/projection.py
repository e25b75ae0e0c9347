"""How a class of one version reads a master's table that agents of other versions write, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.master import catalog
from edgeshard.records import renames, types
from edgeshard.records.columns import Column, Table
from edgeshard.sqlite import Connection, quote

_ADVICE = "Read it with a class whose field has that type, or with `query`"


@attrs.frozen
class Projection:
    """What to select, and what to make of it.

    Attributes:
        columns: SQL of the columns, in the order of the class's.
        narrowing: by the place of a column, its name, its kind and what makes values of it those of the class's kind.
        path: the master, for errors.
        table: the table, for errors.
    """

    columns: str
    narrowing: tuple[tuple[int, Column, str, Callable[[Any], Any]], ...]
    path: str
    table: str

    def narrowed(self, row: tuple[Any, ...]) -> Sequence[Any]:
        """A row, after its id, with values as the class's kinds are stored.

        Raises:
            SchemaConflictError: one does not fit.
        """
        if not self.narrowing:
            return row[1:]
        values = list(row)
        for at, column, kind, narrow in self.narrowing:
            if values[at] is None:
                continue
            try:
                values[at] = narrow(values[at])
            except (ValueError, ArithmeticError) as error:
                cause = (
                    f"row {row[0]} of {self.table}: column {column.name} is {kind} there, {column.type} in this class, "
                    f"and {error}. {_ADVICE}"
                )
                raise SchemaConflictError("read", self.path, cause) from error
        return values[1:]


def project(connection: Connection, table: Table, path: str) -> Projection | None:
    """How to read a table; None where the master has none.

    Raises:
        SchemaConflictError: a column has a kind that the class cannot read.
    """
    rows = sqlite.fetch(
        connection, "SELECT column_name, type FROM edgeshard_columns WHERE table_name = ? COLLATE NOCASE", (table.name,)
    )
    known = {name.lower(): kind for name, kind in rows}
    if not known:
        return None
    ends = renames.ends(catalog.renames_of(connection).get(table.name.lower(), ()))
    names, narrowing = [], []
    for at, column in enumerate(table.columns, 1):
        end = ends.get(column.name.lower(), column.name.lower())
        # a column that no agent has written yet reads as NULL
        names.append(quote(column.name if end == column.name.lower() else end) if end in known else "NULL")
        narrow = _narrowing(table, column, known.get(end, column.type), path)
        if narrow is not None:
            narrowing.append((at, column, known[end], narrow))
    return Projection(", ".join(names), tuple(narrowing), path, table.name)


def _narrowing(table: Table, column: Column, kind: str, path: str) -> Callable[[Any], Any] | None:
    if types.widest(kind, column.type) is None and format.STORED_AS[kind] != format.STORED_AS[column.type]:
        cause = f"column {table.name}.{column.name} is {kind} there and {column.type} in this class. {_ADVICE}"
        raise SchemaConflictError("read", path, cause)
    return types.narrowing(kind, column.type)
