"""One push, or a preview of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgeshard.master import database
from edgeshard.postgres import citus, own_tables, plan, prepare, rejects, server_kind, server_tables
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.options import BATCH, OnInvalid
from edgeshard.postgres.pusher import Progress, Pusher
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.rejected_record import RejectedRecord
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server
from edgeshard.postgres.sqlstate import ServerError
from edgeshard.reports import PushReport
from edgeshard.retention import by_hand


def push_once(
    path: Path,
    dsn: str,
    *,
    batch: int = BATCH,
    inserts: bool = False,
    retry_rejected: bool = False,
    on_invalid: OnInvalid = "reject",
    distribute: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> PushReport:
    """Push a master; see `Pusher`. If there is no master yet, there is nothing to push.

    Raises:
        ConfigurationError: the DSN or the batch is not valid, or psycopg is not installed.
        PostgresError: PostgreSQL cannot be reached, or refuses; what was committed stays.
        StorageError: the master cannot be read.
    """
    address = parse_dsn(dsn)
    pusher = Pusher(
        path,
        address,
        batch=batch,
        inserts=inserts,
        retry_rejected=retry_rejected,
        on_invalid=on_invalid,
        distribute=distribute,
        should_stop=should_stop,
        progress=progress,
    )
    if database.find_master(path, "push") is None:
        return PushReport(upstream=address.display)
    by_hand.settle_file(path)
    try:
        return pusher.run()
    finally:
        pusher.close()


def preview(
    path: Path,
    dsn: str,
    *,
    retry_rejected: bool = False,
    on_invalid: OnInvalid = "reject",
    distribute: bool = False,
) -> PushReport:
    """Report what a push would do, and change nothing on either side. Values are not checked.

    Raises:
        ConfigurationError, PostgresError, StorageError: like `push_once`.
    """
    began = time.monotonic()
    pusher = Pusher(path, parse_dsn(dsn), retry_rejected=retry_rejected, on_invalid=on_invalid, distribute=distribute)
    found = database.find_master(path, "push")
    server = Server(pusher.address)
    try:
        citus.ensure_suitable(server, distribute=distribute)
        if found is None:
            kind = server_kind.find(server)
            return PushReport(upstream=server.address.display, server=str(kind), dry_run=True)
        with MasterReader(path) as master:
            return _preview(server, master, pusher, began)
    except ServerError as error:
        raise server.address.explain("push", error) from error
    finally:
        server.close()


def _preview(server: Server, master: MasterReader, pusher: Pusher, began: float) -> PushReport:
    database_id, distribute = own_tables.identity(server), pusher.distribute
    streams, tables = master.streams(), master.tables()
    held = {} if database_id is None else own_tables.held(server, [stream.stream_id for stream in streams])
    statements = own_tables.create_statements() if database_id is None else []

    def record_changes(table: Table) -> Table:
        has_own_tables = database_id is not None
        fit, changes = server_tables.changes_for(server, table, has_own_tables=has_own_tables, distribute=distribute)
        statements.extend(changes.statements)
        return fit

    if database_id is not None:
        recorded = own_tables.recorded_tables(server)
        to_distribute = recorded.keys() - citus.distributed(server, recorded) if distribute else frozenset()
        prepare.update_tables(tables, recorded, record_changes, to_distribute)
    record = RejectedRecord(master.path, read_only=True)
    record.read(master, database_id or b"", streams, held, partial(pusher.choose_retries, tables, record_changes))
    missing = plan.missing(streams, held, record.ranges)
    if pusher.on_invalid == "reject":
        unstorable = rejects.reject_unstorable_names(missing)
        record.add(unstorable)
        missing = plan.without(missing, unstorable)
    while (prepared := prepare.prepare_tables(master, missing, tables, record_changes)).has_conflict:
        record.add(prepared.rejected)
        missing = plan.without(missing, prepared.rejected)
    id_ranges = plan.id_ranges(missing)
    counts = {table.pg_name: master.count_rows(table, id_ranges) for table in prepared.filled}
    return PushReport(
        upstream=server.address.display,
        server=str(server_kind.find(server)),
        rows=sum(counts.values()),  # fewer than seqs if newer rows superseded some
        streams=len(plan.streams_in(missing)),
        tables={name: rows for name, rows in counts.items() if rows},
        statements=tuple(dict.fromkeys(statements)),  # several keyed tables need the same one
        rejected=record.report(master),
        remaining=plan.count_seqs(plan.missing(streams, held, record.dismissed)),
        seconds=time.monotonic() - began,
        dry_run=True,
    )
