"""Settle keyed tables in PostgreSQL: keep the versions that the rule (records/keys) keeps.

This happens in the transaction that brings the rows. A merge does the same in a master (merge/conflicts). Two devices
may bring versions of one key at the same time, and neither sees the other's before it is committed. So a transaction
first locks each keyed table for which it has rows (`own_tables.lock_keyed_tables`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from edgeshard import format
from edgeshard.postgres import indexes, names, schema, server_tables, values
from edgeshard.postgres.plan import OutdatedPlanError, Piece
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sqlite import quote

_BY_BYTES = ' COLLATE "C"'


def settle(server: Server, keyed: Iterable[Table], chunk: Sequence[Piece]) -> None:
    """Delete the versions that lose to others, for all keys of the chunk's rows."""
    streams = [uuid.UUID(bytes=piece.stream.stream_id) for piece in chunk]
    seqs = [piece.seqs for piece in chunk]
    bindings = (streams, [item.first for item in seqs], [item.last for item in seqs])
    for table in keyed:
        if table.key is not None:
            columns = _history_columns(server, table) if table.key.history else ()
            server.execute(_statement(table, table.key, columns), bindings)


def _history_columns(server: Server, table: Table) -> list[str]:
    """Return the columns that a version takes to the history: all that it has there, from all devices.

    Raises:
        OutdatedPlanError: another device added or widened a column of the table since the history was made fit.
    """
    history = server_tables.pg_types(server, table.pg_history)
    columns = server_tables.pg_types(server, table.pg_name)
    moved = [name for name in columns if name not in schema.PRIMARY_KEY]
    for name in moved:
        pg_type = columns[name]
        if pg_type in values.COLUMN_TYPES and not values.can_hold(history.get(name, ""), pg_type):
            raise OutdatedPlanError
    return [name for name in moved if name in history]


#: The rows whose keys are settled, in a table whose name is filled in.
_IN_CHUNK = (
    "FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS r(stream, first, last) "
    "JOIN {} t ON t._stream = r.stream AND t._seq BETWEEN r.first AND r.last"
)


def _statement(table: Table, key: Key, history_columns: Sequence[str]) -> str:
    columns = [f"k{number}" for number in range(len(key.columns))]
    sources = [(names.table_name(name), is_tombstone) for name, is_tombstone in keys.changed_tables(table.name, key)]
    fresh = " UNION ".join(
        f"SELECT DISTINCT {_key_columns(key)} {_IN_CHUNK.format(quote(name))}" for name, _ in sources
    )
    ranked = _ranked(table, key)
    versions = " UNION ALL ".join(
        _versions(name, table, key, "NULL" if is_tombstone else ranked, is_tombstone=is_tombstone)
        for name, is_tombstone in sources
    )
    by_key = f"PARTITION BY {', '.join(columns)}"
    deletion, lost = keys.judgement(key)
    order = keys.order(key, ranked="ranked", timestamp="timestamp", address=("_stream", "_seq"))
    steps = [
        f"fresh({', '.join(columns)}) AS ({fresh})",
        f"versions AS ({versions})",
        f"placed AS (SELECT versions.*, row_number() OVER ({by_key} ORDER BY {order}) AS place FROM versions)",
        f"judged AS (SELECT placed.*, min({deletion}) OVER ({by_key}) AS last_tombstone FROM placed)",
        f"lost AS (SELECT _stream, _seq, is_tombstone, last_tombstone FROM judged WHERE {lost})",
    ]
    if key.history:
        steps.append(f"kept AS ({_to_history(table, history_columns)})")
    steps += [
        f"deleted{number} AS (DELETE FROM {quote(name)} t USING lost WHERE t._stream = lost._stream "
        f"AND t._seq = lost._seq AND lost.is_tombstone = {is_tombstone})"
        for number, (name, is_tombstone) in enumerate(sources)
    ]
    return f"WITH {', '.join(steps)} SELECT count(*) FROM lost"


def _key_columns(key: Key) -> str:
    return ", ".join(f"t.{quote(names.column_name(column))}" for column in key.columns)


def _ranked(table: Table, key: Key) -> str:
    """Return SQL for the value that the rule compares. Texts compare by their bytes, as in SQLite."""
    column = keys.ranked_by(key.conflict).lower()
    types = {name.lower(): column_type for name, column_type in table.columns}
    by_bytes = _BY_BYTES if column and types[column] == "text" else ""
    return f"t.{quote(names.column_name(column))}{by_bytes}" if column else "NULL"


def _versions(name: str, table: Table, key: Key, ranked: str, *, is_tombstone: bool) -> str:
    types = {column.lower(): values.PG_TYPES[column_type] for column, column_type in table.columns}
    columns, equal = [], []
    for number, column in enumerate(key.columns):
        ours, theirs, pg_type = f"t.{quote(names.column_name(column))}", f"fresh.k{number}", types[column.lower()]
        columns.append(f"{ours} AS k{number}")
        equal.append(f"{ours} = {theirs}")
        if number < indexes.COLUMNS_MAX and not indexes.has_limit([pg_type]):
            # it follows from the above, and lets an index over starts be used
            starts = (indexes.start(value, pg_type, len(key.columns)) for value in (ours, theirs))
            equal.append(" = ".join(starts))
    return (
        f"SELECT t._stream, t._seq, {is_tombstone} AS is_tombstone, t.{format.TIMESTAMP} AS timestamp, "
        f"{ranked} AS ranked, {', '.join(columns)} FROM fresh JOIN {quote(name)} t ON {' AND '.join(equal)}"
    )


def _to_history(table: Table, columns: Sequence[str]) -> str:
    reason = f"CASE WHEN lost.last_tombstone IS NULL THEN '{keys.WAS_REPLACED}' ELSE '{keys.WAS_DELETED}' END"
    return (
        f"INSERT INTO {quote(table.pg_history)} "
        f"(_stream, _seq, {', '.join(quote(column) for column in columns)}, {format.REASON}) "
        f"SELECT t._stream, t._seq, {', '.join(f't.{quote(column)}' for column in columns)}, {reason} "
        f"FROM {quote(table.pg_name)} t JOIN lost ON t._stream = lost._stream AND t._seq = lost._seq "
        # a merge may have moved a version to the history while the chunk was read, so that the chunk brings it there
        "WHERE NOT lost.is_tombstone ON CONFLICT DO NOTHING"
    )
