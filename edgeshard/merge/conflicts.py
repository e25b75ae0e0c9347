"""Settle keyed tables after new rows arrived: keep the versions that the rule (records/keys) keeps.

All of it happens in the transaction that brings the rows, so that a kill leaves all of it or nothing:

    1. Copy the rows as always, under their addresses, with blocks and ranges.
    2. Order all versions of the keys that came, including those that the target had before.
    3. Delete the versions that are not kept, or move them to the history, and count them for each stream.

A version that a later one in the same shard supersedes is not even copied.
"""

from __future__ import annotations

import logging

from edgeshard import format, sqlite
from edgeshard.errors import printable
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range
from edgeshard.log_fields import fields
from edgeshard.master import catalog, superseded, versions
from edgeshard.merge.target import Target
from edgeshard.records import hlc, keys
from edgeshard.records.keys import Key
from edgeshard.sources import streams as source_streams
from edgeshard.sources.source import Source, SourceTable
from edgeshard.sqlite import Connection, quote

logger = logging.getLogger("edgeshard.merge")

#: A temporary table of the connection. No record table has a name that begins with "_".
_LOSERS = "temp._losers"

# -- what is copied ---------------------------------------------------------------------------------------------------


def thinning_key(target: Target, origin: Source, table: SourceTable) -> Key | None:
    """Return the key for which one version per piece is enough, or None if all rows must be copied."""
    if not origin.is_shard or not table.is_timestamped or not target.is_indexed:
        return None
    key = target.keys.get(_owner(target, table))
    if key is None or (table.key and (key.history or key.conflict == keys.KEEP_ALL)):
        return None
    return key if table.key else Key(key.columns)


def kept_ids(source_table: str, key: Key) -> str:
    """Return a SELECT of the ids from ?4 to ?5 whose rows are kept, in a piece of one stream."""
    columns = [quote(column) for column in key.columns]
    has_key = sqlite.all_of([f"{column} IS NOT NULL" for column in columns])
    ranked = quote(keys.ranked_by(key.conflict))
    terms = keys.order(key, ranked=ranked, timestamp=quote(format.TIMESTAMP), address=("_id",))
    return (
        f"SELECT _id FROM (SELECT _id, {has_key} AS has_key, "
        f"row_number() OVER (PARTITION BY {', '.join(columns)} ORDER BY {terms}) AS place "
        f"FROM {source_table} NOT INDEXED WHERE _id BETWEEN ?4 AND ?5 AND +_id >= ?4) WHERE place = 1 OR NOT has_key"
    )


def count_changes(target: Target, origin: Source, table: SourceTable, piece: Block) -> int:
    """Count the rows that a timestamped table has in a piece, and record the newest timestamp in the target.

    Raises:
        DamagedError: a timestamp is outside of what any clock shows.
    """
    rows, _, newest = source_streams.timestamps(target.connection, origin, table, piece)
    if newest is not None:
        _record_timestamp(target, origin, _owner(target, table), newest)
    return rows


def _owner(target: Target, table: SourceTable) -> str:
    """Return the target's keyed table that a source's timestamped table is, or is a companion of; "" if unknown."""
    folded = table.name.lower()
    return target.spelling[folded] if table.key else keys.companions(target.keys).get(folded, "")


def _record_timestamp(target: Target, origin: Source, owner: str, timestamp: int) -> None:
    before = catalog.raise_last_timestamp(target.connection, owner, timestamp)
    limit = hlc.now_us() + hlc.REPORTED_AHEAD_US
    if before is not None and before <= limit < timestamp:
        days = (timestamp - hlc.now_us()) / hlc.DAY_US
        text = "%s has changes of table %s with timestamps %.1f days ahead of this clock: they count as the newest"
        logger.warning(text, printable(origin.path), owner, days, extra=fields(shard=origin.path))


# -- what is kept -----------------------------------------------------------------------------------------------------


def settle(target: Target, ids: Range) -> None:
    """Apply each table's rule to the keys of the rows with these ids."""
    for name, key in target.keys.items():
        _settle(target.connection, name, key, ids)


def _has_changes(connection: Connection, name: str, key: Key, ids: Range) -> bool:
    """Return whether a keyed table got rows: if not, no SQL over its key need be prepared, which may take 150 ms."""
    sql = "SELECT 1 FROM main.{} WHERE _id BETWEEN ? AND ? LIMIT 1"
    return any(
        sqlite.scalar(connection, sql.format(quote(table)), (ids.first, ids.last)) is not None
        for table, _ in keys.changed_tables(name, key)
    )


def _settle(connection: Connection, name: str, key: Key, ids: Range) -> None:
    if not _has_changes(connection, name, key, ids):
        return
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {_LOSERS}(row_id INTEGER PRIMARY KEY, is_tombstone, stream_no, was_deleted)"
    )
    changed_keys = versions.select_changed_keys(name, key)
    losers = f"INSERT INTO {_LOSERS} {versions.select_superseded(name, key, changed_keys)}"
    connection.execute(losers, (ids.first, ids.last))
    if not connection.changes():
        return
    if key.history:
        _move_to_history(connection, name)
    for table, is_tombstone in keys.changed_tables(name, key):
        lost = f"SELECT row_id FROM {_LOSERS} WHERE is_tombstone = {is_tombstone}"
        connection.execute(f"DELETE FROM main.{quote(table)} WHERE _id IN ({lost})")
    rows = f"SELECT stream_no, count(*) FROM {_LOSERS} WHERE is_tombstone OR NOT ? GROUP BY stream_no"
    for stream_no, lost_rows in sqlite.fetch(connection, rows, (int(key.history),)):
        superseded.add(connection, stream_no, lost_rows)
    connection.execute(f"DELETE FROM {_LOSERS}")


def _move_to_history(connection: Connection, name: str) -> None:
    # those that we made: the table may have others that were added by hand
    _, recorded = catalog.columns_of_table(connection, name)
    columns = [quote(column) for column in ["_id", "_stream", "_seq", *recorded]]
    moved = ", ".join(f"t.{column}" for column in columns)  # they may have the names of the other table's
    connection.execute(
        f"INSERT INTO main.{quote(keys.history_name(name))}({', '.join(columns)}, {format.REASON}) "
        # CROSS: SQLite would read the whole table, to get the rows in order without sorting the few that are moved
        f"SELECT {moved}, iif(l.was_deleted, ?, ?) FROM {_LOSERS} l CROSS JOIN main.{quote(name)} t "
        "ON t._id = l.row_id WHERE NOT l.is_tombstone ORDER BY l.row_id",
        (keys.WAS_DELETED, keys.WAS_REPLACED),
    )
