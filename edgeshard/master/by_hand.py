"""Own _edgeshard_deleted_by_hand: rows that another program deleted from a master.

A trigger on each record table of a master notes the address of each row that is deleted. It fires for every program but
this package, whose connections run no triggers (`sqlite.guards.restrict`). So the next merge finds out, and by address.
A program can evade the trigger: by dropping the table, for example. Such rows are found later, by what is missing (see
`edgeshard.retention.by_hand`).
"""

from __future__ import annotations

from edgeshard import format, sqlite
from edgeshard.format.ranges import Range, union
from edgeshard.records.json_values import to_json
from edgeshard.sqlite import Connection, quote

_TRIGGER_PREFIX = f"{format.PREFIX}deletions_of_"


def note_deletions(table: str) -> str:
    """Return the statement that makes the trigger of a record table of a master."""
    return (
        f"CREATE TRIGGER main.{quote(_TRIGGER_PREFIX + table)} AFTER DELETE ON {quote(table)} BEGIN "
        "INSERT OR REPLACE INTO _edgeshard_deleted_by_hand VALUES (old._stream, old._seq); END"
    )


def forget_trigger(table: str) -> str:
    """Return the statement that drops the trigger, wherever it is: it stays with a table that is renamed."""
    return f"DROP TRIGGER IF EXISTS main.{quote(_TRIGGER_PREFIX + table)}"


def is_own_trigger(name: str) -> bool:
    """Return whether a trigger of a master is one of ours."""
    return name.startswith(_TRIGGER_PREFIX)


def has_notes(connection: Connection) -> bool:
    """Return whether another program deleted rows, and this is not recorded otherwise yet."""
    return sqlite.scalar(connection, "SELECT 1 FROM main._edgeshard_deleted_by_hand LIMIT 1") is not None


def notes(connection: Connection, limit: int = -1) -> dict[int, list[Range]]:
    """Map stream numbers to the seqs of at most `limit` of these rows, in order; -1: of all."""
    found: dict[int, list[Range]] = {}
    sql = "SELECT stream_no, seq FROM main._edgeshard_deleted_by_hand ORDER BY stream_no, seq LIMIT ?"
    for number, seq in connection.execute(sql, (limit,)):
        found.setdefault(number, []).append(Range(seq, seq))
    return {number: union(seqs) for number, seqs in found.items()}


def forget(connection: Connection, stream_no: int, seqs: list[Range]) -> None:
    """Delete the notes of these rows of a stream."""
    connection.execute(
        "DELETE FROM main._edgeshard_deleted_by_hand WHERE stream_no = ?1 AND EXISTS (SELECT 1 FROM json_each(?2) "
        "WHERE seq BETWEEN value ->> 0 AND value ->> 1)",
        (stream_no, to_json([[item.first, item.last] for item in seqs])),
    )


def forget_stream(connection: Connection, stream_no: int) -> None:
    """Delete the notes of all rows of a stream, in the transaction in which it retires: it has no row."""
    connection.execute("DELETE FROM main._edgeshard_deleted_by_hand WHERE stream_no = ?", (stream_no,))
