"""Decisions of a merge, as pure functions over small values: which rows are missing, and how many at a time."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from edgeshard.ranges import Range, union

#: A shard that its agent writes to all the time keeps rows that the master holds until its log is this large, in
#: bytes, a little less than what the writer lets it grow to at "process" (shard.py), and more than at "power", ...
HELD_LOG_BYTES = 3_200_000
#: ... or until all that is in it is, in bytes, ...
HELD_BYTES = 4 << 20
#: ... or until it kept them for this long, in seconds. Truncating it each time would cost its writer a fifth.
HELD_MAX_S = 30.0

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
    parts: list[Block] = []
    missing = union(missing)
    at = 0
    for block in sorted(blocks, key=lambda block: block.first):
        while at < len(missing) and missing[at].last < block.first:
            at += 1
        while at < len(missing) and missing[at].first <= block.last:
            parts.append(block.cut(max(block.first, missing[at].first), min(block.last, missing[at].last)))
            if missing[at].last > block.last:
                break  # it reaches into the next block, too
            at += 1
    return parts


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


def is_truncation_due(copied_rows: int, used_bytes: int, log_bytes: int, held_s: float, least_s: float = 0.0) -> bool:
    """Whether to truncate a shard now, of whose agent we know that it may be busy.

    Args:
        copied_rows: how many rows this pass found new in it; none, and the agent pauses.
        used_bytes: what its pages in use take.
        log_bytes: the size of its log.
        held_s: for how long it has kept rows that the master holds.
        least_s: for how long it should keep them, unless it is large: a truncation writes, too.
    """
    is_large = used_bytes >= HELD_BYTES or log_bytes >= HELD_LOG_BYTES
    if least_s > 0:
        return is_large or held_s >= least_s
    return copied_rows == 0 or is_large or held_s >= HELD_MAX_S
