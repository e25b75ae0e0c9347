"""One transaction of a push: streams locked, ranges compared, rows sent, ranges written; and who is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from edgeshard.format.ranges import Range
from edgeshard.postgres import conflicts, plan, reader, remote, sqlstate, values
from edgeshard.postgres.plan import Part
from edgeshard.postgres.reader import Local, NotTextError
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server, ServerError
from edgeshard.postgres.values import Row
from edgeshard.sqlite import quote

_NOT_TEXT = "it is not valid UTF-8; its writer did not go through edgeshard"


class StaleError(Exception):
    """PostgreSQL holds something else than was planned with: somebody else pushed. Nothing was done.

    Attributes:
        held: what it holds of the streams.
    """

    def __init__(self, held: Mapping[bytes, list[Range]]) -> None:
        super().__init__(held)
        self.held = held


class RefusedError(Exception):
    """PostgreSQL cannot take a row. Nothing was done.

    Attributes:
        row_id: the row's id in the master; None: it is the stream itself that cannot go there.
        part: where it is.
        table: its table.
        column: the column, or "".
        reason: why.
        is_of_table: whether no other row of the table can go there either.
    """

    def __init__(
        self, row_id: int | None, part: Part, table: str, column: str, reason: str, *, is_of_table: bool = False
    ) -> None:
        super().__init__(row_id, part, table, column, reason)
        self.row_id = row_id
        self.part = part
        self.table = table
        self.column = column
        self.reason = reason
        self.is_of_table = is_of_table


@attrs.frozen
class Sent:
    """What a chunk brought: rows of each table, and what PostgreSQL holds now of its streams."""

    tables: Mapping[str, int]
    held: Mapping[bytes, list[Range]]


@attrs.frozen
class Sender:
    """Sends chunks of a master.

    Attributes:
        server: where to.
        local: the master.
        inserts: whether to use INSERT statements alone, which any server that speaks the protocol knows.
    """

    server: Server
    local: Local
    inserts: bool

    def tables_of(self, tables: Sequence[Table], chunk: Sequence[Part]) -> list[Table]:
        """Those of `tables` that have rows in a chunk."""
        runs = plan.runs(chunk)
        return [table for table in tables if any(self.local.first(table, run) for run in runs)]

    def send(self, chunk: Sequence[Part], tables: Sequence[Table], held: plan.Held) -> Sent:
        """Bring a chunk to PostgreSQL, whole or not at all.

        Args:
            chunk: what to bring.
            tables: those with rows in it, which the server has, and all that belongs to those that are keyed.
            held: what the server holds of its streams, as the chunk was planned.

        Raises:
            StaleError: the server holds something else.
            RefusedError: it cannot take a row.
            plan.MovedError: the rows, or a table there, are no longer as they were.
            ServerError: the server failed. Where the connection is lost, it may still have committed.
        """
        streams = plan.streams_of(chunk)
        with self.server.transaction():
            agents = remote.lock_streams(self.server, streams)
            there = remote.held(self.server, agents)
            if there != {stream.stream_id: list(held.get(stream.stream_id, ())) for stream in streams}:
                raise StaleError(there)
            self._check_agents(chunk, agents)
            keyed = [table for table in tables if table.key is not None]
            conflicts.ensure_plain(self.server, (table for table in tables if table.key is None))
            conflicts.lock(self.server, keyed)
            counts = self._send_rows(chunk, tables)
            conflicts.settle(self.server, keyed, chunk)
            now = plan.after(there, chunk)
            remote.write_ranges(self.server, there, now)
        return Sent(counts, now)

    def _check_agents(self, chunk: Sequence[Part], agents: Mapping[bytes, str]) -> None:
        for part in chunk:
            theirs = agents[part.stream.stream_id]
            if theirs != part.stream.agent_id:
                reason = f"PostgreSQL has this stream as one of agent {theirs!r}; one of both databases is false"
                raise RefusedError(None, part, "", "", reason)

    def _send_rows(self, chunk: Sequence[Part], tables: Sequence[Table]) -> dict[str, int]:
        # rows are read in many snapshots: whatever came of columns that a merge renamed or widened meanwhile, an error,
        # values of other kinds, or, which is what SQLite reads of an unknown "name", the name, is none of these rows
        try:
            counts = {table.there: self._send_table(chunk, table) for table in tables}
        except Exception as error:
            if self.local.has_columns(tables):
                raise
            raise plan.MovedError from error
        if not self.local.has_columns(tables):
            raise plan.MovedError
        lacking = plan.size(chunk) - sum(counts.values())
        # the order matters: what is replaced while rows are read is counted afterwards
        if lacking and not 0 < lacking <= self.local.replaced({part.stream.stream_no for part in chunk}):
            raise plan.MovedError
        return counts

    def _send_table(self, chunk: Sequence[Part], table: Table) -> int:
        sent: list[int] = []
        name, columns, portions = quote(table.there), remote.columns_of(table), self._portions(chunk, table, sent)
        if self.inserts:
            self.server.insert(name, columns, len(table.columns) + 2, portions)
        else:
            self.server.copy(name, columns, portions)
        return sum(sent)

    def _portions(self, chunk: Sequence[Part], table: Table, sent: list[int]) -> Iterator[Any]:
        """The rows as the server wants them, in portions; how many each has is added to `sent`."""
        ids = {stream.stream_no: stream.stream_id for stream in plan.streams_of(chunk)}
        packer = None if self.inserts else values.packer(table.kinds)

        def pack(rows: Sequence[Row]) -> Any:
            try:
                return values.parameters(table.kinds, rows, ids) if packer is None else packer(rows, ids)
            except KeyError as error:
                cause = f"table {table.name} has rows of other streams than their blocks say"
                raise reader.damaged(self.local.path, cause) from error
            except values.UNFIT as error:
                raise self._unfit(chunk, table, rows, error) from error

        try:
            for run in plan.runs(chunk):
                for rows, packed in self.local.rows(table, run, pack):
                    sent.append(len(rows))
                    yield packed
        except NotTextError as error:
            part = plan.part_of(chunk, error.row_id)
            raise RefusedError(error.row_id, part, table.name, "", _NOT_TEXT) from error

    def _unfit(self, chunk: Sequence[Part], table: Table, rows: Sequence[Row], error: Exception) -> Exception:
        """The words for a row that cannot be packed; the error itself, where no row is the reason."""
        found = values.find_unfit(table.kinds, rows)
        if found is None:
            return error
        number, seq = rows[found.row][:2]
        part = next(
            part for part in chunk if part.stream.stream_no == number and part.block.first <= seq <= part.block.last
        )
        row_id = part.block.first_id + seq - part.block.first
        return RefusedError(row_id, part, table.name, table.columns[found.column][0], found.reason)

    def blame(self, chunk: Sequence[Part], tables: Sequence[Table], error: ServerError) -> RefusedError:
        """Find the row of a chunk that the server refused, by sending less and less of it, which is undone.

        Raises:
            ServerError: the server failed in another way.
        """
        taken, refused = 0, plan.size(chunk)  # the first `taken` rows are taken, the first `refused` are not
        while refused - taken > 1:
            middle = (taken + refused) // 2
            found = self._refusal(plan.cut(chunk, middle, None)[0], tables)
            if found is None:
                taken = middle
            else:
                refused, error = middle, found
        part = plan.cut(chunk, refused, None)[0][-1]
        row_id = part.block.last_id
        (table,) = self.tables_of(tables, [attrs.evolve(part, block=part.block.cut(part.block.last, part.block.last))])
        column, said = self._refusing_column(table, row_id, part) or ("", error.said)
        return RefusedError(row_id, part, table.name, column, f"PostgreSQL refuses it: {said}")

    def _refusal(self, chunk: Sequence[Part], tables: Sequence[Table]) -> ServerError | None:
        try:
            with self.server.transaction(keep=False):
                self._send_rows(chunk, self.tables_of(tables, chunk))
        except ServerError as error:
            if not sqlstate.is_of_a_row(error.state):
                raise
            return error
        return None

    def _refusing_column(self, table: Table, row_id: int, part: Part) -> tuple[str, str] | None:
        ids = {part.stream.stream_no: part.stream.stream_id}

        def pack(rows: Sequence[Row]) -> list[Any]:
            return values.parameters(table.kinds, rows, ids)

        ((_, found),) = self.local.rows(table, Range(row_id, row_id), pack)
        return remote.refusing_column(self.server, table, found[2:])
