"""Fetch rows, and check their types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw

from edgeshard.errors import DamagedError

Bindings = Sequence[Any] | Mapping[str, Any]


def quote(name: str) -> str:
    """Quote an identifier for SQL. (apsw.ext has the same function, but takes 80 ms to import.)"""
    return '"' + name.replace('"', '""') + '"'


def all_of(conditions: Sequence[str]) -> str:
    """Return an SQL condition that is true if all of these are.

    `a AND b AND c …` is an expression as deep as it has conditions, and SQLite refuses SQL that is deeper than 1,000.
    So they are joined in pairs, and the pairs in pairs: 400 conditions are nine levels deep. SQLite splits both forms
    into the same conditions, so they use the same indexes.
    """
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return f"({all_of(conditions[:middle])} AND {all_of(conditions[middle:])})"


def scalar(connection: apsw.Connection, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
    """Return the first column of the first row, or None if there is no row."""
    row = connection.execute(sql, bindings).fetchone()
    return None if row is None else row[0]


def select_id_runs(rows: str) -> str:
    """Return SQL for the first and the last of each run of consecutive ids, in order.

    Args:
        rows: SQL from the name of a record table on: "reading WHERE _id > 7".
    """
    return (
        "SELECT min(_id), max(_id) FROM (SELECT _id, _id - row_number() OVER (ORDER BY _id) AS island "
        f"FROM {rows}) GROUP BY island ORDER BY 1"
    )


def has_table(connection: apsw.Connection, name: str) -> bool:
    """Return whether the main database has a table of this name."""
    return scalar(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (name,)) is not None


def fetch(connection: apsw.Connection, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return all rows; their values may have any type."""
    return connection.execute(sql, bindings).fetchall()


def fetch_typed(
    connection: apsw.Connection, path: str, types: tuple[type | None, ...], sql: str, bindings: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]]:
    """Return all rows of a database that we do not trust, and check the types of their values.

    Args:
        connection: the connection.
        path: the database, for the error.
        types: the type of each column; None: any.
        sql: the query.
        bindings: its parameters.

    Raises:
        DamagedError: a value has another type.
    """
    rows = fetch(connection, sql, bindings)
    ensure_types(path, types, rows)
    return rows


def ensure_types(path: str, types: tuple[type | None, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Check the types of the values in rows of a database that we do not trust.

    Args:
        path: the database, for the error.
        types: the type of each column; None: any.
        rows: the rows.

    Raises:
        DamagedError: a value has another type.
    """
    for row in rows:
        for value, expected in zip(row, types, strict=True):
            if expected is not None and type(value) is not expected:
                cause = f"its own tables hold a {type(value).__name__} where a {expected.__name__} belongs"
                raise DamagedError("read database", path, cause)
