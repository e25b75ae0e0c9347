"""Own edgeshard_streams, and list the rows that a master is missing."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.format.ranges import Range, subtract
from edgeshard.reports import Gap
from edgeshard.sqlite import Connection


def count(connection: Connection) -> tuple[int, int]:
    """Return how many streams the database knows, and how many agents wrote them."""
    ((streams, agents),) = sqlite.fetch(
        connection, "SELECT count(*), count(DISTINCT agent_id) FROM main.edgeshard_streams"
    )
    return streams, agents


def agents(connection: Connection) -> list[str]:
    """Return the names of all agents that the database knows."""
    return [name for (name,) in sqlite.fetch(connection, "SELECT DISTINCT agent_id FROM main.edgeshard_streams")]


def insert(connection: Connection, stream_no: int, agent: str, stream_id: bytes, began_at: str, last_seq: int) -> None:
    """Add a stream under a given number, unless it is there."""
    connection.execute(
        "INSERT OR IGNORE INTO main.edgeshard_streams(stream_no, agent_id, stream_id, began_at, last_seq) "
        "VALUES (?, ?, ?, ?, ?)",
        (stream_no, agent, stream_id, began_at, last_seq),
    )


def truncations(connection: Connection, stream_id: bytes) -> list[tuple[Range, bytes]]:
    """Return which seqs of a stream were truncated from shards, each with the id of the database that holds them."""
    rows = sqlite.fetch(
        connection,
        "SELECT first, last, t.database_id FROM main.edgeshard_truncations t "
        "JOIN main.edgeshard_streams USING(stream_no) WHERE stream_id = ? ORDER BY first",
        (stream_id,),
    )
    return [(Range(first, last), database_id) for first, last, database_id in rows]


def insert_truncation(connection: Connection, stream_no: int, seqs: Range, database_id: bytes) -> None:
    """Note that these seqs were truncated because the database with this id holds them, unless that is noted."""
    connection.execute(
        "INSERT OR IGNORE INTO main.edgeshard_truncations VALUES (?, ?, ?, ?)",
        (stream_no, seqs.first, seqs.last, database_id),
    )


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
