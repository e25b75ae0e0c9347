"""Find late changes: they arrive after a possibly newer tombstone was collected. They are kept, and reported.

A lost row is worse than one that comes back, and it is no longer known whether the tombstone was for this row's key. So
a row counts as late if its timestamp is not after that of the newest tombstone collected from its table, and nothing
else is known of its key.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeshard import format, sqlite
from edgeshard.format.ranges import Range
from edgeshard.master import tombstone_gc
from edgeshard.merge.target import Target
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sqlite import quote

#: A temporary table of the connection. No record table has a name that begins with "_".
_LATE = "temp._late_rows"


def find(target: Target, ids: Range) -> list[str]:
    """Return the keyed tables that got late rows with these ids. Call it before `conflicts.settle`."""
    found = []
    collected = tombstone_gc.newest_pruned(target.connection) if target.keys else {}
    for name, timestamp in collected.items():
        key = target.keys.get(name)
        if key is not None:
            target.connection.execute(f"CREATE TABLE IF NOT EXISTS {_LATE}(name, row_id INTEGER)")
            sql = f"INSERT INTO {_LATE} {_select(name, key)}"
            target.connection.execute(sql, (name, ids.first, ids.last, timestamp))
            found += [name] if target.connection.changes() else []
    return found


def _select(name: str, key: Key) -> str:
    has_key = sqlite.all_of([f"r.{quote(column)} IS NOT NULL" for column in key.columns])
    equal = sqlite.all_of([f"o.{quote(column)} = r.{quote(column)}" for column in key.columns])
    others = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM main.{quote(table)} o WHERE {equal} AND o._id NOT BETWEEN ?2 AND ?3)"
        for table, _ in keys.changed_tables(name, key)
    )
    timestamp = f"coalesce(r.{format.TIMESTAMP}, 0)"
    return (
        f"SELECT ?1, _id FROM main.{quote(name)} r WHERE _id BETWEEN ?2 AND ?3 AND {timestamp} <= ?4 AND {has_key} "
        f"AND {others}"
    )


def find_kept(target: Target, found: Sequence[str]) -> set[str]:
    """Return which of these tables still have late rows after `conflicts.settle`."""
    still = set()
    for name in found:
        sql = f"SELECT 1 FROM {_LATE} JOIN main.{quote(name)} ON _id = row_id WHERE name = ? LIMIT 1"
        if sqlite.scalar(target.connection, sql, (name,)) is not None:
            still.add(name)
    if found:
        target.connection.execute(f"DELETE FROM {_LATE}")
    return still
