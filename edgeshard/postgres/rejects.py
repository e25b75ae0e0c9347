"""Decide what a push leaves out: transactions with a row that PostgreSQL rejects, and streams that are blocked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from edgeshard import format
from edgeshard.format.ranges import Range
from edgeshard.master.streams import Stream
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import RowRejectedError
from edgeshard.reports import Rejected

#: How many transactions of one stream are rejected one by one. The last of them blocks the stream from there on.
REJECTED_MAX: Final = 20

_NEXT_STEP: Final = (
    ". It stays in the master, and all others are pushed. What was written cannot be changed: let the agent write what "
    "PostgreSQL can store from now on"
)

_NAME_HAS_NUL: Final = (
    "the agent's name, or the time at which the stream began, contains the character U+0000, which PostgreSQL's text "
    "cannot store"
)


def reject_row(master: MasterReader, rejected: Sequence[Rejected], error: RowRejectedError) -> Rejected:
    """Return what to leave out because PostgreSQL rejects a row: the writer's transaction that it belongs to.

    Args:
        master: the master.
        rejected: what is left out already. If that is much of the stream, block the rest of it.
        error: the row, and why it was rejected.
    """
    stream = error.piece.stream
    seqs, seq = _transaction_seqs(master, error.piece, error.row_id)
    before = sum(item.stream == stream.stream_id.hex() for item in rejected)
    if before + 1 >= REJECTED_MAX:
        reason = f"{error.reason}{_NEXT_STEP}; one of many in this stream"
        return block_stream(stream, seqs.first, seq, reason, table=error.table, column=error.column)
    return Rejected(
        stream.agent_id,
        stream.stream_id.hex(),
        seqs.first,
        seqs.last,
        seq,
        error.table,
        error.column,
        error.reason + _NEXT_STEP,
    )


def block_table(master: MasterReader, pieces: Iterable[Piece], table: Table, reason: str) -> list[Rejected]:
    """Return what to leave out because PostgreSQL cannot have a table: streams, from their first row in it on."""
    found: dict[bytes, Rejected] = {}
    for piece in pieces:
        if piece.stream.stream_id in found:
            continue
        first_id = master.first_id(table, Range(piece.block.first_id, piece.block.last_id))
        if first_id is not None:
            seqs, seq = _transaction_seqs(master, piece, first_id)
            found[piece.stream.stream_id] = block_stream(piece.stream, seqs.first, seq, reason, table=table.name)
    return list(found.values())


def block_stream(stream: Stream, first: int, seq: int, reason: str, *, table: str = "", column: str = "") -> Rejected:
    """Leave a stream out from the seq `first` on, because of the row `seq`."""
    return Rejected(stream.agent_id, stream.stream_id.hex(), first, format.SEQ_MAX, seq, table, column, reason)


def block_unstorable_names(streams: Iterable[Stream]) -> list[Rejected]:
    """Return the streams to leave out because PostgreSQL cannot store their agent's name or the time they began."""
    return [
        block_stream(stream, 1, 1, _NAME_HAS_NUL, column="agent_id")
        for stream in streams
        if stream.blocks and "\0" in stream.agent_id + stream.began_at
    ]


def sort_for_report(rejected: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """Return what is left out in the order of agents, streams and seqs."""
    return tuple(sorted(rejected, key=lambda item: (item.agent, item.stream, item.first)))


def _transaction_seqs(master: MasterReader, piece: Piece, row_id: int) -> tuple[Range, int]:
    """Return the seqs of the writer's transaction that a row belongs to, and the row's own."""
    ids = master.transaction_at(row_id) or Range(row_id, row_id)
    shift = piece.block.first - piece.block.first_id
    return Range(ids.first + shift, ids.last + shift), row_id + shift
