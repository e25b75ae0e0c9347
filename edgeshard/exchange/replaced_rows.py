"""Find out which rows a snapshot lacks that the master which it replaces held, and who has the missing ones.

The snapshot is told what it must know so that nothing is missing silently: up to which seq each stream goes, and what
the replaced master records of the rows that the snapshot never held. Those that it pruned, collected or erased are no
losses, and those whose loss was accepted stay written off. Rows that another program deleted are missing, until the
replaced master is merged. What it takes grows with the number of streams and ranges, but not with the rows.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, StorageError
from edgeshard.format.ranges import PrunedRange, Range, intersect, subtract
from edgeshard.master import (
    arrivals,
    database,
    extents,
    identity,
    known_rows,
    pruned_ranges,
    receipts,
    retired,
    streams,
    truncations,
    written_off,
)
from edgeshard.reports import PEER, REPLACED, Gap, Loss, PeerStatus
from edgeshard.sqlite import Connection

_ACTION: Final = "read master"

#: How many bytes the id of a stream has.
_ID_BYTES: Final = 16

#: The reasons of rows that another program deleted: nobody decided that by a rule, so they are named.
_NO_EXPLANATION: Final = (pruned_ranges.BY_HAND, pruned_ranges.BY_HAND_OR_SUPERSEDED)


@attrs.frozen
class ReplacedStream:
    """What the replaced master knows of a stream of which the snapshot lacks rows.

    Attributes:
        stream_id: the stream's id.
        agent_id: its agent.
        last_seq: the highest seq that it knows to exist.
        held: the seqs that it ever held.
        truncated: seqs that were truncated from shards, each with the id of the database that holds them.
        pruned: what it, or another database, pruned.
        written_off: rows whose loss was accepted, each with why and when.
    """

    stream_id: bytes
    agent_id: str
    last_seq: int
    held: Sequence[Range] = ()
    truncated: Sequence[tuple[Range, bytes]] = ()
    pruned: Sequence[PrunedRange] = ()
    written_off: Sequence[tuple[Range, str, str]] = ()


def read(master: Path, copy: Connection) -> list[ReplacedStream]:
    """Return what the replaced master knows of the streams of which a snapshot lacks rows, or accepted a loss.

    Args:
        master: the replaced master; it need not exist, and then it knows nothing.
        copy: the snapshot, which knows already what notes and shards record.

    Raises:
        StorageError: the master cannot be read.
    """
    if database.find_master(master, _ACTION) is None:  # SQLite would delete the WAL of an empty one
        return []
    known = {stream_id: last for _, stream_id, _, last in streams.with_last_seqs(copy)}
    lacking = {stream_id for _, stream_id, _, _ in streams.lacking(copy)}
    lacking |= {stream_id for _, stream_id, *_ in written_off.load(copy)}
    connection = database.open_master(master, writable=False)
    try:
        with database.translate_errors(_ACTION, master), sqlite.read_snapshot(connection):
            return [*_read_listed(connection, master, copy, known, lacking), *_read_retired(connection, lacking)]
    finally:
        connection.close()


def _read_listed(
    connection: Connection, master: Path, copy: Connection, known: Mapping[bytes, int], lacking: Container[bytes]
) -> Iterator[ReplacedStream]:
    wanted: dict[int, ReplacedStream] = {}
    for number, stream_id, agent_id, last_seq in streams.with_last_seqs(connection):
        if len(stream_id) != _ID_BYTES or not 0 <= last_seq <= format.SEQ_MAX:
            raise DamagedError(_ACTION, master, f"stream number {number} has an invalid id or seq")
        before = known[stream_id] if stream_id in known else retired.last_seq(copy, stream_id) or 0
        if last_seq > before or stream_id in lacking:
            wanted[number] = ReplacedStream(stream_id, agent_id, last_seq)
    if not wanted:
        return
    pruned = pruned_ranges.all_of_streams(connection, wanted)
    accepted: dict[bytes, list[tuple[Range, str, str]]] = {}
    for _, stream_id, seqs, why, at in written_off.load(connection):
        accepted.setdefault(stream_id, []).append((seqs, why, at))
    for number, stream in wanted.items():
        yield attrs.evolve(
            stream,
            held=extents.ranges(connection, number),
            truncated=truncations.of_stream(connection, stream.stream_id),
            pruned=[item for item in pruned.get(number, ()) if item.reason not in _NO_EXPLANATION],
            written_off=accepted.get(stream.stream_id, ()),
        )


def _read_retired(connection: Connection, lacking: Iterable[bytes]) -> Iterator[ReplacedStream]:
    """Yield the retired ones of these streams: all of their rows were pruned. Of others, nothing is missing."""
    own = identity.database_id(connection)
    for stream_id in lacking:
        if (stream := retired.find(connection, stream_id)) is None:
            continue
        at = arrivals.utc_time(stream.group.retired_at).isoformat()
        pruned, first = [], 1
        for reason, rows in retired.rows_of(stream).items():
            pruned.append(PrunedRange(Range(first, first + rows - 1), own, reason, at))
            first += rows
        yield ReplacedStream(stream_id, stream.group.agent, stream.last_seq, [Range(1, stream.last_seq)], (), pruned)


def record(copy: Connection, found: Iterable[ReplacedStream]) -> None:
    """Record in a snapshot what `read` returned, in the caller's transaction."""
    own = identity.database_id(copy)
    for stream in found:
        number = known_rows.record_last_seq(copy, stream.stream_id, stream.agent_id, stream.last_seq)
        here = extents.ranges(copy, number)
        pruned_ranges.record_from_source(copy, number, stream.pruned, here)
        gone = subtract(stream.held, here)
        for part in gone:
            truncations.record(copy, number, part, own)
        elsewhere = [*stream.held, *here]
        for seqs, database_id in stream.truncated:
            if subtract([seqs], elsewhere):
                truncations.record(copy, number, seqs, database_id)
        written_off.forget(copy, number, gone)  # these had arrived, and are missing again
        for seqs, why, at in stream.written_off:
            written_off.record(copy, number, subtract([seqs], here), why, at)


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
        database.find_master(master, _ACTION)  # SQLite would delete the WAL of an empty one
        connection = database.open_master(master, writable=False)
        try:
            with database.translate_errors(_ACTION, master), sqlite.read_snapshot(connection):
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
        with database.translate_errors(_ACTION, path):
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
