"""Convert a column of the main database, a shard or a master, to a wider type: what `types` decides, as SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edgeshard import format, sqlite
from edgeshard.records import types
from edgeshard.sqlite import Connection, quote

#: The new column while its values are converted; no field can have this name.
_CONVERTED: Final = "_edgeshard_wider"


def rewriting(connection: Connection, table: str, column: str, column_type: str, wider: str) -> Iterator[str]:
    """Yield the statements that convert a column's values to a wider type; run all of them in one transaction, or none.

    SQLite cannot change the type of a column, and a table made anew would lose what users built on it. The WAL grows by
    the size of the table while the transaction lasts, and by no more (measured).
    """
    if format.STORED_AS[column_type] == format.STORED_AS[wider]:
        return
    yield f"ALTER TABLE main.{quote(table)} ADD COLUMN {_CONVERTED} {format.STORED_AS[wider]}"
    yield f"UPDATE main.{quote(table)} SET {_CONVERTED} = {converted(connection, quote(column), column_type, wider)}"
    yield f"ALTER TABLE main.{quote(table)} DROP COLUMN {quote(column)}"
    yield f"ALTER TABLE main.{quote(table)} RENAME COLUMN {_CONVERTED} TO {quote(column)}"


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
