"""Mutants of the merge that random fleets, or a law of the operator, must find: each is patched into edgeshard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import attrs

import edgeshard
from edgeshard import sqlite
from edgeshard.format import blocks
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import extents
from edgeshard.merge import apply, schema_merge
from edgeshard.merge.target import Target
from edgeshard.sources import attach, diff, streams

ADD_RANGES, ENSURE_STREAM, RECORD_ABSENT, COPY_BLOCK = (
    extents.add_ranges,
    apply._ensure_stream,
    apply._record_absent,
    apply._copy_block,
)
STREAMS_WITH_NEWS, OF_SOURCE, COPY_STATEMENT = streams.streams_with_news, attach.named_source, apply._copy_statement
COPY, LOAD = apply.copy, Target.load
ENSURE_INDEX, MISSING = schema_merge.ensure_index, diff.missing_blocks


def held_is_forgotten(connection: Any, number: int, held: list[Range], copied: list[Range]) -> list[Range]:
    """What was held before is no longer in the ranges once more comes."""
    if copied:
        connection.execute("DELETE FROM main.edgeshard_ranges WHERE stream_no = ?", (number,))
        ADD_RANGES(connection, number, [], copied)
    return union([*held, *copied])


def last_seq_is_that_of_the_rows(stream: Any, *_: Any, **__: Any) -> int:
    """A stream is known up to what came of it, and not up to what its source knows."""
    return max((block.last for block in stream.blocks), default=0)


def a_source_counts_as_our_own(path: Any) -> attach.SourceRun:
    """What is merged from a source that was named is truncated there."""
    return attrs.evolve(OF_SOURCE(path), own=True)


def ids_from_one(connection: Any) -> Target:
    """Ids are given out again."""
    return attrs.evolve(LOAD(connection), next_id=1)


def or_ignore(schema: str, table: Any, *more: Any) -> str:
    """A row whose id is taken is left out."""
    return COPY_STATEMENT(schema, table, *more).replace("INSERT INTO", "INSERT OR IGNORE INTO")


def not_cut(block: blocks.Block | None, gone: int) -> tuple[blocks.Block, ...]:
    """What a shard gave up is believed to be in it."""
    return () if block is None else (block,)


def gone_counts_as_held(target: Any, number: int, stream: Any, held: list[Range]) -> None:
    """What a shard gave up to another master counts as held by this one."""
    RECORD_ABSENT(target, number, stream, held)
    gone = [part for part, _ in streams.truncated_but_not_held(stream, held)]
    ADD_RANGES(target.connection, number, held, union(gone))


def only_streams_with_rows(connection: Any, origin: Any) -> list[Any]:
    """A hub passes on no stream of which it has no rows."""
    return [stream for stream in STREAMS_WITH_NEWS(connection, origin) if stream.blocks or origin.is_shard]


def only_streams_that_grew(connection: Any, origin: Any) -> list[Any]:
    """What filled a gap in one hub is no news to the next."""
    known = dict(sqlite.fetch(connection, "SELECT stream_id, last_seq FROM main.edgeshard_streams"))
    found = STREAMS_WITH_NEWS(connection, origin)
    return [stream for stream in found if origin.is_shard or stream.last_seq > known.get(stream.stream_id, 0)]


def transactions_are_not_carried(
    target: Any, origin: Any, number: int, piece: blocks.Block, *more: Any, **say: Any
) -> None:
    """Where transactions begin and end is not copied."""
    COPY_BLOCK(target, origin, number, piece, *more, **say)
    first_id = target.next_id - len(piece)
    target.connection.execute("DELETE FROM main.edgeshard_transactions WHERE first_id >= ?", (first_id,))


def blocks_grow_where_seqs_follow(connection: Any, number: int, block: blocks.Block) -> None:
    """A block goes on although the ids do not."""
    connection.execute(
        "INSERT INTO main.edgeshard_blocks VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        (number, block.first, block.last, block.first_id),
    )
    connection.execute(
        "UPDATE main.edgeshard_blocks SET last = ?3 WHERE stream_no = ?1 AND last = ?2 - 1",
        (number, block.first, block.last),
    )
    connection.execute(
        "DELETE FROM main.edgeshard_blocks WHERE stream_no = ?1 AND first = ?2 AND EXISTS ("
        "SELECT 1 FROM main.edgeshard_blocks WHERE stream_no = ?1 AND first < ?2 AND last >= ?2)",
        (number, block.first),
    )


def left_out_counts_as_held(target: Any, origin: Any, room: int, checked: Any = None, unwanted: Any = None) -> Any:
    """A bundle says that it has what was left out of it."""
    copied = COPY(target, origin, room, checked, unwanted)
    numbers = sqlite.fetch(target.connection, "SELECT stream_id, stream_no FROM main.edgeshard_streams")
    for stream_id, number in numbers if unwanted else []:
        held = diff.held_ranges(target.connection, number)
        ADD_RANGES(target.connection, number, held, subtract(unwanted.get(stream_id, ()), held))
    return copied


def nobody_has_anything(*_: Any) -> dict[bytes, Any]:
    """A bundle takes all, whatever its receiver has."""
    return {}


def the_last_source_knows_best(target: Any, origin: Any, stream: Any) -> int:
    """A stream is known up to what the last of its sources knew."""
    number = ENSURE_STREAM(target, origin, stream)
    target.connection.execute(
        "UPDATE main.edgeshard_streams SET last_seq = ? WHERE stream_no = ?", (stream.last_seq, number)
    )
    return number


def indexes_are_those_of_the_first(connection: Any, table: str, columns: Any, *, indexed: bool) -> None:
    """A table that is there gets no more indexes."""
    if not sqlite.scalar(connection, f"SELECT 1 FROM main.{sqlite.quote(table)} LIMIT 1"):
        ENSURE_INDEX(connection, table, columns, indexed=indexed)


def a_master_gives_all_away(stream: Any, held: list[Range], unwanted: Any = None) -> list[blocks.Block]:
    """What a master holds of a stream is copied whole, wherever something of it is missing."""
    return list(stream.blocks) if MISSING(stream, held, unwanted) else []


MUTANTS: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "ranges are not joined": [(extents, "union", sorted)],
    "ranges forget what was held": [(extents, "add_ranges", held_is_forgotten)],
    "the last seq is not carried": [(apply, "_known_last_seq", last_seq_is_that_of_the_rows)],
    "a source is truncated": [(attach, "named_source", a_source_counts_as_our_own)],
    "ids are given out twice": [(Target, "load", ids_from_one)],
    "ids are given out twice, and OR IGNORE": [
        (Target, "load", ids_from_one),
        (apply, "_copy_statement", or_ignore),
    ],
    "what was given up is offered": [(streams, "_not_truncated", not_cut)],
    "what was given up counts as held": [(apply, "_record_absent", gone_counts_as_held)],
    "a gap does not travel": [(streams, "streams_with_news", only_streams_with_rows)],
    "a filled gap does not travel": [(streams, "streams_with_news", only_streams_that_grew)],
    "transactions are cut": [(streams, "transaction_end", lambda *_: None)],
    "transactions are not carried": [(apply, "_copy_block", transactions_are_not_carried)],
    "blocks go on where ids do not": [(extents, "add_block", blocks_grow_where_seqs_follow)],
    "a bundle has what was left out of it": [(apply, "copy", left_out_counts_as_held)],
    "a bundle takes all": [(edgeshard.Store, "_held_by_receiver", nobody_has_anything)],
    "indexes are not carried": [(schema_merge, "ensure_index", lambda *_, **__: None)],
    "the last source knows best": [(apply, "_ensure_stream", the_last_source_knows_best)],
    "indexes are those of the first": [(schema_merge, "ensure_index", indexes_are_those_of_the_first)],
    "a master gives all away": [(diff, "missing_blocks", a_master_gives_all_away)],
}


@contextmanager
def broken(mutant: str) -> Iterator[None]:
    """The merge is this mutant, in the block."""
    with ExitStack() as patches:
        for owner, name, replacement in MUTANTS[mutant]:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield
