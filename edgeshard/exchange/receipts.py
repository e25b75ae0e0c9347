"""Give and record receipts: what another database says that it holds."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.exchange.inventory import Inventory
from edgeshard.format.ranges import Range, intersect, size, subtract
from edgeshard.master import identity
from edgeshard.master.receipts import Peer, ever_held_by, held_by, note, peers
from edgeshard.reports import DOUBTFUL, NEXT, OLDER, PUT_BACK, ReceiptReport
from edgeshard.sqlite import Connection


def inventory_of(connection: Connection) -> Inventory:
    """What the master holds, and has held, as one snapshot has it."""
    ids = dict(sqlite.fetch(connection, "SELECT stream_no, stream_id FROM main.edgeshard_streams"))
    held: dict[int, list[Range]] = {}
    for number, first, last in connection.execute("SELECT stream_no, first, last FROM main.edgeshard_ranges"):
        held.setdefault(number, []).append(Range(first, last))
    gone = {number: subtract(held[number], _blocks(connection, number)) for number in _thinned(connection)}
    return Inventory(
        identity.database_id(connection),
        datetime.datetime.now(datetime.UTC),
        identity.generation(connection),
        {ids[number]: tuple(items) for number, items in held.items()},
        {ids[number]: tuple(items) for number, items in gone.items()},
    )


def _thinned(connection: Connection) -> list[int]:
    """The streams of which the master held rows that it no longer has."""
    found = sqlite.fetch(
        connection,
        "SELECT r.stream_no FROM (SELECT stream_no, sum(last - first + 1) AS rows FROM main.edgeshard_ranges "
        "GROUP BY stream_no) r LEFT JOIN (SELECT stream_no, sum(last - first + 1) AS rows FROM main.edgeshard_blocks "
        "GROUP BY stream_no) b ON b.stream_no = r.stream_no WHERE r.rows > coalesce(b.rows, 0)",
    )
    return [number for (number,) in found]


def _blocks(connection: Connection, number: int) -> list[Range]:
    rows = sqlite.fetch(connection, "SELECT first, last FROM main.edgeshard_blocks WHERE stream_no = ?", (number,))
    return [Range(first, last) for first, last in rows]


def note_inventory(connection: Connection, said: Inventory, *, force: bool = False) -> ReceiptReport:
    """Note what a peer said of itself, unless it had said something later already.

    Args:
        connection: the master, open for writing.
        said: what it said.
        force: note it whatever was noted before.

    Raises:
        ConfigurationError: it is this very database that said so.
    """
    with sqlite.immediate(connection):
        if identity.database_id(connection) == said.database_id:
            cause = "these are the ranges of this very database; a receipt is what another one holds"
            raise ConfigurationError("note receipt of", said.database_id.hex(), cause)
        known = next((peer for peer in peers(connection) if peer.database_id == said.database_id), None)
        outcome = NEXT if known is None or force else judge(known, said)
        unknown = 0
        if outcome != OLDER:
            unknown = _note_as_judged(connection, said, known if outcome == DOUBTFUL else None)
        held = held_by(connection, said.database_id)
    return ReceiptReport(said.database_id.hex(), outcome, sum(map(size, held.values())), len(held), unknown)


def judge(known: Peer, said: Inventory) -> str:
    """Which of two receipts of a peer is the later: see this module's docstring."""
    if said.generation >= known.generation:
        return NEXT if said.at >= known.said_at else DOUBTFUL if said.generation > known.generation else OLDER
    return PUT_BACK if said.at > known.said_at else OLDER


def _note_as_judged(connection: Connection, said: Inventory, doubted: Peer | None) -> int:
    if doubted is None:
        held, gone, at = said.held, said.gone, said.at
        return note(connection, said.database_id, said.kind, held, gone=gone, said_at=at, generation=said.generation)
    held = _in_both(said.held, held_by(connection, said.database_id))
    ever = _in_both(said.streams, ever_held_by(connection, said.database_id))
    at = doubted.said_at
    return note(connection, said.database_id, said.kind, held, gone=ever, said_at=at, generation=said.generation)


def _in_both(
    one: Mapping[bytes, Iterable[Range]], other: Mapping[bytes, Iterable[Range]]
) -> dict[bytes, tuple[Range, ...]]:
    return {stream: tuple(intersect(one[stream], other.get(stream, ()))) for stream in one}
