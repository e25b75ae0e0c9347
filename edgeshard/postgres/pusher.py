"""The operator: push what a master has and PostgreSQL lacks, chunk by chunk, and note what PostgreSQL holds."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import (
    ConfigurationError,
    PostgresError,
    PostgresUnavailableError,
    SchemaConflictError,
    StorageError,
)
from edgeshard.format.ranges import Range
from edgeshard.master import database, receipts
from edgeshard.postgres import plan, reader, rejects, remote, schema, sqlstate
from edgeshard.postgres.options import BATCH, BATCH_MAX
from edgeshard.postgres.plan import MovedError, Part, Stream
from edgeshard.postgres.reader import Local
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import RefusedError, Sender, Sent, StaleError
from edgeshard.postgres.server import Address, Server, ServerError
from edgeshard.reports import PushReport, Rejected

logger = logging.getLogger("edgeshard.push")

Progress = Callable[[int, int], None]

#: About how many bytes one transaction brings, at most.
_CHUNK_BYTES: Final = 16 << 20

#: How often, in a row, a chunk is tried again, or the connection made anew, before that is a failure.
_ATTEMPTS: Final = 6

#: How often what PostgreSQL holds is noted in the master, in seconds, and how long a merger may keep us from that.
_NOTE_EVERY_S: Final = 5.0

_NOTE_PATIENCE_S: Final = 1.0

#: After how long what was held back is tried again, in seconds, by a push that lasts.
_RETRY_REJECTED_S: Final = 60.0


@attrs.define
class _Tally:
    """What a push did so far."""

    rows: int = 0
    streams: set[bytes] = attrs.Factory(set)
    tables: dict[str, int] = attrs.Factory(dict)
    statements: list[str] = attrs.Factory(list)

    def add(self, chunk: Sequence[Part], sent: Sent) -> None:
        self.rows += sum(sent.tables.values())
        self.streams |= {part.stream.stream_id for part in chunk}
        for name, rows in sent.tables.items():
            if rows:  # a keyed table comes with others, that may stay empty
                self.tables[name] = self.tables.get(name, 0) + rows


class Pusher:
    """Pushes a store's master into one PostgreSQL database, as often as `run` is called.

    Args:
        path: the master.
        where: the database.
        batch: rows of a transaction; a writer's transaction is never divided.
        inserts: use INSERT statements alone.
        stopping: asked after each chunk; once it says yes the push ends, with what it committed.
        progress: called with (rows done, rows to do) after each commit.
    """

    def __init__(
        self,
        path: Path,
        where: Address,
        *,
        batch: int = BATCH,
        inserts: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        if not isinstance(batch, int) or not 1 <= batch <= BATCH_MAX:
            cause = f"batch is a number of rows from 1 to {BATCH_MAX}, not {batch!r}"
            raise ConfigurationError("push", path, cause)
        self._path = path
        self._where = where
        self._batch = batch
        self._inserts = inserts
        self._stopping = stopping
        self._progress = progress
        self._server: Server | None = None
        self._is_learnt = False  # whether what follows is what this connection said
        self._database_id = b""
        self._held: dict[bytes, list[Range]] = {}
        self._fit: set[Table] = set()  # the tables that the server was seen to have
        self._rejected: list[Rejected] = []
        self._rejected_at = 0.0
        self._noted: dict[bytes, list[Range]] | None = None
        self._noted_at = 0.0
        self._failures = 0

    @property
    def retries_rejected(self) -> bool:
        """Whether rows are rejected, and it is time to try them again."""
        return bool(self._rejected) and time.monotonic() > self._rejected_at + _RETRY_REJECTED_S

    def close(self) -> None:
        """Close the connection; a later run makes a new one, and learns anew what PostgreSQL holds."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def run(self) -> PushReport:
        """Push all that is missing.

        Raises:
            UpstreamError: the server cannot be reached, or refuses; what was committed stays.
            StorageError: the master cannot be read.
        """
        began = time.monotonic()
        if self.retries_rejected:
            self._rejected.clear()
        self._failures = 0
        tally = _Tally()
        with Local(self._path) as origin:
            try:
                self._push(origin, tally)
            except BaseException:
                self.close()  # whatever changed there, the next run sees it
                raise
            finally:
                self._note()
            streams = origin.streams()
        return PushReport(
            upstream=self._where.shown,
            rows=tally.rows,
            streams=len(tally.streams),
            tables=tally.tables,
            statements=tuple(tally.statements),
            rejected=rejects.in_order(self._rejected),
            remaining=plan.size(plan.missing(streams, self._held)),
            seconds=time.monotonic() - began,
            stopped=self._stopping(),
        )

    def _push(self, origin: Local, tally: _Tally) -> None:
        is_first = self._server is None
        while True:
            try:
                self._push_all(origin, tally)
            except ServerError as error:
                self._judge(error)
            except PostgresUnavailableError as error:
                if is_first:
                    raise  # it was never there
                self._try_again(error)
            except MovedError:
                self._fit.clear()
                self._failures += 1
                if self._failures > _ATTEMPTS:
                    raise reader.damaged(self._path, "its blocks name rows that it has not") from None
            else:
                return
            is_first = False

    def _judge(self, error: ServerError) -> None:
        """Try it again, where that may help; else raise what it is."""
        explained = self._where.explain("push", error)
        if sqlstate.is_doubled(error.state):
            cause = (
                "a row is there that edgeshard_ranges does not name, or a unique index of yours refuses it: "
                f"{error.said}. Nothing of it was pushed twice; find out who changed these tables"
            )
            raise PostgresError("push", self._where.shown, cause) from error
        if not (sqlstate.is_again(error.state) or sqlstate.is_lost(error.state)):
            raise explained from error
        if sqlstate.is_lost(error.state):
            self.close()
        self._try_again(explained)

    def _try_again(self, error: PostgresError) -> None:
        """Wait a moment, longer each time; raise the error where it came too often in a row."""
        self._failures += 1
        if self._failures >= _ATTEMPTS or self._stopping():
            raise error
        logger.info("%s; tried again", error)
        time.sleep(plan.back_off_s(self._failures, secrets.randbelow(1000) / 1000) / 8)

    def _push_all(self, origin: Local, tally: _Tally) -> None:
        server, streams, tables = self._connected(), origin.streams(), origin.tables()
        sender = Sender(server, origin, self._inserts or not server.is_postgresql)
        self._learn(server, streams)
        rejected = {item.stream for item in self._rejected}
        self._reject(rejects.of_names(stream for stream in streams if stream.stream_id.hex() not in rejected))
        room = max(1, min(self._batch, _CHUNK_BYTES // origin.row_bytes()))
        parts = self._missing(streams)
        total = tally.rows + plan.size(parts)
        while parts and not self._stopping():
            chunk, rest = plan.cut(parts, room, origin.transaction_end)
            try:
                sent = self._send(sender, chunk, tables, tally)
            except StaleError as error:
                self._held.update(error.held)
                parts = self._missing(streams)
                total = tally.rows + plan.size(parts)
            except RefusedError as error:
                self._reject([rejects.from_row(origin, self._rejected, error)])
                parts = self._missing(streams)
            else:
                parts = rest
                self._failures = 0
                self._held.update(sent.held)
                tally.add(chunk, sent)
                self._note_now_and_then()
                if self._progress is not None:
                    self._progress(tally.rows, total)

    def _send(self, sender: Sender, chunk: Sequence[Part], tables: Sequence[Table], tally: _Tally) -> Sent:
        filled = sender.tables_of(tables, chunk)
        sent = list(filled)
        for table in filled:
            for each in schema.relatives(table, tables):
                self._ensure_table(sender, chunk, each, table, tally)
                sent += [each] if each not in sent else []
        try:
            return sender.send(chunk, sent, self._held)
        except ServerError as error:
            if not sqlstate.is_of_a_row(error.state):
                raise
            raise sender.blame(chunk, filled, error) from error

    def _ensure_table(self, sender: Sender, chunk: Sequence[Part], table: Table, filled: Table, tally: _Tally) -> None:
        """Make a table fit there, which rows of the chunk need that are in `filled`."""
        if table in self._fit and not table.history_of:  # others may give its table columns at any time
            return
        try:
            tally.statements += remote.ensure_table(sender.server, table)
        except SchemaConflictError as error:
            # of each stream that needs it
            raise rejects.of_table(sender.local, chunk, filled, error)[0] from error
        self._fit.add(table)

    # -- what PostgreSQL holds -----------------------------------------------------------------------------------------

    def _connected(self) -> Server:
        if self._server is not None and not self._server.is_usable:
            self.close()
        if self._server is None:
            self._server = Server(self._where)
            self._is_learnt = False
        return self._server

    def _learn(self, server: Server, streams: Sequence[Stream]) -> None:
        stream_ids = [stream.stream_id for stream in streams]
        if self._is_learnt:
            self._held.update(remote.held(server, (each for each in stream_ids if each not in self._held)))
            return
        database_id = remote.ensure_identity(server)
        held = remote.held(server, stream_ids)
        # both at once: a receipt must not say of one database what another one holds, nor that it holds nothing
        if database_id != self._database_id:
            self._noted = None
        self._database_id, self._held, self._is_learnt = database_id, held, True
        self._fit.clear()

    def _missing(self, streams: Sequence[Stream]) -> list[Part]:
        return plan.missing(streams, self._held, self._rejected)

    # -- what is rejected ----------------------------------------------------------------------------------------------

    def _reject(self, rejected: Sequence[Rejected]) -> None:
        """Leave these rows out of every later run, until they are tried again."""
        if rejected and not self._rejected:
            self._rejected_at = time.monotonic()
        self._rejected += rejected

    # -- the receipt ---------------------------------------------------------------------------------------------------

    def _note_now_and_then(self) -> None:
        if time.monotonic() > self._noted_at + _NOTE_EVERY_S:
            self._note()

    def _note(self) -> None:
        """Note in the master what PostgreSQL holds. That this fails keeps no row from being pushed: it is said."""
        held = {stream_id: list(ranges) for stream_id, ranges in self._held.items() if ranges}
        if not self._database_id or held == self._noted:
            return
        self._noted_at = time.monotonic()
        try:
            note(self._path, self._database_id, held)
        except StorageError as error:
            logger.warning("%s; what PostgreSQL holds is noted after the next push", error)
        else:
            self._noted = held


def note(path: Path, database_id: bytes, held: dict[bytes, list[Range]]) -> None:
    """Write a receipt into a master, unless somebody else writes it for too long.

    Raises:
        StorageError: it cannot be written now.
    """
    connection = database.open_master(path, writable=True)
    try:
        with sqlite.translate_errors("note what PostgreSQL holds in", str(path)):
            sqlite.set_busy_timeout(connection, _NOTE_PATIENCE_S)
            receipts.note(connection, database_id, receipts.POSTGRESQL, held)
    finally:
        connection.close()
