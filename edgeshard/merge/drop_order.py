"""Which rows of a master a disk budget may drop, and from which tables first."""

from __future__ import annotations

from typing import Final

from edgeshard import sqlite
from edgeshard.master import catalog
from edgeshard.records import keys
from edgeshard.sqlite import Connection

#: How many pages a master has besides one for each table and index, and may get by a prune: 6 and 2.
_OTHER_PAGES: Final = 8


def droppable_bytes(connection: Connection) -> int:
    """Return about how many bytes of the master are rows that may be dropped."""
    used = sqlite.used_bytes(connection) - _fixed_bytes(connection)
    current = {table.lower() for table in catalog.current_tables(connection)}
    names = catalog.record_tables(connection)
    if not current:
        return max(0, used)
    rows = {name: int(sqlite.scalar(connection, f"SELECT count(*) FROM {sqlite.quote(name)}") or 0) for name in names}
    droppable = sum(count for name, count in rows.items() if name.lower() not in current)
    return max(0, used * droppable // max(1, sum(rows.values())))


def _fixed_bytes(connection: Connection) -> int:
    """Return what stays if all rows are dropped: a page of each table and index, the schema, and notes of the prune."""
    trees = int(sqlite.scalar(connection, "SELECT count(*) FROM main.sqlite_schema WHERE rootpage > 0") or 0)
    return (trees + _OTHER_PAGES) * int(connection.pragma("page_size"))


def tables_by_priority(connection: Connection) -> list[tuple[str, ...] | None]:
    """Return the tables from which rows are dropped together, least important first; [None] for all tables alike."""
    known = catalog.load_priorities(connection)
    keyed = catalog.load_keys(connection)
    current = {table.lower() for table in keys.current_tables(keyed)}
    owners = {keys.history_name(name).lower(): name.lower() for name in keyed}
    by_priority: dict[int, list[str]] = {}
    for name in catalog.record_tables(connection):
        folded = name.lower()
        if folded not in current:
            by_priority.setdefault(known.get(owners.get(folded, folded), 0), []).append(name)
    return (
        [None] if len(by_priority) == 1 and not current else [tuple(names) for _, names in sorted(by_priority.items())]
    )
