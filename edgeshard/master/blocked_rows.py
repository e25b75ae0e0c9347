"""Own _edgeshard_conflicts and _blocked: which rows of a shard this master cannot take, and why.

Rows of a table whose type conflicts with the master's are *blocked*, with the transactions that touch them: they stay
in their shard. Later rows of the stream are merged, so the ranges have holes. This record tells such a hole from rows
that are missing, as long as the shard's file is there. It also spares the next merge from looking for the same rows
again, as long as the reason is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from edgeshard import sqlite
from edgeshard.format.ranges import Range, union
from edgeshard.master import streams
from edgeshard.sources.source import Blocked, Conflict
from edgeshard.sqlite import Connection

_JOIN = f"main._edgeshard_conflicts JOIN main._edgeshard_blocked USING (conflict_id) {streams.JOIN}"


def load(connection: Connection, shard: str) -> dict[Conflict, dict[bytes, list[Range]]]:
    """Return the blocked rows of a shard, by reason and stream id, as the last merge found them.

    Args:
        connection: the master.
        shard: the name of the file in the folder of shards.
    """
    if sqlite.scalar(connection, "SELECT 1 FROM main._edgeshard_conflicts WHERE shard = ? LIMIT 1", (shard,)) is None:
        return {}  # almost always
    sql = f"SELECT table_name, cause, stream_id, first, last FROM {_JOIN} WHERE shard = ? ORDER BY conflict_id, first"
    found: dict[Conflict, dict[bytes, list[Range]]] = {}
    for table, cause, stream_id, first, last in sqlite.fetch(connection, sql, (shard,)):
        found.setdefault(Conflict(table, cause), {}).setdefault(stream_id, []).append(Range(first, last))
    return found


def record(connection: Connection, shard: str, before: Blocked, blocked: Blocked) -> None:
    """Record the blocked rows of a shard in the caller's transaction; rows that are not among them are no longer.

    Args:
        connection: the master.
        shard: the name of the file in the folder of shards.
        before: what `load` returned in this transaction.
        blocked: the blocked rows, by reason and stream id.
    """
    if not before and not blocked:
        return
    numbers = streams.numbers_by_id(connection)
    for conflict in before.keys() | blocked.keys():
        old, new = _rows(before.get(conflict, {}), numbers), _rows(blocked.get(conflict, {}), numbers)
        number = _conflict_id(connection, shard, conflict)
        connection.executemany(
            "DELETE FROM main._edgeshard_blocked WHERE conflict_id = ? AND stream_no = ? AND first = ?",
            [(number, stream_no, part.first) for stream_no, part in old - new],
        )
        connection.executemany(
            "INSERT INTO main._edgeshard_blocked VALUES (?, ?, ?, ?)",
            [(number, stream_no, part.first, part.last) for stream_no, part in new - old],
        )
        if not new:
            connection.execute("DELETE FROM main._edgeshard_conflicts WHERE conflict_id = ?", (number,))


def _rows(by_stream: Mapping[bytes, Sequence[Range]], numbers: Mapping[bytes, int]) -> set[tuple[int, Range]]:
    return {(numbers[stream_id], part) for stream_id, parts in by_stream.items() for part in union(parts)}


def _conflict_id(connection: Connection, shard: str, conflict: Conflict) -> int:
    key = (shard, conflict.table, conflict.cause)
    connection.execute(
        "INSERT OR IGNORE INTO main._edgeshard_conflicts(shard, table_name, cause) VALUES (?, ?, ?)", key
    )
    sql = "SELECT conflict_id FROM main._edgeshard_conflicts WHERE shard = ? AND table_name = ? AND cause = ?"
    return int(sqlite.scalar(connection, sql, key))


def shards(connection: Connection) -> set[str]:
    """Return the names of the files that have blocked rows."""
    return {name for (name,) in sqlite.fetch(connection, "SELECT DISTINCT shard FROM main._edgeshard_conflicts")}


def forget(connection: Connection, shards: Set[str]) -> None:
    """Forget the blocked rows of shards whose files are no longer there: now these rows are missing."""
    for shard in shards:
        numbers = "SELECT conflict_id FROM main._edgeshard_conflicts WHERE shard = ?"
        connection.execute(f"DELETE FROM main._edgeshard_blocked WHERE conflict_id IN ({numbers})", (shard,))
        connection.execute("DELETE FROM main._edgeshard_conflicts WHERE shard = ?", (shard,))


def count(connection: Connection) -> list[tuple[str, str, str, int]]:
    """Return (shard, table, cause, rows) of all blocked rows."""
    return sqlite.fetch(
        connection,
        "SELECT shard, table_name, cause, sum(last - first + 1) FROM main._edgeshard_conflicts "
        "JOIN main._edgeshard_blocked USING (conflict_id) GROUP BY conflict_id ORDER BY shard, table_name, cause",
    )


def by_stream(connection: Connection, shards: Set[str] | None = None) -> dict[bytes, list[Range]]:
    """Map the ids of streams to their blocked seqs.

    Args:
        connection: the master.
        shards: only those in these files; None: in any.
    """
    if not sqlite.has_table(connection, "_edgeshard_blocked"):  # a bundle, which has no shards
        return {}
    found: dict[bytes, list[Range]] = {}
    for shard, stream_id, first, last in sqlite.fetch(connection, f"SELECT shard, stream_id, first, last FROM {_JOIN}"):
        if shards is None or shard in shards:
            found.setdefault(stream_id, []).append(Range(first, last))
    return {stream_id: union(parts) for stream_id, parts in found.items()}


def has_stream(connection: Connection, stream_no: int) -> bool:
    """Return whether any row of a stream is blocked in a shard."""
    sql = (
        "SELECT 1 FROM main._edgeshard_conflicts CROSS JOIN main._edgeshard_blocked USING (conflict_id) "
        "WHERE stream_no = ? LIMIT 1"
    )
    return sqlite.scalar(connection, sql, (stream_no,)) is not None
