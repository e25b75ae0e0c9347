"""Our tables in PostgreSQL: which database it is, streams and ranges, and the record tables, made as they are needed.

Several devices make the same tables at once. Each thing is looked for, made where it lacks, and looked for again
where somebody else was faster; record tables are made under a lock on the one row of ``edgeshard_database``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgeshard.errors import PostgresUnsuitableError, SchemaConflictError
from edgeshard.format.ranges import Range, union
from edgeshard.postgres import plan, schema, sqlstate
from edgeshard.postgres.plan import Stream
from edgeshard.postgres.schema import Found, Need, Table
from edgeshard.postgres.server import Server, ServerError
from edgeshard.postgres.values import TYPES
from edgeshard.records.keys import Key
from edgeshard.records.types import EXACT_MAX
from edgeshard.sqlite import quote

#: Streams of one question.
_STREAMS: Final = 1_000

#: How often something is made, where somebody else makes it, too.
_ATTEMPTS: Final = 10

_COLUMNS: Final = """
SELECT column_name, data_type, numeric_precision, datetime_precision FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = $1
"""

_KEY: Final = """
SELECT k.column_name FROM information_schema.table_constraints c
JOIN information_schema.key_column_usage k ON k.constraint_name = c.constraint_name
AND k.constraint_schema = c.constraint_schema AND k.table_name = c.table_name
WHERE c.constraint_type = 'PRIMARY KEY' AND c.table_schema = current_schema() AND c.table_name = $1
ORDER BY k.ordinal_position
"""

_IDENTITY: Final = "SELECT id, format FROM edgeshard_database WHERE one = 1"

# -- which database it is ---------------------------------------------------------------------------------------------


def identity(server: Server) -> bytes | None:
    """The id of the database, 16 bytes; None where nobody pushed into it yet.

    Raises:
        UpstreamUnfitError: a later edgeshard made it.
    """
    try:
        rows = server.execute(_IDENTITY)
    except ServerError as error:
        if sqlstate.is_no_table(error.state):
            return None
        raise
    if not rows:
        return None
    ((database_id, version),) = rows
    if version != schema.FORMAT:
        cause = f"it has format {version} of edgeshard's tables, this edgeshard knows {schema.FORMAT}; use that version"
        raise PostgresUnsuitableError("push", server.where.shown, cause)
    return bytes(database_id.bytes)


def ensure_identity(server: Server) -> bytes:
    """The id of the database; makes our own tables where they lack."""
    for _ in range(_ATTEMPTS):
        found = identity(server)
        if found is not None:
            return found
        for name, columns in schema.TABLES.items():
            _make(server, f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        # the last, so that whoever finds it finds all
        _make(server, "INSERT INTO edgeshard_database VALUES (1, $1, $2)", (uuid.uuid4(), schema.FORMAT))
    raise PostgresUnsuitableError("push", server.where.shown, "edgeshard_database is made, and is not there")


def _make(server: Server, sql: str, values: Sequence[Any] = ()) -> None:
    try:
        server.execute(sql, values)
    except ServerError as error:
        if not sqlstate.is_made_meanwhile(error.state):
            raise


# -- streams and ranges -----------------------------------------------------------------------------------------------


def held(server: Server, stream_ids: Iterable[bytes]) -> dict[bytes, list[Range]]:
    """What the database has ever held of each of these streams; [] of those that it does not know."""
    asked = sorted(stream_ids)
    found: dict[bytes, list[Range]] = {stream_id: [] for stream_id in asked}
    for at in range(0, len(asked), _STREAMS):
        rows = server.execute(
            "SELECT stream, first, last FROM edgeshard_ranges WHERE stream = ANY($1::uuid[])",
            (_uuids(asked[at : at + _STREAMS]),),
        )
        for stream, first, last in rows:
            found[stream.bytes].append(Range(first, last))
    return {stream_id: union(ranges) for stream_id, ranges in found.items()}


def all_streams(server: Server) -> list[tuple[bytes, str, int, list[Range]]]:
    """Each stream that the database knows: its id, its agent, its highest seq known to exist, and what it has held."""
    rows = server.execute("SELECT stream, agent_id, last_seq FROM edgeshard_streams ORDER BY stream")
    ranges = held(server, (stream.bytes for stream, _, _ in rows))
    return [(stream.bytes, agent_id, last_seq, ranges[stream.bytes]) for stream, agent_id, last_seq in rows]


def lock_streams(server: Server, streams: Sequence[Stream]) -> dict[bytes, str]:
    """Know these streams, and keep other pushers from them until the transaction ends; whose each of them is.

    Args:
        server: in a transaction.
        streams: in the order in which all pushers lock them.
    """
    for at in range(0, len(streams), _STREAMS):
        values: list[Any] = []
        for stream in streams[at : at + _STREAMS]:
            values += [uuid.UUID(bytes=stream.stream_id), stream.agent_id, stream.began_at, stream.last_seq]
        places = ", ".join(f"(${k}, ${k + 1}, ${k + 2}, ${k + 3})" for k in range(1, len(values), 4))
        # of a stream, not of a row: whichever device tells of it first
        server.execute(f"INSERT INTO edgeshard_streams VALUES {places} ON CONFLICT (stream) DO NOTHING", values)
    agents: dict[bytes, str] = {}
    for at in range(0, len(streams), _STREAMS):
        ids = _uuids(stream.stream_id for stream in streams[at : at + _STREAMS])
        rows = server.execute(
            "SELECT stream, agent_id FROM edgeshard_streams WHERE stream = ANY($1::uuid[]) ORDER BY stream FOR UPDATE",
            (ids,),
        )
        agents.update((stream.bytes, agent_id) for stream, agent_id in rows)
    # also where it does not grow: a server whose transactions read from one snapshot (YugabyteDB) then refuses a pusher
    # that waited for the lock, and would read ranges of before (40001), where it would not for the lock alone
    server.execute_many(
        "UPDATE edgeshard_streams SET last_seq = greatest(last_seq, $2) WHERE stream = $1",
        [(uuid.UUID(bytes=stream.stream_id), stream.last_seq) for stream in streams],
    )
    return agents


def write_ranges(server: Server, before: plan.Held, now: plan.Held) -> None:
    """Turn the ranges of streams that are locked into what is held once the transaction is committed."""
    gone, longer, new = [], [], []
    for stream_id, ranges in now.items():
        stream, change = uuid.UUID(bytes=stream_id), plan.change(before.get(stream_id, ()), ranges)
        gone += [(stream, first) for first in change.gone]
        longer += [(stream, item.first, item.last) for item in change.longer]
        new += [(stream, item.first, item.last) for item in change.new]
    server.execute_many("DELETE FROM edgeshard_ranges WHERE stream = $1 AND first = $2", gone)
    server.execute_many("UPDATE edgeshard_ranges SET last = $3 WHERE stream = $1 AND first = $2", longer)
    server.execute_many("INSERT INTO edgeshard_ranges VALUES ($1, $2, $3)", new)


def _uuids(stream_ids: Iterable[bytes]) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=stream_id) for stream_id in stream_ids]


# -- record tables ----------------------------------------------------------------------------------------------------


def need_of(server: Server, table: Table, *, has_tables: bool) -> Need:
    """What a table still needs there.

    Args:
        server: the server.
        table: the master's table.
        has_tables: whether our own tables are there.

    Raises:
        SchemaConflictError: it cannot be made fit.
    """
    if table.history_of:
        table = schema.with_all_columns(table, types(server, table.history_of), types(server, table.there))
    return schema.needed(table, _found(server, table, has_tables=has_tables))


def types(server: Server, name: str) -> dict[str, str]:
    """The type of each column of a table there."""
    return {column: _type(*rest) for column, *rest in server.execute(_COLUMNS, (name,))}


def _found(server: Server, table: Table, *, has_tables: bool) -> Found:
    columns = types(server, table.there)
    key = tuple(name for (name,) in server.execute(_KEY, (table.there,)))
    names = [schema.index_name(table.there, index) for index in table.indexes]
    made: list[tuple[Any, ...]] = []
    if names and has_tables:
        made = server.execute("SELECT name FROM edgeshard_indexes WHERE name = ANY($1::text[])", (names,))
    waiting = frozenset(old for old, new in table.renames if _is_waiting(server, table, columns, old, new))
    rounded = frozenset(name.lower() for name, kind in table.columns if _is_rounded(server, table, columns, name, kind))
    return Found(columns, key, frozenset(name for (name,) in made), waiting, rounded, _version_key(server, table))


def _is_waiting(server: Server, table: Table, columns: Mapping[str, str], old: str, new: str) -> bool:
    """Whether a column is there by two names, and rows have a value by the older one alone."""
    # where it has only older names, the first of these is about to become the new one
    names = [new, *(name for name, end in table.renames if end == new)]
    there = next((name for name in names if name in columns), old)
    if old not in columns or old == there:
        return False
    sql = f"SELECT 1 FROM {quote(table.there)} WHERE {quote(old)} IS NOT NULL AND {quote(there)} IS NULL LIMIT 1"
    return bool(server.execute(sql))


def _is_rounded(server: Server, table: Table, columns: Mapping[str, str], name: str, kind: str) -> bool:
    """Whether a column has integers that its new kind, real, would round."""
    olds = {name.lower(), *(old for old, new in table.renames if new == name.lower())}
    asked = [old for old in olds if kind == "real" and columns.get(old) == "bigint"]
    sql = "SELECT 1 FROM {0} WHERE {1} NOT BETWEEN -{2} AND {2} LIMIT 1"
    return any(server.execute(sql.format(quote(table.there), quote(old), EXACT_MAX)) for old in asked)


def _version_key(server: Server, table: Table) -> Key | None:
    if not types(server, schema.KEYS):
        return None
    found = server.execute(f"SELECT columns, conflict FROM {schema.KEYS} WHERE table_name = $1", (table.there,))
    return Key(tuple(found[0][0].split(", ")), found[0][1]) if found else None


def _type(name: str, numeric_precision: int | None, datetime_precision: int | None) -> str:
    """A type, with its precision where values would be rounded to it."""
    if name == "numeric" and numeric_precision is not None:
        return f"numeric of {numeric_precision} digits"
    if name == "timestamp with time zone" and datetime_precision not in (None, 6):
        return f"timestamp({datetime_precision}) with time zone"
    return name


def ensure_table(server: Server, table: Table) -> tuple[str, ...]:
    """Make a table take the rows of the master's; the statements that did so.

    Raises:
        SchemaConflictError: it cannot be made fit.
    """
    for _ in range(_ATTEMPTS):
        if need_of(server, table, has_tables=True) == Need():
            return ()
        try:
            with server.transaction():
                server.execute("SELECT one FROM edgeshard_database WHERE one = 1 FOR UPDATE")
                need = need_of(server, table, has_tables=True)  # somebody may have been faster
                _make_fit(server, table, need)
            return need.statements
        except ServerError as error:
            if sqlstate.is_made_meanwhile(error.state):
                said = error.said
            elif sqlstate.is_of_a_definition(error.state):
                cause = f"PostgreSQL cannot have this table: {error.said} ({error.state}); rename what that names"
                raise schema.conflict(table.name, cause) from error
            else:
                raise
    raise SchemaConflictError("push table", table.name, f"PostgreSQL does not make it: {said}")


def _make_fit(server: Server, table: Table, need: Need) -> None:
    for statement in need.statements:
        server.execute(statement)
    its = "WHERE table_name = $1 AND column_name = $2"
    for old, new in need.renamed:
        server.execute(f"UPDATE edgeshard_columns SET column_name = $3 {its}", (table.there, old, new))
    for column, kind in need.widened:
        server.execute(f"UPDATE edgeshard_columns SET type = $3 {its}", (table.there, column, kind))
    for column, kind in need.columns:
        server.execute(
            "INSERT INTO edgeshard_columns VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", (table.there, column, kind)
        )
    for name in need.indexes:
        server.execute("INSERT INTO edgeshard_indexes VALUES ($1) ON CONFLICT DO NOTHING", (name,))


def columns_of(table: Table) -> str:
    """The columns that rows are sent with, in their order."""
    return ", ".join(["_stream", "_seq", *(quote(name.lower()) for name, _ in table.columns)])


def refusing_column(server: Server, table: Table, values: Sequence[Any]) -> tuple[str, str] | None:
    """The first column whose type does not take its value, and what the server says; None where each does.

    Args:
        server: the server, in no transaction.
        table: the master's table.
        values: one of each column, as parameters.
    """
    for (column, kind), value in zip(table.columns, values, strict=True):
        try:
            server.execute(f"SELECT CAST($1 AS {TYPES[kind]})", (value,))
        except ServerError as error:
            if not sqlstate.is_of_a_row(error.state):
                raise
            return column, error.said
    return None
