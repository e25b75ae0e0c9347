"""Take this master's inventory, and record another database's (a *peer*'s) as a *receipt*.

The next receipt of a peer replaces the last one; it is not added to it. A peer that was restored from an older copy
holds less than it once said, and the rows that it lost must neither count as safe nor be left out of an export.

Receipts may arrive in any order. Which of two is the later one is decided by the peer's own clock, and by its
generation, which grows with each merge and prune:

    clock not earlier, generation not lower     the next receipt: it replaces the last one
    clock later, generation lower               the peer was restored from an older copy: the same
    clock earlier, generation higher            its clock was set back, or this is an older receipt of a peer that has
                                                been restored since: only the rows that are in both count
    otherwise                                   an older receipt: it is ignored

Counting too little is always safe: more is kept here, and more is exported, than necessary.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.exchange.inventory import Inventory
from edgeshard.format.ranges import Range, intersect, size, subtract
from edgeshard.master import extents, identity, streams
from edgeshard.master.receipts import Peer, ever_held_by, held_by, peers, record
from edgeshard.reports import DOUBTFUL, NEXT, OLDER, PUT_BACK, ReceiptReport
from edgeshard.sqlite import Connection


def take_inventory(connection: Connection) -> Inventory:
    """Return what the master holds and has ever held, in one snapshot of it."""
    ids = streams.ids_by_number(connection)
    held = extents.ranges_by_stream(connection)
    pruned = {}
    for stream_no in extents.pruned_streams(connection):
        present = [Range(block.first, block.last) for block in extents.blocks(connection, stream_no)]
        pruned[ids[stream_no]] = tuple(subtract(held[stream_no], present))
    return Inventory(
        identity.database_id(connection),
        datetime.datetime.now(datetime.UTC),
        identity.generation(connection),
        {ids[stream_no]: tuple(ranges) for stream_no, ranges in held.items()},
        pruned,
    )


def record_receipt(connection: Connection, inventory: Inventory, *, force: bool = False) -> ReceiptReport:
    """Record the inventory of a peer in the master, unless a later one of the same peer is recorded.

    Args:
        connection: the master, open for writing.
        inventory: what the peer says that it holds.
        force: record it even if a later one is recorded already.

    Raises:
        ConfigurationError: it is the inventory of this database itself.
    """
    database_id = inventory.database_id
    with sqlite.immediate(connection):
        if identity.database_id(connection) == database_id:
            cause = "these are the ranges of this database itself; record those of another one"
            raise ConfigurationError("record receipt of", database_id.hex(), cause)
        last = next((peer for peer in peers(connection) if peer.database_id == database_id), None)
        outcome = NEXT if last is None or force else judge(last, inventory)
        unknown = 0
        if outcome == DOUBTFUL and last is not None:
            unknown = _record_what_both_say(connection, inventory, last)
        elif outcome != OLDER:
            unknown = record(
                connection,
                database_id,
                inventory.kind,
                inventory.held,
                pruned=inventory.pruned,
                issued_at=inventory.at,
                generation=inventory.generation,
            )
        held = held_by(connection, database_id)
    return ReceiptReport(database_id.hex(), outcome, sum(map(size, held.values())), len(held), unknown)


def judge(last: Peer, inventory: Inventory) -> str:
    """Decide which of two receipts of a peer is the later one; see the docstring of this module.

    Args:
        last: what is recorded of the peer.
        inventory: what it says now.

    Returns:
        What to do with the new one: `NEXT`, `PUT_BACK`, `OLDER` or `DOUBTFUL`.
    """
    if inventory.generation >= last.generation:
        if inventory.at >= last.issued_at:
            return NEXT
        return DOUBTFUL if inventory.generation > last.generation else OLDER
    return PUT_BACK if inventory.at > last.issued_at else OLDER


def _record_what_both_say(connection: Connection, inventory: Inventory, last: Peer) -> int:
    """Record only the rows that are in the last receipt as well, and return how many streams are unknown here."""
    return record(
        connection,
        inventory.database_id,
        inventory.kind,
        _in_both(inventory.held, held_by(connection, inventory.database_id)),
        pruned=_in_both(inventory.streams, ever_held_by(connection, inventory.database_id)),
        issued_at=last.issued_at,
        generation=inventory.generation,
    )


def _in_both(
    one: Mapping[bytes, Iterable[Range]], other: Mapping[bytes, Iterable[Range]]
) -> dict[bytes, tuple[Range, ...]]:
    return {stream_id: tuple(intersect(one[stream_id], other.get(stream_id, ()))) for stream_id in one}
