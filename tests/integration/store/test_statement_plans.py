"""Statements of our own are prepared once, and not anew for each value that is bound to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from edgeshard import sqlite
from edgeshard.sqlite import Connection

#: A parameter limits an indexed column: statistics might favour another plan for another value.
_LOOK_UP = "SELECT max(first) FROM main.runs WHERE stream_no = ? AND first <= ?"

_TABLE = "CREATE TABLE runs(stream_no INTEGER, first INTEGER, PRIMARY KEY(stream_no, first)) WITHOUT ROWID"


@pytest.fixture(params=["writable", "untrusted", "in memory"])
def connection(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Connection]:
    path = str(tmp_path / "runs.db")
    with apsw.Connection(path) as made:
        made.execute(_TABLE)
    openings: dict[str, Callable[[], Connection]] = {
        "writable": lambda: sqlite.connect(path, writable=True),
        "untrusted": lambda: sqlite.connect_untrusted(path, 1.0),
        "in memory": lambda: sqlite.open_in_memory(_TABLE),
    }
    opened = openings[request.param]()
    yield opened
    opened.close()


def test_a_statement_of_ours_is_prepared_once(connection: Connection) -> None:
    assert _preparations(connection) == 1


def test_sql_of_others_is_planned_for_the_values_bound_to_it(connection: Connection) -> None:
    sqlite.allow_only_reading(connection, ["main"])
    assert _preparations(connection) > 1


def _preparations(connection: Connection) -> int:
    """Return how many times SQLite prepared a statement that was executed with ten values."""
    prepared = 0
    allow = connection.authorizer

    def authorize(action: int, *details: str | None) -> int:
        nonlocal prepared
        prepared += action == apsw.SQLITE_SELECT
        return apsw.SQLITE_OK if allow is None else allow(action, *details)

    connection.authorizer = authorize
    for value in range(10):
        connection.execute(_LOOK_UP, (value, value)).fetchall()
    return prepared
