"""Send the rows of a chunk that the server refused as a whole, and leave out those that do not fit.

This takes one transaction, like any other chunk. Within it, rows are sent in parts, each after a savepoint. A part that
the server refuses is sent again in halves, down to a single transaction of a writer, which is then rejected. After a
part that the server accepts, the next one has twice as many rows. So one row among n that does not fit costs about
2 log n parts, and rows of which none fits cost one part each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from edgeshard.format.ranges import Range
from edgeshard.master.rejected import Reason, Rejection
from edgeshard.postgres import own_tables, plan, prepare, rejects, server_tables
from edgeshard.postgres.plan import OutdatedSchemaError, Piece, RangesByStream
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import InvalidRowError, Sender, Sent
from edgeshard.postgres.sqlstate import ServerError


class RefusedCommitError(Exception):
    """The server refused to commit rows of which it had accepted each.

    Citus checks constraints that a user deferred only then, and so may others.

    Attributes:
        error: what it said.
    """

    def __init__(self, error: ServerError) -> None:
        super().__init__(error)
        self.error = error


@attrs.frozen
class TooSmall:
    """Indexes that a push created, and that a row does not fit into.

    Attributes:
        table: their table.
        indexes: their names.
    """

    table: Table
    indexes: Sequence[str]


@attrs.frozen
class Sifted:
    """What became of a chunk.

    Attributes:
        sent: what was sent.
        rejected: the rows that do not fit.
        left: the rows that were not looked at, because indexes must be replaced first.
        too_small: these indexes, or None.
    """

    sent: Sent
    rejected: Sequence[Rejection]
    left: Sequence[Piece] = ()
    too_small: TooSmall | None = None


def sift(
    sender: Sender, chunk: Sequence[Piece], tables: Sequence[Table], held: RangesByStream, refused: ServerError | None
) -> Sifted:
    """Send the rows of a chunk that fit, and return which do not.

    Args:
        sender: sends them.
        chunk: the rows.
        tables: the tables that have some of them, with those that must exist with these.
        held: what PostgreSQL held of their streams when the chunk was planned.
        refused: what the server answered to the chunk; None if a row cannot be encoded.

    Raises:
        RefusedCommitError: the server refused the commit. Nothing was pushed.
        ServerError: the server failed, or has a row that its ranges do not name.
        OutdatedPlanError, OutdatedRangesError, OutdatedSchemaError, StreamRejectedError: see `Sender.send`.
    """
    if refused is not None and refused.is_about_definitions:
        _check_tables(sender, tables, refused)
    found = rejects.find_invalid(sender, chunk, tables)
    left = plan.without(chunk, found)
    if not left:
        return Sifted(Sent({}, {}), found)
    size = plan.count_seqs(left)
    if refused is not None and not found:
        size = (size + 1) // 2  # all of them were refused just now
    parts, accepted, counts = _Parts(sender, tables), list[Piece](), Counter[str]()
    too_small, is_complete = None, False
    try:
        with sender.transaction(left, tables, held) as before:
            while left:
                part, rest = plan.take_chunk(left, size, sender.master.transaction_at)
                error = parts.send(part, counts)
                if error is None:
                    accepted += part
                    left, size = rest, size * 2
                elif plan.take_chunk(part, 1, sender.master.transaction_at)[1]:
                    # a part may have more rows than asked for, because it ends with a whole transaction
                    size = min(size, plan.count_seqs(part)) // 2
                else:
                    reason = parts.explain(part, error)
                    if isinstance(reason, TooSmall):
                        too_small = reason
                        break
                    found.append(reason)
                    left, size = rest, 1
            now = plan.held_after(before, accepted)
            own_tables.write_ranges(sender.server, before, now)
            is_complete = True
    except ServerError as refusal:
        if is_complete and refusal.is_row_rejected and not refusal.is_duplicate:
            raise RefusedCommitError(refusal) from refusal
        raise
    return Sifted(Sent(counts, now), found, left, too_small)


def reject_transaction(
    sender: Sender, transaction: Sequence[Piece], tables: Iterable[Table], error: ServerError
) -> Rejection:
    """Return the rejection of a writer's transaction that the server refused to commit; it does not say for which row.

    Args:
        sender: would send it.
        transaction: its rows.
        tables: the tables that may have some of them.
        error: what the server said.
    """
    piece = transaction[0]
    filled = prepare.filled_tables(sender.master, transaction, tables)
    seqs, seq = plan.transaction_of(piece, piece.block.first_id, sender.master.transaction_at)
    message = f"PostgreSQL does not commit it: {error.message}"
    reason = Reason(error.state or "", filled[0].name if len(filled) == 1 else "", "", error.constraint, message)
    return Rejection(piece.stream.stream_no, seqs, seq, reason)


def _check_tables(sender: Sender, tables: Iterable[Table], refused: ServerError) -> None:
    """Tell a table that somebody altered or dropped from a trigger that raises the same error.

    Raises:
        OutdatedSchemaError: a table is not as it was found.
    """
    if not all(server_tables.is_fit(sender.server, table) for table in tables):
        raise OutdatedSchemaError from refused


@attrs.frozen
class _Parts:
    """Sends parts of a chunk in the open transaction.

    Attributes:
        sender: sends them.
        tables: the tables that may have rows of them.
        columns: the columns that were found to refuse a value, by table: another value may be refused there as well.
    """

    sender: Sender
    tables: Sequence[Table]
    columns: dict[str, str] = attrs.Factory(dict)

    def send(
        self, part: Sequence[Piece], counts: Counter[str] | None = None, without: Iterable[str] = ()
    ) -> ServerError | None:
        """Send a part after a savepoint, and return what the server said if it refused it.

        Args:
            part: the rows.
            counts: counts the rows of each table; None: roll back in any case.
            without: the names of indexes that do not exist meanwhile.
        """
        try:
            with self.sender.server.savepoint(keep=counts is not None):
                for name in without:
                    self.sender.server.execute(server_tables.drop_index(name))
                sent = self.sender.send_rows(part, self.tables)
        except InvalidRowError as error:
            raise error.__cause__ or error from None  # find_invalid found all of them: this is a bug of ours
        except ServerError as error:
            if not error.is_row_rejected:
                raise
            return error
        if counts is not None:
            counts.update(sent)
        return None

    def explain(self, part: Sequence[Piece], error: ServerError) -> Rejection | TooSmall:
        """Find the row of a writer's transaction that the server refused, and why.

        Args:
            part: the transaction.
            error: what the server said.

        Raises:
            ServerError: the server has that row already, and its ranges do not name it.
        """
        accepted, refused = 0, plan.count_seqs(part)  # the first `accepted` rows pass, the first `refused` do not
        while refused - accepted > 1:
            middle = (accepted + refused) // 2
            found = self.send(plan.take_chunk(part, middle, None)[0])
            if found is None:
                accepted = middle
            else:
                refused, error = middle, found
        piece = plan.take_chunk(part, refused, None)[0][-1]
        row = attrs.evolve(piece, block=piece.block.cut(piece.block.last, piece.block.last))
        (table,) = prepare.filled_tables(self.sender.master, [row], self.tables)
        address = (row.stream.stream_id, row.seqs.first)
        if error.is_duplicate and server_tables.has_row(self.sender.server, table, *address):
            raise error
        if error.is_limit_exceeded and (indexes := self._find_indexes([row], table)):
            return TooSmall(table, indexes)
        column = error.column or (self._find_column(table, row) if error.is_data_exception else "")
        seqs, seq = plan.transaction_of(piece, piece.block.last_id, self.sender.master.transaction_at)
        message = f"PostgreSQL rejects it: {error.message}"
        reason = Reason(error.state or "", table.name, column, error.constraint, message)
        return Rejection(row.stream.stream_no, seqs, seq, reason)

    def _find_indexes(self, row: Sequence[Piece], table: Table) -> list[str]:
        """Return the indexes that reject a row; none if something else rejects it, or if they are not ours."""
        found = list(server_tables.whole_indexes(self.sender.server, table))
        if not found or self.send(row, without=found):
            return []
        return [name for name in found if self.send(row, without=[each for each in found if each != name])]

    def _find_column(self, table: Table, row: Piece) -> str:
        """Return the column whose type does not accept its value, or "" if all do."""
        encode = self.sender.encoder(table, {row.stream.stream_no: row.stream.stream_id}, inserts=True)
        ids = Range(row.block.first_id, row.block.last_id)
        ((_, parameters),) = self.sender.master.batches(table, ids, encode)
        listed = list(zip(table.sent, parameters[2:], strict=True))
        last = self.columns.get(table.name)
        listed.sort(key=lambda item: item[0].name != last)  # probably the same one as last time
        for column, value in listed:
            try:
                with self.sender.server.savepoint(keep=False):
                    server_tables.cast(self.sender.server, column, value)
            except ServerError as error:
                if not error.is_row_rejected:
                    raise
                self.columns[table.name] = column.name
                return column.sources[0][0]
        return ""
