"""Decide which rows a push sends, and how many in one transaction. Pure functions over small values."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from edgeshard.format import blocks
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, clip, subtract, union
from edgeshard.master.rejected import Rejection
from edgeshard.master.streams import Stream

RangesByStream = Mapping[bytes, Sequence[Range]]


class OutdatedPlanError(Exception):
    """The master's rows, or columns in PostgreSQL, changed since the push was planned. Nothing was done."""


class OutdatedSchemaError(Exception):
    """Another device created or altered tables in PostgreSQL since the push found them fit. Nothing was done."""


@attrs.frozen
class Piece:
    """Rows of one stream with consecutive seqs, and consecutive ids in the master."""

    stream: Stream
    block: Block

    @property
    def seqs(self) -> Range:
        """Return the seqs of the rows."""
        return Range(self.block.first, self.block.last)


def missing(streams: Iterable[Stream], held: RangesByStream, rejected: RangesByStream | None = None) -> list[Piece]:
    """Return what the master has and PostgreSQL lacks, except rejected rows, in order of arrival in the master."""
    left_out = rejected or {}
    found = []
    for stream in streams:
        here = [Range(block.first, block.last) for block in stream.blocks]
        not_sent = [*held.get(stream.stream_id, ()), *left_out.get(stream.stream_id, ())]
        found += [Piece(stream, block) for block in blocks.pieces(subtract(here, not_sent), stream.blocks)]
    return sorted(found, key=lambda piece: piece.block.first_id)


def without(pieces: Iterable[Piece], left_out: Iterable[Rejection]) -> list[Piece]:
    """Return the parts of pieces that are not rejected, in the order of the pieces."""
    seqs: dict[int, list[Range]] = {}
    for item in left_out:
        seqs.setdefault(item.stream_no, []).append(item.seqs)
    holes = {stream_no: union(ranges) for stream_no, ranges in seqs.items()}
    left = []
    for piece in pieces:
        rejected = clip(holes.get(piece.stream.stream_no, ()), piece.seqs)
        parts = subtract([piece.seqs], rejected)
        left += [attrs.evolve(piece, block=piece.block.cut(part.first, part.last)) for part in parts]
    return left


def take_chunk(
    pieces: Sequence[Piece], max_rows: int, transaction_at: Callable[[int], Range | None] | None
) -> tuple[list[Piece], list[Piece]]:
    """Split `pieces` into those that go into the next transaction, and the rest.

    Args:
        pieces: what to push.
        max_rows: how many rows to take. It takes more to complete a writer's transaction.
        transaction_at: returns the ids of the writer's transaction that a row belongs to, or None if that row is the
            only one in it. None divides transactions.
    """
    chunk: list[Piece] = []
    # The last id of the transaction in which the previous piece ended. A transaction can extend over several pieces if
    # some of its rows were pruned.
    transaction_end = 0
    for index, piece in enumerate(pieces):
        same_transaction = transaction_end - piece.block.first_id + 1
        if max_rows <= 0 and same_transaction <= 0:
            return chunk, list(pieces[index:])
        wanted = max(max_rows, same_transaction)
        transaction = None
        if len(piece.block) > wanted and transaction_at is not None:
            transaction = transaction_at(piece.block.first_id + wanted - 1)
        head = blocks.cut_chunk(piece.block, wanted, None if transaction is None else transaction.last)
        chunk.append(attrs.evolve(piece, block=head))
        max_rows -= len(head)
        if head != piece.block:
            rest = piece.block.cut(head.last + 1, piece.block.last)
            return chunk, [attrs.evolve(piece, block=rest), *pieces[index + 1 :]]
        transaction_end = 0
        if max_rows <= 0 and transaction_at is not None:  # this is a query, so ask only where the chunk might end
            transaction = transaction_at(head.last_id)
            transaction_end = 0 if transaction is None else transaction.last
    return chunk, []


def count_seqs(pieces: Iterable[Piece]) -> int:
    """Return how many seqs the pieces have. That is how many rows they have, unless newer ones superseded some."""
    return sum(len(piece.block) for piece in pieces)


def id_ranges(pieces: Iterable[Piece]) -> list[Range]:
    """Return the ids of the rows, as few intervals as possible."""
    return union(Range(piece.block.first_id, piece.block.last_id) for piece in pieces)


def streams_in(pieces: Iterable[Piece]) -> list[Stream]:
    """Return each stream once, in the order in which all pushers lock streams."""
    found = {piece.stream.stream_id: piece.stream for piece in pieces}
    return [found[stream_id] for stream_id in sorted(found)]


def windows(pieces: Iterable[Piece]) -> dict[bytes, Range]:
    """Return the seqs from the first to the last of these pieces, by stream."""
    found: dict[bytes, Range] = {}
    for piece in pieces:
        before = found.get(piece.stream.stream_id, piece.seqs)
        found[piece.stream.stream_id] = Range(min(before.first, piece.seqs.first), max(before.last, piece.seqs.last))
    return found


def piece_with_id(pieces: Sequence[Piece], row_id: int) -> Piece:
    """Return the piece that contains the row with this id, of pieces in the order of their ids."""
    at = bisect.bisect_right(pieces, row_id, key=lambda piece: piece.block.first_id) - 1
    return pieces[at]


def transaction_of(piece: Piece, row_id: int, transaction_at: Callable[[int], Range | None]) -> tuple[Range, int]:
    """Return the seqs of the writer's transaction that a row of a piece belongs to, and the row's own."""
    ids = transaction_at(row_id) or Range(row_id, row_id)
    shift = piece.block.first - piece.block.first_id
    return Range(ids.first + shift, ids.last + shift), row_id + shift


def held_after(held: RangesByStream, chunk: Iterable[Piece]) -> dict[bytes, list[Range]]:
    """Return what PostgreSQL will hold of the streams in `chunk` once it is committed, at least around its rows.

    Raises:
        AssertionError: it holds some of it already. That is a bug of ours, which must be loud.
    """
    sent: dict[bytes, list[Range]] = {}
    for piece in chunk:
        sent.setdefault(piece.stream.stream_id, []).append(piece.seqs)
    now = {}
    for stream_id, ranges in sent.items():
        before = held.get(stream_id, ())
        now[stream_id] = union([*before, *ranges])
        if sum(map(len, before)) + sum(map(len, ranges)) != sum(map(len, now[stream_id])):
            raise AssertionError(f"stream {stream_id.hex()}: some of {ranges} are held already")
    return now


@attrs.frozen
class RangeChanges:
    """What turns one set of a stream's ranges into another.

    Attributes:
        deleted: the first seq of each range that disappears.
        extended: ranges that keep their first seq and get another last one.
        added: new ranges.
    """

    deleted: tuple[int, ...]
    extended: tuple[Range, ...]
    added: tuple[Range, ...]


def compare_ranges(before: Iterable[Range], now: Iterable[Range]) -> RangeChanges:
    """Return what turns one set of ranges into the other."""
    old, new = {item.first: item for item in before}, {item.first: item for item in now}
    return RangeChanges(
        tuple(first for first in old if first not in new),
        tuple(item for first, item in new.items() if first in old and old[first] != item),
        tuple(item for first, item in new.items() if first not in old),
    )


def back_off_s(failures: int, chance: float) -> float:
    """Return how many seconds to wait after a number of failures in a row: twice as long each time, up to a minute.

    Args:
        failures: how many, from 1.
        chance: a random number from 0 to 1, so that devices which lost the same server do not all return at once.
    """
    return min(1.0 * 2.0 ** min(failures - 1, 10), 60.0) * (0.5 + chance / 2)
