"""The views of a master that name the agent of each row: ``reading_with_agent`` for the table ``reading``.

Each record table of a master has one, also the tables of tombstones and of history. It has the agent's name and the
beginning of the stream, and then all columns of the table. ``t.*`` follows the table when columns are added, renamed
or dropped, so a view is made again only if the table gains or loses a column of its own called ``agent_id``.

A user may drop a view, which is made again, or make something else with its name, which stays (`in_the_way`): then the
table has no such view, and everything else works.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from edgeshard import sqlite
from edgeshard.master import catalog, streams
from edgeshard.records.columns import DICT_COLUMNS
from edgeshard.records.names import VIEW_SUFFIX
from edgeshard.sqlite import Connection, quote

#: Tells our views from those of users.
_MARK: Final = "/* made by edgeshard */"

_AGENT: Final = "agent_id"


def view_name(table: str) -> str:
    """Return the name of the view of a record table."""
    return table + VIEW_SUFFIX


def create_view(table: str, columns: Collection[str]) -> str:
    """Return the statement that makes the view of a record table.

    Args:
        table: the table.
        columns: the names of its columns, in lower case.
    """
    agent = f"s.{_AGENT}, "
    if DICT_COLUMNS.keys() == set(columns):
        agent = ""  # a table of dicts has a column with the same value
    elif _AGENT in columns:
        agent = f"s.{_AGENT} AS _{_AGENT}, "
    return (
        f"CREATE VIEW {quote(view_name(table))} AS SELECT {_MARK} {agent}s.began_at AS _began_at, t.* "
        f"FROM {quote(table)} AS t {streams.JOIN_IN_VIEW}"
    )


def ensure(connection: Connection, table: str, columns: Collection[str]) -> None:
    """Make the view of a record table, or make it again if the table has other columns now; in a transaction.

    Args:
        connection: the master.
        table: the table.
        columns: the names of its columns, in lower case.
    """
    for sql in _changes(_objects(connection, view_name(table)), {table: columns}):
        connection.execute(sql)


def changes(connection: Connection) -> list[str]:
    """Return the statements that make the views which are missing, or are not as they should be: almost always none."""
    columns: dict[str, set[str]] = {}
    for table, column, _ in catalog.all_columns(connection):
        columns.setdefault(table, set()).add(column.lower())
    return _changes(_objects(connection), columns)


def _changes(objects: Mapping[str, str], columns: Mapping[str, Collection[str]]) -> list[str]:
    found = []
    for table, names in columns.items():
        name = view_name(table)
        there, wanted = objects.get(name.lower()), create_view(table, names)
        if there is not None and (there == wanted or not _is_own(there)):
            continue
        found += [] if there is None else [f"DROP VIEW main.{quote(name)}"]
        found.append(wanted)
    return found


def drop(connection: Connection, table: str) -> None:
    """Drop the view of a record table, if it has one."""
    name = view_name(table)
    if _is_own(_objects(connection, name).get(name.lower(), "")):
        connection.execute(f"DROP VIEW main.{quote(name)}")


def in_the_way(connection: Connection) -> list[str]:
    """Return the names of the tables, views and indexes of users that have the name of a view of ours, sorted."""
    objects = _objects(connection)
    names = [view_name(table) for table in catalog.record_tables(connection)]
    return [name for name in names if name.lower() in objects and not _is_own(objects[name.lower()])]


def _objects(connection: Connection, name: str | None = None) -> dict[str, str]:
    """Map the names that no new view could have, or only this one, in lower case, to the SQL that made them."""
    sql = (
        "SELECT lower(name), coalesce(sql, '') FROM main.sqlite_schema WHERE type IN ('table', 'view', 'index') "
        "AND (?1 IS NULL OR name = ?1 COLLATE NOCASE)"
    )
    return dict(sqlite.fetch(connection, sql, (name,)))


def _is_own(sql: str) -> bool:
    return sql.startswith("CREATE VIEW ") and _MARK in sql
