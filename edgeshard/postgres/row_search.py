"""Find the row of a chunk that the server rejected, and which indexes reject it: the server's error names neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from edgeshard.format.ranges import Range
from edgeshard.postgres import encoding, plan, prepare, server_tables, values
from edgeshard.postgres.plan import Piece
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import RowRejectedError, Sender
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.postgres.values import Row


class IndexesTooSmallError(Exception):
    """A row does not fit into indexes that a push created. Nothing was done.

    Attributes:
        table: its table.
        indexes: the names of the indexes.
    """

    def __init__(self, table: Table, indexes: Sequence[str]) -> None:
        super().__init__(table, indexes)
        self.table = table
        self.indexes = indexes


def find_rejected_row(
    sender: Sender, chunk: Sequence[Piece], tables: Sequence[Table], error: ServerError
) -> RowRejectedError | IndexesTooSmallError:
    """Send fewer and fewer rows of a chunk, each time in a transaction that is rolled back, until one row is left.

    Args:
        sender: sends them.
        chunk: rows that the server rejected.
        tables: the tables that have rows of it.
        error: what the server said.

    Raises:
        ServerError: the server failed in another way.
    """
    accepted, rejected = 0, plan.count_seqs(chunk)  # the first `accepted` rows pass, the first `rejected` do not
    while rejected - accepted > 1:
        middle = (accepted + rejected) // 2
        found = _try(sender, plan.take_chunk(chunk, middle, None)[0], tables)
        if found is None:
            accepted = middle
        else:
            rejected, error = middle, found
    piece = plan.take_chunk(chunk, rejected, None)[0][-1]
    row_id = piece.block.last_id
    row = attrs.evolve(piece, block=piece.block.cut(piece.block.last, piece.block.last))
    (table,) = prepare.filled_tables(sender.master, [row], tables)
    if error.is_limit_exceeded and (too_small := _find_indexes(sender, row, table)):
        return IndexesTooSmallError(table, too_small)
    column, message = _find_column(sender, table, piece, row_id) or ("", error.message)
    return RowRejectedError(row_id, piece, table.name, column, f"PostgreSQL rejects it: {message}")


def _try(
    sender: Sender, chunk: Sequence[Piece], tables: Sequence[Table], without: Iterable[str] = ()
) -> ServerError | None:
    """Send rows in a transaction that is rolled back; return what the server says if it rejects one.

    Args:
        sender: sends them.
        chunk: the rows.
        tables: the tables that may have rows of it.
        without: the names of indexes that do not exist in that transaction.
    """
    try:
        with sender.server.transaction(commit=False):
            sender.target.lock_tables()
            for name in without:
                sender.server.execute(server_tables.drop_index(name))
            sender.send_rows(chunk, prepare.filled_tables(sender.master, chunk, tables))
    except ServerError as error:
        if not error.is_row_rejected:
            raise
        return error
    return None


def _find_indexes(sender: Sender, row: Piece, table: Table) -> list[str]:
    """Return the indexes that reject a row; none if something else rejects it, or if they are not ours to replace."""
    found = list(server_tables.whole_indexes(sender.server, table))
    if not found or _try(sender, [row], [table], found):
        return []
    return [name for name in found if _try(sender, [row], [table], [each for each in found if each != name])]


def _find_column(sender: Sender, table: Table, piece: Piece, row_id: int) -> tuple[str, str] | None:
    ids = {piece.stream.stream_no: piece.stream.stream_id}

    def encode(rows: Sequence[Row]) -> list[object]:
        return encoding.to_parameters(table.sent_types, values.convert_rows(table.sent, rows), ids)

    ((_, parameters),) = sender.master.batches(table, Range(row_id, row_id), encode)
    return server_tables.find_rejecting_column(sender.server, table, parameters[2:])
