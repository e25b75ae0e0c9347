"""Own edgeshard_receipts and edgeshard_peers: what other databases (peers) said that they hold durably.

A receipt answers two different questions. To delete a row here, we ask whether a peer has it *now*. To export rows, we
ask whether the peer *ever* had them, because a row that the peer pruned must not come back. So a receipt records both:
what the peer holds, and what it held once and has pruned (``is_pruned``).

`edgeshard.exchange.receipts` decides which of two receipts of a peer is newer.
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
from edgeshard.master import extents, streams
from edgeshard.sqlite import Connection

#: The kinds of databases that a peer can be.
KINDS: Final = ("edgeshard", "postgresql")
EDGESHARD, POSTGRESQL = KINDS

#: How many digits of a peer's id may stand for it, if no other id begins with them.
_DIGITS_MIN = 6

#: How many peers an error names.
_NAMED_MAX = 10

_SELECT_RANGES = (
    f"SELECT database_id, stream_id, r.first, r.last FROM main.edgeshard_receipts r {streams.JOIN} "
    "JOIN main.edgeshard_peers USING (database_id) WHERE "
)


@attrs.frozen
class Peer:
    """A database that gave a receipt.

    Attributes:
        database_id: its id, 16 bytes.
        kind: "edgeshard" or "postgresql".
        received_at: when its last receipt arrived, by this machine's clock.
        issued_at: when it issued that receipt, by its own clock.
        generation: how often it had been changed by then; 0 if it does not count.
    """

    database_id: bytes
    kind: str
    received_at: datetime.datetime
    issued_at: datetime.datetime
    generation: int


def find(connection: Connection, digits: str, path: str) -> Peer:
    """Return the peer with this id, or the only one whose id begins with these digits.

    Args:
        connection: the master.
        digits: its id in hexadecimal, or the first digits of it.
        path: the master, for the error.

    Raises:
        ConfigurationError: there is no such peer, or more than one.
    """
    known = peers(connection)
    found = [peer for peer in known if peer.database_id.hex().startswith(digits.lower())]
    if len(found) == 1 and len(digits) >= _DIGITS_MIN:
        return found[0]
    listed = ", ".join(f"{peer.database_id.hex()} ({peer.kind})" for peer in known[:_NAMED_MAX])
    more = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
    available = (
        f"there are receipts of {listed}{more}"
        if known
        else "there is no receipt at all; record one with `edgeshard receipt`"
    )
    what = "more than one receipt fits" if len(found) > 1 else f"give at least {_DIGITS_MIN} digits of the id"
    if not found:
        what = "there is no receipt of a database with such an id"
    raise ConfigurationError("find receipt of", digits, f"{what} in {path}: {available}")


def record(
    connection: Connection,
    database_id: bytes,
    kind: str,
    held: Mapping[bytes, Iterable[Range]],
    *,
    pruned: Mapping[bytes, Iterable[Range]] | None = None,
    issued_at: datetime.datetime | None = None,
    generation: int = 0,
) -> int:
    """Replace a peer's receipt by a newer one; in the open transaction, or in one of its own.

    Args:
        connection: the master, open for writing.
        database_id: the peer's id, 16 bytes.
        kind: `EDGESHARD` or `POSTGRESQL`.
        held: what it holds now, durably, by stream id.
        pruned: what it held once and has pruned, by stream id.
        issued_at: when it said so, by its own clock; None: now.
        generation: how often it had been changed by then.

    Returns:
        The number of streams that were ignored because this master does not know them.
    """
    now = datetime.datetime.now(datetime.UTC)
    issued_at = issued_at or now
    with contextlib.nullcontext() if connection.in_transaction else sqlite.immediate(connection):
        numbers = streams.numbers_by_id(connection)
        _replace(connection, database_id, set(_rows(numbers, held, pruned or {})))
        connection.execute(
            "INSERT OR REPLACE INTO main.edgeshard_peers(database_id, kind, received_at, issued_at, generation) "
            "VALUES (?, ?, ?, ?, ?)",
            (database_id, kind, now.isoformat(), issued_at.isoformat(), generation),
        )
    return len((held.keys() | (pruned or {}).keys()) - numbers.keys())


_Row = tuple[int, int, int, int]


def _rows(
    numbers: Mapping[bytes, int], held: Mapping[bytes, Iterable[Range]], pruned: Mapping[bytes, Iterable[Range]]
) -> Iterable[_Row]:
    for stream_id in (held.keys() | pruned.keys()) & numbers.keys():
        now = union(held.get(stream_id, ()))
        for item in now:
            yield numbers[stream_id], item.first, item.last, 0
        for item in subtract(pruned.get(stream_id, ()), now):
            yield numbers[stream_id], item.first, item.last, 1


def _replace(connection: Connection, database_id: bytes, rows: set[_Row]) -> None:
    """Replace the rows of a peer, writing only the differences: most of a receipt repeats the last one."""
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
    """Return all databases that gave a receipt, the most recent first."""
    rows = sqlite.fetch(
        connection,
        "SELECT database_id, kind, received_at, issued_at, generation FROM main.edgeshard_peers "
        "ORDER BY received_at DESC, database_id",
    )
    parse = datetime.datetime.fromisoformat
    return [
        Peer(database_id, kind, parse(received_at), parse(issued_at), generation)
        for database_id, kind, received_at, issued_at, generation in rows
    ]


def held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """Return what a peer holds now according to its last receipt, by stream id."""
    return _united(connection, "database_id = ? AND is_pruned = 0", (database_id,))


def ever_held_by(connection: Connection, database_id: bytes) -> dict[bytes, list[Range]]:
    """Return what a peer holds, or held once, by stream id."""
    return _united(connection, "database_id = ?", (database_id,))


def held_elsewhere(connection: Connection, kinds: Collection[str]) -> dict[bytes, list[Range]]:
    """Return what at least one peer of these kinds holds now, by stream id."""
    listed = ", ".join("?" * len(kinds))
    return _united(connection, f"kind IN ({listed}) AND is_pruned = 0", tuple(kinds))


def holders(connection: Connection, stream_id: bytes) -> list[tuple[Peer, list[Range]]]:
    """Return the peers that hold rows of a stream now, each with these rows, the most recent receipt first."""
    found: dict[bytes, list[Range]] = {}
    for database_id, _, first, last in _listed(connection, "stream_id = ? AND is_pruned = 0", (stream_id,)):
        found.setdefault(database_id, []).append(Range(first, last))
    return [(peer, found[peer.database_id]) for peer in peers(connection) if peer.database_id in found]


def streams_with_unknown_rows(connection: Connection) -> list[int]:
    """Return the numbers of the streams with rows that a peer holds now and this master never had."""
    rows = sqlite.fetch(
        connection,
        "SELECT DISTINCT p.stream_no FROM main.edgeshard_receipts p "
        f"WHERE is_pruned = 0 AND {extents.range_end('p')} < p.last",
    )
    return [number for (number,) in rows]


def _united(connection: Connection, where: str, bindings: tuple[bytes | str, ...]) -> dict[bytes, list[Range]]:
    found: dict[bytes, list[Range]] = {}
    for _, stream_id, first, last in _listed(connection, where, bindings):
        found.setdefault(stream_id, []).append(Range(first, last))
    return {stream_id: union(items) for stream_id, items in found.items()}


def _listed(
    connection: Connection, where: str, bindings: tuple[bytes | str, ...]
) -> list[tuple[bytes, bytes, int, int]]:
    return sqlite.fetch(connection, _SELECT_RANGES + where, bindings)
