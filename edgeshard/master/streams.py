"""Own edgeshard_streams, and list the rows that a master is missing."""

from __future__ import annotations

from edgeshard import sqlite
from edgeshard.format.ranges import Range, subtract
from edgeshard.reports import Gap
from edgeshard.sqlite import Connection


def numbers_by_id(connection: Connection) -> dict[bytes, int]:
    """Map the id of each stream to its number in this database."""
    return dict(sqlite.fetch(connection, "SELECT stream_id, stream_no FROM main.edgeshard_streams"))


def origins(connection: Connection) -> list[tuple[int, bytes, str, str]]:
    """Return (number, id, agent, when it began) of each stream."""
    return sqlite.fetch(connection, "SELECT stream_no, stream_id, agent_id, began_at FROM main.edgeshard_streams")


def last_seqs(connection: Connection) -> list[tuple[int, str, int]]:
    """Return (number, agent, highest seq known to exist) of each stream that is known to have rows."""
    sql = "SELECT stream_no, agent_id, last_seq FROM main.edgeshard_streams WHERE last_seq > 0"
    return sqlite.fetch(connection, sql)


def highest_number(connection: Connection) -> int:
    """Return the highest number of a stream, or 0 if there are none."""
    return int(sqlite.scalar(connection, "SELECT max(stream_no) FROM main.edgeshard_streams") or 0)


def numbers_after(connection: Connection, stream_no: int) -> list[int]:
    """Return the numbers of the streams that were added after this one."""
    sql = "SELECT stream_no FROM main.edgeshard_streams WHERE stream_no > ?"
    return [number for (number,) in sqlite.fetch(connection, sql, (stream_no,))]


def numbers_without_rows(connection: Connection) -> list[int]:
    """Return the numbers of the streams of which no row ever arrived, and none is known to have been pruned."""
    sql = "SELECT stream_no FROM main.edgeshard_streams EXCEPT SELECT stream_no FROM main.edgeshard_ranges"
    if sqlite.has_table(connection, "edgeshard_pruned_ranges"):
        sql += " EXCEPT SELECT stream_no FROM main.edgeshard_pruned_ranges"
    return [number for (number,) in sqlite.fetch(connection, sql)]


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
