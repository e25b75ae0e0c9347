"""Of each key of a keyed table, keep in PostgreSQL what its rule says, in the transaction that brings the rows.

It is what a merge does in a master (edgeshard/merge/newest.py), in PostgreSQL's words. Two devices may bring versions
of one key at the same time, and neither sees the other's before it is committed: so a keyed table is locked for as
long as a transaction brings rows of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from edgeshard import format
from edgeshard.postgres import remote, schema, schema_drift
from edgeshard.postgres.plan import MovedError, Part
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server
from edgeshard.records import keys
from edgeshard.records.keys import Key
from edgeshard.sqlite import quote

_BY_BYTES = ' COLLATE "C"'


def lock(server: Server, keyed: Iterable[Table]) -> None:
    """Keep other pushers from keyed tables until the transaction ends; called once its streams are locked.

    By a change, as `remote.lock_streams` does it: whoever waited, and would read a snapshot of before, is refused.
    """
    for table in sorted(keyed, key=lambda table: table.there):
        sql = f"UPDATE {schema.KEYS} SET conflict = conflict WHERE table_name = $1"
        server.execute(sql, (table.there,))


def ensure_plain(server: Server, plain: Iterable[Table]) -> None:
    """Make sure that no other master made one of these a keyed table since it was made fit.

    Raises:
        MovedError: one did.
    """
    names = [table.there for table in plain]
    if (
        names
        and remote.types(server, schema.KEYS)
        and server.execute(f"SELECT 1 FROM {schema.KEYS} WHERE table_name = ANY($1::text[]) LIMIT 1", (names,))
    ):
        raise MovedError


def settle(server: Server, keyed: Iterable[Table], chunk: Sequence[Part]) -> None:
    """Of the keys of rows that a chunk brought, keep what their tables' rules say.

    Of a table that had rows there before it had a key, once of all keys.
    """
    streams = [uuid.UUID(bytes=part.stream.stream_id) for part in chunk]
    seqs = [part.range for part in chunk]
    bindings = (streams, [item.first for item in seqs], [item.last for item in seqs])
    for table in keyed:
        if table.key is not None:
            moved = _moved(server, table) if table.key.history else ()
            if _is_settled(server, table):
                server.execute(_statement(table, table.key, moved, _OF_CHUNK), bindings)
            else:
                server.execute(_statement(table, table.key, moved, _OF_ALL))
                server.execute(f"UPDATE {schema.KEYS} SET is_settled = true WHERE table_name = $1", (table.there,))


def _is_settled(server: Server, table: Table) -> bool:
    ((found,),) = server.execute(f"SELECT is_settled FROM {schema.KEYS} WHERE table_name = $1", (table.there,))
    return bool(found)


def _moved(server: Server, table: Table) -> list[str]:
    """The columns with which a version goes to the history: all that it has there, whoever brought it.

    Raises:
        MovedError: somebody gave the table a column, or a wider one, since the history was made fit.
    """
    history = remote.types(server, keys.history_name(table.there))
    columns = {name: there for name, there in remote.types(server, table.there).items() if name not in schema.KEY}
    for name, there in columns.items():
        if there in schema_drift.KIND_OF and not schema_drift.holds(history.get(name, ""), there):
            raise MovedError
    return [name for name in columns if name in history]


#: The rows whose keys are looked at, of a table whose name comes first.
_OF_ALL = "FROM {} t"

_OF_CHUNK = (
    "FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS r(stream, first, last) "
    "JOIN {} t ON t._stream = r.stream AND t._seq BETWEEN r.first AND r.last"
)


def _statement(table: Table, key: Key, moved: Sequence[str], rows: str) -> str:
    names = [f"k{number}" for number in range(len(key.columns))]
    there = keys.changed_tables(table.there, key)
    fresh = " UNION ".join(f"SELECT DISTINCT {_columns('t', key)} {rows.format(quote(name))}" for name, _ in there)
    ranked = _ranked(table, key)
    versions = " UNION ALL ".join(
        _versions(name, key, "NULL" if is_deletion else ranked, is_deletion=is_deletion) for name, is_deletion in there
    )
    by_key = f"PARTITION BY {', '.join(names)}"
    deletion, lost = keys.judgement(key)
    order = keys.order(key, ranked="ranked", timestamp="timestamp", address=("_stream", "_seq"))
    steps = [
        f"fresh({', '.join(names)}) AS ({fresh})",
        f"versions AS ({versions})",
        f"placed AS (SELECT versions.*, row_number() OVER ({by_key} ORDER BY {order}) AS place FROM versions)",
        f"judged AS (SELECT placed.*, min({deletion}) OVER ({by_key}) AS last_deletion FROM placed)",
        f"lost AS (SELECT _stream, _seq, is_deletion, last_deletion FROM judged WHERE {lost})",
    ]
    if key.history:
        steps.append(f"kept AS ({_to_history(table, moved)})")
    steps += [
        f"gone{number} AS (DELETE FROM {quote(name)} t USING lost WHERE t._stream = lost._stream "
        f"AND t._seq = lost._seq AND lost.is_deletion = {is_deletion})"
        for number, (name, is_deletion) in enumerate(there)
    ]
    return f"WITH {', '.join(steps)} SELECT count(*) FROM lost"


def _columns(alias: str, key: Key) -> str:
    return ", ".join(f"{alias}.{quote(column.lower())}" for column in key.columns)


def _ranked(table: Table, key: Key) -> str:
    """SQL for the value that the rule compares. Texts compare as their bytes do, as in SQLite."""
    column = keys.ranked_by(key.conflict).lower()
    kinds = {name.lower(): kind for name, kind in table.columns}
    return f"t.{quote(column)}{_BY_BYTES if kinds[column] == 'text' else ''}" if column else "NULL"


def _versions(name: str, key: Key, ranked: str, *, is_deletion: bool) -> str:
    values = ", ".join(f"t.{quote(column.lower())} AS k{number}" for number, column in enumerate(key.columns))
    equal = " AND ".join(f"t.{quote(column.lower())} = fresh.k{number}" for number, column in enumerate(key.columns))
    return (
        f"SELECT t._stream, t._seq, {is_deletion} AS is_deletion, t.{format.TIMESTAMP} AS timestamp, "
        f"{ranked} AS ranked, {values} FROM fresh JOIN {quote(name)} t ON {equal}"
    )


def _to_history(table: Table, moved: Sequence[str]) -> str:
    names, values = (", ".join(f"{alias}{quote(column)}" for column in moved) for alias in ("", "t."))
    reason = f"CASE WHEN lost.last_deletion IS NULL THEN '{keys.WAS_REPLACED}' ELSE '{keys.WAS_DELETED}' END"
    return (
        f"INSERT INTO {quote(keys.history_name(table.there))} (_stream, _seq, {names}, {format.REASON}) "
        f"SELECT t._stream, t._seq, {values}, {reason} "
        f"FROM {quote(table.there)} t JOIN lost ON t._stream = lost._stream AND t._seq = lost._seq "
        # a merge may have moved it to the history while the chunk was read, so that it came there with the chunk
        "WHERE NOT lost.is_deletion ON CONFLICT DO NOTHING"
    )
