"""Find what a push leaves out without asking the server: rows that cannot be encoded, and rows of unfit tables.

A writer's transaction is pushed whole or not at all. If one of its rows is rejected, all of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from edgeshard.format.ranges import Range
from edgeshard.master import rejected
from edgeshard.master.rejected import Reason, Rejection
from edgeshard.master.streams import Stream
from edgeshard.postgres import encoding, plan, values
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.reader import MasterReader, NotTextError
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import Sender, has_invalid_name
from edgeshard.postgres.values import Row

_NOT_TEXT: Final = "a text in it is not valid UTF-8; its writer did not go through edgeshard"

_NAME_HAS_NUL: Final = (
    "the agent's name, or the time at which the stream began, contains the character U+0000, which PostgreSQL's text "
    "cannot store"
)


class _Found:
    """Collects the transactions of rejected rows, each once."""

    def __init__(self, master: MasterReader, pieces: Sequence[Piece]) -> None:
        self._master = master
        self._pieces = pieces
        self._by_first_id: dict[int, Rejection] = {}
        self._last_ids = Range(0, 0)  # of the last transaction that was added

    def add(self, row_id: int, reason: Reason) -> None:
        """Add the transaction of a row, unless it was added just before."""
        if self._last_ids.first <= row_id <= self._last_ids.last:
            return
        piece = plan.piece_with_id(self._pieces, row_id)
        seqs, seq = plan.transaction_of(piece, row_id, self._master.transaction_at)
        first_id = row_id - (seq - seqs.first)
        self._last_ids = Range(first_id, first_id + len(seqs) - 1)
        self._by_first_id.setdefault(first_id, Rejection(piece.stream.stream_no, seqs, seq, reason))

    def rejections(self) -> list[Rejection]:
        """Return the transactions that were added."""
        return list(self._by_first_id.values())


def find_invalid(sender: Sender, chunk: Sequence[Piece], tables: Iterable[Table]) -> list[Rejection]:
    """Return the transactions with a row that cannot be encoded, of all rows in a chunk.

    Args:
        sender: would send them.
        chunk: the rows.
        tables: the tables that have some of them, made fit.
    """
    found = _Found(sender.master, chunk)
    ids = {piece.stream.stream_no: piece.stream.stream_id for piece in chunk}
    for table in tables:
        encode = sender.encoder(table, ids, inserts=sender.inserts)
        check = partial(_check_rows, sender, table, encode)
        for id_range in plan.id_ranges(chunk):
            first = id_range.first
            while first <= id_range.last:
                try:
                    for row_ids, reasons in sender.master.batches(table, Range(first, id_range.last), check):
                        for row_id, reason in zip(row_ids, reasons, strict=False):
                            if reason is not None:
                                found.add(row_id, reason)
                    break
                except NotTextError as error:
                    found.add(error.row_id, Reason(rejected.NOT_UTF8, table.name, message=_NOT_TEXT))
                    first = error.row_id + 1
    return found.rejections()


def _check_rows(
    sender: Sender, table: Table, encode: Callable[[Sequence[Row]], Any], rows: Sequence[Row]
) -> list[Reason | None]:
    """Return why each of these rows cannot be encoded, None for one that can; [] if all can."""
    try:
        encode(rows)
    except (values.UnfitValueError, *values.INVALID_VALUE):
        return [_check_row(sender, table, encode, row) for row in rows]
    return []


def _check_row(sender: Sender, table: Table, encode: Callable[[Sequence[Row]], Any], row: Row) -> Reason | None:
    """Return why a row cannot be encoded, or None if it can."""
    try:
        encode([row])
    except values.UnfitValueError as error:
        return Reason(rejected.VALUE, table.name, error.column, message=error.reason)
    except values.INVALID_VALUE as error:
        (converted,) = values.convert_rows(table.sent, [row])
        if sender.on_invalid != "reject":
            (converted,) = values.repair_rows(table.sent, table.fixed, [converted], sender.on_invalid)
        invalid = encoding.find_invalid(table.sent_types, converted)
        if invalid is None:
            raise error  # no value is the cause: a bug of ours, which must be loud
        column = table.sent[invalid.column].sources[0][0]
        return Reason(_kind(invalid.error), table.name, column, message=str(invalid.error) or type(error).__name__)
    return None


def _kind(error: Exception) -> str:
    if isinstance(error, values.NulError):
        return rejected.NUL
    return rejected.SURROGATE if isinstance(error, UnicodeEncodeError) else rejected.VALUE


def reject_table(master: MasterReader, pieces: Sequence[Piece], table: Table, cause: str) -> list[Rejection]:
    """Return the transactions with rows of a table that PostgreSQL cannot have."""
    found, reason = _Found(master, pieces), Reason(rejected.TABLE, table.name, message=cause)
    for ids in plan.id_ranges(pieces):
        for row_id in master.ids(table, ids):
            found.add(row_id, reason)
    return rejected.join(found.rejections())


def reject_stream(pieces: Iterable[Piece], stream: Stream, reason: Reason) -> list[Rejection]:
    """Return all rows of a stream that are among these pieces."""
    return [
        Rejection(stream.stream_no, piece.seqs, piece.seqs.first, reason)
        for piece in pieces
        if piece.stream.stream_no == stream.stream_no
    ]


def reject_unstorable_names(pieces: Iterable[Piece]) -> list[Rejection]:
    """Return the rows of streams whose agent's name PostgreSQL cannot store."""
    reason = Reason(rejected.AGENT, column="agent_id", message=_NAME_HAS_NUL)
    return [
        Rejection(piece.stream.stream_no, piece.seqs, piece.seqs.first, reason)
        for piece in pieces
        if has_invalid_name(piece.stream)
    ]
