"""Blocks: runs of seqs whose rows have consecutive ids, and how a merge cuts them. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard.format.ranges import Range, union

#: About how much one transaction of a merge copies, so that the master's WAL and our memory stay small.
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
        """The id of its last row."""
        return self.first_id + len(self) - 1

    def cut(self, first: int, last: int) -> Block:
        """Return the part from seq `first` to seq `last`."""
        return Block(first, last, self.first_id + first - self.first)


def pieces(missing: Iterable[Range], blocks: Iterable[Block]) -> list[Block]:
    """Return the parts of `blocks` whose seqs are in `missing`, in order of seq."""
    parts: list[Block] = []
    missing = union(missing)
    at = 0
    for block in sorted(blocks, key=lambda block: block.first):
        while at < len(missing) and missing[at].last < block.first:
            at += 1
        while at < len(missing) and missing[at].first <= block.last:
            parts.append(block.cut(max(block.first, missing[at].first), min(block.last, missing[at].last)))
            if missing[at].last > block.last:
                break  # the range may reach into the next block
            at += 1
    return parts


def cut_chunk(piece: Block, max_rows: int, transaction_end_id: int | None) -> Block:
    """Return the head of `piece` that the current transaction of a merge copies.

    Args:
        piece: the rows to copy.
        max_rows: how many more rows the transaction should copy.
        transaction_end_id: the last id of the writer's transaction that row number `max_rows` of the piece belongs to;
            None if it is a transaction by itself. The writer's transaction is never divided, even if it is larger than
            a chunk.
    """
    if len(piece) <= max_rows:
        return piece
    end_id = max(piece.first_id + max(max_rows, 1) - 1, transaction_end_id or 0)
    return piece.cut(piece.first, min(piece.last, piece.first + end_id - piece.first_id))
