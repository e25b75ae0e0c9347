"""Changes that come although a deletion that was pruned may have been later: they are kept, and reported.

A lost row is worse than one that comes back, and nothing says any more whether it was this row's key. So a row counts
as late that is timestamped before the newest deletion that was pruned of its table, where nothing else is known of its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeshard import format, sqlite
from edgeshard.master import tombstone_gc
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sqlite import quote

if TYPE_CHECKING:
    from edgeshard.merge.apply import Target


_LATE = "temp.edgeshard_late"


def find(target: Target, first_id: int) -> list[str]:
    """The keyed tables of which such rows came by ids from one on; called before it is settled which are kept."""
    found = []
    known = tombstone_gc.newest_pruned(target.connection) if target.keys else {}
    for name, timestamp in known.items():
        key = target.keys.get(name)
        if key is not None:
            target.connection.execute(f"CREATE TABLE IF NOT EXISTS {_LATE}(name, row_id INTEGER)")
            sql = f"INSERT INTO {_LATE} {_select(name, key)}"
            target.connection.execute(sql, (name, first_id, timestamp))
            found += [name] if target.connection.changes() else []
    return found


def _select(name: str, key: Key) -> str:
    has_key = " AND ".join(f"r.{quote(column)} IS NOT NULL" for column in key.columns)
    equal = " AND ".join(f"o.{quote(column)} = r.{quote(column)}" for column in key.columns)
    others = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM main.{quote(table)} o WHERE {equal} AND o._id < ?2)"
        for table, _ in keys.changed_tables(name, key)
    )
    timestamp = f"coalesce(r.{format.TIMESTAMP}, 0)"
    return f"SELECT ?1, _id FROM main.{quote(name)} r WHERE _id >= ?2 AND {timestamp} <= ?3 AND {has_key} AND {others}"


def kept(target: Target, found: Sequence[str]) -> set[str]:
    """Those tables of which such rows were kept once that was settled."""
    still = set()
    for name in found:
        sql = f"SELECT 1 FROM {_LATE} JOIN main.{quote(name)} ON _id = row_id WHERE name = ? LIMIT 1"
        if sqlite.scalar(target.connection, sql, (name,)) is not None:
            still.add(name)
    if found:
        target.connection.execute(f"DELETE FROM {_LATE}")
    return still
