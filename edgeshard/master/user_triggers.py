"""Own _edgeshard_triggers: the triggers of users on record tables, which do not fire while we write."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.master import by_hand, catalog
from edgeshard.sqlite import Connection


def names(connection: Connection) -> list[str]:
    """Return the names of the triggers that users made on record tables, sorted."""
    tables = {name.lower() for name in catalog.record_tables(connection)}
    sql = "SELECT name, tbl_name FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY name"
    return [
        name
        for name, table in sqlite.fetch(connection, sql)
        if table.lower() in tables and not by_hand.is_own_trigger(name)
    ]


def note_new(connection: Connection) -> list[str]:
    """Return those that were never returned before, and record them."""
    found = names(connection)
    known = {name for (name,) in sqlite.fetch(connection, "SELECT name FROM main._edgeshard_triggers")}
    new = [name for name in found if name not in known]
    if known != set(found):
        with sqlite.immediate(connection):
            connection.execute("DELETE FROM main._edgeshard_triggers")
            sql = "INSERT OR IGNORE INTO main._edgeshard_triggers VALUES (?)"
            connection.executemany(sql, [(name,) for name in found])
    return new
