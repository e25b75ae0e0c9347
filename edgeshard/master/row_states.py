"""Count the rows of each stream by what became of them. The states are disjoint, and together they are all known rows.

The known rows of a stream are those from 1 to the last seq that the master knows to exist, and what is pending after
it. Each is in exactly one of these states:

    present      a row of the master
    superseded   the master held it, and a newer version of its key took its place
    collected    a tombstone that was collected
    pruned       the master held it, and a retention rule deleted it
    pending      in a shard, and not in the master yet
    missing      all others

The first four are the rows that the master ever held, which its ranges list, and those of a newer copy of this master.
All rows of retired streams are collected or pruned.
So a new way to delete rows from the master takes its rows from `pruned`, as `collected` does, and a way to give up rows
takes them from `missing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from edgeshard.format.ranges import PrunedRange, Range, intersect, size, subtract, union
from edgeshard.master import blocked_rows, extents, pruned_ranges, retired, streams, superseded
from edgeshard.reports import Gap, RowStates, add_states
from edgeshard.sqlite import Connection

#: What is pending of each stream, by its id.
Pending = Mapping[bytes, Sequence[Range]]

NOTHING: Pending = {}


@attrs.frozen
class StreamRows:
    """What a master records about the rows of a stream.

    Attributes:
        stream_id: the stream's id.
        agent_id: its agent.
        last_seq: the highest seq that the master knows to exist.
        held: the seqs that it ever held.
        by_newer_copy: what the master had pruned before an older copy of it was put back.
        block_rows: how many seqs lie in its blocks.
        superseded_rows: how many of these have no row, because a newer version of their key superseded it.
        collected_rows: how many tombstones it collected.
    """

    stream_id: bytes
    agent_id: str
    last_seq: int
    held: Sequence[Range]
    by_newer_copy: Sequence[PrunedRange] = ()
    block_rows: int = 0
    superseded_rows: int = 0
    collected_rows: int = 0


@attrs.frozen
class Absent:
    """The known rows of a stream that a master never held, as seqs by state.

    Attributes:
        pending: in a shard.
        collected: tombstones that a newer copy of this master collected.
        pruned: rows that a newer copy of this master pruned.
        missing: all others.
    """

    pending: list[Range]
    collected: list[Range]
    pruned: list[Range]
    missing: list[Range]


# -- pure functions ---------------------------------------------------------------------------------------------------


def divide_absent(stream: StreamRows, pending: Iterable[Range] = ()) -> Absent:
    """Divide the known rows of a stream that the master never held by state.

    Args:
        stream: what the master records.
        pending: the seqs that are in shards.
    """
    pending = union(pending)
    known = union([*([Range(1, stream.last_seq)] if stream.last_seq else []), *pending])
    absent = subtract(known, stream.held)
    if not pending and not stream.by_newer_copy:  # there may be any number of gaps
        return Absent([], [], [], absent)
    waiting = intersect(absent, pending)
    left = subtract(absent, waiting)
    pruned = intersect(left, (item.seqs for item in stream.by_newer_copy))
    tombstones = (item.seqs for item in stream.by_newer_copy if item.reason == pruned_ranges.TOMBSTONES)
    collected = intersect(pruned, tombstones)
    return Absent(waiting, collected, subtract(pruned, collected), subtract(left, pruned))


def count_states(stream: StreamRows, pending: Iterable[Range] = ()) -> RowStates:
    """Count the known rows of a stream by state. The arguments are those of `divide_absent`."""
    absent = divide_absent(stream, pending)
    return RowStates(
        present=stream.block_rows - stream.superseded_rows,
        superseded=stream.superseded_rows,
        collected=stream.collected_rows + size(absent.collected),
        pruned=size(stream.held) - stream.block_rows - stream.collected_rows + size(absent.pruned),
        pending=size(absent.pending),
        missing=size(absent.missing),
    )


def count_all(rows: Iterable[StreamRows], pending: Pending = NOTHING) -> RowStates:
    """Count the known rows of all streams by state, including streams that are in shards alone."""
    left = dict(pending)
    counted = [count_states(stream, left.pop(stream.stream_id, ())) for stream in rows]
    return add_states([*counted, *(RowStates(pending=size(union(seqs))) for seqs in left.values())])


def find_gaps(rows: Iterable[StreamRows], pending: Pending = NOTHING) -> tuple[Gap, ...]:
    """Return the missing rows, by agent, stream and seq."""
    found = [
        Gap(stream.agent_id, stream.stream_id.hex(), part.first, part.last)
        for stream in rows
        for part in divide_absent(stream, pending.get(stream.stream_id, ())).missing
    ]
    return tuple(sorted(found, key=lambda gap: (gap.agent, gap.stream, gap.first)))


# -- of a master ------------------------------------------------------------------------------------------------------


def load(connection: Connection) -> list[StreamRows]:
    """Return what the master records about the rows of each stream that is not retired."""
    in_blocks, without_row = extents.block_rows(connection), superseded.superseded_counts(connection)
    collected = pruned_ranges.collected_rows(connection)
    return [
        attrs.evolve(
            stream,
            block_rows=in_blocks.get(number, 0),
            superseded_rows=without_row.get(number, 0),
            collected_rows=collected.get(number, 0),
        )
        for number, stream in _load_held(connection)
    ]


def retired_states(connection: Connection) -> RowStates:
    """Count the rows of the retired streams by state."""
    rows = retired.rows_by_reason(connection)
    collected = rows.pop(pruned_ranges.TOMBSTONES, 0)
    return RowStates(collected=collected, pruned=rows.total())


def gaps(connection: Connection, stream_ids: Iterable[bytes] | None = None) -> Iterator[Gap]:
    """Yield the known rows that the master never held, by agent, stream and seq.

    Pending rows are among them, except those that are recorded as blocked in a shard.

    Take as many as you need. The time it takes grows with what is taken, and with the number of streams that lack rows,
    but not with what the master holds.

    Args:
        connection: the master.
        stream_ids: only of these streams, whether or not it is recorded that they lack rows; None: of all that do.
    """
    newer, blocked = set(pruned_ranges.streams_of_newer_copy(connection)), blocked_rows.by_stream(connection)
    for number, stream_id, agent_id, last_seq in streams.lacking(connection, stream_ids):
        stream = stream_id.hex()
        missing = _missing(connection, number, last_seq, pruned_by_newer_copy=number in newer)
        for part in subtract(missing, blocked[stream_id]) if stream_id in blocked else missing:
            yield Gap(agent_id, stream, part.first, part.last)


def missing_rows(connection: Connection) -> int:
    """Return how many rows are missing, in all gaps: see `gaps`."""
    blocked = blocked_rows.by_stream(connection)
    if blocked:
        return sum(map(len, gaps(connection)))
    rows = streams.missing_rows(connection)
    last_seqs = (
        streams.last_seq_by_number(connection) if (numbers := pruned_ranges.streams_of_newer_copy(connection)) else {}
    )
    for number in numbers:
        rows -= size(extents.holes(connection, number, last_seqs[number]))
        rows += size(_missing(connection, number, last_seqs[number], pruned_by_newer_copy=True))
    return rows


def _missing(connection: Connection, number: int, last_seq: int, *, pruned_by_newer_copy: bool) -> Iterable[Range]:
    holes = extents.holes(connection, number, last_seq)
    if not pruned_by_newer_copy:
        return holes
    pruned = pruned_ranges.of_newer_copy(connection, number).get(number, ())
    return subtract(holes, (item.seqs for item in pruned))


def _load_held(connection: Connection) -> Iterator[tuple[int, StreamRows]]:
    """Yield each stream's number, and what its ranges say."""
    held_rows, by_newer_copy = extents.range_rows(connection), pruned_ranges.of_newer_copy(connection)
    for number, stream_id, agent_id, last_seq in streams.with_last_seqs(connection):
        has_gaps = held_rows.get(number, 0) < last_seq
        if has_gaps:
            held = extents.ranges(connection, number)
            yield number, StreamRows(stream_id, agent_id, last_seq, held, by_newer_copy.get(number, ()))
        else:
            yield number, StreamRows(stream_id, agent_id, last_seq, [Range(1, last_seq)] if last_seq else [])
