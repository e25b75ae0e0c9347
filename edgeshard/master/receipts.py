"""Receipts: what other databases (peers) said that they hold, durably, noted in this master.

A receipt serves two ends, and they ask different questions. Whoever wants to delete a row here asks whether a peer
has it *now*; whoever exports asks whether the peer *ever* had it, since a row that the peer pruned must not come back.
So a receipt notes both: what the peer holds, and what it held once and no longer has (``is_pruned``).

A peer's receipt is replaced by its next one, not added to: a peer that was put back from an older copy holds less
than it once said, and what it lost must neither count as safe nor be left out of an export. Which of two is the next is
told by the peer's own clock, and by how often it had been merged into, for receipts are carried, and come in any order:

    later by its clock, merged as often or more      the next one
    later by its clock, merged less often            it was put back from an older copy: the next one
    not later by its clock, merged no more often     an older receipt: nothing is noted
    earlier by its clock, merged more often          its clock was set back, or this is an older receipt of one that was
                                                     put back: only what both say counts

To count too little is always safe: more is kept here, and more is exported, than need be.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.sqlite import Connection

#: The kinds of peers.
KINDS: Final = ("edgeshard", "postgresql")
EDGESHARD, POSTGRESQL = KINDS

#: Digits of a peer's id that name it, where no other begins so.
_DIGITS_MIN = 6

#: Peers that an error names.
_NAMED_MAX = 10

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
        received_at: when its last receipt came, by this machine's clock.
        issued_at: when it gave that, by its own clock.
        generation: how often it had been merged into by then; 0 where it does not count.
    """

    database_id: bytes
    kind: str
    received_at: datetime.datetime
    issued_at: datetime.datetime
    generation: int


def find(connection: Connection, digits: str, path: str) -> Peer:
    """The peer with this id, or with the one id that begins so.

    Args:
        connection: the master.
        digits: its id in hexadecimal, or the first of its digits.
        path: the master's, for the error.

    Raises:
        ConfigurationError: there is none, or more than one.
    """
    known = peers(connection)
    found = [peer for peer in known if peer.database_id.hex().startswith(digits.lower())]
    if len(found) == 1 and len(digits) >= _DIGITS_MIN:
        return found[0]
    listed = ", ".join(f"{peer.database_id.hex()} ({peer.kind})" for peer in known[:_NAMED_MAX])
    more = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
    said = (
        f"there are receipts of {listed}{more}" if known else "there is none of any; note one with `edgeshard receipt`"
    )
    what = "more than one receipt fits" if len(found) > 1 else "at least 6 digits name a database"
    if not found:
        what = "there is no receipt of a database with such an id"
    raise ConfigurationError("find receipt of", digits, f"{what} in {path}: {said}")


def note(
    connection: Connection,
    database_id: bytes,
    kind: str,
    held: Mapping[bytes, Iterable[Range]],
    *,
    gone: Mapping[bytes, Iterable[Range]] | None = None,
    issued_at: datetime.datetime | None = None,
    generation: int = 0,
) -> int:
    """Note what a peer said, in place of what it said before; in the open transaction, or one of its own.

    Args:
        connection: the master, open for writing.
        database_id: which database the peer is, 16 bytes.
        kind: `EDGESHARD` or `POSTGRESQL`.
        held: all that it holds now, durably, of each stream, by the stream's id.
        gone: what it held once and no longer has.
        issued_at: when it said so, by its own clock; None: now.
        generation: how often it had been merged into by then.

    Returns:
        Of how many streams nothing was noted, because this master does not know them.
    """
    now = datetime.datetime.now(datetime.UTC)
    issued_at = issued_at or now
    with contextlib.nullcontext() if connection.in_transaction else sqlite.immediate(connection):
        numbers = dict(sqlite.fetch(connection, "SELECT stream_id, stream_no FROM main.edgeshard_streams"))
        _replace(connection, database_id, set(_rows(numbers, held, gone or {})))
        connection.execute(
            "INSERT OR REPLACE INTO main.edgeshard_peers(database_id, kind, received_at, issued_at, generation) "
            "VALUES (?, ?, ?, ?, ?)",
            (database_id, kind, now.isoformat(), issued_at.isoformat(), generation),
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
    sql = "SELECT stream_no, first, last, is_pruned FROM main.edgeshard_receipts WHERE database_id = ?"
    before = set(sqlite.fetch(connection, sql, (database_id,)))
    connection.executemany(
        "DELETE FROM main.edgeshard_receipts WHERE database_id = ? AND stream_no = ? AND first = ?",
        [(database_id, number, first) for number, first, _, _ in before - rows],
    )
    connection.executemany(
        "INSERT INTO main.edgeshard_receipts(database_id, stream_no, first, last, is_pruned) VALUES (?, ?, ?, ?, ?)",
        [(database_id, *row) for row in sorted(rows - before)],
    )


def peers(connection: Connection) -> list[Peer]:
    """All databases of which there is a receipt; those that spoke last come first."""
    rows = sqlite.fetch(
        connection,
        "SELECT database_id, kind, received_at, issued_at, generation FROM main.edgeshard_peers "
        "ORDER BY received_at DESC, database_id",
    )
    time = datetime.datetime.fromisoformat
    return [
        Peer(where, kind, time(received_at), time(issued_at), count)
        for where, kind, received_at, issued_at, count in rows
    ]


def held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """What a peer holds now of each stream, by the stream's id, as its last receipt says."""
    return _united(connection, "database_id = ? AND is_pruned = 0", (database_id,))


def ever_held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """What a peer holds, or held once, of each stream, by the stream's id."""
    return _united(connection, "database_id = ?", (database_id,))


def held_elsewhere(connection: Connection, kinds: Collection[str]) -> dict[bytes, list[Range]]:
    """What at least one peer of these kinds holds now of each stream, by the stream's id."""
    listed = ", ".join("?" * len(kinds))
    return _united(connection, f"kind IN ({listed}) AND is_pruned = 0", tuple(kinds))


def holders(connection: Connection, stream_id: bytes) -> list[tuple[Peer, list[Range]]]:
    """Which peers hold rows of a stream now, and which rows; those that spoke last come first."""
    found: dict[bytes, list[Range]] = {}
    for where, _, first, last in _listed(connection, "stream_id = ? AND is_pruned = 0", (stream_id,)):
        found.setdefault(where, []).append(Range(first, last))
    return [(peer, found[peer.database_id]) for peer in peers(connection) if peer.database_id in found]


def beyond(connection: Connection) -> list[int]:
    """The numbers of streams of which some peer holds rows now that this master never had."""
    rows = sqlite.fetch(
        connection,
        "SELECT DISTINCT r.stream_no FROM main.edgeshard_receipts r WHERE is_pruned = 0 AND coalesce((SELECT h.last "
        "FROM main.edgeshard_ranges h WHERE h.stream_no = r.stream_no AND h.first <= r.first ORDER BY h.first DESC LIMIT 1"
        "), 0) < r.last",
    )
    return [number for (number,) in rows]


def _united(connection: Connection, which: str, bindings: tuple[bytes | str, ...]) -> dict[bytes, list[Range]]:
    found: dict[bytes, list[Range]] = {}
    for _, stream_id, first, last in _listed(connection, which, bindings):
        found.setdefault(stream_id, []).append(Range(first, last))
    return {stream_id: union(items) for stream_id, items in found.items()}


def _listed(
    connection: Connection, which: str, bindings: tuple[bytes | str, ...]
) -> list[tuple[bytes, bytes, int, int]]:
    return sqlite.fetch(connection, _RANGES + which, bindings)
