"""A column of the main database, a shard's or a master's, gets a wider kind: what `kinds` decides, as SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edgeshard import format, sqlite
from edgeshard.records import types
from edgeshard.sqlite import Connection, quote

#: The column beside the one that is widened, for as long as that takes; no field can have this name.
_BESIDE: Final = "_edgeshard_wider"


def statements(
    connection: Connection, table: str, column: str, kind: str, wider: str
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The statements that give a column a wider kind, and note it; all of them, or none, are to be kept.

    The log grows by what the table takes while the transaction lasts, and by no more (measured).
    """
    if format.STORED_AS[kind] != format.STORED_AS[wider]:
        for sql in _rewriting(connection, table, column, kind, wider):
            yield sql, ()
    note = "UPDATE main.edgeshard_columns SET type = ? WHERE table_name = ? AND column_name = ? COLLATE NOCASE"
    yield note, (wider, table, column)


def _rewriting(connection: Connection, table: str, column: str, kind: str, wider: str) -> Iterator[str]:
    # SQLite cannot change the type of a column; a table made anew would lose what users built upon it
    yield f"ALTER TABLE main.{quote(table)} ADD COLUMN {_BESIDE} {format.STORED_AS[wider]}"
    yield f"UPDATE main.{quote(table)} SET {_BESIDE} = {converted(connection, quote(column), kind, wider)}"
    yield f"ALTER TABLE main.{quote(table)} DROP COLUMN {quote(column)}"
    yield f"ALTER TABLE main.{quote(table)} RENAME COLUMN {_BESIDE} TO {quote(column)}"


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
