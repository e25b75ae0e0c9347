"""List the rows of a source that the main database lacks. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgeshard import sqlite
from edgeshard.format import blocks
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.sources import source
from edgeshard.sources.source import Source, SourceStream
from edgeshard.sqlite import Connection


def missing_rows(connection: Connection, origin: Source) -> tuple[int, int]:
    """How many rows a merge would copy, and how many rows the source has; nothing is written."""
    missing = present = 0
    for stream, pieces in missing_pieces(connection, origin):
        missing += sum(map(len, pieces))
        present += sum(map(len, stream.blocks))
    return missing, present


def missing_pieces(
    connection: Connection, origin: Source, unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> Iterator[tuple[SourceStream, list[Block]]]:
    """The rows that `copy` would copy, of each stream that may have some, in order; nothing is written."""
    for stream in source.streams_with_news(connection, origin):
        number = sqlite.scalar(
            connection, "SELECT stream_no FROM main.edgeshard_streams WHERE stream_id = ?", (stream.stream_id,)
        )
        held = [] if number is None else held_ranges(connection, number)
        yield stream, missing_blocks(stream, held, unwanted)


def held_ranges(connection: Connection, stream_no: int) -> list[Range]:
    """The seqs of a stream that the main database has ever held."""
    rows = sqlite.fetch(connection, "SELECT first, last FROM main.edgeshard_ranges WHERE stream_no = ?", (stream_no,))
    return [Range(first, last) for first, last in rows]


def missing_blocks(
    stream: SourceStream, held: list[Range], unwanted: Mapping[bytes, Sequence[Range]] | None = None
) -> list[Block]:
    if unwanted is not None:
        held = union([*held, *unwanted.get(stream.stream_id, ())])
    return blocks.pieces(subtract(offered(stream), held), stream.blocks)


def offered(stream: SourceStream) -> list[Range]:
    return [Range(block.first, block.last) for block in stream.blocks]
