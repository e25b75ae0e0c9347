"""Of each key of a keyed table, keep what its rule says, in the transaction that brings the rows: see keys.py.

    1  whatever is copied is copied as always, under its address, with blocks and ranges
    2  of the keys that came, all versions are put in order, those that were here before with them
    3  those that are not kept are deleted, or moved to the history; how many of each stream is noted

A shard's versions that a later one in the same shard replaces are not even copied. A kill leaves all of it, or nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, SchemaConflictError
from edgeshard.format.blocks import Block
from edgeshard.master import catalog, versions
from edgeshard.records import hlc, keys
from edgeshard.records.keys import Key
from edgeshard.sources.source import Source, SourceTable
from edgeshard.sqlite import Connection, quote

if TYPE_CHECKING:
    from edgeshard.merge.apply import Target


logger = logging.getLogger("edgeshard.merge")

_TIMESTAMP = (format.TIMESTAMP, format.OWN_COLUMNS[format.TIMESTAMP])

_REASON = (format.REASON, format.OWN_COLUMNS[format.REASON])

_LOSERS = "temp.edgeshard_losers"

# -- which tables are keyed -------------------------------------------------------------------------------------------


def check(target: Target, origin: Source, table: SourceTable) -> None:
    """Refuse a table of its own by the name of one that belongs to a keyed table, and a table with another key.

    Raises:
        SchemaConflictError: it is one of these.
    """
    before = target.keys.get(target.spelling.get(table.name.lower(), ""))
    if table.key is not None and before is not None and before.folded != table.key.folded:
        cause = (
            f"table {table.name} has the key ({', '.join(table.key.columns)}) with conflict {table.key.conflict!r} in "
            f"it, and in the master ({', '.join(before.columns)}) with {before.conflict!r}"
        )
        raise _conflict(origin, cause)
    owner = keys.companions(target.keys).get(table.name.lower())
    if owner is not None and (table.key is not None or not table.is_timestamped):
        raise _conflict(origin, f"table {table.name} is where the master keeps deletions or the history of {owner}")


def ensure_key(target: Target, origin: Source, name: str, table: SourceTable) -> bool:
    """Make the target's table a keyed one, where the source's is; `companions` says what belongs to it then.

    Args:
        target: where to.
        origin: where from.
        name: the table, as it is spelt in the target; it has all its columns.
        table: the source's.

    Returns:
        Whether it was none before.

    Raises:
        SchemaConflictError: there is a plain table by the name of one that belongs to it.
    """
    before = target.keys.get(name)
    key = table.key or before
    if key is None:
        return False
    if before is not None:
        key = attrs.evolve(before, history=before.history or key.history)
    if key != before:
        _note_key(target, origin, name, key)
    return before is None


def companions(target: Target, name: str) -> list[SourceTable]:
    """The tables that must belong to one of the target's, as if a source had them.

    The history's columns are the table's: they are renamed, and widened, as they are there.
    """
    key, kinds, found = target.keys.get(name), target.columns[name.lower()], []
    if key is not None and key.deletes:
        columns = [(column, kinds[column.lower()]) for column in key.columns]
        found.append(SourceTable(keys.deleted_name(name), (_TIMESTAMP, *columns), ()))
    if key is not None and key.history:
        columns = [item for item in kinds.items() if item != _TIMESTAMP]
        arrows = tuple(target.renames.get(name.lower(), ()))
        found.append(SourceTable(keys.history_name(name), (_TIMESTAMP, _REASON, *columns), (), renames=arrows))
    return found


def _note_key(target: Target, origin: Source, name: str, key: Key) -> None:
    keyed = {each.lower() for each in target.keys}
    for folded in keys.companions({name: key}):
        there = target.columns.get(folded)
        if there is not None and (folded in keyed or format.TIMESTAMP not in there):
            raise _conflict(
                origin, f"table {name} has a key in it, and the master has a table {folded} of another kind"
            )
    if name in target.keys:
        sql = f"UPDATE main.{format.KEYS} SET has_history = ? WHERE table_name = ?"
        target.connection.execute(sql, (int(key.history), name))
    else:
        for statement in catalog.add_key(target.connection, name, key):
            target.connection.execute(*statement)
    target.keys[name] = key


def _conflict(origin: Source, what: str) -> SchemaConflictError:
    cause = (
        f"{what}. Nothing of the shard is lost: it can be merged into a store of its own. Let its agent write to a "
        "shard of another name, with a class whose table has another name"
    )
    return SchemaConflictError("merge", origin.path, cause)


# -- what is copied ---------------------------------------------------------------------------------------------------


def thinning_key(target: Target, origin: Source, table: SourceTable) -> Key | None:
    """The key of which only one version of a piece need be copied; None: all of the table's rows are."""
    if not origin.is_shard or not table.is_timestamped or not target.is_indexed:
        return None
    key = target.keys.get(_owner(target, table))
    if key is None or (table.key and (key.history or key.conflict == keys.KEEP_ALL)):
        return None
    return key if table.key else Key(key.columns)


def kept_ids(source_table: str, key: Key) -> str:
    """A SELECT of the ids, of those from ?4 to ?5, that are kept of a piece of one stream."""
    columns = [quote(column) for column in key.columns]
    ranked = quote(keys.ranked_by(key.conflict))
    terms = keys.order(key, ranked=ranked, timestamp=quote(format.TIMESTAMP), address=("_id",))
    return (
        f"SELECT _id FROM (SELECT _id, {' + '.join(f'({column} IS NULL)' for column in columns)} AS keyless, "
        f"row_number() OVER (PARTITION BY {', '.join(columns)} ORDER BY {terms}) AS place "
        f"FROM {source_table} NOT INDEXED WHERE _id BETWEEN ?4 AND ?5 AND +_id >= ?4) WHERE place = 1 OR keyless"
    )


def count(target: Target, origin: Source, table: SourceTable, piece: Block) -> int:
    """How many rows of a piece a timestamped table of a source has; the target notes the newest timestamp.

    Raises:
        DamagedError: a timestamp is of a time that no clock shows.
    """
    sql = (
        f"SELECT count(*), max({format.TIMESTAMP}), min({format.TIMESTAMP}) FROM {quote(origin.schema)}.{quote(table.name)} "
        "NOT INDEXED WHERE _id BETWEEN ?1 AND ?2 AND +_id >= ?1"
    )
    ((rows, newest, oldest),) = sqlite.fetch(target.connection, sql, (piece.first_id, piece.last_id))
    if newest is not None:
        if newest > format.TIMESTAMP_MAX or oldest < 0:
            cause = f"table {table.name} has changes that are timestamped {oldest} to {newest}, which no clock shows"
            raise DamagedError("merge", origin.path, cause)
        _note_timestamp(target, origin, _owner(target, table), newest)
    return int(rows)


def _owner(target: Target, table: SourceTable) -> str:
    """The keyed table of the target that a timestamped one of a source belongs to, or is; "" where none is known."""
    folded = table.name.lower()
    return target.spelling[folded] if table.key else keys.companions(target.keys).get(folded, "")


def _note_timestamp(target: Target, origin: Source, owner: str, timestamp: int) -> None:
    where = "table_name = ? AND last_timestamp < ?"
    before = sqlite.scalar(
        target.connection, f"SELECT last_timestamp FROM main.{format.KEYS} WHERE {where}", (owner, timestamp)
    )
    if before is None:
        return
    target.connection.execute(
        f"UPDATE main.{format.KEYS} SET last_timestamp = ? WHERE {where}", (timestamp, owner, timestamp)
    )
    limit = hlc.now_us() + hlc.REPORTED_AHEAD_US
    if before <= limit < timestamp:
        days = (timestamp - hlc.now_us()) / hlc.DAY_US
        text = (
            "%s brings changes of table %s that are timestamped %.1f days ahead of this clock: they count as the last"
        )
        logger.warning(text, origin.path, owner, days)


# -- what is kept -----------------------------------------------------------------------------------------------------


def settle(target: Target, first_id: int) -> None:
    """Of each key that rows from an id on have, keep what its rule says."""
    if target.next_id > first_id:
        for name, key in target.keys.items():
            _settle(target.connection, name, key, first_id)


def settle_table(target: Target, name: str) -> None:
    """The same of all keys of a table that has just become a keyed one."""
    if target.is_indexed:
        _settle(target.connection, name, target.keys[name], 1)


def _settle(connection: Connection, name: str, key: Key, first_id: int) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {_LOSERS}(row_id INTEGER PRIMARY KEY, is_deletion, stream_no, was_deleted)"
    )
    connection.execute(
        f"INSERT INTO {_LOSERS} {versions.select_superseded(name, key, versions.select_changed_keys(name, key, first_id))}"
    )
    if not connection.changes():
        return
    if key.history:
        _move_to_history(connection, name)
    for table, is_deletion in keys.changed_tables(name, key):
        lost = f"SELECT row_id FROM {_LOSERS} WHERE is_deletion = {is_deletion}"
        connection.execute(f"DELETE FROM main.{quote(table)} WHERE _id IN ({lost})")
    rows = f"SELECT stream_no, count(*) FROM {_LOSERS} WHERE is_deletion OR NOT ? GROUP BY stream_no"
    for number, lost_rows in sqlite.fetch(connection, rows, (int(key.history),)):
        note_replaced(connection, number, lost_rows)
    connection.execute(f"DELETE FROM {_LOSERS}")


def _move_to_history(connection: Connection, name: str) -> None:
    described = sqlite.fetch(connection, f"PRAGMA main.table_info({quote(name)})")
    names = ", ".join(quote(row[1]) for row in described)
    connection.execute(
        f"INSERT INTO main.{quote(keys.history_name(name))}({names}, {format.REASON}) "
        f"SELECT {names}, iif(was_deleted, ?, ?) FROM main.{quote(name)} JOIN {_LOSERS} ON row_id = _id "
        "WHERE NOT is_deletion ORDER BY _id",
        (keys.WAS_DELETED, keys.WAS_REPLACED),
    )


def note_replaced(connection: Connection, number: int, rows: int) -> None:
    """Note that so many more seqs of a stream are in its blocks and have no row."""
    if rows:
        connection.execute(
            f"INSERT INTO main.{format.SUPERSEDED} VALUES (?1, ?2) ON CONFLICT(stream_no) DO UPDATE SET rows = rows + ?2",
            (number, rows),
        )
