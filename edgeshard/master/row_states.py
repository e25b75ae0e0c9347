"""Count the rows of each stream by what became of them. The states are disjoint, and together they are all known rows.

The known rows of a stream are those from 1 to the last seq that the master knows to exist, and what is pending after
it. Each is in exactly one of these states:

    present      a row of the master
    superseded   the master held it, and a newer version of its key took its place
    collected    a tombstone that was collected
    pruned       the master held it, and a retention rule deleted it
    erased       the master held it, and it was erased
    by hand      the master held it, and another program deleted it
    written off  by hand or missing, and the loss was accepted
    pending      in a shard, and not in the master yet
    missing      all others

The first six are the rows that the master ever held, which its ranges list, and those of a newer copy of this master.
All rows of retired streams are superseded, collected or pruned.
`pruned_ranges.STATES` says by which reason a row that the master deleted is in another of these states than `pruned`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from edgeshard.format.ranges import PrunedRange, Range, intersect, size, subtract, union
from edgeshard.master import blocked_rows, extents, pruned_ranges, retired, streams, superseded, written_off
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
        written_off: the seqs whose loss was accepted.
        block_rows: how many seqs lie in its blocks.
        superseded_rows: how many of these have no row, because a newer version of their key superseded it.
        superseded_without_block: how many seqs in no block are recorded as superseded.
        collected_rows: how many tombstones it collected.
        erased_rows: how many rows it erased.
        by_hand: the seqs whose rows another program deleted.
    """

    stream_id: bytes
    agent_id: str
    last_seq: int
    held: Sequence[Range]
    by_newer_copy: Sequence[PrunedRange] = ()
    written_off: Sequence[Range] = ()
    block_rows: int = 0
    superseded_rows: int = 0
    superseded_without_block: int = 0
    collected_rows: int = 0
    erased_rows: int = 0
    by_hand: Sequence[Range] = ()


@attrs.frozen
class Absent:
    """The known rows of a stream that a master never held, as seqs by state.

    Attributes:
        pending: in a shard.
        collected: tombstones that a newer copy of this master collected.
        erased: rows that a newer copy of this master erased.
        pruned: rows that a newer copy of this master deleted for another reason.
        written_off: rows whose loss was accepted.
        missing: all others.
    """

    pending: list[Range]
    collected: list[Range]
    erased: list[Range]
    pruned: list[Range]
    written_off: list[Range]
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
    if not pending and not stream.by_newer_copy and not stream.written_off:  # there may be any number of gaps
        return Absent([], [], [], [], [], absent)
    waiting = intersect(absent, pending)
    left = subtract(absent, waiting)
    by_reason = [
        intersect(left, (item.seqs for item in stream.by_newer_copy if item.reason == reason))
        for reason in (pruned_ranges.TOMBSTONES, pruned_ranges.ERASED)
    ]
    collected, erased = by_reason[0], subtract(by_reason[1], by_reason[0])
    gone = intersect(left, (item.seqs for item in stream.by_newer_copy))
    pruned = subtract(gone, [*collected, *erased])
    left = subtract(left, gone)
    written_off = intersect(left, stream.written_off)
    return Absent(waiting, collected, erased, pruned, written_off, subtract(left, written_off))


def count_states(stream: StreamRows, pending: Iterable[Range] = ()) -> RowStates:
    """Count the known rows of a stream by state. The arguments are those of `divide_absent`."""
    absent = divide_absent(stream, pending)
    accepted = size(intersect(stream.by_hand, stream.written_off))
    deleted = stream.collected_rows + stream.erased_rows + stream.superseded_without_block + size(stream.by_hand)
    return RowStates(
        present=stream.block_rows - stream.superseded_rows,
        superseded=stream.superseded_rows + stream.superseded_without_block,
        collected=stream.collected_rows + size(absent.collected),
        pruned=size(stream.held) - stream.block_rows - deleted + size(absent.pruned),
        erased=stream.erased_rows + size(absent.erased),
        by_hand=size(stream.by_hand) - accepted,
        written_off=accepted + size(absent.written_off),
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
    deleted, by_hand = pruned_ranges.rows_by_state(connection), pruned_ranges.by_hand(connection)
    return [
        attrs.evolve(
            stream,
            block_rows=in_blocks.get(number, 0),
            superseded_rows=without_row.get(number, 0),
            superseded_without_block=deleted.get(number, {}).get("superseded", 0),
            collected_rows=deleted.get(number, {}).get("collected", 0),
            erased_rows=deleted.get(number, {}).get("erased", 0),
            by_hand=by_hand.get(number, ()),
        )
        for number, stream in _load_held(connection)
    ]


def retired_states(connection: Connection) -> RowStates:
    """Count the rows of the retired streams by state."""
    rows = retired.rows_by_reason(connection)
    collected, superseded_rows = rows.pop(pruned_ranges.TOMBSTONES, 0), rows.pop(pruned_ranges.SUPERSEDED, 0)
    return RowStates(superseded=superseded_rows, collected=collected, pruned=rows.total())


def gaps(connection: Connection, stream_ids: Iterable[bytes] | None = None) -> Iterator[Gap]:
    """Yield the known rows that the master never held, by agent, stream and seq.

    Pending rows are among them, except those that are recorded as blocked in a shard.

    Take as many as you need. The time it takes grows with what is taken, and with the number of streams that lack rows,
    but not with what the master holds.

    Args:
        connection: the master.
        stream_ids: only of these streams, whether or not it is recorded that they lack rows; None: of all that do.
    """
    explained, blocked = _streams_with_explained_absences(connection), blocked_rows.by_stream(connection)
    for number, stream_id, agent_id, last_seq in streams.lacking(connection, stream_ids):
        stream = stream_id.hex()
        missing = _missing(connection, number, last_seq, has_explained_absences=number in explained)
        for part in subtract(missing, blocked[stream_id]) if stream_id in blocked else missing:
            yield Gap(agent_id, stream, part.first, part.last)


def missing_rows(connection: Connection) -> int:
    """Return how many rows are missing, in all gaps: see `gaps`."""
    blocked = blocked_rows.by_stream(connection)
    if blocked:
        return sum(map(len, gaps(connection)))
    rows = streams.missing_rows(connection)
    numbers = _streams_with_explained_absences(connection)
    last_seqs = streams.last_seq_by_number(connection) if numbers else {}
    for number in numbers:
        rows -= size(extents.holes(connection, number, last_seqs[number]))
        rows += size(_missing(connection, number, last_seqs[number], has_explained_absences=True))
    return rows


def _streams_with_explained_absences(connection: Connection) -> set[int]:
    """Return the streams that lack rows which are not missing: it is known why the master never held them."""
    return {*pruned_ranges.streams_of_newer_copy(connection), *written_off.stream_numbers(connection)}


def _missing(connection: Connection, number: int, last_seq: int, *, has_explained_absences: bool) -> Iterable[Range]:
    holes = extents.holes(connection, number, last_seq)
    if not has_explained_absences:
        return holes
    pruned = pruned_ranges.of_newer_copy(connection, number).get(number, ())
    return subtract(holes, [*(item.seqs for item in pruned), *written_off.ranges(connection, number)])


def _load_held(connection: Connection) -> Iterator[tuple[int, StreamRows]]:
    """Yield each stream's number, and what its ranges say."""
    held_rows, by_newer_copy = extents.range_rows(connection), pruned_ranges.of_newer_copy(connection)
    accepted = written_off.all_ranges(connection)
    for number, stream_id, agent_id, last_seq in streams.with_last_seqs(connection):
        has_gaps = held_rows.get(number, 0) < last_seq
        if has_gaps:
            held = extents.ranges(connection, number)
            newer = by_newer_copy.get(number, ())
        else:
            held, newer = [Range(1, last_seq)] if last_seq else [], ()
        yield number, StreamRows(stream_id, agent_id, last_seq, held, newer, accepted.get(number, ()))
