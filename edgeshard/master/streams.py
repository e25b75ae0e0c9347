"""Own _edgeshard_streams: the streams that a database knows."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from edgeshard import sqlite
from edgeshard.format.blocks import Block
from edgeshard.master import extents, retired
from edgeshard.records.json_values import to_json
from edgeshard.sqlite import Connection, quote

#: Registers a new stream of a shard; binds its number, the agent's name, its id and when it began.
INSERT_NEW: Final = "INSERT INTO main._edgeshard_streams(stream_no, agent_id, stream_id, began_at) VALUES (?, ?, ?, ?)"

#: The streams, as s, for another module's FROM.
TABLE: Final = "main._edgeshard_streams AS s"

#: Joins the streams to a table that has their number as stream_no, and to a record table, which has it as _stream. The
#: columns of a record table may have any name, also that of a column of ours: there, name ours as ``streams.agent_id``.
JOIN: Final = "JOIN main._edgeshard_streams USING (stream_no)"
JOIN_RECORDS: Final = "JOIN main._edgeshard_streams AS streams ON streams.stream_no = _stream"

#: Joins the streams, as s, to a record table, as t, in the definition of a view, which names no schema.
JOIN_IN_VIEW: Final = "JOIN _edgeshard_streams AS s ON s.stream_no = t._stream"


def next_stream_no(connection: Connection) -> int:
    """Return the number for the next new stream of a shard."""
    return highest_number(connection) + 1


def numbers(connection: Connection) -> set[int]:
    """Return the numbers of all streams."""
    return {number for (number,) in sqlite.fetch(connection, "SELECT stream_no FROM main._edgeshard_streams")}


@attrs.frozen
class Stream:
    """A stream that a master knows.

    Attributes:
        stream_no: the master's own number for it.
        stream_id: its 16 random bytes.
        agent_id: the agent that wrote it.
        began_at: ISO 8601, by the writer's clock.
        last_seq: the highest seq known to exist.
        blocks: where the master has its rows, in order of seq.
    """

    stream_no: int
    stream_id: bytes
    agent_id: str
    began_at: str
    last_seq: int
    blocks: tuple[Block, ...]


def load(connection: Connection) -> list[Stream]:
    """Return all streams, each with its blocks, in order of their numbers."""
    blocks = extents.blocks_by_stream(connection)
    sql = "SELECT stream_no, stream_id, agent_id, began_at, last_seq FROM main._edgeshard_streams ORDER BY stream_no"
    return [
        Stream(stream_no, stream_id, agent_id, began_at, last_seq, blocks.get(stream_no, ()))
        for stream_no, stream_id, agent_id, began_at, last_seq in sqlite.fetch(connection, sql)
    ]


def first_agent(connection: Connection, table: str) -> str | None:
    """Return the agent of the oldest row that a record table has, or None if it has no rows."""
    sql = f"SELECT streams.agent_id FROM main.{quote(table)} {JOIN_RECORDS} ORDER BY _id LIMIT 1"
    found: str | None = sqlite.scalar(connection, sql)
    return found


def count(connection: Connection) -> tuple[int, int]:
    """Return how many streams the database knows, and how many agents wrote them."""
    ((streams, agents),) = sqlite.fetch(
        connection, "SELECT count(*), count(DISTINCT agent_id) FROM main._edgeshard_streams"
    )
    return streams, agents


def agents(connection: Connection) -> list[str]:
    """Return the names of all agents that the database knows."""
    return [name for (name,) in sqlite.fetch(connection, "SELECT DISTINCT agent_id FROM main._edgeshard_streams")]


def insert(connection: Connection, stream_no: int, agent: str, stream_id: bytes, began_at: str, last_seq: int) -> None:
    """Add a stream under a given number, unless it is there."""
    connection.execute(
        "INSERT OR IGNORE INTO main._edgeshard_streams(stream_no, agent_id, stream_id, began_at, last_seq) "
        "VALUES (?, ?, ?, ?, ?)",
        (stream_no, agent, stream_id, began_at, last_seq),
    )


def origins(connection: Connection) -> list[tuple[int, bytes, str, str]]:
    """Return (number, id, agent, when it began) of each stream."""
    return sqlite.fetch(connection, "SELECT stream_no, stream_id, agent_id, began_at FROM main._edgeshard_streams")


def last_seqs(connection: Connection) -> list[tuple[int, str, int]]:
    """Return (number, agent, highest seq known to exist) of each stream that is known to have rows."""
    sql = "SELECT stream_no, agent_id, last_seq FROM main._edgeshard_streams WHERE last_seq > 0"
    return sqlite.fetch(connection, sql)


def highest_number(connection: Connection) -> int:
    """Return the highest number of a stream, or 0 if there are none."""
    return int(sqlite.scalar(connection, "SELECT max(stream_no) FROM main._edgeshard_streams") or 0)


def numbers_after(connection: Connection, stream_no: int) -> list[int]:
    """Return the numbers of the streams that were added after this one."""
    sql = "SELECT stream_no FROM main._edgeshard_streams WHERE stream_no > ?"
    return [number for (number,) in sqlite.fetch(connection, sql, (stream_no,))]


def numbers_of_agents(connection: Connection, agents: Iterable[str]) -> set[int]:
    """Return the numbers of the streams that these agents wrote."""
    sql = "SELECT stream_no FROM main._edgeshard_streams WHERE agent_id IN (SELECT value FROM json_each(?))"
    return {number for (number,) in sqlite.fetch(connection, sql, (to_json(list(agents)),))}


def with_last_seqs(connection: Connection) -> list[tuple[int, bytes, str, int]]:
    """Return (number, id, agent, highest seq known to exist) of each stream."""
    return sqlite.fetch(connection, "SELECT stream_no, stream_id, agent_id, last_seq FROM main._edgeshard_streams")


def last_seq_by_number(connection: Connection) -> dict[int, int]:
    """Map the number of each stream to the highest seq known to exist."""
    return dict(sqlite.fetch(connection, "SELECT stream_no, last_seq FROM main._edgeshard_streams"))


def lacking(connection: Connection, stream_ids: Iterable[bytes] | None = None) -> list[tuple[int, bytes, str, int]]:
    """Return the streams that lack rows, by agent and id.

    Args:
        connection: the master.
        stream_ids: return these streams instead, whether or not it is recorded that they lack rows.

    Returns:
        The number, id, agent and highest seq known to exist of each stream.
    """
    columns = "SELECT stream_no, stream_id, agent_id, last_seq FROM"
    sql = f"{columns} main._edgeshard_missing CROSS JOIN main._edgeshard_streams USING (stream_no)"
    bindings: tuple[str, ...] = ()
    if stream_ids is not None:
        sql = f"{columns} json_each(?) CROSS JOIN main._edgeshard_streams ON stream_id = unhex(value)"
        bindings = (to_json([stream_id.hex() for stream_id in stream_ids]),)
    return sqlite.fetch(connection, f"{sql} ORDER BY agent_id, stream_id", bindings)


def missing_rows(connection: Connection) -> int:
    """Return how many seqs are known to exist that this master never held."""
    return int(sqlite.scalar(connection, "SELECT coalesce(sum(rows), 0) FROM main._edgeshard_missing"))


def miscounted(connection: Connection) -> Iterator[tuple[int, int, int]]:
    """Check the counts of missing seqs; yield (number, recorded, actual) of each stream for which they differ."""
    recorded = dict(sqlite.fetch(connection, "SELECT stream_no, rows FROM main._edgeshard_missing"))
    held = extents.range_rows(connection)
    for number, last_seq in last_seq_by_number(connection).items():
        actual, count = last_seq - held.get(number, 0), recorded.pop(number, 0)
        if actual != count:
            yield number, count, actual
    yield from ((number, count, 0) for number, count in recorded.items())


def find(connection: Connection, stream_id: bytes) -> tuple[int, str] | None:
    """Return the number and the agent of a stream, or None if the database does not know it."""
    found = find_with_origin(connection, stream_id)
    return None if found is None else found[:2]


def find_with_origin(connection: Connection, stream_id: bytes) -> tuple[int, str, str] | None:
    """Return the number and the agent of a stream, and when it began, or None if the database does not know it.

    The agent and the time are "" if the database knows the stream only from a note of a removed shard, or a receipt.
    """
    rows = sqlite.fetch(
        connection,
        "SELECT stream_no, agent_id, began_at FROM main._edgeshard_streams WHERE stream_id = ?",
        (stream_id,),
    )
    return (int(rows[0][0]), rows[0][1], rows[0][2]) if rows else None


def also_retired(connection: Connection) -> Iterator[bytes]:
    """Find streams that are listed, and retired as well."""
    for stream_id, _ in retired.in_order_of_id(connection):
        if find(connection, stream_id) is not None:
            yield stream_id


def origin(connection: Connection, stream_no: int) -> tuple[str, bytes]:
    """Return the agent and the id of a stream."""
    sql = "SELECT agent_id, stream_id FROM main._edgeshard_streams WHERE stream_no = ?"
    ((agent_id, stream_id),) = sqlite.fetch(connection, sql, (stream_no,))
    return agent_id, stream_id


def with_number(connection: Connection, stream_no: int) -> tuple[bytes, str, str, int] | None:
    """Return (id, agent, when it began, highest seq known to exist) of a stream, or None if there is no such stream."""
    sql = "SELECT stream_id, agent_id, began_at, last_seq FROM main._edgeshard_streams WHERE stream_no = ?"
    rows = sqlite.fetch(connection, sql, (stream_no,))
    return rows[0] if rows else None


def remove(connection: Connection, stream_no: int) -> None:
    """Remove a stream, in the transaction in which it retires."""
    connection.execute("DELETE FROM main._edgeshard_missing WHERE stream_no = ?", (stream_no,))
    connection.execute("DELETE FROM main._edgeshard_streams WHERE stream_no = ?", (stream_no,))


def set_agent(connection: Connection, stream_no: int, agent_id: str) -> None:
    """Record who wrote a stream of which that was not known."""
    connection.execute("UPDATE main._edgeshard_streams SET agent_id = ? WHERE stream_no = ?", (agent_id, stream_no))


def set_began_at(connection: Connection, stream_no: int, began_at: str) -> None:
    """Record when a stream began, which was not known before."""
    connection.execute("UPDATE main._edgeshard_streams SET began_at = ? WHERE stream_no = ?", (began_at, stream_no))


def add(connection: Connection, stream_id: bytes, agent_id: str, began_at: str) -> int:
    """Add a stream and return the number that this database gives it."""
    connection.execute(
        "INSERT INTO main._edgeshard_streams(agent_id, stream_id, began_at) VALUES (?, ?, ?)",
        (agent_id, stream_id, began_at),
    )
    return connection.last_insert_rowid()


def copy_all(connection: Connection, schema: str) -> None:
    """Add all streams of an attached database that is trusted, with the highest seqs that are known to exist."""
    connection.execute(
        "INSERT INTO main._edgeshard_streams(agent_id, stream_id, began_at, last_seq) "
        f"SELECT agent_id, stream_id, began_at, last_seq FROM {quote(schema)}._edgeshard_streams ORDER BY stream_no"
    )


def raise_last_seq(connection: Connection, stream_no: int, last_seq: int) -> int:
    """Record that the stream's rows up to `last_seq` exist; return how many of these were not known to exist."""
    before = sqlite.scalar(connection, "SELECT last_seq FROM main._edgeshard_streams WHERE stream_no = ?", (stream_no,))
    if last_seq > before:
        sql = "UPDATE main._edgeshard_streams SET last_seq = ? WHERE stream_no = ?"
        connection.execute(sql, (last_seq, stream_no))
    return max(0, last_seq - int(before))


def add_missing(connection: Connection, stream_no: int, rows: int) -> None:
    """Record that `rows` more seqs of a stream are missing, or fewer if it is negative, in the caller's transaction."""
    if rows:
        connection.execute(
            "INSERT INTO main._edgeshard_missing VALUES (?1, ?2) ON CONFLICT(stream_no) DO UPDATE SET rows = rows + ?2",
            (stream_no, rows),
        )
        connection.execute("DELETE FROM main._edgeshard_missing WHERE stream_no = ? AND rows = 0", (stream_no,))


def ids_by_number(connection: Connection) -> dict[int, bytes]:
    """Map the number of each stream in the main database to the stream's id."""
    return dict(sqlite.fetch(connection, "SELECT stream_no, stream_id FROM main._edgeshard_streams"))


def numbers_by_id(connection: Connection) -> dict[bytes, int]:
    """Map the id of each stream to its number in the main database."""
    return dict(sqlite.fetch(connection, "SELECT stream_id, stream_no FROM main._edgeshard_streams"))


def ranges_in_order_of_id(connection: Connection) -> Iterator[tuple[int, bytes, list[tuple[int, int]]]]:
    """Yield (number, id, seqs ever held as (first, last)) of each stream, in the order of the ids."""
    sql = (
        f"SELECT stream_no, stream_id, first, last FROM main._edgeshard_streams LEFT JOIN {extents.RANGES} "
        "USING (stream_no) ORDER BY stream_id, first"
    )
    for number, grouped in itertools.groupby(connection.execute(sql), key=operator.itemgetter(0)):
        rows = list(grouped)
        yield number, rows[0][1], [(first, last) for _, _, first, last in rows if first is not None]


def rows_in_order_of_id(
    connection: Connection, table: str, columns: str, where: str, bindings: tuple[bytes, ...]
) -> Iterator[tuple[Any, ...]]:
    """Yield (number, *columns) of the rows of another module's table, in the order of the ids of their streams."""
    yield from connection.execute(
        f"SELECT stream_no, {columns} FROM main._edgeshard_streams CROSS JOIN {table} USING (stream_no) "
        f"WHERE {where} ORDER BY stream_id, first",
        bindings,
    )


def rows_by_agent(connection: Connection) -> dict[str, int]:
    """Return how many seqs of each agent the database's blocks contain."""
    rows = extents.block_rows(connection)
    found: dict[str, int] = {}
    for number, agent_id in sqlite.fetch(connection, "SELECT stream_no, agent_id FROM main._edgeshard_streams"):
        if number in rows:
            found[agent_id] = found.get(agent_id, 0) + rows[number]
    return found
