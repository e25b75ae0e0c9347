"""Run one statement of a user's SQL, which may only read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import attrs

from edgeshard.sqlite.rows import Bindings
from edgeshard.sqlite.shell import describe


class StatementError(ValueError):
    """SQL that is not exactly one statement that returns rows. The text says what it is instead."""


class WritingStatementError(StatementError):
    """SQL that would change something."""


@attrs.frozen
class Origin:
    """Where a column of a result comes from.

    Attributes:
        declared_type: the type that its table declares for it, or None.
        schema: "main", or the name of an attached database; None for an expression, as all below.
        table: the table, also if it is read through a view.
        column: the name that the column has there.
    """

    declared_type: str | None
    schema: str | None
    table: str | None
    column: str | None


@attrs.define  # not frozen: each look-up makes one, and a frozen one takes 1 µs more (measured)
class Result:
    """The result of a statement.

    Attributes:
        names: the names of its columns, as SQLite gives them; some may be equal.
        origins: where each column comes from; () unless it was asked for.
        rows: the rows, as SQLite finds them. Iterating raises what SQLite reports, and a StatementError once it meets
            a second statement.
    """

    names: tuple[str, ...]
    origins: tuple[Origin, ...]
    rows: Iterable[tuple[Any, ...]]


def read_one(connection: apsw.Connection, sql: str, bindings: Bindings, *, with_origins: bool = False) -> Result:
    """Run one statement. Whatever writes, or returns no rows, is refused before it runs.

    Raises:
        StatementError: it is not exactly one statement that returns rows.
        apsw.Error: SQLite refuses it.
    """
    cursor = connection.cursor()
    results: list[Result] = []

    def examine(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        if cursor.has_vdbe:  # otherwise it is empty, or a comment
            columns = _columns_of_one_that_reads(cursor, len(results) + 1)
            names = tuple([column[0] for column in columns])
            origins = tuple(Origin(*column[1:]) for column in cursor.description_full) if with_origins else ()
            results.append(Result(names, origins, cursor))
        return True

    cursor.exec_trace = examine
    cursor.execute(sql, bindings)
    if not results:
        raise StatementError("the SQL is empty")
    return results[0]


def check_one(connection: apsw.Connection, sql: str, bindings: Bindings) -> None:
    """Check SQL as `read_one` does, without running it.

    Raises:
        StatementError: it is not exactly one statement that returns rows.
        apsw.Error: SQLite refuses it.
    """
    cursor = connection.cursor()
    count = 0

    def examine(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        nonlocal count
        if cursor.has_vdbe:
            count += 1
            _columns_of_one_that_reads(cursor, count)
        return False

    with contextlib.suppress(apsw.ExecTraceAbort):
        cursor.exec_trace = examine
        cursor.execute(sql, bindings)
    if not count:
        raise StatementError("the SQL is empty")
    if not describe(connection, sql).is_one:
        raise StatementError("the SQL has several statements")


def _columns_of_one_that_reads(cursor: apsw.Cursor, count: int) -> tuple[tuple[str, str | None], ...]:
    """Return the name and the declared type of each column."""
    if count > 1:
        raise StatementError("the SQL has several statements")
    if not cursor.is_readonly:
        raise WritingStatementError("the statement would write")
    columns = cursor.get_description()
    if not columns:
        raise StatementError("the statement returns no rows")
    return columns


def names_of(origins: Sequence[Origin]) -> list[tuple[str, str, str] | None]:
    """Return (schema, table, column) of each origin in lower case; None for expressions."""
    return [
        (each.schema.lower(), each.table.lower(), each.column.lower())
        if each.schema is not None and each.table is not None and each.column is not None
        else None
        for each in origins
    ]
