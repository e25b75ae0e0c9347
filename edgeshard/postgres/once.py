"""One push, or a preview of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgeshard.master import database
from edgeshard.postgres import citus, own_tables, plan, prepare, rejects, server_tables
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.options import BATCH
from edgeshard.postgres.pusher import Progress, Pusher
from edgeshard.postgres.reader import MasterReader
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


def preview(path: Path, dsn: str, *, distribute: bool = False) -> PushReport:
    """Report what a push would do, and change nothing on either side. Values are not checked.

    Raises:
        ConfigurationError, PostgresError, StorageError: like `push_once`.
    """
    began = time.monotonic()
    address = parse_dsn(dsn)
    found = database.find_master(path, "push")
    server = Server(address)
    try:
        citus.ensure_suitable(server, distribute=distribute)
        if found is None:
            return PushReport(upstream=address.display, dry_run=True)
        with MasterReader(path) as master:
            return _preview(server, master, began, distribute)
    except ServerError as error:
        raise address.explain("push", error) from error
    finally:
        server.close()


def _preview(server: Server, master: MasterReader, began: float, distribute: bool) -> PushReport:
    has_own_tables = own_tables.identity(server) is not None
    streams, tables = master.streams(), master.tables()
    held = own_tables.held(server, [stream.stream_id for stream in streams]) if has_own_tables else {}
    rejected = rejects.block_unstorable_names(streams)
    statements = [] if has_own_tables else own_tables.create_statements()

    def record_changes(table: Table) -> Table:
        fit, changes = server_tables.changes_for(server, table, has_own_tables=has_own_tables, distribute=distribute)
        statements.extend(changes.statements)
        return fit

    if has_own_tables:
        recorded = own_tables.recorded_tables(server)
        to_distribute = recorded.keys() - citus.distributed(server, recorded) if distribute else frozenset()
        prepare.update_tables(tables, recorded, record_changes, to_distribute)
    while True:
        missing = plan.missing(streams, held, rejected)
        prepared = prepare.prepare_tables(master, missing, tables, record_changes)
        if not prepared.has_conflict:
            break
        rejected += prepared.blocked
    id_ranges = plan.id_ranges(missing)
    counts = {table.pg_name: master.count_rows(table, id_ranges) for table in prepared.filled}
    return PushReport(
        upstream=server.address.display,
        rows=sum(counts.values()),  # fewer than seqs if newer rows superseded some
        streams=len(plan.streams_in(missing)),
        tables={name: rows for name, rows in counts.items() if rows},
        statements=tuple(dict.fromkeys(statements)),  # several keyed tables need the same one
        rejected=rejects.sort_for_report(rejected),
        remaining=plan.count_seqs(plan.missing(streams, held)),
        seconds=time.monotonic() - began,
        dry_run=True,
    )
