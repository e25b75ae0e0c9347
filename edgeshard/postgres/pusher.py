"""Push the rows that PostgreSQL lacks, chunk by chunk, and try again what may succeed the next time."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard import units
from edgeshard.errors import ConfigurationError, PostgresError, PostgresUnavailableError
from edgeshard.log_fields import fields
from edgeshard.master.streams import Stream
from edgeshard.master.tombstone_gc import Collected
from edgeshard.postgres import citus, own_tables, plan, prepare, reader, rejects, row_search, server_tables, tombstones
from edgeshard.postgres.address import Address
from edgeshard.postgres.options import BATCH, BATCH_MAX
from edgeshard.postgres.plan import OutdatedPlanError, OutdatedSchemaError, Piece
from edgeshard.postgres.prepare import Prepared
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.receipt_writer import ReceiptWriter
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import OutdatedRangesError, RowRejectedError, Sender, Sent, StreamRejectedError
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.postgres.target import Target
from edgeshard.postgres.unreachable import UnreachableStreams
from edgeshard.reports import PushReport, Rejected

logger = logging.getLogger("edgeshard.push")

Progress = Callable[[int, int], None]

#: About how many bytes one transaction brings, at most.
_CHUNK_BYTES: Final = 16 << 20

#: How often in a row to try a chunk, or to connect, before the push fails.
_ATTEMPTS: Final = 6

#: After how many seconds tombstones that stayed are looked at again.
_COLLECT_AGAIN_S: Final = 3_600.0

#: After how many seconds a long-running push tries rejected rows again.
_RETRY_REJECTED_S: Final = 60.0


@attrs.define
class _Counts:
    """What a run did so far."""

    rows: int = 0
    streams: set[bytes] = attrs.Factory(set)
    tables: dict[str, int] = attrs.Factory(dict)
    statements: list[str] = attrs.Factory(list)

    def add(self, chunk: Sequence[Piece], sent: Sent) -> None:
        self.rows += sum(sent.tables.values())
        self.streams |= {piece.stream.stream_id for piece in chunk}
        for name, rows in sent.tables.items():
            if rows:  # tables that exist only because a keyed one does may stay empty
                self.tables[name] = self.tables.get(name, 0) + rows


class Pusher:
    """Pushes a store's master into one PostgreSQL database, each time `run` is called.

    Args:
        path: the master.
        where: the database.
        batch: rows per transaction; a writer's transaction is never divided.
        inserts: use only INSERT.
        distribute: distribute the tables of rows over the workers of a Citus cluster; see `citus`.
        should_stop: called after each chunk; once it returns True the push ends and keeps what it committed.
        progress: called with (rows done, rows to do) after each commit.

    Raises:
        ConfigurationError: the batch is not valid.
    """

    def __init__(
        self,
        path: Path,
        where: Address,
        *,
        batch: int = BATCH,
        inserts: bool = False,
        distribute: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        if not isinstance(batch, int) or not 1 <= batch <= BATCH_MAX:
            raise ConfigurationError("push", path, f"batch must be from 1 to {BATCH_MAX} rows, got {batch!r}")
        self._path = path
        self._batch = batch
        self._inserts = inserts
        self._should_stop = should_stop
        self._progress = progress
        self._distribute = distribute
        self._target = Target(where, distribute=distribute)
        self._receipt = ReceiptWriter(path, self._target)
        self._rejected: list[Rejected] = []
        self._rejected_at = 0.0
        self._failures = 0  # in a row
        self._unreachable = UnreachableStreams()
        self._collected: Mapping[str, Collected] = {}  # what the master had pruned when tombstones were collected last
        self._collected_at = 0.0

    @property
    def retries_rejected(self) -> bool:
        """Return whether rows are rejected, and it is time to try them again."""
        return bool(self._rejected) and time.monotonic() > self._rejected_at + _RETRY_REJECTED_S

    def close(self) -> None:
        """Close the connection. A later run opens a new one, and reads again what PostgreSQL holds."""
        self._target.close()

    def run(self) -> PushReport:
        """Push everything that is missing.

        Raises:
            PostgresError: the server cannot be reached, or refuses; what was committed stays.
            StorageError: the master cannot be read.
        """
        began = time.monotonic()
        if self.retries_rejected:
            self._rejected.clear()
        self._failures = 0
        self._unreachable = UnreachableStreams()
        counts = _Counts()
        with MasterReader(self._path) as master:
            try:
                self._push_with_retries(master, counts)
            except BaseException:
                self.close()  # the next run reads everything there again
                raise
            finally:
                self._receipt.write()
            remaining = plan.count_seqs(plan.missing(master.streams(), self._target.held))
            tombstones_deleted = 0 if remaining or self._should_stop() else self._collect_tombstones(master)
        return PushReport(
            upstream=self._target.address.display,
            rows=counts.rows,
            streams=len(counts.streams),
            tables=counts.tables,
            statements=tuple(counts.statements),
            rejected=rejects.sort_for_report(self._rejected),
            remaining=remaining,
            tombstones=tombstones_deleted,
            seconds=time.monotonic() - began,
            stopped=self._should_stop(),
        )

    def _collect_tombstones(self, master: MasterReader) -> int:
        """Delete tombstones there that the master has pruned; return how many.

        It looks again once the master has pruned more, or after a while: streams that kept some may have ended.
        """
        collected = master.collected_tombstones()
        if not collected or (collected == self._collected and time.monotonic() < self._collected_at + _COLLECT_AGAIN_S):
            return 0
        try:
            deleted = tombstones.collect(self._target.connect(), master, master.tables())
        except ServerError as error:
            # all rows are there; the next push tries again
            explained = self._target.address.explain("collect tombstones in", error)
            logger.warning("%s; the next push tries again", explained, extra=fields(error=explained))
            self.close()
            return 0
        self._collected, self._collected_at = collected, time.monotonic()
        return deleted

    # -- retries -------------------------------------------------------------------------------------------------------

    def _push_with_retries(self, master: MasterReader, counts: _Counts) -> None:
        is_first_connection = not self._target.is_connected
        while True:
            try:
                self._push_chunks(master, counts)
                if self._has_reached_all(master):
                    return
            except ServerError as error:
                self._back_off_or_raise(error)
            except PostgresUnavailableError as error:
                if is_first_connection:
                    raise  # the server was never reached
                self._back_off(error)
            except OutdatedSchemaError:
                self._target.forget_tables()
            except OutdatedPlanError:
                self._target.forget_tables()
                self._failures += 1
                if self._failures > _ATTEMPTS:
                    raise reader.damaged(self._path, "its blocks name rows that it does not have") from None
            is_first_connection = False

    def _has_reached_all(self, master: MasterReader) -> bool:
        """Return whether no worker of a Citus cluster failed; else wait a moment before the next attempt.

        Raises:
            PostgresUnavailableError: a worker failed too often.
        """
        error = self._unreachable.error
        if error is None or self._should_stop():
            return True
        streams = self._unreachable.only(master.streams())
        rows = plan.count_seqs(plan.missing(streams, self._target.held, self._rejected))
        cause = (
            f"a worker of this Citus cluster does not answer ({error.state}: {error.message}); "
            f"{units.count(rows, 'row')} of {units.count(len(streams), 'stream')} still to push, all others were "
            "pushed; try again later"
        )
        self._failures = self._unreachable.failures  # chunks of other streams were sent meanwhile
        self._back_off(PostgresUnavailableError("push", self._target.address.display, cause))
        self._unreachable.begin_attempt()
        return False

    def _back_off_or_raise(self, error: ServerError) -> None:
        """Wait a moment if another attempt may succeed; else raise our error for the server's."""
        explained = self._target.address.explain("push", error)
        is_internal = error.is_unclear and self._target.is_citus  # Citus says so if a worker fails
        if is_internal:
            explained = PostgresUnavailableError(
                "push", self._target.address.display, f"{explained.cause}; try again later"
            )
        if error.is_duplicate_row:
            cause = (
                "the server has a row that edgeshard_ranges does not name, or a unique index of yours rejects it: "
                f"{error.message}. Nothing was pushed twice; find out who changed these tables"
            )
            raise PostgresError("push", self._target.address.display, cause) from error
        if not (error.is_retryable or error.is_connection_lost or is_internal):
            raise explained from error
        if error.is_connection_lost:
            self.close()
        self._back_off(explained)

    def _back_off(self, error: PostgresError) -> None:
        """Wait a moment, longer each time; raise the error if there were too many in a row."""
        self._failures += 1
        if self._failures >= _ATTEMPTS or self._should_stop():
            raise error
        logger.debug("%s; trying again", error, extra=fields(error=error))
        time.sleep(plan.back_off_s(self._failures, secrets.randbelow(1000) / 1000) / 8)

    # -- chunks --------------------------------------------------------------------------------------------------------

    def _push_chunks(self, master: MasterReader, counts: _Counts) -> None:
        server, streams, tables = self._target.connect(), master.streams(), master.tables()
        sender = Sender(self._target, server, master, self._inserts or not server.is_postgresql)
        self._target.update(streams)
        rejected = {item.stream for item in self._rejected}
        self._reject(rejects.block_unstorable_names(each for each in streams if each.stream_id.hex() not in rejected))
        max_rows = max(1, min(self._batch, _CHUNK_BYTES // master.row_bytes(streams)))
        missing = self._missing(streams)
        total = counts.rows + plan.count_seqs(missing)

        def make_fit(table: Table) -> Table:
            fit, statements = self._target.ensure_table(table)
            counts.statements += statements
            return fit

        if self._target.updated_tables != tables:
            self._update_tables(server, tables, make_fit)
        while missing and not self._should_stop():
            some = self._unreachable.take(missing)
            chunk, rest = plan.take_chunk(some, max_rows, master.transaction_at)
            try:
                prepared = prepare.prepare_tables(master, chunk, tables, make_fit)
                if prepared.has_conflict:
                    self._reject(prepared.blocked)
                    missing = self._missing(streams)
                    continue
                sent = self._send(sender, chunk, prepared, counts)
            except OutdatedRangesError as error:
                self._target.held.update(error.held)
                missing = self._missing(streams)
                total = counts.rows + plan.count_seqs(missing)
            except (RowRejectedError, StreamRejectedError, ServerError) as error:
                self._leave_out(master, server, chunk, error)
                missing = self._missing(streams)
            else:
                self._failures = 0
                self._unreachable.succeed()
                self._target.held.update(sent.held)
                missing = rest if some is missing else self._missing(streams)
                counts.add(chunk, sent)
                self._receipt.write_if_due()
                if self._progress is not None:
                    self._progress(counts.rows, total)

    def _leave_out(self, master: MasterReader, server: Server, chunk: Sequence[Piece], error: Exception) -> None:
        """Leave out what made a chunk fail; raise the error if that is unknown."""
        if isinstance(error, RowRejectedError):
            self._reject([rejects.reject_row(master, self._rejected, error)])
        elif isinstance(error, StreamRejectedError):
            self._reject([rejects.block_stream(error.piece.stream, 1, error.piece.block.first, error.reason)])
        elif isinstance(error, ServerError) and citus.is_worker_failure(server, error):
            self._unreachable.add(chunk, error)
        else:
            raise error

    def _update_tables(self, server: Server, tables: Sequence[Table], make_fit: prepare.MakeFit) -> None:
        recorded = own_tables.recorded_tables(server)
        to_distribute = recorded.keys() - citus.distributed(server, recorded) if self._distribute else frozenset()
        try:
            prepare.update_tables(tables, recorded, make_fit, to_distribute)
        except ServerError as error:
            if not citus.is_worker_failure(server, error):
                raise
            self._unreachable.error = error  # rows of other tables can be pushed all the same
        else:
            self._target.updated_tables = tables

    def _missing(self, streams: Sequence[Stream]) -> list[Piece]:
        return plan.missing(self._unreachable.without(streams), self._target.held, self._rejected)

    def _send(self, sender: Sender, chunk: Sequence[Piece], prepared: Prepared, counts: _Counts) -> Sent:
        """Send a chunk. If a row does not fit into indexes that pushes created, replace these, and send it again.

        If the server does not say what is wrong, as Citus in a COPY, send it once more by INSERT.
        """
        while True:
            try:
                return sender.send(chunk, prepared.tables, self._target.held)
            except ServerError as error:
                if error.is_unclear and not sender.inserts:
                    sender = attrs.evolve(sender, inserts=True)
                    continue
                if not error.is_row_rejected:
                    raise
                found = row_search.find_rejected_row(sender, chunk, prepared.filled, error)
                if isinstance(found, RowRejectedError):
                    raise found from error
            statements = server_tables.index_starts(sender.server, found.table, found.indexes)
            for statement in statements:
                cause = "a row does not fit into an index; `edgeshard help postgres` says how to query the new one"
                logger.warning(
                    "push table %s: %s: %s", found.table.name, cause, statement, extra=fields(table=found.table.name)
                )
            counts.statements += statements

    def _reject(self, rejected: Sequence[Rejected]) -> None:
        """Leave these rows out from now on, until it is time to try them again."""
        if rejected and not self._rejected:
            self._rejected_at = time.monotonic()
        self._rejected += rejected
