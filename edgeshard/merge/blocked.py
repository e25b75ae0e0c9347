"""Find the rows of a source that its target cannot take: they are blocked, and all others are copied.

A row is blocked if its table contradicts the target's, or if one of its values does not fit the target's column. A
writer's transaction with such a row is blocked as a whole. Blocked rows stay where they are. They are copied by the
first merge for which the reason no longer holds: the agent's class was corrected, or the operator decided for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, clip, intersect, size, subtract, union
from edgeshard.merge import schema_merge
from edgeshard.merge.target import Target
from edgeshard.sources import bounds, diff
from edgeshard.sources import streams as source_streams
from edgeshard.sources.source import Blocked, Conflict, Source, SourceStream, SourceTable
from edgeshard.sqlite import Connection

#: How many rows are examined at a time, if nothing is copied.
_EXAMINED_ROWS = 100_000


@attrs.define
class BlockedRows:
    """The blocked rows of a source, as far as they have been found.

    Attributes:
        origin: the source, with the tables that fit alone.
        conflicts: each table that contradicts the target's, with the reason.
        found: the blocked rows.
    """

    origin: Source
    conflicts: Mapping[SourceTable, str]
    found: dict[Conflict, dict[bytes, list[Range]]] = attrs.Factory(dict)

    @property
    def are_possible(self) -> bool:
        """Whether any row can be blocked; almost never."""
        return bool(self.conflicts) or any(table.checks for table in self.origin.tables)

    def recall(self, known: Blocked, streams: Sequence[SourceStream]) -> None:
        """Take over what was found before and still holds, so that these rows need not be examined again."""
        reasons = {reason for _, _, reason in self._conditions()}
        there = {stream.stream_id: stream.ranges for stream in streams}
        for conflict, by_stream in known.items():
            if conflict in reasons:
                for stream_id, parts in by_stream.items():
                    self._add(conflict, stream_id, intersect(parts, there.get(stream_id, ())))

    def of_stream(self, stream_id: bytes) -> list[Range]:
        """Return the blocked seqs of a stream that were found so far."""
        if not self.found:  # almost always
            return []
        return union(part for by_stream in self.found.values() for part in by_stream.get(stream_id, ()))

    def examine(self, connection: Connection, stream_id: bytes, piece: Block) -> list[Block]:
        """Find the blocked rows of a piece of the source; return the parts of it that are not blocked."""
        if not self.are_possible:
            return [piece]
        blocked: list[Range] = []
        ids = _whole_transactions(connection, self.origin, piece)
        transactions: list[Range] | None = None
        for table, condition, conflict in self._conditions():
            rows = source_streams.ids_of_rows(connection, self.origin, table, ids, condition)
            if not rows:
                continue
            if transactions is None:
                transactions = list(source_streams.transactions_between(connection, self.origin, ids))
            rows = union([*rows, *(each for each in transactions if clip(rows, each))])
            shift = piece.first - piece.first_id
            inside = clip(rows, Range(piece.first_id, piece.last_id))
            seqs = subtract([Range(part.first + shift, part.last + shift) for part in inside], blocked)
            self._add(conflict, stream_id, seqs)
            blocked = union([*blocked, *seqs])
        return [piece.cut(part.first, part.last) for part in subtract([Range(piece.first, piece.last)], blocked)]

    def _conditions(self) -> Iterator[tuple[SourceTable, str, Conflict]]:
        """Yield each table with rows that may be blocked, the SQL condition of these ("": all), and the reason."""
        for table, cause in self.conflicts.items():
            yield table, "", Conflict(table.name, cause)
        for table in self.origin.tables:
            for condition, cause in table.checks:
                yield table, condition, Conflict(table.name, cause)

    def _add(self, conflict: Conflict, stream_id: bytes, seqs: Sequence[Range]) -> None:
        if seqs:
            self.found.setdefault(conflict, {}).setdefault(stream_id, []).extend(seqs)


def _whole_transactions(connection: Connection, origin: Source, piece: Block) -> Range:
    """Return the ids of a piece, and of the transactions that begin before it or end after it."""
    first = source_streams.transaction_at(connection, origin, piece.first_id)
    last_id = source_streams.transaction_end(connection, origin, piece.last_id)
    return Range(piece.first_id if first is None else first.first, last_id or piece.last_id)


def count(blocked: Blocked) -> dict[Conflict, int]:
    """Return how many rows are blocked for each reason."""
    return {conflict: sum(map(size, by_stream.values())) for conflict, by_stream in blocked.items()}


def seqs_by_stream(blocked: Blocked) -> dict[bytes, list[Range]]:
    """Map the ids of streams to their blocked seqs, whatever the reason."""
    found: dict[bytes, list[Range]] = {}
    for each in blocked.values():
        for stream_id, parts in each.items():
            found[stream_id] = union([*found.get(stream_id, ()), *parts])
    return found


@attrs.frozen
class Survey:
    """What a merge would do with a source.

    Attributes:
        fitting: the source, with the tables that fit alone.
        rows: how many rows it would copy.
        deletable: how many rows it would delete from it, if it is an own shard.
        missing: what the target lacks, blocked rows included: for each stream that lacks any, its blocks.
        blocked: the rows that are blocked.
    """

    fitting: Source
    rows: int
    deletable: int
    missing: Sequence[tuple[SourceStream, list[Block]]]
    blocked: Blocked


def survey(target: Target, origin: Source) -> Survey:
    """Find out what a merge would copy of an attached source; nothing is written.

    Raises:
        DamagedError: the source contradicts itself.
    """
    connection = target.connection
    rows = deletable = 0
    missing: list[tuple[SourceStream, list[Block]]] = []
    found = BlockedRows(*schema_merge.fit(target, origin))
    with bounds.bounded(connection, origin.schema):
        for stream, pieces in diff.missing_by_stream(connection, origin):
            missing += [(stream, pieces)] if pieces else []
            for piece in pieces:
                step = _EXAMINED_ROWS if found.are_possible else len(piece)
                for first in range(piece.first, piece.last + 1, step):
                    part = piece.cut(first, min(piece.last, first + step - 1))
                    rows += sum(map(len, found.examine(connection, stream.stream_id, part)))
            stays_from = min((part.first for part in found.of_stream(stream.stream_id)), default=None)
            deletable += sum(
                len(block) if stays_from is None else max(0, min(len(block), stays_from - block.first))
                for block in stream.blocks
            )
    return Survey(found.origin, rows, deletable, missing, found.found)
