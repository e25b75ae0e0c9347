"""Push the rows that PostgreSQL lacks, chunk by chunk, and try again what may succeed the next time."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from edgeshard import units
from edgeshard.errors import ConfigurationError, PostgresError, PostgresUnavailableError, quoted
from edgeshard.format import ranges
from edgeshard.log_fields import fields
from edgeshard.master import rejected
from edgeshard.master.rejected import Reason
from edgeshard.master.streams import Stream
from edgeshard.master.tombstone_gc import Collected
from edgeshard.postgres import citus, names, own_tables, plan, prepare, reader, rejects, server_tables, tombstones
from edgeshard.postgres.address import Address
from edgeshard.postgres.options import BATCH, BATCH_MAX, ON_INVALID, OnInvalid
from edgeshard.postgres.plan import OutdatedPlanError, OutdatedSchemaError, Piece
from edgeshard.postgres.prepare import Prepared
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.receipt_writer import ReceiptWriter
from edgeshard.postgres.rejected_record import RejectedRecord, Retry
from edgeshard.postgres.schema import Table
from edgeshard.postgres.sender import InvalidRowError, OutdatedRangesError, Sender, Sent, StreamRejectedError
from edgeshard.postgres.server import Server
from edgeshard.postgres.sift import RefusedCommitError, Sifted, TooSmall, reject_transaction, sift
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.postgres.target import Target
from edgeshard.postgres.unreachable import UnreachableStreams
from edgeshard.reports import PushReport

logger = logging.getLogger("edgeshard.push")

Progress = Callable[[int, int], None]

#: About how many bytes one transaction brings, at most.
_CHUNK_BYTES: Final = 16 << 20

#: How often in a row to try a chunk, or to connect, before the push fails.
_ATTEMPTS: Final = 6

#: After how many seconds tombstones that stayed are looked at again.
_COLLECT_AGAIN_S: Final = 3_600.0

#: After how many seconds a long-running push checks again whether tables fit.
_RETRY_TABLES_S: Final = 60.0

#: The reasons that do not apply if characters are replaced or escaped.
_INVALID_CHARACTERS: Final = frozenset([rejected.NUL, rejected.SURROGATE, rejected.AGENT])


@attrs.define
class _Counts:
    """What a run did so far."""

    rows: int = 0
    streams: set[bytes] = attrs.Factory(set)
    tables: dict[str, int] = attrs.Factory(dict)
    statements: list[str] = attrs.Factory(list)

    def add(self, sent: Sent) -> None:
        self.rows += sum(sent.tables.values())
        self.streams |= sent.held.keys()
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
        retry_rejected: try rejected rows again, in the first run.
        on_invalid: what to do with characters that PostgreSQL cannot store: "reject", "replace" or "escape".
        distribute: distribute the tables of rows over the workers of a Citus cluster; see `citus`.
        should_stop: called after each chunk; once it returns True the push ends and keeps what it committed.
        progress: called with (rows done, rows to do) after each commit.

    Attributes:
        on_invalid, distribute: see above.

    Raises:
        ConfigurationError: the batch or `on_invalid` is not valid.
    """

    def __init__(
        self,
        path: Path,
        where: Address,
        *,
        batch: int = BATCH,
        inserts: bool = False,
        retry_rejected: bool = False,
        on_invalid: OnInvalid = "reject",
        distribute: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
    ) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= BATCH_MAX:
            raise ConfigurationError("push", path, f"batch must be from 1 to {BATCH_MAX} rows, got {quoted(batch)}")
        if on_invalid not in ON_INVALID:
            cause = f"on_invalid must be one of {', '.join(ON_INVALID)}, got {quoted(on_invalid)}"
            raise ConfigurationError("push", path, cause)
        self._path = path
        self._batch = batch
        self._inserts = inserts
        self._should_stop = should_stop
        self._progress = progress
        self.distribute = distribute
        self._target = Target(where, distribute=distribute)
        self._receipt = ReceiptWriter(path, self._target)
        self._retry_rejected = retry_rejected
        self.on_invalid = on_invalid
        self._rejected = RejectedRecord(path)
        self._read_from: bytes = b""  # the database whose rejected rows this run has read
        self._ran_at = 0.0
        self._failures = 0  # in a row
        self._unreachable = UnreachableStreams()
        self._collected: Mapping[str, Collected] = {}  # what the master had pruned when tombstones were collected last
        self._collected_at = 0.0

    @property
    def address(self) -> Address:
        """Return where the database is."""
        return self._target.address

    @property
    def retries_tables(self) -> bool:
        """Return whether tables did not fit, and it is time to check whether they do."""
        return bool(self._rejected.tables) and time.monotonic() > self._ran_at + _RETRY_TABLES_S

    def close(self) -> None:
        """Close the connection. A later run opens a new one, and reads again what PostgreSQL holds."""
        self._target.close()

    def run(self) -> PushReport:
        """Push everything that is missing.

        Raises:
            PostgresError: the server cannot be reached, or refuses; what was committed stays.
            StorageError: the master cannot be read.
        """
        began = self._ran_at = time.monotonic()
        self._read_from = b""
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
                self._rejected.write()
                self._receipt.write()
            rejected_rows = self._rejected.report(master)
            left = plan.missing(master.streams(), self._target.held, self._rejected.dismissed)
            deleted = 0 if left or self._should_stop() else self._collect_tombstones(master)
        self._retry_rejected = False
        return PushReport(
            upstream=self._target.address.display,
            server=self._target.kind,
            rows=counts.rows,
            streams=len(counts.streams),
            tables=counts.tables,
            statements=tuple(counts.statements),
            rejected=rejected_rows,
            remaining=plan.count_seqs(left),
            tombstones=deleted,
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
        rows = plan.count_seqs(plan.missing(streams, self._target.held, self._rejected.ranges))
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
        if error.is_duplicate:
            cause = (
                "the server has a row that edgeshard_ranges does not name: "
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
        sender = Sender(self._target, server, master, self._inserts or not server.is_postgresql, self.on_invalid)
        self._target.update(streams)

        def make_fit(table: Table) -> Table:
            fit, statements = self._target.ensure_table(table)
            counts.statements += statements
            return fit

        if self._target.updated_tables != tables:
            self._update_tables(server, tables, make_fit)
        missing = self._begin(master, streams, partial(self.choose_retries, tables, make_fit))
        max_rows = max(1, min(self._batch, _CHUNK_BYTES // master.row_bytes(streams)))
        total = counts.rows + plan.count_seqs(missing)
        while missing and not self._should_stop():
            some = self._unreachable.take(missing)
            chunk, rest = plan.take_chunk(some, max_rows, master.transaction_at)
            left: list[Piece] = []
            try:
                for sifted in self._push_chunk(sender, chunk, prepare.prepare_tables(master, chunk, tables, make_fit)):
                    self._count(server, sifted, counts)
                    left += sifted.left
            except OutdatedRangesError as error:
                self._target.held.update(error.held)
                missing = self._missing(streams)
                total = counts.rows + plan.count_seqs(missing)
            except ServerError as error:
                if not citus.is_worker_failure(server, error):
                    raise
                self._unreachable.add(chunk, error)
                missing = self._missing(streams)
            else:
                missing = [*left, *rest] if some is missing else self._missing(streams)
                if self._progress is not None:
                    self._progress(counts.rows, total)

    def _begin(
        self, master: MasterReader, streams: Sequence[Stream], choose: Callable[[frozenset[str]], Retry]
    ) -> list[Piece]:
        """Return what is to push, after reading once in each run what this database rejected."""
        if self._read_from != self._target.database_id:
            self._rejected.read(master, self._target.database_id, streams, self._target.held, choose)
            self._read_from = self._target.database_id
        if self.on_invalid == "reject":
            self._rejected.add(rejects.reject_unstorable_names(self._missing(streams)))
        return self._missing(streams)

    def choose_retries(self, tables: Sequence[Table], make_fit: prepare.MakeFit, unfit: frozenset[str]) -> Retry:
        """Return which rejected rows to try again, if rows of some tables were rejected because these did not fit."""
        fit = frozenset(name for name in unfit if prepare.is_fit(name, tables, make_fit))
        kinds = frozenset() if self.on_invalid == "reject" else _INVALID_CHARACTERS
        fixed = frozenset(
            (table.name, column)
            for table in tables
            for column, _ in table.columns
            if names.column_name(column) in table.fixed
        )
        return Retry(self._retry_rejected, kinds, fixed, fit)

    def _push_chunk(self, sender: Sender, chunk: Sequence[Piece], prepared: Prepared) -> Iterator[Sifted]:
        """Push a chunk, or find what of it does not fit; yield what became of each part."""
        try:
            if not prepared.has_conflict:
                yield from self._send(sender, chunk, prepared.tables)
                return
            found = prepared.rejected
        except StreamRejectedError as error:
            reason = Reason(rejected.STREAM, column="agent_id", message=error.reason)
            found = rejects.reject_stream(chunk, error.stream, reason)
        yield Sifted(Sent({}, {}), found, plan.without(chunk, found))

    def _send(self, sender: Sender, chunk: Sequence[Piece], tables: Sequence[Table]) -> Iterator[Sifted]:
        """Send a chunk, in one transaction if possible, and yield what became of each part.

        If the server refuses only the commit, each half is sent in its own transaction, and so on. A single transaction
        of a writer is then rejected.
        """
        try:
            yield self._send_at_once(sender, chunk, tables)
        except RefusedCommitError as refused:
            transaction_at = sender.master.transaction_at
            half, rest = plan.take_chunk(chunk, max(1, plan.count_seqs(chunk) // 2), transaction_at)
            if not rest:  # a long transaction of a writer, which is not divided, extends to the end
                half, rest = plan.take_chunk(chunk, 1, transaction_at)
            if rest:
                yield from self._send(sender, half, tables)
                yield from self._send(sender, rest, tables)
            else:
                yield Sifted(Sent({}, {}), [reject_transaction(sender, chunk, tables, refused.error)])

    def _send_at_once(self, sender: Sender, chunk: Sequence[Piece], tables: Sequence[Table]) -> Sifted:
        """Send a chunk in one transaction; if a row does not fit, send those that do.

        If the server does not say what is wrong, as Citus in a COPY, send it once more by INSERT.

        Raises:
            RefusedCommitError: the server refused only the commit.
        """
        refused: ServerError | None = None
        try:
            return Sifted(sender.send(chunk, tables, self._target.held), ())
        except InvalidRowError:
            pass
        except ServerError as error:
            if error.is_unclear and not sender.inserts:
                return self._send_at_once(attrs.evolve(sender, inserts=True), chunk, tables)
            if not error.is_row_rejected:
                raise
            refused = error
        try:
            return sift(sender, chunk, tables, self._target.held, refused)
        except ServerError as error:
            if not error.is_unclear or sender.inserts:
                raise
            return self._send_at_once(attrs.evolve(sender, inserts=True), chunk, tables)

    def _count(self, server: Server, sifted: Sifted, counts: _Counts) -> None:
        """Take note of what became of a chunk."""
        self._failures = 0
        self._unreachable.succeed()
        for stream_id, now in sifted.sent.held.items():
            ranges.add(self._target.held.setdefault(stream_id, []), now)
        counts.add(sifted.sent)
        self._rejected.add(sifted.rejected)
        if sifted.too_small is not None:
            self._replace_indexes(server, sifted.too_small, counts)
        self._rejected.write_if_due()
        self._receipt.write_if_due()

    def _update_tables(self, server: Server, tables: Sequence[Table], make_fit: prepare.MakeFit) -> None:
        recorded = own_tables.recorded_tables(server)
        to_distribute = recorded.keys() - citus.distributed(server, recorded) if self.distribute else frozenset()
        try:
            prepare.update_tables(tables, recorded, make_fit, to_distribute)
        except ServerError as error:
            if not citus.is_worker_failure(server, error):
                raise
            self._unreachable.error = error  # rows of other tables can be pushed all the same
        else:
            self._target.updated_tables = tables

    def _missing(self, streams: Sequence[Stream]) -> list[Piece]:
        return plan.missing(self._unreachable.without(streams), self._target.held, self._rejected.ranges)

    def _replace_indexes(self, server: Server, too_small: TooSmall, counts: _Counts) -> None:
        """Replace indexes that pushes created, and that a row does not fit into."""
        table = too_small.table
        statements = server_tables.index_starts(server, table, too_small.indexes)
        for statement in statements:
            cause = "a row does not fit into an index; `edgeshard help postgres` says how to query the new one"
            logger.warning("push table %s: %s: %s", table.name, cause, statement, extra=fields(table=table.name))
        counts.statements += statements
