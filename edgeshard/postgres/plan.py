"""Decisions of a push, as pure functions over small values: which rows are missing there, and how many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from edgeshard import format
from edgeshard.format.blocks import Block, cut_chunk, pieces
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.reports import Rejected

#: Transactions of one stream that are rejected one by one; a stream with more is blocked from there on.
REJECTED_MAX = 20


class MovedError(Exception):
    """The master's rows, or a table there, are no longer as they were when the push was planned. Nothing was done."""


@attrs.frozen
class Stream:
    """A stream of the master.

    Attributes:
        stream_no: the master's own number for it.
        stream_id: its 16 random bytes.
        agent_id: whose it is.
        began_at: ISO 8601, by the writer's clock.
        last_seq: the highest seq known to exist.
        blocks: the rows that the master has of it.
    """

    stream_no: int
    stream_id: bytes
    agent_id: str
    began_at: str
    last_seq: int
    blocks: tuple[Block, ...]


@attrs.frozen
class Part:
    """A run of a stream's rows that lie together in the master."""

    stream: Stream
    block: Block

    @property
    def range(self) -> Range:
        """Its seqs."""
        return Range(self.block.first, self.block.last)


Held = Mapping[bytes, Sequence[Range]]


def missing(streams: Iterable[Stream], held: Held, rejected: Iterable[Rejected] = ()) -> list[Part]:
    """List what the master has and PostgreSQL lacks, except rejected rows, in order of arrival in the master."""
    left_out: dict[bytes, list[Range]] = {}
    for item in rejected:
        left_out.setdefault(bytes.fromhex(item.stream), []).append(Range(item.first, item.last))
    parts = []
    for stream in streams:
        here = [Range(block.first, block.last) for block in stream.blocks]
        gone = [*held.get(stream.stream_id, ()), *left_out.get(stream.stream_id, ())]
        parts += [Part(stream, block) for block in pieces(subtract(here, gone), stream.blocks)]
    return sorted(parts, key=lambda part: part.block.first_id)


def cut(
    parts: Sequence[Part], room: int, transaction_end: Callable[[int], int | None] | None
) -> tuple[list[Part], list[Part]]:
    """The head of `parts` that goes into one transaction, and the rest.

    Args:
        parts: what is to be pushed.
        room: how many rows it should take; it is more where a writer's transaction is larger.
        transaction_end: the last id of the writer's transaction that the row with an id belongs to, if of any; None:
            divide them.
    """
    chunk: list[Part] = []
    within = 0  # the last id of the transaction that the part before ended in: some of its rows were pruned
    for index, part in enumerate(parts):
        whole = within - part.block.first_id + 1  # so many more rows belong to it
        if room <= 0 and whole <= 0:
            return chunk, list(parts[index:])
        wanted = max(room, whole)
        end_id = None
        if len(part.block) > wanted and transaction_end is not None:
            end_id = transaction_end(part.block.first_id + wanted - 1)
        head = cut_chunk(part.block, wanted, end_id)
        chunk.append(attrs.evolve(part, block=head))
        room -= len(head)
        if head != part.block:
            rest = part.block.cut(head.last + 1, part.block.last)
            return chunk, [attrs.evolve(part, block=rest), *parts[index + 1 :]]
        # asked only where the chunk might end here
        within = (transaction_end(head.last_id) or 0) if room <= 0 and transaction_end is not None else 0
    return chunk, []


def size(parts: Iterable[Part]) -> int:
    """How many rows they are."""
    return sum(len(part.block) for part in parts)


def runs(parts: Iterable[Part]) -> list[Range]:
    """The ids of their rows, as few intervals as possible."""
    return union(Range(part.block.first_id, part.block.last_id) for part in parts)


def streams_of(parts: Iterable[Part]) -> list[Stream]:
    """Their streams, each once, in the order in which all pushers lock them."""
    found = {part.stream.stream_id: part.stream for part in parts}
    return [found[stream_id] for stream_id in sorted(found)]


def part_of(parts: Iterable[Part], row_id: int) -> Part:
    """The part that the row with this id is in."""
    return next(part for part in parts if part.block.first_id <= row_id <= part.block.last_id)


def after(held: Held, parts: Iterable[Part]) -> dict[bytes, list[Range]]:
    """What PostgreSQL holds of the streams of `parts` once these are committed."""
    brought: dict[bytes, list[Range]] = {}
    for part in parts:
        brought.setdefault(part.stream.stream_id, []).append(part.range)
    now = {}
    for stream_id, ranges in brought.items():
        before = held.get(stream_id, ())
        now[stream_id] = union([*before, *ranges])
        if sum(map(len, before)) + sum(map(len, ranges)) != sum(map(len, now[stream_id])):
            raise AssertionError(f"stream {stream_id.hex()}: of {ranges} some are held already")  # a bug must be loud
    return now


@attrs.frozen
class RangeChange:
    """How the ranges of a stream change: intervals that end, by their first seq, that get longer, and that are new."""

    gone: tuple[int, ...]
    longer: tuple[Range, ...]
    new: tuple[Range, ...]


def change(before: Iterable[Range], now: Iterable[Range]) -> RangeChange:
    """What turns one set of intervals into the other."""
    old, new = {item.first: item for item in before}, {item.first: item for item in now}
    return RangeChange(
        tuple(first for first in old if first not in new),
        tuple(item for first, item in new.items() if first in old and old[first] != item),
        tuple(item for first, item in new.items() if first not in old),
    )


def reject(
    rejected: Sequence[Rejected], part: Part, rows: Range, seq: int, table: str, column: str, reason: str
) -> Rejected:
    """Reject the transaction of one row.

    Args:
        rejected: what is rejected already.
        part: where the row is.
        rows: the seqs of the writer's transaction that it belongs to.
        seq: the row's.
        table: its table.
        column: the column that is the reason, or "".
        reason: why.
    """
    stream = part.stream.stream_id.hex()
    before = sum(item.stream == stream for item in rejected)
    if before + 1 >= REJECTED_MAX:
        return reject_rest(part, rows.first, seq, table, column, f"{reason}; one of many in this stream")
    return Rejected(part.stream.agent_id, stream, rows.first, rows.last, seq, table, column, reason)


def reject_rest(part: Part, first: int, seq: int, table: str, column: str, reason: str) -> Rejected:
    """Block a stream from `first` on."""
    stream = part.stream
    return Rejected(stream.agent_id, stream.stream_id.hex(), first, format.SEQ_MAX, seq, table, column, reason)


def back_off_s(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row, in seconds: twice as long each time, and not all at once.

    Args:
        failures: how many, from 1.
        chance: a random number from 0 to 1: devices that lost the same server should not come back in step.
    """
    return min(1.0 * 2.0 ** min(failures - 1, 10), 60.0) * (0.5 + chance / 2)
