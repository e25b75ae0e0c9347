"""Decisions of a merge, as pure functions over small values: which rows are missing, and how many at a time."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard.ranges import Range, intersect

#: A transaction of the master brings about this much, so that its log and our memory stay small.
CHUNK_BYTES = 32 << 20


@attrs.frozen
class Block:
    """A run of seqs whose rows have consecutive ids: seq ``first + k`` has id ``first_id + k``."""

    first: int
    last: int
    first_id: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    @property
    def last_id(self) -> int:
        """The id of the last row."""
        return self.first_id + len(self) - 1

    def cut(self, first: int, last: int) -> Block:
        """The part of it from seq `first` to seq `last`."""
        return Block(first, last, self.first_id + first - self.first)


def pieces(missing: Iterable[Range], blocks: Iterable[Block]) -> list[Block]:
    """The parts of `blocks` whose seqs are in `missing`, in order of seq."""
    missing = list(missing)
    parts = [
        block.cut(part.first, part.last)
        for block in blocks
        for part in intersect([Range(block.first, block.last)], missing)
    ]
    return sorted(parts, key=lambda part: part.first)


def cut_chunk(piece: Block, room: int, transaction_end_id: int | None) -> Block:
    """The head of `piece` that goes into a transaction with room for `room` rows.

    Args:
        piece: what is to be copied.
        room: how many rows more the transaction should take.
        transaction_end_id: the last id of the writer's transaction that the row at `room` belongs to, if of any: it
            is never divided, even where it is larger than a chunk.
    """
    if len(piece) <= room:
        return piece
    end_id = max(piece.first_id + max(room, 1) - 1, transaction_end_id or 0)
    return piece.cut(piece.first, min(piece.last, piece.first + end_id - piece.first_id))
