"""Own _edgeshard_warnings: what users made in a master that is not as they may think, and of which the log has warned.

These are triggers on record tables, which do not fire while we write, and whatever has the name of a view of ours.
"""

from __future__ import annotations

import attrs

from edgeshard import sqlite
from edgeshard.master import agent_views, by_hand, catalog
from edgeshard.sqlite import Connection


@attrs.frozen
class UserObjects:
    """Names of what users made.

    Attributes:
        triggers: triggers on record tables.
        in_the_way: tables, views and indexes that have the names of views of ours.
    """

    triggers: tuple[str, ...]
    in_the_way: tuple[str, ...]


def triggers(connection: Connection) -> list[str]:
    """Return the names of the triggers that users made on record tables, sorted."""
    tables = {name.lower() for name in catalog.record_tables(connection)}
    sql = "SELECT name, tbl_name FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name"
    return [
        name
        for name, table in sqlite.fetch(connection, sql)
        if table.lower() in tables and not by_hand.is_own_trigger(name)
    ]


def note_new(connection: Connection) -> UserObjects:
    """Return those that were never returned before, and record them."""
    found = {("trigger", name) for name in triggers(connection)}
    found |= {("view", name) for name in agent_views.in_the_way(connection)}
    known = set(sqlite.fetch(connection, "SELECT kind, name FROM main._edgeshard_warnings"))
    if known != found:
        with sqlite.immediate(connection):
            connection.execute("DELETE FROM main._edgeshard_warnings")
            connection.executemany("INSERT INTO main._edgeshard_warnings VALUES (?, ?)", sorted(found))
    new = sorted(found - known)
    return UserObjects(*(tuple(name for kind, name in new if kind == each) for each in ("trigger", "view")))
