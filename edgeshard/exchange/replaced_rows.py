"""Find out which rows that are missing from a snapshot the master that it replaces, or another database, has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edgeshard import sqlite
from edgeshard.errors import StorageError
from edgeshard.format.ranges import Range, intersect, subtract
from edgeshard.master import database, extents, receipts, streams
from edgeshard.reports import PEER, REPLACED, Gap, Loss, PeerStatus
from edgeshard.sqlite import Connection


def locate(master: Path, copy: Path, losses: Iterable[Loss]) -> tuple[tuple[Loss, ...], tuple[PeerStatus, ...], bool]:
    """Find out who has the rows that are missing from a snapshot.

    Args:
        master: the master that is replaced, which knows more than the snapshot; it need not exist, or be sound.
        copy: the snapshot.
        losses: the missing rows, as the snapshot explains them.

    Returns:
        The missing rows, as both explain them; the databases that gave receipts, which may have any of them; and
        whether the master could be read.
    """
    losses = tuple(losses)
    peers = _peers_of(copy)
    try:
        database.find_master(master, "read master")  # SQLite would delete the WAL of an empty one
        connection = database.open_master(master, writable=False)
        try:
            with database.translate_errors("read master", master), sqlite.read_snapshot(connection):
                found = tuple(part for loss in losses for part in _divide(connection, loss))
                peers |= {peer.database: peer for peer in _peers(connection)}
        finally:
            connection.close()
    except StorageError:  # there is none, or it is damaged: the snapshot alone explains them
        return losses, tuple(peers.values()), False
    return found, tuple(peers.values()), True


def _peers_of(path: Path) -> dict[str, PeerStatus]:
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("read master", path):
            return {peer.database: peer for peer in _peers(connection)}
    finally:
        connection.close()


def _peers(connection: Connection) -> Iterator[PeerStatus]:
    for peer in [*receipts.awaiting(connection), *receipts.peers(connection)]:
        yield PeerStatus(peer.database_id.hex(), peer.kind, peer.received_at, peer.trusted_at)


def _divide(connection: Connection, loss: Loss) -> Iterator[Loss]:
    """Divide missing rows by what the replaced master knows of them."""
    gap, stream_id = loss.gap, bytes.fromhex(loss.gap.stream)
    left = [Range(gap.first, gap.last)]
    known = streams.find(connection, stream_id)
    own = [] if known is None else _held(connection, known[0], left)
    traces: list[tuple[list[Range], tuple[str, str, str]]] = [(own, (REPLACED, loss.database, ""))]
    if known is not None:
        traces += [
            (held, (PEER, peer.database_id.hex(), peer.kind)) for peer, held in receipts.holders(connection, stream_id)
        ]
    for ranges, outcome in traces:
        parts = intersect(left, ranges)
        yield from (Loss(Gap(gap.agent, gap.stream, part.first, part.last), *outcome) for part in parts)
        left = subtract(left, parts)
    for part in left:
        yield Loss(Gap(gap.agent, gap.stream, part.first, part.last), loss.cause, loss.database, loss.kind)


def _held(connection: Connection, stream_no: int, parts: list[Range]) -> list[Range]:
    blocks = extents.blocks_around(connection, stream_no, parts)
    return intersect(parts, [Range(block.first, block.last) for block in blocks])
