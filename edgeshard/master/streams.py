"""Own edgeshard_streams, and list the rows that a master is missing."""

from __future__ import annotations

from typing import Final

from edgeshard import sqlite
from edgeshard.format.ranges import Range, subtract
from edgeshard.reports import Gap
from edgeshard.sqlite import Connection

#: Registers a new stream of a shard; binds its number, the agent's name, its id and when it began.
INSERT_NEW: Final = (
    "INSERT INTO main.edgeshard_streams(stream_no, agent_id, stream_id, began_at) VALUES (?, ?, ?, ?)"
)


def next_stream_no(connection: Connection) -> int:
    """Return the number that the next new stream of a shard gets."""
    return int(sqlite.scalar(connection, "SELECT max(stream_no) FROM main.edgeshard_streams") or 0) + 1


def gaps(connection: Connection) -> tuple[Gap, ...]:
    """The seqs of each stream that are known to exist and that this master never held."""
    found = []
    incomplete = sqlite.fetch(
        connection,
        "SELECT s.stream_no, agent_id, stream_id, last_seq FROM edgeshard_streams s LEFT JOIN edgeshard_ranges r "
        "ON r.stream_no = s.stream_no GROUP BY s.stream_no HAVING coalesce(sum(r.last - r.first + 1), 0) < last_seq",
    )
    for number, agent_id, stream_id, last_seq in incomplete:
        rows = sqlite.fetch(connection, "SELECT first, last FROM edgeshard_ranges WHERE stream_no = ?", (number,))
        held = [Range(first, last) for first, last in rows]
        found += [
            Gap(agent_id, stream_id.hex(), part.first, part.last) for part in subtract([Range(1, last_seq)], held)
        ]
    return tuple(sorted(found, key=lambda gap: (gap.agent, gap.stream, gap.first)))


def find(connection: Connection, stream_id: bytes) -> tuple[int, str] | None:
    """Return the number and the agent of a stream, or None if the database does not know it."""
    rows = sqlite.fetch(
        connection, "SELECT stream_no, agent_id FROM main.edgeshard_streams WHERE stream_id = ?", (stream_id,)
    )
    return (int(rows[0][0]), rows[0][1]) if rows else None


def add(connection: Connection, stream_id: bytes, agent_id: str, began_at: str) -> int:
    """Add a stream and return the number that this database gives it."""
    connection.execute(
        "INSERT INTO main.edgeshard_streams(agent_id, stream_id, began_at) VALUES (?, ?, ?)",
        (agent_id, stream_id, began_at),
    )
    return connection.last_insert_rowid()


def raise_last_seq(connection: Connection, stream_no: int, last_seq: int) -> None:
    """Record that the stream's rows up to `last_seq` exist, unless later ones are known already."""
    sql = "UPDATE main.edgeshard_streams SET last_seq = ?2 WHERE stream_no = ?1 AND last_seq < ?2"
    connection.execute(sql, (stream_no, last_seq))


def ids_by_number(connection: Connection) -> dict[int, bytes]:
    """Map the number of each stream in the main database to the stream's id."""
    return dict(sqlite.fetch(connection, "SELECT stream_no, stream_id FROM main.edgeshard_streams"))
