"""Which seqs of which streams a database holds, or held once, in few bytes. Pure.

    varint      the number of streams
    16 bytes    each stream's id, in ascending order
    varint      of each stream, in the same order: the number of its runs; then for each run
    varint          how many seqs are between it and the run before (or seq 0)
    varint          its length - 1, times 2; + 1 if the database pruned these rows

A varint is a number in groups of 7 bits, the lowest first; all bytes but the last have their highest bit set. A stream
of a single run takes 20 bytes: its id, and nearly nothing that could be compressed any further.

The same bytes are what a reader keeps in memory, and a stream is only decoded when somebody asks for it.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from edgeshard import format, units
from edgeshard.format.ranges import Range, intersect, subtract, union

#: The most bytes, and the most runs, that are written or read: enough for more than 1,000,000 streams.
BYTES_MAX: Final = 32 << 20
RUNS_MAX: Final = 1 << 21

_ID_BYTES: Final = 16

#: More bits than any number here needs: seqs have 32.
_SHIFT_MAX: Final = 35

Seqs = Mapping[bytes, Sequence[Range]]

#: The first and the last seq of consecutive rows, and 1 if they were pruned, otherwise 0.
Run = tuple[int, int, int]


@attrs.frozen
class EncodedSeqs:
    """What a database holds, and has ever held, by stream id.

    Attributes:
        data: the encoding.
        run_count: the number of runs of all streams.
    """

    data: bytes = attrs.field(repr=lambda data: f"<{len(data):,} bytes>")
    run_count: int
    _first_id: int = attrs.field(eq=False, repr=False)
    _offsets: array[int] = attrs.field(eq=False, repr=False)

    @property
    def streams(self) -> Mapping[bytes, tuple[Range, ...]]:
        """The seqs of each stream that it has ever held."""
        return _Selection(self, (0, 1))

    @property
    def pruned(self) -> Mapping[bytes, tuple[Range, ...]]:
        """The seqs of each stream that it no longer has."""
        return _Selection(self, (1,))

    @property
    def held(self) -> Mapping[bytes, tuple[Range, ...]]:
        """The seqs of each stream that it has now."""
        return _Selection(self, (0,))

    def __len__(self) -> int:
        return len(self._offsets)

    def id_at(self, index: int) -> bytes:
        """Return the id of a stream, by its place in the order of the ids."""
        start = self._first_id + index * _ID_BYTES
        return self.data[start : start + _ID_BYTES]

    def runs_at(self, index: int) -> Iterator[Run]:
        """Yield the runs of a stream, by its place in the order of the ids."""
        count, at = _varint(self.data, self._offsets[index])
        last = 0
        for _ in range(count):
            gap, at = _varint(self.data, at)
            length, at = _varint(self.data, at)
            first, last = last + gap + 1, last + gap + 1 + (length >> 1)
            yield first, last, length & 1

    def items(self) -> Iterator[tuple[bytes, list[Run]]]:
        """Yield the id and the runs of each stream, in the order of the ids."""
        for index in range(len(self)):
            yield self.id_at(index), list(self.runs_at(index))

    def index_of(self, stream_id: bytes) -> int | None:
        """Return a stream's place in the order of the ids, or None if it is not there."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.id_at(middle) < stream_id:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.id_at(low) == stream_id else None


@attrs.frozen(eq=False)
class _Selection(Mapping[bytes, tuple[Range, ...]]):
    """The runs of some states, as a mapping from each stream that has some."""

    _encoded: EncodedSeqs
    _states: tuple[int, ...]

    def _seqs(self, index: int) -> tuple[Range, ...]:
        return tuple(union(Range(*seqs) for *seqs, state in self._encoded.runs_at(index) if state in self._states))

    def __getitem__(self, stream_id: bytes) -> tuple[Range, ...]:
        index = self._encoded.index_of(stream_id)
        found = () if index is None else self._seqs(index)
        if not found:
            raise KeyError(stream_id)
        return found

    def __iter__(self) -> Iterator[bytes]:
        for index in range(len(self._encoded)):
            if any(state in self._states for _, _, state in self._encoded.runs_at(index)):
                yield self._encoded.id_at(index)

    def __len__(self) -> int:
        return self._count

    @functools.cached_property
    def _count(self) -> int:  # who copies asks for each stream whether there are any
        return sum(1 for _ in self)


def encode(streams: Seqs, pruned: Seqs | None = None) -> EncodedSeqs:
    """Encode what a database has ever held, and the part of it that it pruned, by stream id."""
    pruned = pruned or {}
    return encode_runs(
        (stream_id, runs(streams[stream_id], pruned.get(stream_id, ()))) for stream_id in sorted(streams)
    )


def runs(ever: Sequence[Range], pruned: Sequence[Range]) -> list[Run]:
    """Return the runs of a stream of which these seqs were ever held, and these of them pruned."""
    if not pruned:
        return [(part.first, part.last, 0) for part in union(ever)]
    held = [(part.first, part.last, 0) for part in subtract(ever, pruned)]
    return sorted([*held, *((part.first, part.last, 1) for part in intersect(ever, pruned))])


def encode_runs(streams: Iterable[tuple[bytes, Sequence[Run]]]) -> EncodedSeqs:
    """Encode the runs of each stream: the streams in the order of their ids, the runs in that of their seqs."""
    ids, encoded, offsets, run_count = bytearray(), bytearray(), array("Q"), 0
    for stream_id, stream_runs in streams:
        if not stream_runs:
            continue
        ids += stream_id
        run_count += len(stream_runs)
        offsets.append(len(encoded))
        _append(encoded, len(stream_runs))
        before = 0
        for first, last, state in stream_runs:
            _append(encoded, first - before - 1)
            _append(encoded, (last - first) << 1 | state)
            before = last
    head = bytearray()
    _append(head, len(offsets))
    start = len(head) + len(ids)
    in_data = array("Q", [start + offset for offset in offsets])
    return EncodedSeqs(bytes(head + ids + encoded), run_count, len(head), in_data)


def _append(data: bytearray, number: int) -> None:
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it.

    Raises:
        ValueError: it is too long.
        IndexError: the data end within it.
    """
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while shift < _SHIFT_MAX:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7
    raise ValueError("a number in it is too large")


def decode(data: bytes) -> EncodedSeqs:
    """Check an encoding that may come from a stranger.

    Raises:
        ValueError: it is incomplete, or contradicts itself; the text says how.
    """
    if len(data) > BYTES_MAX:
        raise ValueError(f"it has more than {units.size(BYTES_MAX)} of seqs")
    try:
        return _decode(data)
    except IndexError as error:
        raise ValueError("its seqs end too early") from error


def _decode(data: bytes) -> EncodedSeqs:
    count, first_id = _varint(data, 0)
    at = first_id + count * _ID_BYTES
    if at > len(data):
        raise IndexError
    before = b""
    for start in range(first_id, at, _ID_BYTES):
        stream_id = data[start : start + _ID_BYTES]
        if stream_id <= before:
            raise ValueError("a stream is named twice, or the streams are not in order")
        before = stream_id
    offsets, run_count = array("Q"), 0
    for _ in range(count):
        offsets.append(at)
        number, at = _varint(data, at)
        run_count += number
        if not number or run_count > RUNS_MAX:
            raise ValueError(f"a stream has no seqs, or all streams have more than {RUNS_MAX:,} runs of seqs")
        last = 0
        for _ in range(number):
            gap, at = _varint(data, at)
            length, at = _varint(data, at)
            last += gap + 1 + (length >> 1)
        if last > format.SEQ_MAX:
            raise ValueError(f"a stream has seqs up to {last}, and no seq is above {format.SEQ_MAX}")
    if at != len(data):
        raise ValueError("something follows its seqs")
    return EncodedSeqs(data, run_count, first_id, offsets)
