"""Take this master's inventory, and record another database's (a *peer*'s) as a *receipt*.

A receipt only counts once its peer is confirmed: somebody compared the peer's id, and recorded a receipt of it with
``trust``. A peer stays confirmed. This store also confirms the PostgreSQL databases that it pushes to. The first
receipt of any other peer awaits confirmation, and nothing of it counts; whether it was merged from here does not
matter, because rows that came from a database say nothing about who holds ours. All that it does is to keep an earlier
one from being confirmed by mistake. Which rows count is decided in `edgeshard.master.receipts`.

The next receipt of a peer replaces the last one; it is not added to it. A peer that was restored from an older copy
holds less than it once said, and the rows that it lost must neither count as safe nor be left out of an export.

Receipts may arrive in any order. Which of two is the later one is decided by the peer's own clock, and by its
generation, which grows with each merge and prune:

    clock not earlier, generation not lower     the next receipt: it replaces the last one
    clock later, generation lower               the peer was restored from an older copy: the same
    otherwise                                   an older receipt, or the clock was set back and the peer may have been
                                                restored from an older copy, as a disk image restores both: only the
                                                rows that are in both receipts count

Counting too little is always safe: more is kept here, and more is exported, than necessary. The next receipt that is
certainly later makes up for it. A peer whose clock was ahead of ours when it issued the last receipt, and is right
again, must not be doubted until that date: after one receipt that is doubted, those that it issues from now on count.

If a database and its copy are both in use, under one id, the receipts of both are judged as if one database had given
them. Each replaces the last one if its clock is not earlier, and counts until the other's arrives. Rows are pruned here
that only one of the two holds: only the owner of the copies can decide which one is kept.
"""

from __future__ import annotations

import datetime
import heapq
import operator
from collections.abc import Iterator

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError
from edgeshard.exchange import encoding
from edgeshard.exchange.encoding import Run
from edgeshard.exchange.inventory import Inventory
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import database, extents, identity, receipts, retired, store_clock, streams
from edgeshard.master.receipts import Peer
from edgeshard.records import machine_clock
from edgeshard.reports import AWAITING, DOUBTFUL, NEXT, PUT_BACK, ReceiptReport
from edgeshard.sqlite import Connection

#: A receipt that is issued later than this from now comes from a clock that is ahead.
_AHEAD_MAX = datetime.timedelta(days=1)


def take_inventory(connection: Connection) -> Inventory:
    """Return what the master holds and has ever held, in one snapshot of it."""
    database.prepare_id_order(connection)
    return Inventory(
        identity.database_id(connection),
        datetime.datetime.now(datetime.UTC),
        identity.generation(connection),
        encoding.encode_runs(_runs_of_streams(connection)),
    )


def _runs_of_streams(connection: Connection) -> Iterator[tuple[bytes, list[Run]]]:
    all_pruned = (
        (stream_id, encoding.runs(seqs, seqs))
        for stream_id, last in retired.in_order_of_id(connection)
        for seqs in [[Range(1, last)]]
    )
    yield from heapq.merge(_runs_of_others(connection), all_pruned, key=operator.itemgetter(0))


def _runs_of_others(connection: Connection) -> Iterator[tuple[bytes, list[Run]]]:
    pruned = set(extents.pruned_streams(connection))
    for number, stream_id, ranges in streams.ranges_in_order_of_id(connection):
        if number not in pruned:
            yield stream_id, [(first, last, 0) for first, last in ranges]
        else:
            present = [Range(block.first, block.last) for block in extents.blocks(connection, number)]
            ever = [Range(first, last) for first, last in ranges]
            yield stream_id, encoding.runs(ever, subtract(ever, present))


def record_receipt(
    connection: Connection, inventory: Inventory, *, force: bool = False, trust: bool = False
) -> ReceiptReport:
    """Record the inventory of a peer in the master.

    Args:
        connection: the master, open for writing.
        inventory: what the peer says that it holds.
        force: record it as it is, even if a later one is recorded already.
        trust: confirm the peer, if it is not confirmed yet.

    Raises:
        ConfigurationError: it is the inventory of this database itself, or of another type of database than the one
            that was confirmed; or a later one awaits confirmation.
        StorageBusyError: another process records a receipt of the same peer.
    """
    database_id, kind = inventory.database_id, inventory.kind
    with sqlite.read_snapshot(connection):
        own = identity.database_id(connection)
        last = receipts.load(connection, database_id)
        latest = _latest(connection)
    # by a clock that was wrong: nobody issues receipts in the future
    was_ahead = last is not None and inventory.at <= latest + _AHEAD_MAX < last.issued_at
    if own == database_id:
        cause = "these are the ranges of this database itself; record those of another one"
        raise ConfigurationError("record receipt of", database_id.hex(), cause)
    if last is not None and last.trusted_at is None:
        is_later = was_ahead and inventory.generation >= last.generation
        if trust and not force and not is_later and judge(last, inventory) == DOUBTFUL:
            cause = (
                f"a receipt that it issued later, at {last.issued_at.isoformat(timespec='seconds')}, awaits "
                "confirmation, and rows may have been lost there meanwhile: confirm that one. If somebody else made "
                "it, record this one with force"
            )
            raise ConfigurationError("record receipt of", database_id.hex(), cause)
        last = None
    if last is not None and last.kind != kind:
        cause = f"a database of type {last.kind} was confirmed under this id, and this receipt says that it is {kind}"
        raise ConfigurationError("record receipt of", database_id.hex(), f"{cause}; find out who made it")
    if last is None and not trust:
        at = max(latest, inventory.at) if was_ahead else inventory.at
        receipts.record_awaiting(
            connection, database_id, kind, issued_at=at, generation=inventory.generation, replace=was_ahead
        )
        return ReceiptReport(database_id.hex(), kind, AWAITING, 0, 0, 0, 0)
    outcome = NEXT if last is None or force else judge(last, inventory)
    is_doubtful = outcome == DOUBTFUL and last is not None
    if is_doubtful and last is not None:
        issued_at = max(latest if was_ahead else last.issued_at, inventory.at)
        generation = max(last.generation, inventory.generation)
    else:
        issued_at, generation = inventory.at, inventory.generation
    recorded = receipts.record(
        connection,
        database_id,
        kind,
        inventory.seqs.items(),
        issued_at=issued_at,
        generation=generation,
        in_both=is_doubtful,
    )
    with sqlite.read_snapshot(connection):
        rows, stream_count = receipts.held_totals(connection, database_id)
    return ReceiptReport(database_id.hex(), kind, outcome, rows, stream_count, recorded.unknown, recorded.claimed)


def _latest(connection: Connection) -> datetime.datetime:
    """Return the time, by the wall clock or by what this master has counted, whichever is later."""
    clock = store_clock.now(connection)
    now_s = max(machine_clock.wall_s(), clock.latest_s if clock.is_known else 0.0)
    return datetime.datetime.fromtimestamp(now_s, datetime.UTC)


def judge(last: Peer, inventory: Inventory) -> str:
    """Decide which of two receipts of a peer is the later one; see the docstring of this module.

    Args:
        last: what is recorded of the peer.
        inventory: what it says now.

    Returns:
        What to do with the new one: `NEXT`, `PUT_BACK` or `DOUBTFUL`.
    """
    if inventory.generation >= last.generation:
        return NEXT if inventory.at >= last.issued_at else DOUBTFUL
    return PUT_BACK if inventory.at > last.issued_at else DOUBTFUL
