"""Convert the stored values of a column to a wider type in SQL, as `types.widened` does in Python."""

from __future__ import annotations

from typing import Any

from edgeshard import sqlite
from edgeshard.records import types
from edgeshard.sqlite import Connection, quote


def converted(connection: Connection, value: str, column_type: str, wider: str) -> str:
    """Return an SQL expression that converts a value to a wider type, as `types.widened` does."""
    if types.is_same_value(column_type, wider):
        return value
    if column_type == "real":
        connection.create_scalar_function("edgeshard_decimal", _decimal_text, 1, deterministic=True)
        return f"edgeshard_decimal({value})"
    return f"CAST({value} AS {'TEXT' if wider == 'decimal' else 'REAL'})"


def _decimal_text(*values: Any) -> str | None:
    (value,) = values
    return None if value is None else types.decimal_text(value)


def does_not_fit(column: str) -> str:
    """Return an SQL condition that is true for integers that no real represents exactly."""
    return f"{column} NOT BETWEEN -{types.EXACT_MAX} AND {types.EXACT_MAX}"


def has_unfit(connection: Connection, table: str, column: str, column_type: str, wider: str) -> bool:
    """Return whether a column has values that the wider type cannot hold."""
    sql = f"SELECT 1 FROM main.{quote(table)} WHERE {does_not_fit(quote(column))} LIMIT 1"
    return types.may_not_fit(column_type, wider) and sqlite.scalar(connection, sql) is not None
