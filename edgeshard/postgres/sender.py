"""Send one chunk in one transaction: lock its streams, compare their ranges, send the rows, write the ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from edgeshard.format.ranges import Range
from edgeshard.postgres import conflicts, encoding, own_tables, plan, reader, server_tables, values
from edgeshard.postgres.plan import OutdatedPlanError, Piece, RangesByStream
from edgeshard.postgres.reader import MasterReader, NotTextError
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server
from edgeshard.postgres.target import Target
from edgeshard.postgres.values import Row
from edgeshard.sqlite import quote

_NOT_TEXT = "a text in it is not valid UTF-8; its writer did not go through edgeshard"


class OutdatedRangesError(Exception):
    """PostgreSQL holds something else than the chunk was planned with: another device pushed. Nothing was done.

    Attributes:
        held: what it holds of the chunk's streams.
    """

    def __init__(self, held: Mapping[bytes, list[Range]]) -> None:
        super().__init__(held)
        self.held = held


class RowRejectedError(Exception):
    """PostgreSQL cannot store a row. Nothing was done.

    Attributes:
        row_id: the row's id in the master.
        piece: the piece of the chunk that contains it.
        table: its table.
        column: the column that caused it, or "" if it is not a single column.
        reason: why.
    """

    def __init__(self, row_id: int, piece: Piece, table: str, column: str, reason: str) -> None:
        super().__init__(row_id, piece, table, column, reason)
        self.row_id = row_id
        self.piece = piece
        self.table = table
        self.column = column
        self.reason = reason


class StreamRejectedError(Exception):
    """No row of a stream can be pushed. Nothing was done.

    Attributes:
        piece: the piece of the chunk that has rows of it.
        reason: why.
    """

    def __init__(self, piece: Piece, reason: str) -> None:
        super().__init__(piece, reason)
        self.piece = piece
        self.reason = reason


@attrs.frozen
class Sent:
    """What a chunk brought.

    Attributes:
        tables: how many rows of each table were sent.
        held: what PostgreSQL now holds of the chunk's streams.
    """

    tables: Mapping[str, int]
    held: Mapping[bytes, list[Range]]


@attrs.frozen
class Sender:
    """Sends chunks of a master to a server.

    Attributes:
        target: the database.
        server: its connection.
        master: the master.
        inserts: whether to use only INSERT, which every server that speaks the protocol knows.
    """

    target: Target
    server: Server
    master: MasterReader
    inserts: bool

    def send(self, chunk: Sequence[Piece], tables: Sequence[Table], held: RangesByStream) -> Sent:
        """Send a chunk, all of it or nothing.

        Args:
            chunk: what to send.
            tables: the tables that have rows of it, made fit in PostgreSQL, with all that belong to keyed ones.
            held: what PostgreSQL held of its streams when the chunk was planned.

        Raises:
            OutdatedRangesError: PostgreSQL holds something else.
            RowRejectedError, StreamRejectedError: it cannot store a row, or a stream.
            OutdatedPlanError, OutdatedSchemaError: the master's rows, or a table there, changed.
            ServerError: the server failed. If the connection was lost, it may still have committed.
        """
        streams = plan.streams_in(chunk)
        keyed = [table for table in tables if table.key is not None]
        with self.server.transaction():
            self.target.lock_tables()
            agents = own_tables.lock_streams(self.server, streams)
            before = own_tables.held(self.server, agents)
            if before != {stream.stream_id: list(held.get(stream.stream_id, ())) for stream in streams}:
                raise OutdatedRangesError(before)
            _check_agents(chunk, agents)
            own_tables.lock_keyed_tables(self.server, keyed)
            counts = self.send_rows(chunk, tables)
            conflicts.settle(self.server, keyed, chunk)
            now = plan.held_after(before, chunk)
            own_tables.write_ranges(self.server, before, now)
        return Sent(counts, now)

    def send_rows(self, chunk: Sequence[Piece], tables: Sequence[Table]) -> dict[str, int]:
        """Send the rows of a chunk in the open transaction, and return how many went into each table.

        Raises:
            RowRejectedError: PostgreSQL cannot store one.
            OutdatedPlanError: the master's rows or columns changed.
            ServerError: the server failed, or refused a row.
        """
        # Rows are read in many snapshots. If a merge renames or widens columns meanwhile, all that was read is wrong:
        # an error, values of other types, or the column's name itself, which SQLite returns for an unknown "name".
        try:
            counts = {table.pg_name: self._send_table(chunk, table) for table in tables}
        except Exception as error:
            if self.master.has_columns(tables):
                raise
            raise OutdatedPlanError from error
        if not self.master.has_columns(tables):
            raise OutdatedPlanError
        missing = plan.count_seqs(chunk) - sum(counts.values())
        # count superseded rows after reading, because more may be superseded while rows are read
        if missing and not 0 < missing <= self.master.superseded_rows({piece.stream.stream_no for piece in chunk}):
            raise OutdatedPlanError
        return counts

    def _send_table(self, chunk: Sequence[Piece], table: Table) -> int:
        sent: list[int] = []
        name, columns, batches = (
            quote(table.pg_name),
            server_tables.column_list(table),
            self._batches(chunk, table, sent),
        )
        if self.inserts:
            self.server.insert(name, columns, len(table.sent) + 2, batches)
        else:
            self.server.copy(name, columns, batches)
        return sum(sent)

    def _batches(self, chunk: Sequence[Piece], table: Table, sent: list[int]) -> Iterator[Any]:
        """Yield the rows of a table as the server takes them, and append to `sent` how many each batch has."""
        ids = {piece.stream.stream_no: piece.stream.stream_id for piece in chunk}
        pack = None if self.inserts else encoding.compile_packer(table.sent_types)

        def encode(rows: Sequence[Row]) -> Any:
            try:
                rows = values.convert_rows(table.sent, rows)
                if pack is None:
                    return encoding.to_parameters(table.sent_types, rows, ids)
                return pack(rows, ids)
            except values.UnfitValueError as error:
                raise _rejected(chunk, table, error.row, error.column, error.reason) from error
            except KeyError as error:
                cause = f"table {table.name} has rows of other streams than their blocks say"
                raise reader.damaged(self.master.path, cause) from error
            except values.INVALID_VALUE as error:
                raise _find_rejected(chunk, table, rows, error) from error

        try:
            for id_range in plan.id_ranges(chunk):
                for rows, encoded in self.master.batches(table, id_range, encode):
                    sent.append(len(rows))
                    yield encoded
        except NotTextError as error:
            piece = plan.piece_with_id(chunk, error.row_id)
            raise RowRejectedError(error.row_id, piece, table.name, "", _NOT_TEXT) from error


def _check_agents(chunk: Sequence[Piece], agents: Mapping[bytes, str]) -> None:
    for piece in chunk:
        agent = agents[piece.stream.stream_id]
        if agent != piece.stream.agent_id:
            reason = f"in PostgreSQL this is a stream of agent {agent!r}; one of the two databases is corrupt or forged"
            raise StreamRejectedError(piece, reason)


def _find_rejected(chunk: Sequence[Piece], table: Table, rows: Sequence[Row], error: Exception) -> Exception:
    """Return the error that names the row which cannot be encoded, or the given error if no row is the cause."""
    found = encoding.find_invalid(table.sent_types, rows)
    if found is None:
        return error
    return _rejected(chunk, table, rows[found.row], table.sent[found.column].sources[0][0], found.reason)


def _rejected(chunk: Sequence[Piece], table: Table, row: Row, column: str, reason: str) -> RowRejectedError:
    stream_no, seq = row[:2]
    piece = plan.piece_with_seq(chunk, stream_no, seq)
    return RowRejectedError(piece.block.first_id + seq - piece.block.first, piece, table.name, column, reason)
