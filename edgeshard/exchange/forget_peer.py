"""Forget a peer that will never return: a hub or a server whose receipt keeps tombstones, or explains gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeshard import sqlite
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import catalog, database, receipts, rejected, streams
from edgeshard.master.receipts import Peer
from edgeshard.records import keys
from edgeshard.reports import ForgetPeerReport
from edgeshard.sqlite import Connection, quote

_ACTION: Final = "forget peer of"


def forget_peer(path: Path, digits: str, *, dry_run: bool) -> ForgetPeerReport:
    """Forget a peer; see `Store.forget_peer`.

    Args:
        path: the master.
        digits: the peer's id in hexadecimal, or its first digits.
        dry_run: report what that permits, and change nothing.
    """
    connection = database.open_master(path, writable=not dry_run)
    try:
        with database.translate_errors(_ACTION, path):
            with sqlite.read_snapshot(connection):
                peer = receipts.find_any(connection, digits, str(path))
                report = _report(connection, peer, dry_run=dry_run)
            if not dry_run:
                rejected.forget_database(connection, peer.database_id)
                receipts.forget(connection, peer)
            return report
    finally:
        connection.close()


def _report(connection: Connection, peer: Peer, *, dry_run: bool) -> ForgetPeerReport:
    """Return what forgetting a peer permits, in the caller's snapshot."""
    others = [other for other in receipts.peers(connection) if other.database_id != peer.database_id]
    held_by_others: dict[bytes, list[Range]] = {}
    for other in others:
        for stream_id, ranges in receipts.held_by(connection, other.database_id).items():
            held_by_others[stream_id] = union([*held_by_others.get(stream_id, ()), *ranges])
    held = receipts.held_by(connection, peer.database_id)
    rows = sum(
        len(part) for stream_id, ranges in held.items() for part in subtract(ranges, held_by_others.get(stream_id, ()))
    )
    is_confirmed = peer.trusted_at is not None
    return ForgetPeerReport(
        peer.database_id.hex(),
        peer.kind,
        tombstones=_tombstones_waiting(connection, peer, others) if is_confirmed else 0,
        rows=rows,
        claimed=receipts.claimed_rows(connection, peer.database_id),
        dry_run=dry_run,
    )


def _tombstones_waiting(connection: Connection, peer: Peer, others: Sequence[Peer]) -> int:
    """Return how many tombstones wait for no peer but this one."""
    known = _ever_held(connection, peer)
    known_by_others = [_ever_held(connection, other) for other in others]
    waiting = 0
    tables = [
        table
        for name, key in catalog.load_keys(connection).items()
        for table, is_of_tombstones in keys.changed_tables(name, key)
        if is_of_tombstones
    ]
    for table in tables:
        sql = f"SELECT _stream, _seq FROM {quote(table)}"
        for number, seq in connection.execute(sql):
            is_waiting = not _holds(known, number, seq) and all(_holds(each, number, seq) for each in known_by_others)
            waiting += is_waiting
    return waiting


def _ever_held(connection: Connection, peer: Peer) -> Mapping[int, Sequence[Range]]:
    numbers = streams.numbers_by_id(connection)
    held = receipts.ever_held_by(connection, peer.database_id)
    return {numbers[stream_id]: ranges for stream_id, ranges in held.items()}


def _holds(known: Mapping[int, Sequence[Range]], number: int, seq: int) -> bool:
    return any(part.first <= seq <= part.last for part in known.get(number, ()))
