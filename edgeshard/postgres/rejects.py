"""What a push leaves out: from an error to the seqs that stay behind, and to the words for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from edgeshard.errors import SchemaConflictError
from edgeshard.format.ranges import Range
from edgeshard.postgres import plan
from edgeshard.postgres.plan import Part, Stream
from edgeshard.postgres.reader import Local
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import RefusedError
from edgeshard.reports import Rejected

_WHAT_TO_DO: Final = (
    ". It stays in the master, and all others go on. What was written cannot be changed: let the agent write what "
    "PostgreSQL can hold from now on"
)


def from_row(origin: Local, rejected: Sequence[Rejected], error: RefusedError) -> Rejected:
    """Reject the writer's transaction that a row belongs to."""
    part = error.part
    if error.row_id is None:
        return plan.reject_rest(part, 1, part.block.first, error.table, error.column, error.reason)
    whole = origin.transaction(error.row_id) or Range(error.row_id, error.row_id)
    shift = part.block.first - part.block.first_id
    rows, seq = Range(whole.first + shift, whole.last + shift), error.row_id + shift
    if error.is_of_table:
        return plan.reject_rest(part, rows.first, seq, error.table, error.column, error.reason)
    return plan.reject(rejected, part, rows, seq, error.table, error.column, error.reason + _WHAT_TO_DO)


def of_table(origin: Local, parts: Iterable[Part], table: Table, error: SchemaConflictError) -> list[RefusedError]:
    """What to leave out because PostgreSQL cannot have a table: the streams that have rows in it, from there on."""
    found: dict[bytes, RefusedError] = {}
    for part in parts:
        first = origin.first(table, Range(part.block.first_id, part.block.last_id))
        if first is not None and part.stream.stream_id not in found:
            refused = RefusedError(first, part, table.name, "", error.cause, is_of_table=True)
            found[part.stream.stream_id] = refused
    return list(found.values())


def of_names(streams: Iterable[Stream]) -> list[Rejected]:
    """What to leave out because of what a stream is called."""
    reason = (
        "the agent's name, or the time at which the stream began, has the character U+0000, which no text there has"
    )
    return [
        plan.reject_rest(Part(stream, stream.blocks[0]), 1, 1, "", "agent_id", reason)
        for stream in streams
        if stream.blocks and "\0" in stream.agent_id + stream.began_at
    ]


def in_order(rejected: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """Sort what is rejected for a report: by agent, stream and seq."""
    return tuple(sorted(rejected, key=lambda item: (item.agent, item.stream, item.first)))
