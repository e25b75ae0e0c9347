"""Compute the low watermark: no known stream can still deliver an older change.

A tombstone may be deleted once no older change can arrive. The timestamps of a stream grow with its seqs. So if nothing
of a stream is missing here, all that it may still deliver is newer than

* its last change here, if it has delivered changes of keyed tables
* its beginning, if it has not; so a stream that began after a tombstone does not hold it
* every expired tombstone, if it delivered nothing during the whole grace period: it has ended
* every expired tombstone, too, if its shard is in this store, except for the changes pending there: what is written to
  it next gets its timestamp from the same clock by which the grace period is over

Rows that are known to be missing may hold any change: a gap, or rows that a peer says it has. Rows that another
database says it pruned are not missing. A shard that cannot be read holds all tombstones.

An agent whose clock is set back by more than the grace period can still deliver an older change. Such a change is
kept, and reported (see `edgeshard.merge.late_changes`).
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.files import store_folder
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import catalog, database, extents, identity, pruned_ranges, receipts, retired, row_states, streams
from edgeshard.retention import id_bounds, own_shards, rules
from edgeshard.retention.holds import NO_TIMESTAMP, Hold
from edgeshard.retention.own_shards import OwnShards
from edgeshard.sqlite import Connection, quote

#: A stream begins up to this many microseconds before or after the timestamp of its first change.
_BEGIN_TOLERANCE_US: Final = 1_000_000


@attrs.frozen
class WatermarkInputs:
    """Inputs that take long to read, so before the master is locked. Later merges do not make them wrong.

    Attributes:
        own_shards: the store's own shards. What is written to them later has a newer timestamp.
        newest: the newest timestamp that the master has of each stream, by stream number.
        recent: the numbers of the streams that may have delivered rows within the grace period.
        next_id: the id that the next row was to get.
        last_stream_no: the highest number of a stream.
        now_us: the time, in microseconds since 1970.
        since_us: when the grace period began.
    """

    own_shards: OwnShards
    newest: Mapping[int, int]
    recent: frozenset[int]
    next_id: int
    last_stream_no: int
    now_us: int
    since_us: int


def load_inputs(path: Path, now_us: int, since_us: int) -> WatermarkInputs:
    """Read a master and the shards next to it.

    Args:
        path: the master.
        now_us: the time, in microseconds since 1970.
        since_us: when the grace period began, the same.

    Raises:
        StorageError: the master, or the folder, cannot be read.
    """
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors("prune", path):
            found = own_shards.scan_own_shards(connection, store_folder.resolve_shards(path.parent))
            with sqlite.read_snapshot(connection):
                return WatermarkInputs(
                    found,
                    _newest_timestamps(connection),
                    _recent_streams(connection, since_us),
                    identity.next_id(connection),
                    streams.highest_number(connection),
                    now_us,
                    since_us,
                )
    finally:
        connection.close()


def _newest_timestamps(connection: Connection) -> dict[int, int]:
    found: dict[int, int] = {}
    for name in catalog.tables_with_column(connection, format.TIMESTAMP):
        sql = f"SELECT _stream, max({format.TIMESTAMP}) FROM {quote(name)} GROUP BY _stream"
        for number, timestamp in sqlite.fetch(connection, sql):
            if timestamp is not None:
                found[number] = max(timestamp, found.get(number, timestamp))
    return found


def _recent_streams(connection: Connection, since_us: int) -> frozenset[int]:
    """Return the streams that may have delivered rows since then, and those that never delivered any."""
    arrived = extents.streams_since(connection, id_bounds.first_id_since(connection, since_us / 1e6))
    pruned = pruned_ranges.streams_since(connection, since_us / 1e6, rules.TOMBSTONES)
    without_rows = streams.numbers(connection) - extents.range_rows(connection).keys()
    return frozenset(arrived | pruned | (without_rows - pruned_ranges.stream_numbers(connection)))


# -- what holds tombstones --------------------------------------------------------------------------------------------


def holds(connection: Connection, inputs: WatermarkInputs) -> Iterator[Hold]:
    """Yield all that holds tombstones, as of the caller's transaction; the lowest timestamp is the low watermark."""
    yield Hold(inputs.since_us, "")  # the grace period itself, which is not reported
    yield from inputs.own_shards.holds
    yield from _holds_of_retired(connection, inputs)
    missing = _streams_with_missing_rows(connection)
    recent = _recent_streams_now(connection, inputs)
    for number, stream_id, agent, began_at in streams.origins(connection):
        if number in missing:
            reason = f"rows of agent {agent!r:.80} are missing; merge the database that has them (see status)"
            yield Hold(NO_TIMESTAMP, reason)
        elif number in recent and stream_id not in inputs.own_shards.streams:
            reason = f"agent {agent!r:.80} may still deliver older changes; merge its shard or its database, or wait"
            yield Hold(_lower_bound(inputs, inputs.newest.get(number), began_at), reason)


def _holds_of_retired(connection: Connection, inputs: WatermarkInputs) -> Iterator[Hold]:
    """Yield what streams hold that retired within the grace period: they may go on elsewhere."""
    for group in retired.groups_since(connection, inputs.since_us / 1e6, rules.TOMBSTONES):
        whose = f"agent {group.agent!r:.80}" if group.agent else "an agent of which all rows were pruned"
        reason = f"{whose} may still deliver older changes; merge its shard or its database, or wait"
        began_us = group.began_at * 1_000_000 - _BEGIN_TOLERANCE_US
        yield Hold(NO_TIMESTAMP if group.began_at == retired.UNKNOWN else began_us, reason)


def _lower_bound(inputs: WatermarkInputs, newest: int | None, began_at: str) -> int:
    """Return a lower bound on the timestamps a stream may still deliver."""
    if newest is not None:
        return newest
    return began_us(began_at, inputs.now_us)


def began_us(began_at: str, now_us: int) -> int:
    """Return a lower bound on the timestamps of a stream, by the time at which it began, or `NO_TIMESTAMP`."""
    try:
        began = datetime.datetime.fromisoformat(began_at)
        if began.tzinfo is None:
            return NO_TIMESTAMP
        bound_us = int(began.timestamp() * 1_000_000) - _BEGIN_TOLERANCE_US
    except (ValueError, OverflowError):  # a hostile database may hold any text
        return NO_TIMESTAMP
    return bound_us if bound_us <= now_us else NO_TIMESTAMP  # a clock that is ahead may be set right


def _streams_with_missing_rows(connection: Connection) -> set[int]:
    """Return the streams that have rows somewhere, as far as is known, that never arrived here."""
    found = set()
    for stream_id, gaps in itertools.groupby(row_states.gaps(connection), key=lambda gap: bytes.fromhex(gap.stream)):
        pruned = [each.seqs for each in pruned_ranges.elsewhere(connection, stream_id)]
        if not pruned or subtract([Range(gap.first, gap.last) for gap in gaps], pruned):
            found.add(stream_id)
    numbers = streams.numbers_by_id(connection) if found else {}
    return {numbers[stream_id] for stream_id in found} | set(receipts.streams_with_unknown_rows(connection))


def _recent_streams_now(connection: Connection, inputs: WatermarkInputs) -> frozenset[int]:
    """Return the recent streams, including those that delivered rows since the inputs were read."""
    if identity.next_id(connection) == inputs.next_id:
        return inputs.recent
    arrived = extents.streams_since(connection, inputs.next_id)
    return inputs.recent.union(arrived, streams.numbers_after(connection, inputs.last_stream_no))
