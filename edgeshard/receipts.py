"""Receipts: what other databases (peers) said that they hold, durably, noted in this master.

A receipt serves two ends, and they ask different questions. Whoever wants to delete a row here asks whether a peer
has it *now*; whoever exports asks whether the peer *ever* had it, since a row that the peer pruned must not come back.
So a receipt notes both: what the peer holds, and what it held once and no longer has (``is_gone``).

A peer's receipt is replaced by its next one, not added to: a peer that was put back from an older copy holds less
than it once said, and what it lost must neither count as safe nor be left out of an export.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Collection, Iterable, Mapping

import attrs

from edgeshard import database, master
from edgeshard.database import Connection
from edgeshard.ranges import Range, subtract, union

#: The kinds of peers.
EDGESHARD, POSTGRESQL = "edgeshard", "postgresql"

_RANGES = (
    "SELECT database_id, stream_id, r.first, r.last FROM main.edgeshard_receipts r "
    "JOIN main.edgeshard_streams USING(stream_no) JOIN main.edgeshard_peers USING(database_id) WHERE "
)


@attrs.frozen
class Peer:
    """A database of which there is a receipt.

    Attributes:
        database_id: which database it is, 16 bytes.
        kind: "edgeshard" or "postgresql".
        noted_at: when its last receipt came, by this machine's clock.
        said_at: when it gave that, by its own clock.
        generation: how often it had been merged into by then; 0 where it does not count.
    """

    database_id: bytes
    kind: str
    noted_at: datetime.datetime
    said_at: datetime.datetime
    generation: int


def note(
    connection: Connection,
    database_id: bytes,
    kind: str,
    held: Mapping[bytes, Iterable[Range]],
    *,
    gone: Mapping[bytes, Iterable[Range]] | None = None,
    said_at: datetime.datetime | None = None,
    generation: int = 0,
) -> int:
    """Note what a peer said, in place of what it said before; in the open transaction, or one of its own.

    Args:
        connection: the master, open for writing.
        database_id: which database the peer is, 16 bytes.
        kind: `EDGESHARD` or `POSTGRESQL`.
        held: all that it holds now, durably, of each stream, by the stream's id.
        gone: what it held once and no longer has.
        said_at: when it said so, by its own clock; None: now.
        generation: how often it had been merged into by then.

    Returns:
        Of how many streams nothing was noted, because this master does not know them.
    """
    now = datetime.datetime.now(datetime.UTC)
    said_at = said_at or now
    with contextlib.nullcontext() if connection.in_transaction else database.immediate(connection):
        numbers = dict(database.fetch(connection, "SELECT stream_id, stream_no FROM main.edgeshard_streams"))
        _replace(connection, database_id, set(_rows(numbers, held, gone or {})))
        connection.execute(
            "INSERT OR REPLACE INTO main.edgeshard_peers(database_id, kind, noted_at, said_at, generation) "
            "VALUES (?, ?, ?, ?, ?)",
            (database_id, kind, now.isoformat(), said_at.isoformat(), generation),
        )
    return len((held.keys() | (gone or {}).keys()) - numbers.keys())


_Row = tuple[int, int, int, int]


def _rows(
    numbers: Mapping[bytes, int], held: Mapping[bytes, Iterable[Range]], gone: Mapping[bytes, Iterable[Range]]
) -> Iterable[_Row]:
    for stream_id in (held.keys() | gone.keys()) & numbers.keys():
        now = union(held.get(stream_id, ()))
        for item in now:
            yield numbers[stream_id], item.first, item.last, 0
        for item in subtract(gone.get(stream_id, ()), now):
            yield numbers[stream_id], item.first, item.last, 1


def _replace(connection: Connection, database_id: bytes, rows: set[_Row]) -> None:
    """Make these the peer's, and write only what differs: most of a receipt is what the last one said."""
    sql = "SELECT stream_no, first, last, is_gone FROM main.edgeshard_receipts WHERE database_id = ?"
    before = set(database.fetch(connection, sql, (database_id,)))
    connection.executemany(
        "DELETE FROM main.edgeshard_receipts WHERE database_id = ? AND stream_no = ? AND first = ?",
        [(database_id, number, first) for number, first, _, _ in before - rows],
    )
    connection.executemany(
        "INSERT INTO main.edgeshard_receipts(database_id, stream_no, first, last, is_gone) VALUES (?, ?, ?, ?, ?)",
        [(database_id, *row) for row in sorted(rows - before)],
    )


def peers(connection: Connection) -> list[Peer]:
    """All databases of which there is a receipt; those that spoke last come first."""
    if not master.has(connection, "edgeshard_peers"):
        return []
    rows = database.fetch(
        connection,
        "SELECT database_id, kind, noted_at, said_at, generation FROM main.edgeshard_peers "
        "ORDER BY noted_at DESC, database_id",
    )
    time = datetime.datetime.fromisoformat
    return [Peer(where, kind, time(noted_at), time(said_at), count) for where, kind, noted_at, said_at, count in rows]


def held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """What a peer holds now of each stream, by the stream's id, as its last receipt says."""
    return _united(connection, "database_id = ? AND is_gone = 0", (database_id,))


def ever_held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """What a peer holds, or held once, of each stream, by the stream's id."""
    return _united(connection, "database_id = ?", (database_id,))


def held_elsewhere(connection: Connection, kinds: Collection[str]) -> dict[bytes, list[Range]]:
    """What at least one peer of these kinds holds now of each stream, by the stream's id."""
    listed = ", ".join("?" * len(kinds))
    return _united(connection, f"kind IN ({listed}) AND is_gone = 0", tuple(kinds))


def holders(connection: Connection, stream_id: bytes) -> list[tuple[Peer, list[Range]]]:
    """Which peers hold rows of a stream now, and which rows; those that spoke last come first."""
    found: dict[bytes, list[Range]] = {}
    for where, _, first, last in _listed(connection, "stream_id = ? AND is_gone = 0", (stream_id,)):
        found.setdefault(where, []).append(Range(first, last))
    return [(peer, found[peer.database_id]) for peer in peers(connection) if peer.database_id in found]


def _united(connection: Connection, which: str, bindings: tuple[bytes | str, ...]) -> dict[bytes, list[Range]]:
    found: dict[bytes, list[Range]] = {}
    for _, stream_id, first, last in _listed(connection, which, bindings):
        found.setdefault(stream_id, []).append(Range(first, last))
    return {stream_id: union(items) for stream_id, items in found.items()}


def _listed(
    connection: Connection, which: str, bindings: tuple[bytes | str, ...]
) -> list[tuple[bytes, bytes, int, int]]:
    if not master.has(connection, "edgeshard_receipts"):
        return []
    return database.fetch(connection, _RANGES + which, bindings)
