"""Read and write our own tables in PostgreSQL: its identity, streams, ranges, and what was recorded of record tables.

Several devices may create the same tables at once. Each of them checks, creates what is missing, and checks again if
another device was faster.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from edgeshard.errors import PostgresUnsuitableError
from edgeshard.format.ranges import Range, union
from edgeshard.master.streams import Stream
from edgeshard.postgres import plan, schema
from edgeshard.postgres.plan import RangesByStream
from edgeshard.postgres.schema import KEYS, Table
from edgeshard.postgres.schema_changes import Recorded, TableChanges
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.records.keys import Key
from edgeshard.records.renames import Arrow

#: Streams in one query.
_STREAMS: Final = 1_000

#: How often to create our tables while another device creates them, too.
_ATTEMPTS: Final = 10

# -- identity ---------------------------------------------------------------------------------------------------------


def identity(server: Server) -> bytes | None:
    """Return the database's id of 16 bytes, or None if there was no push to it yet.

    Raises:
        PostgresUnsuitableError: a later edgeshard created our tables there.
    """
    try:
        rows = server.execute("SELECT id, format FROM edgeshard_database WHERE one = 1")
    except ServerError as error:
        if error.is_undefined_table:
            return None
        raise
    if not rows:
        return None
    ((database_id, version),) = rows
    if version != schema.FORMAT:
        cause = (
            f"it has format {version} of edgeshard's tables, but this edgeshard knows only {schema.FORMAT}; use the "
            "version of edgeshard that created them"
        )
        raise PostgresUnsuitableError("push", server.address.display, cause)
    return bytes(database_id.bytes)


def ensure_identity(server: Server) -> bytes:
    """Create our own tables unless they exist, and return the database's id."""
    for _ in range(_ATTEMPTS):
        found = identity(server)
        if found is not None:
            return found
        for name, columns in schema.OWN_TABLES.items():
            _create(server, f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        # last: if this row exists, all tables exist
        _create(server, "INSERT INTO edgeshard_database VALUES (1, $1, $2, 0)", (uuid.uuid4(), schema.FORMAT))
    cause = "edgeshard_database was created, but cannot be found; check search_path"
    raise PostgresUnsuitableError("push", server.address.display, cause)


def create_statements() -> list[str]:
    """Return the statements that create our own tables, as a dry run shows them."""
    return [f"CREATE TABLE {name} ({columns})" for name, columns in schema.OWN_TABLES.items()]


def _create(server: Server, sql: str, values: Sequence[Any] = ()) -> None:
    try:
        server.execute(sql, values)
    except ServerError as error:
        if not error.is_created_meanwhile:
            raise


# -- streams and ranges -----------------------------------------------------------------------------------------------


def held(server: Server, stream_ids: Iterable[bytes]) -> dict[bytes, list[Range]]:
    """Return what the database has ever held of each of these streams, [] for a stream that it does not know."""
    wanted = sorted(stream_ids)
    found: dict[bytes, list[Range]] = {stream_id: [] for stream_id in wanted}
    for at in range(0, len(wanted), _STREAMS):
        rows = server.execute(
            "SELECT stream, first, last FROM edgeshard_ranges WHERE stream = ANY($1::uuid[])",
            (_uuids(wanted[at : at + _STREAMS]),),
        )
        for stream, first, last in rows:
            found[stream.bytes].append(Range(first, last))
    return {stream_id: union(ranges) for stream_id, ranges in found.items()}


def held_around(server: Server, windows: Mapping[bytes, Range]) -> dict[bytes, list[Range]]:
    """Return those ranges of each of these streams that overlap its window or are adjacent to it.

    A stream may have a hundred thousand ranges, if every second row of it was rejected, and a chunk few rows of it.
    """
    found: dict[bytes, list[Range]] = {stream_id: [] for stream_id in windows}
    wanted = sorted(windows)
    for at in range(0, len(wanted), _STREAMS):
        values: list[Any] = []
        for stream_id in wanted[at : at + _STREAMS]:
            window = windows[stream_id]
            values += [uuid.UUID(bytes=stream_id), window.first - 1, window.last + 1]
        places = ", ".join(f"(${k}::uuid, ${k + 1}::bigint, ${k + 2}::bigint)" for k in range(1, len(values), 3))
        rows = server.execute(
            f"SELECT r.stream, r.first, r.last FROM (VALUES {places}) AS w(stream, low, high) JOIN edgeshard_ranges r "
            "ON r.stream = w.stream AND r.last >= w.low AND r.first <= w.high AND r.first >= coalesce("
            "(SELECT max(b.first) FROM edgeshard_ranges b WHERE b.stream = w.stream AND b.first <= w.low), w.low)",
            values,
        )
        for stream, first, last in rows:
            found[stream.bytes].append(Range(first, last))
    return {stream_id: union(ranges) for stream_id, ranges in found.items()}


def all_held(server: Server) -> dict[bytes, list[Range]]:
    """Return what the database has ever held of each stream that it knows."""
    rows = server.execute("SELECT stream FROM edgeshard_streams")
    return held(server, (stream.bytes for (stream,) in rows))


@attrs.frozen
class PushedStream:
    """A stream as the database knows it.

    Attributes:
        began_at: when it began, as its agent wrote it.
        last_seq: the highest seq that any pushing master knew of it.
    """

    began_at: str
    last_seq: int


def streams_since(server: Server, seconds: float) -> dict[bytes, PushedStream]:
    """Return the streams of which rows were pushed within the last seconds."""
    sql = "SELECT stream, began_at, last_seq FROM edgeshard_streams WHERE pushed_at > now() - $1 * interval '1 second'"
    rows = server.execute(sql, (float(seconds),))
    return {stream.bytes: PushedStream(began_at, last_seq) for stream, began_at, last_seq in rows}


def lock_streams(server: Server, streams: Sequence[Stream]) -> dict[bytes, str]:
    """Add streams unless they are known, and lock out other pushers of them until the transaction ends.

    Args:
        server: in a transaction.
        streams: in the order in which all pushers lock streams.

    Returns:
        The agent of each stream, as the database knows it.
    """
    for at in range(0, len(streams), _STREAMS):
        values: list[Any] = []
        for stream in streams[at : at + _STREAMS]:
            values += [uuid.UUID(bytes=stream.stream_id), stream.agent_id, stream.began_at, stream.last_seq]
        places = ", ".join(f"(${k}, ${k + 1}, ${k + 2}, ${k + 3})" for k in range(1, len(values), 4))
        sql = f"INSERT INTO edgeshard_streams (stream, agent_id, began_at, last_seq) VALUES {places}"
        server.execute(f"{sql} ON CONFLICT (stream) DO NOTHING", values)
    agents: dict[bytes, str] = {}
    for at in range(0, len(streams), _STREAMS):
        ids = _uuids(stream.stream_id for stream in streams[at : at + _STREAMS])
        rows = server.execute(
            "SELECT stream, agent_id FROM edgeshard_streams WHERE stream = ANY($1::uuid[]) ORDER BY stream FOR UPDATE",
            (ids,),
        )
        agents.update((stream.bytes, agent_id) for stream, agent_id in rows)
    # Write each row even if last_seq does not grow. A pusher that waited for the lock, on a server whose transactions
    # read from one snapshot (YugabyteDB), would otherwise read ranges from before; a write makes the server refuse it
    # (40001), which the lock alone does not.
    server.execute_many(
        "UPDATE edgeshard_streams SET last_seq = greatest(last_seq, $2), pushed_at = now() WHERE stream = $1",
        [(uuid.UUID(bytes=stream.stream_id), stream.last_seq) for stream in streams],
    )
    return agents


def write_ranges(server: Server, before: RangesByStream, now: RangesByStream) -> None:
    """Change the ranges of locked streams to what the database holds once the transaction is committed."""
    deleted, extended, added = [], [], []
    for stream_id, ranges in now.items():
        stream, changes = uuid.UUID(bytes=stream_id), plan.compare_ranges(before.get(stream_id, ()), ranges)
        deleted += [(stream, first) for first in changes.deleted]
        extended += [(stream, item.first, item.last) for item in changes.extended]
        added += [(stream, item.first, item.last) for item in changes.added]
    server.execute_many("DELETE FROM edgeshard_ranges WHERE stream = $1 AND first = $2", deleted)
    server.execute_many("UPDATE edgeshard_ranges SET last = $3 WHERE stream = $1 AND first = $2", extended)
    server.execute_many("INSERT INTO edgeshard_ranges VALUES ($1, $2, $3)", added)


def _uuids(stream_ids: Iterable[bytes]) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=stream_id) for stream_id in stream_ids]


# -- record tables, as they were recorded -----------------------------------------------------------------------------


def lock_schema(server: Server) -> None:
    """Lock out others who would create or alter record tables, or send rows, until the transaction ends."""
    server.execute("SELECT one FROM edgeshard_database WHERE one = 1 FOR UPDATE")


def schema_version(server: Server) -> int:
    """Return how often a push created or altered record tables."""
    ((version,),) = server.execute("SELECT schema_version FROM edgeshard_database WHERE one = 1")
    return int(version)


def share_schema(server: Server) -> int:
    """Lock out who would create or alter record tables, until the transaction ends; return the `schema_version`.

    COPY sends what a column of the expected type would store: in a column of another type it would be another value.
    """
    ((version,),) = server.execute("SELECT schema_version FROM edgeshard_database WHERE one = 1 FOR SHARE")
    return int(version)


def recorded_tables(server: Server) -> dict[str, Recorded]:
    """Return what earlier pushes recorded of each record table, by its name there."""
    columns: dict[str, dict[str, str]] = {}
    for table, column, column_type in server.execute("SELECT table_name, column_name, type FROM edgeshard_columns"):
        columns.setdefault(table, {})[column] = column_type
    arrows: dict[str, set[Arrow]] = {}
    for table, old, new in server.execute("SELECT table_name, old_name, new_name FROM edgeshard_renames"):
        arrows.setdefault(table, set()).add((old, new))
    found = {name: Recorded(types, frozenset(arrows.get(name, ()))) for name, types in columns.items()}
    if has_keys(server):
        for table, text, conflict in server.execute(f"SELECT table_name, columns, conflict FROM {KEYS}"):
            if table in found:
                found[table] = attrs.evolve(found[table], key=_parse_key(text, conflict))
    return found


def renames_of(server: Server, table: str) -> frozenset[Arrow]:
    """Return the renames that pushes recorded for a table, in the master's names."""
    rows = server.execute("SELECT old_name, new_name FROM edgeshard_renames WHERE table_name = $1", (table,))
    return frozenset((old, new) for old, new in rows)


def created_indexes(server: Server, names: Sequence[str]) -> frozenset[str]:
    """Return those of these indexes that a push has ever created. The user may have dropped them since."""
    rows = server.execute("SELECT name FROM edgeshard_indexes WHERE name = ANY($1::text[])", (names,))
    return frozenset(name for (name,) in rows)


def record_changes(server: Server, table: Table, changes: TableChanges) -> int | None:
    """Record columns, indexes and renames in the transaction that changes them.

    Returns:
        The version of the schema that it becomes by that, or None if nothing changes.
    """
    if changes == TableChanges():
        return None
    where = "WHERE table_name = $1 AND column_name = $2"
    for old, new in changes.renamed:
        server.execute(f"UPDATE edgeshard_columns SET column_name = $3 {where}", (table.pg_name, old, new))
    for column, column_type in changes.widened:
        server.execute(f"UPDATE edgeshard_columns SET type = $3 {where}", (table.pg_name, column, column_type))
    for column, column_type in changes.added:
        sql = "INSERT INTO edgeshard_columns VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        server.execute(sql, (table.pg_name, column, column_type))
    for name in changes.indexes:
        server.execute("INSERT INTO edgeshard_indexes VALUES ($1) ON CONFLICT DO NOTHING", (name,))
    for old, new in sorted(changes.learned):
        sql = "INSERT INTO edgeshard_renames VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        server.execute(sql, (table.pg_name, old, new))
    sql = "UPDATE edgeshard_database SET schema_version = schema_version + 1 WHERE one = 1 RETURNING schema_version"
    ((version,),) = server.execute(sql)
    return int(version)


# -- keyed tables (edgeshard_keys exists once there is one) -----------------------------------------------------------


def has_keys(server: Server) -> bool:
    """Return whether edgeshard_keys exists."""
    sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1"
    return bool(server.execute(sql, (KEYS,)))


def key_of(server: Server, table: Table) -> Key | None:
    """Return the key that an earlier push recorded for a table, or None."""
    rows = server.execute(f"SELECT columns, conflict FROM {KEYS} WHERE table_name = $1", (table.pg_name,))
    return _parse_key(*rows[0]) if rows else None


def _parse_key(columns: str, conflict: str) -> Key:
    return Key(tuple(columns.split(", ")), conflict)


def lock_keyed_tables(server: Server, keyed: Iterable[Table]) -> None:
    """Lock out other pushers of keyed tables until the transaction ends. Call it once the streams are locked.

    It locks by a write, like `lock_streams`: then the server refuses a transaction that waited and would read an older
    snapshot.
    """
    for table in sorted(keyed, key=lambda table: table.pg_name):
        server.execute(f"UPDATE {KEYS} SET conflict = conflict WHERE table_name = $1", (table.pg_name,))
