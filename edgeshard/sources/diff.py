"""Find the rows of a source that the main database lacks. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from edgeshard import sqlite
from edgeshard.format import blocks
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.sources import streams
from edgeshard.sources.source import Source, SourceStream
from edgeshard.sqlite import Connection


def count_missing(connection: Connection, source: Source) -> int:
    """Return how many rows of a source the main database has never held."""
    return sum(len(block) for _, missing in missing_by_stream(connection, source) for block in missing)


def missing_by_stream(
    connection: Connection, source: Source, unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> Iterator[tuple[SourceStream, list[Block]]]:
    """Yield each stream that may have something new in the source, with the blocks that a merge would copy, in order.

    Args:
        connection: the connection whose main database is the target.
        source: the attached database.
        unwanted: seqs of each stream, by its id, that are not copied although the target does not hold them.
    """
    for stream in streams.streams_with_news(connection, source, unwanted):
        yield stream, missing_blocks(stream, _held(connection, stream), unwanted)


def _held(connection: Connection, stream: SourceStream) -> list[Range]:
    """Return the seqs of a stream that the main database has ever held, at least around those that the source has."""
    sql = "SELECT stream_no FROM main._edgeshard_streams WHERE stream_id = ?"
    stream_no = sqlite.scalar(connection, sql, (stream.stream_id,))
    if stream_no is not None:
        return held_around(connection, stream_no, stream.ranges)
    sql = "SELECT last_seq FROM main._edgeshard_retired WHERE stream_id = ?"
    retired_to = sqlite.scalar(connection, sql, (stream.stream_id,))
    return [] if retired_to is None else [Range(1, retired_to)]


def held_around(connection: Connection, stream_no: int, parts: Iterable[Range]) -> list[Range]:
    """Return the ranges of the main database that overlap or touch these seqs of a stream, in order.

    The last one before each part is among them as well. The ranges are looked up around what a merge concerns: a
    stream may have any number of them.
    """
    found: dict[int, Range] = {}
    for part in parts:
        rows = sqlite.fetch(
            connection,
            "SELECT first, last FROM main._edgeshard_ranges WHERE stream_no = ?1 AND first <= ?3 AND first >= "
            "coalesce((SELECT max(first) FROM main._edgeshard_ranges WHERE stream_no = ?1 AND first <= ?2), 0)",
            (stream_no, part.first, part.last + 1),
        )
        found.update((first, Range(first, last)) for first, last in rows)
    return [found[first] for first in sorted(found)]


def is_held(connection: Connection, stream_no: int, seqs: Range) -> bool:
    """Return whether the main database has ever held all of these seqs of a stream."""
    held = held_around(connection, stream_no, [Range(seqs.last, seqs.last)])
    return any(item.first <= seqs.first and seqs.last <= item.last for item in held)


def missing_blocks(
    stream: SourceStream, held: Sequence[Range], unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> list[Block]:
    """Return the parts of a stream's blocks that a target lacks.

    Args:
        stream: the stream, as the source knows it.
        held: the seqs of it that the target has ever held, at least around its blocks.
        unwanted: seqs of each stream, by its id, that are not copied although the target does not hold them.
    """
    if unwanted is not None:
        held = union([*held, *unwanted.get(stream.stream_id, ())])
    return blocks.pieces(subtract(stream.ranges, held), stream.blocks)
