"""Convert the stored values of a column to a wider type in SQL, as `types.widened` does in Python."""

from __future__ import annotations

from typing import Any

from edgeshard import sqlite
from edgeshard.records import types
from edgeshard.sqlite import Connection, quote


def converted(connection: Connection, value: str, kind: str, wider: str) -> str:
    """The expression that makes a value of a kind one of a wider kind: SQL of what `kinds.widened` does."""
    if types.is_same_value(kind, wider):
        return value
    if kind == "real":
        connection.create_scalar_function("edgeshard_decimal", _decimal_text, 1, deterministic=True)
        return f"edgeshard_decimal({value})"
    return f"CAST({value} AS {'TEXT' if wider == 'decimal' else 'REAL'})"


def _decimal_text(*values: Any) -> str | None:
    (value,) = values
    return None if value is None else types.decimal_text(value)


def does_not_fit(column: str) -> str:
    """The condition that an integer is none of a real."""
    return f"{column} NOT BETWEEN -{types.EXACT_MAX} AND {types.EXACT_MAX}"


def has_unfit(connection: Connection, table: str, column: str, kind: str, wider: str) -> bool:
    """Whether a column has values that the wider kind does not hold."""
    sql = f"SELECT 1 FROM main.{quote(table)} WHERE {does_not_fit(quote(column))} LIMIT 1"
    return types.may_not_fit(kind, wider) and sqlite.scalar(connection, sql) is not None
