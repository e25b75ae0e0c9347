"""SQL that applies a key's rule (records/keys) to a master's rows."""

from __future__ import annotations

from collections.abc import Iterable

from edgeshard import format, sqlite
from edgeshard.master import streams
from edgeshard.master.catalog import load_keys
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sqlite import Connection, quote


def select_superseded(name: str, key: Key, among: str = "") -> str:
    """Return a SELECT of the rows of a keyed table, tombstones included, that the master does not keep.

    Args:
        name: the keyed table.
        key: its key.
        among: a SELECT of keys, with columns in the order of the key's; only these are examined. "": all.

    Returns:
        SQL that yields each row's id, whether it is a tombstone, its stream's number, and whether a tombstone
        supersedes it.
    """
    names = ", ".join(f"k{number}" for number in range(len(key.columns)))
    parts = [
        _versions(table, key, is_tombstone=is_tombstone, among=bool(among))
        for table, is_tombstone in keys.changed_tables(name, key)
    ]
    begin = f"changed({names}) AS MATERIALIZED ({among}), " if among else ""
    terms = keys.order(key, ranked="ranked", timestamp="timestamp", address=("stream_id", "_seq"))
    place = f"row_number() OVER (PARTITION BY {names} ORDER BY {terms})"
    has_key = sqlite.all_of([f"k{number} IS NOT NULL" for number in range(len(key.columns))])
    deletion, lost = keys.judgement(key)
    last_tombstone = f"min({deletion}) OVER (PARTITION BY {names})"
    return (
        f"WITH {begin}versions AS ({' UNION ALL '.join(parts)}), "
        f"placed AS (SELECT versions.*, {place} AS place FROM versions {streams.JOIN_RECORDS} WHERE {has_key}), "
        f"judged AS (SELECT _id, is_tombstone, _stream, place, {last_tombstone} AS last_tombstone FROM placed) "
        f"SELECT _id, is_tombstone, _stream, last_tombstone IS NOT NULL FROM judged WHERE {lost}"
    )


def _versions(table: str, key: Key, *, is_tombstone: bool, among: bool) -> str:
    ranked = f"t.{quote(keys.ranked_by(key.conflict))}" if keys.ranked_by(key.conflict) else "NULL"
    values = [f"t.{quote(column)} AS k{number}" for number, column in enumerate(key.columns)]
    picked = [
        f"t._id, {is_tombstone:d} AS is_tombstone, t._stream, t._seq, t.{quote(format.TIMESTAMP)} AS timestamp",
        f"{ranked} AS ranked",
        *values,
    ]
    equal = sqlite.all_of([f"t.{quote(column)} = c.k{number}" for number, column in enumerate(key.columns)])
    where = f"changed c CROSS JOIN main.{quote(table)} t ON {equal}" if among else f"main.{quote(table)} t"
    return f"SELECT {', '.join(picked)} FROM {where}"


def select_changed_keys(name: str, key: Key) -> str:
    """Return a SELECT of the keys of the rows with ids from ?1 to ?2.

    The ids are bindings, so that SQLite prepares the statement once and not for each source of a merge.
    """
    columns = ", ".join(map(quote, key.columns))
    return " UNION ".join(
        f"SELECT DISTINCT {columns} FROM main.{quote(table)} WHERE _id BETWEEN ?1 AND ?2"
        for table, _ in keys.changed_tables(name, key)
    )


def tables_with_superseded(connection: Connection, tables: Iterable[str]) -> list[tuple[str, int]]:
    """Return which of these tables of a master have rows that should have been superseded, and how many."""
    found = []
    there = {name.lower() for name in tables}
    for name, key in load_keys(connection).items():
        if there.issuperset(table.lower() for table, _ in keys.changed_tables(name, key)):
            lost = sqlite.scalar(connection, f"SELECT count(*) FROM ({select_superseded(name, key)})")
            found += [(name, lost)] if lost else []
    return found


def newest_by_agent(connection: Connection, table: str, after: int) -> list[tuple[str, int]]:
    """Return the agents with rows or tombstones of a keyed table after a timestamp, each with its newest timestamp."""
    found: dict[str, int] = {}
    for name in (table, keys.deleted_name(table)):
        if sqlite.has_table(connection, name):
            sql = (
                f"SELECT streams.agent_id, max({format.TIMESTAMP}) FROM main.{quote(name)} {streams.JOIN_RECORDS} "
                f"WHERE {format.TIMESTAMP} > ? GROUP BY streams.agent_id ORDER BY streams.agent_id"
            )
            for agent, newest in sqlite.fetch(connection, sql, (after,)):
                found[agent] = max(newest, found.get(agent, 0))
    return sorted(found.items())
