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
