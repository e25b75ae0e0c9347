"""Send one chunk in one transaction: lock its streams, compare their ranges, send the rows, write the ranges."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

from edgeshard.format.ranges import Range, clip
from edgeshard.master.streams import Stream
from edgeshard.postgres import citus, conflicts, encoding, own_tables, plan, reader, server_tables, values
from edgeshard.postgres.encoding import to_parameters
from edgeshard.postgres.options import ON_INVALID, OnInvalid
from edgeshard.postgres.plan import OutdatedPlanError, Piece, RangesByStream
from edgeshard.postgres.reader import MasterReader, NotTextError
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server
from edgeshard.postgres.target import Target
from edgeshard.postgres.values import Row
from edgeshard.sqlite import quote


class OutdatedRangesError(Exception):
    """PostgreSQL holds something else than the chunk was planned with: another device pushed. Nothing was done.

    Attributes:
        held: what it holds of the chunk's streams.
    """

    def __init__(self, held: Mapping[bytes, list[Range]]) -> None:
        super().__init__(held)
        self.held = held


class InvalidRowError(Exception):
    """A value of the chunk cannot be encoded: its row cannot be stored. Nothing was done."""


class StreamRejectedError(Exception):
    """No row of a stream can be pushed. Nothing was done.

    Attributes:
        stream: the stream.
        reason: why.
    """

    def __init__(self, stream: Stream, reason: str) -> None:
        super().__init__(stream, reason)
        self.stream = stream
        self.reason = reason


@attrs.frozen
class Sent:
    """What a chunk brought.

    Attributes:
        tables: how many rows of each table were sent.
        held: what PostgreSQL now holds of the chunk's streams, at least around its rows.
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
        on_invalid: what to do with characters that PostgreSQL cannot store.
    """

    target: Target
    server: Server
    master: MasterReader
    inserts: bool
    on_invalid: OnInvalid = "reject"

    def send(self, chunk: Sequence[Piece], tables: Sequence[Table], held: RangesByStream) -> Sent:
        """Send a chunk, all of it or nothing.

        Args:
            chunk: what to send.
            tables: the tables that have rows of it, made fit in PostgreSQL, with all that belong to keyed ones.
            held: what PostgreSQL held of its streams when the chunk was planned.

        Raises:
            OutdatedRangesError: PostgreSQL holds something else.
            InvalidRowError, StreamRejectedError: it cannot store a row, or a stream.
            OutdatedPlanError, OutdatedSchemaError: the master's rows, or a table there, changed.
            ServerError: the server failed, or refused a row. If the connection was lost, it may still have committed.
        """
        with self.transaction(chunk, tables, held) as before:
            counts = self.send_rows(chunk, tables)
            now = plan.held_after(before, chunk)
            own_tables.write_ranges(self.server, before, now)
        return Sent(counts, now)

    @contextlib.contextmanager
    def transaction(
        self, chunk: Sequence[Piece], tables: Sequence[Table], held: RangesByStream
    ) -> Iterator[dict[bytes, list[Range]]]:
        """Run the block in a transaction that brings rows of a chunk, and yield what PostgreSQL held around them.

        See `send` for arguments and errors. The block sends rows, and writes their ranges.
        """
        streams = [self.repaired(stream) for stream in plan.streams_in(chunk)]
        with self.server.transaction():
            self.target.lock_tables()
            agents = own_tables.lock_streams(self.server, streams)
            windows = plan.windows(chunk)
            before = own_tables.held_around(self.server, windows)
            # compared within the chunk: how its ranges are divided, which an owner may have changed, does not matter
            if any(
                clip(before[stream_id], window) != clip(held.get(stream_id, ()), window)
                for stream_id, window in windows.items()
            ):
                raise OutdatedRangesError(own_tables.held(self.server, agents))
            _check_agents(chunk, agents)
            if self.server.is_citus:
                citus.begin(self.server, tables, inserts=self.inserts)
            own_tables.lock_keyed_tables(self.server, (table for table in tables if table.key is not None))
            yield before

    def repaired(self, stream: Stream) -> Stream:
        """Return a stream as PostgreSQL can store it, if characters are to be replaced or escaped."""
        if self.on_invalid == "reject" or not has_invalid_name(stream):
            return stream
        texts = (values.repair_text(text, self.on_invalid) for text in (stream.agent_id, stream.began_at))
        agent, began_at = texts
        return attrs.evolve(stream, agent_id=agent, began_at=began_at)

    def send_rows(self, chunk: Sequence[Piece], tables: Sequence[Table]) -> dict[str, int]:
        """Send the rows of a chunk in the open transaction, and settle keys; return how many went into each table.

        Raises:
            InvalidRowError: a row cannot be encoded.
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
        conflicts.settle(self.server, (table for table in tables if table.key is not None), chunk)
        return counts

    def encoder(self, table: Table, ids: Mapping[int, bytes], *, inserts: bool) -> Callable[[Sequence[Row]], Any]:
        """Return a function that encodes rows of a table, as the master has them, for the server.

        Args:
            table: the table.
            ids: the streams' ids by their numbers.
            inserts: for an INSERT, or else for COPY.
        """
        pack = partial(to_parameters, table.sent_types) if inserts else encoding.compile_packer(table.sent_types)

        def encode(rows: Sequence[Row]) -> Any:
            rows = values.convert_rows(table.sent, rows)
            try:
                return pack(rows, ids)
            except values.INVALID_VALUE:
                if self.on_invalid == "reject":
                    raise
                return pack(values.repair_rows(table.sent, table.fixed, rows, self.on_invalid), ids)

        return encode

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
        encode = self.encoder(table, ids, inserts=self.inserts)
        try:
            for id_range in plan.id_ranges(chunk):
                for rows, encoded in self.master.batches(table, id_range, encode):
                    sent.append(len(rows))
                    yield encoded
        except KeyError as error:
            cause = f"table {table.name} has rows of other streams than their blocks say"
            raise reader.damaged(self.master.path, cause) from error
        except (NotTextError, values.UnfitValueError, *values.INVALID_VALUE) as error:
            raise InvalidRowError from error


def has_invalid_name(stream: Stream) -> bool:
    """Return whether PostgreSQL cannot store the agent's name of a stream, or when it began."""
    return "\0" in stream.agent_id + stream.began_at


def _check_agents(chunk: Sequence[Piece], agents: Mapping[bytes, str]) -> None:
    for piece in chunk:
        agent, ours = agents[piece.stream.stream_id], piece.stream.agent_id
        if agent not in {ours, *(values.repair_text(ours, mode) for mode in ON_INVALID[1:])}:
            reason = f"in PostgreSQL this is a stream of agent {agent!r}; one of the two databases is corrupt or forged"
            raise StreamRejectedError(piece.stream, reason)
