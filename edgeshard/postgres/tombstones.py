"""Collect tombstones of keyed tables in PostgreSQL, under the same watermark as in masters.

A prune of a master deletes a tombstone once no stream that the master knows can deliver an older change, and all
databases with a receipt know of the deletion (see `edgeshard.retention.tombstones`). The next push deletes it in
PostgreSQL as well, if the database has all that the master has, and if no stream that other masters push there may
still bring an older change. Such a stream is judged as a master judges the streams of others:

* Nothing of it arrived during the grace period: it has ended.
* Otherwise all that it may still bring is newer than its last change there, or than its beginning if there is none.
* If rows of it are missing there, they may be any change. So nothing is deleted.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from edgeshard import format
from edgeshard.format.ranges import Range, subtract
from edgeshard.master.tombstone_gc import Collected
from edgeshard.postgres import names, own_tables, server_tables
from edgeshard.postgres.reader import MasterReader
from edgeshard.postgres.schema import Table
from edgeshard.postgres.server import Server
from edgeshard.records import hlc, keys
from edgeshard.retention import watermark
from edgeshard.retention.holds import NO_TIMESTAMP
from edgeshard.sqlite import quote

#: Tombstones that are looked at, and deleted, together.
_STEP: Final = 10_000


def collect(server: Server, master: MasterReader, tables: Sequence[Table]) -> int:
    """Delete the tombstones in PostgreSQL that the master has collected, as far as they may be; return how many.

    Args:
        server: the database, which has all rows that the master has.
        master: the master.
        tables: its record tables.

    Raises:
        ServerError: the server failed.
    """
    deleted = 0
    keyed = [table for table in tables if table.key is not None]
    for table in keyed:
        collected = master.collected_tombstones().get(table.name)
        pg_name = names.table_name(keys.deleted_name(table.name))
        if collected is not None and server_tables.pg_types(server, pg_name):
            for found in _old_tombstones(server, master, pg_name, collected):
                deleted += _delete(server, master, table, keyed, pg_name, collected, found)
    return deleted


def _old_tombstones(
    server: Server, master: MasterReader, pg_name: str, collected: Collected
) -> Iterator[list[tuple[bytes, int]]]:
    """Yield the tombstones there that the master has collected."""
    sql = (
        f"SELECT _stream, _seq FROM {quote(pg_name)} WHERE {format.TIMESTAMP} <= $1 AND (_stream, _seq) > ($2, $3) "
        f"ORDER BY _stream, _seq LIMIT {_STEP}"
    )
    after = (uuid.UUID(int=0), -1)
    while rows := server.execute(sql, (collected.last_timestamp, *after)):
        after = rows[-1]
        found = master.collected_among([(stream.bytes, seq) for stream, seq in rows])
        if found:
            yield found


def _delete(
    server: Server,
    master: MasterReader,
    table: Table,
    keyed: Sequence[Table],
    pg_name: str,
    collected: Collected,
    found: Sequence[tuple[bytes, int]],
) -> int:
    """Delete tombstones of a keyed table, unless an older change may still arrive; return how many."""
    with server.transaction():
        own_tables.share_schema(server)
        own_tables.lock_keyed_tables(server, [table])  # no push brings changes of it meanwhile
        bound = _low_watermark(server, master, keyed, collected)
        sql = (
            f"DELETE FROM {quote(pg_name)} t USING unnest($1::uuid[], $2::bigint[]) AS r(stream, seq) "
            f"WHERE t._stream = r.stream AND t._seq = r.seq AND t.{format.TIMESTAMP} <= $3 RETURNING 1"
        )
        streams = [uuid.UUID(bytes=stream_id) for stream_id, _ in found]
        return len(server.execute(sql, (streams, [seq for _, seq in found], bound)))


def _low_watermark(server: Server, master: MasterReader, keyed: Sequence[Table], collected: Collected) -> int:
    """Return the timestamp below which no stream that other masters push there can still bring a change."""
    recent = own_tables.streams_since(server, collected.grace_s)
    held = own_tables.held(server, recent)
    unknown = {stream_id: stream for stream_id, stream in recent.items() if master.lacks(stream_id, held[stream_id])}
    if not unknown:
        return collected.last_timestamp
    if any(subtract([Range(1, stream.last_seq)], held[stream_id]) for stream_id, stream in unknown.items()):
        return NO_TIMESTAMP
    newest = _newest_timestamps(server, keyed, list(unknown))
    now_us = hlc.now_us()
    bounds = [
        newest.get(stream_id, watermark.began_us(stream.began_at, now_us)) for stream_id, stream in unknown.items()
    ]
    return min(collected.last_timestamp, *bounds)


def _newest_timestamps(server: Server, keyed: Sequence[Table], stream_ids: Sequence[bytes]) -> Mapping[bytes, int]:
    """Return the timestamp of the last change of each of these streams, in all keyed tables that the master knows."""
    ids = [uuid.UUID(bytes=stream_id) for stream_id in stream_ids]
    newest: dict[bytes, int] = {}
    for pg_name in dict.fromkeys(name for table in keyed for name in table.pg_family):
        if not server_tables.pg_types(server, pg_name):
            continue
        sql = (
            f"SELECT _stream, max({format.TIMESTAMP}) FROM {quote(pg_name)} WHERE _stream = ANY($1::uuid[]) GROUP BY 1"
        )
        for stream, timestamp in server.execute(sql, (ids,)):
            newest[stream.bytes] = max(timestamp, newest.get(stream.bytes, timestamp))
    return newest
