"""Databases of other programs, made and changed by apsw, which edgeshard uses as well: another SQLite library in the
process would drop its locks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw


def run(path: Path | str, *statements: str, rows: list[tuple[Any, ...]] | None = None) -> list[Any]:
    """Run statements on a database, which is made if it is not there, and return the rows of the last one.

    Args:
        path: the database.
        statements: the statements; each is committed.
        rows: bindings, for each of which the last statement is run.
    """
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(60_000)
    try:
        for sql in statements[:-1] if rows is not None else statements:
            found = connection.execute(sql).fetchall()
        if rows is not None:
            with connection:
                connection.executemany(statements[-1], rows)
            found = []
        return found
    finally:
        connection.close()
