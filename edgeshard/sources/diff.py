"""Find the rows of a source that the main database lacks. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgeshard import sqlite
from edgeshard.format import blocks
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.sources import streams
from edgeshard.sources.source import Source, SourceStream
from edgeshard.sqlite import Connection


def count_rows(connection: Connection, source: Source) -> tuple[int, int]:
    """Return how many rows a merge would copy, and how many rows the source has."""
    missing = present = 0
    for stream, blocks_missing in missing_by_stream(connection, source):
        missing += sum(map(len, blocks_missing))
        present += sum(map(len, stream.blocks))
    return missing, present


def missing_by_stream(
    connection: Connection, source: Source, unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> Iterator[tuple[SourceStream, list[Block]]]:
    """Yield each stream that may have something new in the source, with the blocks that a merge would copy, in order.

    Args:
        connection: the connection whose main database is the target.
        source: the attached database.
        unwanted: seqs of each stream, by its id, that are not copied although the target does not hold them.
    """
    for stream in streams.streams_with_news(connection, source):
        stream_no = sqlite.scalar(
            connection, "SELECT stream_no FROM main.edgeshard_streams WHERE stream_id = ?", (stream.stream_id,)
        )
        held = [] if stream_no is None else held_ranges(connection, stream_no)
        yield stream, missing_blocks(stream, held, unwanted)


def held_ranges(connection: Connection, stream_no: int) -> list[Range]:
    """Return the seqs of a stream that the main database has ever held."""
    rows = sqlite.fetch(connection, "SELECT first, last FROM main.edgeshard_ranges WHERE stream_no = ?", (stream_no,))
    return [Range(first, last) for first, last in rows]


def missing_blocks(
    stream: SourceStream, held: Sequence[Range], unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> list[Block]:
    """Return the parts of a stream's blocks that a target lacks.

    Args:
        stream: the stream, as the source knows it.
        held: the seqs of it that the target has ever held.
        unwanted: seqs of each stream, by its id, that are not copied although the target does not hold them.
    """
    if unwanted is not None:
        held = union([*held, *unwanted.get(stream.stream_id, ())])
    return blocks.pieces(subtract(stream.ranges, held), stream.blocks)
