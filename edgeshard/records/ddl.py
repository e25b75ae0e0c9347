"""The SQL that makes a record table, adds columns to it, or changes the type of one. Pure: text in, text out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from edgeshard import format
from edgeshard.sqlite import quote

#: The name of the new column while the type of a column is changed. No field can have this name.
_REPLACEMENT: Final = "_edgeshard_wider"


def create_table(name: str, leading_columns: str, columns: Iterable[tuple[str, str]]) -> str:
    """Return the statement that makes a record table.

    Args:
        name: the table.
        leading_columns: what it begins with: `format.SHARD_COLUMNS` or `format.MASTER_COLUMNS`.
        columns: name and type of each further column.
    """
    declared = ", ".join([leading_columns, *(_declaration(*column) for column in columns)])
    return f"CREATE TABLE main.{quote(name)}({declared}) STRICT"


def add_columns(name: str, columns: Iterable[tuple[str, str]]) -> list[str]:
    """Return the statements that add columns, each given by name and type, to a record table."""
    return [f"ALTER TABLE main.{quote(name)} ADD COLUMN {_declaration(*column)}" for column in columns]


def _declaration(name: str, type_: str) -> str:
    return f"{quote(name)} {format.STORED_AS[type_]}"


def change_type(table: str, column: str, type_: str, value: str) -> list[str]:
    """Return the statements that change the type of a column; run all of them in one transaction.

    SQLite cannot change the type of a column, and making the table again would lose what users have built upon it. The
    WAL grows by the size of the table while the transaction lasts, and by no more (measured).

    Args:
        table: the table.
        column: the column.
        type_: its new type.
        value: SQL for the new value of the column in a row.
    """
    return [
        f"ALTER TABLE main.{quote(table)} ADD COLUMN {_REPLACEMENT} {format.STORED_AS[type_]}",
        f"UPDATE main.{quote(table)} SET {_REPLACEMENT} = {value}",
        f"ALTER TABLE main.{quote(table)} DROP COLUMN {quote(column)}",
        f"ALTER TABLE main.{quote(table)} RENAME COLUMN {_REPLACEMENT} TO {quote(column)}",
    ]
