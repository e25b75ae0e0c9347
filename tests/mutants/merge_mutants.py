"""Faults in merging that random fleets or a law of merging must find; each is patched into edgeshard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import attrs

import edgeshard
from edgeshard import sqlite
from edgeshard.format import blocks
from edgeshard.format.constants import SEQ_MAX
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import blocked_rows, extents, proven, pruned_ranges, superseded
from edgeshard.master import streams as master_streams
from edgeshard.merge import apply, schema_merge
from edgeshard.merge.blocked import BlockedRows
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
EXAMINE = BlockedRows.examine
ENSURE_INDEX, MISSING = schema_merge.ensure_index, diff.missing_blocks


def forget_held(connection: Any, number: int, held: list[Range], copied: list[Range]) -> list[Range]:
    """Drop the ranges held before when new rows arrive."""
    if copied:
        connection.execute("DELETE FROM main._edgeshard_ranges WHERE stream_no = ?", (number,))
        ADD_RANGES(connection, number, [], copied)
    return union([*held, *copied])


def last_seq_of_the_rows(stream: Any, *_: Any, **__: Any) -> int:
    """Record a stream as known up to its last row here, not up to what its source knows."""
    return max((block.last for block in stream.blocks), default=0)


def treat_source_as_own(path: Any) -> attach.SourceRun:
    """Truncate the rows merged from a named source in that source."""
    return attrs.evolve(OF_SOURCE(path), own=True)


def ids_from_one(connection: Any) -> Target:
    """Assign ids from 1 again."""
    return attrs.evolve(LOAD(connection), next_id=1)


def or_ignore(schema: str, table: Any, *more: Any) -> str:
    """Leave out a row whose id is taken."""
    return COPY_STATEMENT(schema, table, *more).replace("INSERT INTO", "INSERT OR IGNORE INTO")


def keep_truncated(block: blocks.Block | None, gone: int) -> tuple[blocks.Block, ...]:
    """Believe that a shard still has its truncated rows."""
    return () if block is None else (block,)


def count_truncated_as_held(target: Any, number: int, stream: Any, held: Any) -> None:
    """Count rows that another master truncated as held by this one."""
    RECORD_ABSENT(target, number, stream, held)
    held = extents.ranges(target.connection, number)
    gone = subtract([part for part, _ in stream.truncations], held)
    ADD_RANGES(target.connection, number, held, gone)


def only_streams_with_rows(connection: Any, origin: Any, unwanted: Any = None) -> list[Any]:
    """Let a hub pass on only streams whose rows it has."""
    return [stream for stream in STREAMS_WITH_NEWS(connection, origin, unwanted) if stream.blocks or origin.is_shard]


def only_streams_that_grew(connection: Any, origin: Any, unwanted: Any = None) -> list[Any]:
    """Ignore streams that have no later seqs, although a gap was filled."""
    known = dict(sqlite.fetch(connection, "SELECT stream_id, last_seq FROM main._edgeshard_streams"))
    found = STREAMS_WITH_NEWS(connection, origin, unwanted)
    return [stream for stream in found if origin.is_shard or stream.last_seq > known.get(stream.stream_id, 0)]


def do_not_copy_transactions(
    target: Any, origin: Any, number: int, piece: blocks.Block, *more: Any, **say: Any
) -> None:
    """Do not copy where transactions begin and end."""
    COPY_BLOCK(target, origin, number, piece, *more, **say)
    first_id = target.next_id - len(piece)
    target.connection.execute("DELETE FROM main._edgeshard_transactions WHERE first_id >= ?", (first_id,))


def extend_blocks_by_seq(connection: Any, number: int, block: blocks.Block) -> None:
    """Extend a block although its ids are not consecutive."""
    connection.execute(
        "INSERT INTO main._edgeshard_blocks VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        (number, block.first, block.last, block.first_id),
    )
    connection.execute(
        "UPDATE main._edgeshard_blocks SET last = ?3 WHERE stream_no = ?1 AND last = ?2 - 1",
        (number, block.first, block.last),
    )
    connection.execute(
        "DELETE FROM main._edgeshard_blocks WHERE stream_no = ?1 AND first = ?2 AND EXISTS ("
        "SELECT 1 FROM main._edgeshard_blocks WHERE stream_no = ?1 AND first < ?2 AND last >= ?2)",
        (number, block.first),
    )


def count_left_out_as_held(
    target: Any, origin: Any, room: int, own: Any = None, unwanted: Any = None, *more: Any
) -> Any:
    """Let a bundle claim the rows that were left out of it."""
    copied = COPY(target, origin, room, own, unwanted, *more)
    numbers = sqlite.fetch(target.connection, "SELECT stream_id, stream_no FROM main._edgeshard_streams")
    for stream_id, number in numbers if unwanted else []:
        held = extents.ranges(target.connection, number)
        ADD_RANGES(target.connection, number, held, subtract(unwanted.get(stream_id, ()), held))
    return copied


def receiver_holds_nothing(*_: Any) -> dict[bytes, Any]:
    """Export all rows, whatever the receiver has."""
    return {}


def take_last_seq_of_last_source(target: Any, origin: Any, stream: Any) -> int:
    """Take the last seq from the source that was merged last."""
    number = ENSURE_STREAM(target, origin, stream)
    target.connection.execute(
        "UPDATE main._edgeshard_streams SET last_seq = ? WHERE stream_no = ?", (stream.last_seq, number)
    )
    return number


def index_only_new_tables(connection: Any, table: str, columns: Any, *, indexed: bool) -> None:
    """Add no indexes to a table that has rows."""
    if not sqlite.scalar(connection, f"SELECT 1 FROM main.{sqlite.quote(table)} LIMIT 1"):
        ENSURE_INDEX(connection, table, columns, indexed=indexed)


def copy_whole_streams(stream: Any, held: list[Range], unwanted: Any = None) -> list[blocks.Block]:
    """Copy all rows that a master holds of a stream if any of them is missing."""
    return list(stream.blocks) if MISSING(stream, held, unwanted) else []


def recall_all(self: BlockedRows, known: Any, streams: Any) -> None:
    """Take rows for blocked although the reason no longer holds."""
    self.found.update({conflict: dict(by_stream) for conflict, by_stream in known.items()})


def count_blocked_as_held(self: BlockedRows, connection: Any, stream_id: bytes, piece: blocks.Block) -> Any:
    """Record blocked rows as held, so that they are never copied, and are truncated."""
    fitting = EXAMINE(self, connection, stream_id, piece)
    known = master_streams.find(connection, stream_id)
    if known is not None and self.found:
        held = extents.ranges(connection, known[0])
        ADD_RANGES(connection, known[0], held, subtract(self.of_stream(stream_id), held))
    return fitting


def truncate_all(connection: Any, origin: Any, stream: Any, checked: Any) -> int | None:
    """Truncate a shard up to the last row that the master has, although rows before it are blocked."""
    return max((part.last for part in checked), default=None)


def proven_for_any_file(connection: Any, shard: str, stream_no: int) -> list[Range]:
    """Take what was copied from another file for copied from this one."""
    sql = "SELECT first, last FROM main._edgeshard_proven WHERE stream_no = ?"
    return union(Range(*row) for row in sqlite.fetch(connection, sql, (stream_no,)))


MUTANTS: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "do not join ranges": [(extents, "union", sorted)],
    "do not count missing rows": [(master_streams, "add_missing", lambda *_: None)],
    "forget ranges held before": [(extents, "add_ranges", forget_held)],
    "do not copy the last seq": [(apply, "_known_last_seq", last_seq_of_the_rows)],
    "truncate a named source": [(attach, "named_source", treat_source_as_own)],
    "assign ids twice": [(Target, "load", ids_from_one)],
    "assign ids twice, with OR IGNORE": [
        (Target, "load", ids_from_one),
        (apply, "_copy_statement", or_ignore),
    ],
    "treat truncated rows as still in the shard": [(streams, "_not_truncated", keep_truncated)],
    "count rows truncated elsewhere as held": [(apply, "_record_absent", count_truncated_as_held)],
    "do not pass on gaps": [(streams, "streams_with_news", only_streams_with_rows)],
    "do not pass on filled gaps": [(streams, "streams_with_news", only_streams_that_grew)],
    "divide transactions": [(streams, "transaction_end", lambda *_: None)],
    "do not copy transactions": [(apply, "_copy_block", do_not_copy_transactions)],
    "extend blocks where ids are not consecutive": [(extents, "add_block", extend_blocks_by_seq)],
    "count rows left out of a bundle as in it": [(apply, "copy", count_left_out_as_held)],
    "export all rows": [(edgeshard.Store, "_held_by_receiver", receiver_holds_nothing)],
    "do not copy indexes": [(schema_merge, "ensure_index", lambda *_, **__: None)],
    "take the last seq of the last source": [(apply, "_ensure_stream", take_last_seq_of_last_source)],
    "do not add indexes to an existing table": [(schema_merge, "ensure_index", index_only_new_tables)],
    "copy a stream whole if a row of it is missing": [(diff, "missing_blocks", copy_whole_streams)],
}

#: Faults that only show where other databases claim rows, rows are pruned, or masters are put back.
TRUST_MUTANTS: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "truncate rows that were never compared": [(apply, "_compare", lambda *_: [])],
    "take all rows that are gone for proven": [(proven, "ranges", lambda *_: [Range(1, SEQ_MAX)])],
    "take rows proven for another file for proven": [(proven, "ranges", proven_for_any_file)],
    "ignore what a newer copy of the master pruned": [(pruned_ranges, "of_newer_copy", lambda *_: {})],
    "count collected tombstones as pruned": [(pruned_ranges, "rows_by_state", lambda *_: {})],
    "count superseded rows as present": [(superseded, "superseded_counts", lambda *_: {})],
}


#: Faults in leaving out blocked rows.
BLOCKED_MUTANTS: dict[str, list[tuple[Any, str, Callable[..., Any]]]] = {
    "copy half of a blocked transaction": [(streams, "transactions_between", lambda *_: [])],
    "count blocked rows as missing": [(blocked_rows, "by_stream", lambda *_: {})],
    "forget which rows are blocked": [(blocked_rows, "record", lambda *_: None)],
    "never look at blocked rows again": [(BlockedRows, "recall", recall_all)],
    "count blocked rows as held": [(BlockedRows, "examine", count_blocked_as_held)],
    "truncate blocked rows": [(apply, "_durable_seq", truncate_all)],
}


@contextmanager
def broken(mutant: str) -> Iterator[None]:
    """Apply a mutant within the block."""
    with ExitStack() as patches:
        for owner, name, replacement in (MUTANTS | TRUST_MUTANTS | BLOCKED_MUTANTS)[mutant]:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield
