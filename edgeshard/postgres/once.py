"""A single push of a store, or a look at what one would do; and what a database has, as a store says it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path

from edgeshard.errors import ConfigurationError, SchemaConflictError
from edgeshard.exchange.inventory import Inventory
from edgeshard.files import scan
from edgeshard.master import receipts
from edgeshard.postgres import plan, rejects, remote, schema, server
from edgeshard.postgres.options import BATCH
from edgeshard.postgres.pusher import Progress, Pusher
from edgeshard.postgres.reader import Local
from edgeshard.postgres.server import Server, ServerError, address
from edgeshard.reports import PushReport


def push_once(
    path: Path,
    dsn: str,
    *,
    batch: int = BATCH,
    inserts: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> PushReport:
    """Push a master; see `Pusher`. Where there is none yet, nothing is to be pushed.

    Raises:
        ConfigurationError: the DSN is none, or psycopg is not installed.
        UpstreamError: PostgreSQL cannot be reached, or refuses; what was committed stays.
        StorageError: the master cannot be read.
    """
    where = server.address(dsn)
    pusher = Pusher(path, where, batch=batch, inserts=inserts, stopping=stopping, progress=progress)
    if scan.find_database(str(path)) is None:
        return PushReport(upstream=where.shown)
    try:
        return pusher.run()
    finally:
        pusher.close()


def preview(path: Path, dsn: str) -> PushReport:
    """Say what a push would do, and change nothing on either side. Values are not looked at.

    Raises:
        ConfigurationError, UpstreamError, StorageError: as a push.
    """
    began = time.monotonic()
    where = address(dsn)
    server = Server(where)
    try:
        if scan.find_database(str(path)) is None:
            return PushReport(upstream=where.shown, dry_run=True)
        with Local(path) as origin:
            return _preview(server, origin, began)
    except ServerError as error:
        raise where.explain("push", error) from error
    finally:
        server.close()


def _preview(server: Server, origin: Local, began: float) -> PushReport:
    has_tables = remote.identity(server) is not None
    streams = origin.streams()
    held = remote.held(server, [stream.stream_id for stream in streams]) if has_tables else {}
    parts = plan.missing(streams, held)
    rejected = rejects.of_names(streams)
    statements = [] if has_tables else [f"CREATE TABLE {name} ({text})" for name, text in schema.TABLES.items()]
    tables = origin.tables()
    for table in tables:
        if origin.count(table, plan.runs(parts)):
            try:
                needs = [
                    remote.need_of(server, each, has_tables=has_tables) for each in schema.relatives(table, tables)
                ]
            except SchemaConflictError as error:
                found = rejects.of_table(origin, parts, table, error)
                rejected += [rejects.from_row(origin, rejected, refused) for refused in found]
            else:
                statements += [statement for need in needs for statement in need.statements]
    parts = plan.missing(streams, held, rejected)
    counts = {table.there: origin.count(table, plan.runs(parts)) for table in tables}
    return PushReport(
        upstream=server.where.shown,
        rows=sum(counts.values()),  # fewer than seqs, where newer ones replaced some
        streams=len(plan.streams_of(parts)),
        tables={name: rows for name, rows in counts.items() if rows},
        statements=tuple(dict.fromkeys(statements)),  # keyed tables need some of the same
        rejected=rejects.in_order(rejected),
        remaining=plan.size(plan.missing(streams, held)),
        seconds=time.monotonic() - began,
        dry_run=True,
    )


def ranges(dsn: str) -> Inventory:
    """What a database has of all pushes, as a store says what it holds (`Store.ranges`).

    Raises:
        ConfigurationError: the DSN is none, psycopg is not installed, or nobody pushed there yet.
        UpstreamError: PostgreSQL cannot be reached, or refuses.
    """
    where = address(dsn)
    server = Server(where)
    try:
        at = datetime.datetime.now(datetime.UTC)  # before it is read: what is committed meanwhile is in the next one
        database_id = remote.identity(server)
        if database_id is None:
            raise ConfigurationError("read ranges of", where.shown, "nobody pushed into this database yet")
        with server.transaction(reading=True):
            held = {stream: tuple(items) for stream, _, _, items in remote.all_streams(server) if items}
        return Inventory(database_id, at, 0, held, kind=receipts.POSTGRESQL)
    except ServerError as error:
        raise where.explain("read ranges of", error) from error
    finally:
        server.close()
