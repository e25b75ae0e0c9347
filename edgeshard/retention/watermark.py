"""Up to which timestamp no change can come any more: what all streams that are known have passed.

A deletion may go once nothing can come that is older. The timestamps of a stream grow with its seqs; so of a stream of
which nothing is missing here all that is still to come is timestamped later than

    what it brought last, where that was a change of a keyed table;
    its beginning, where it brought none: so one that began after a deletion is in nobody's way;
    any deletion at all, where nothing has come of it for the whole grace period: it has ended;
    any as well, where the shard it is written to lies in this store, and but for the rows that wait there: it is
    timestamped by the clock by which the grace period has passed.

What is known to be missing may be anything: a gap, or rows that another database says it has. What other databases say
they pruned is not missing. A shard that cannot be read holds everything up. An agent whose clock is set back by more
than the grace period, or one whose class knows of no key, can still bring an older change: that is kept, and shown (see
merge/late.py).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import paths, scan
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract
from edgeshard.master import arrivals, catalog, database, extents, identity, pruned_ranges, receipts, streams
from edgeshard.retention import rules
from edgeshard.sources import attach, diff
from edgeshard.sources import streams as source_streams
from edgeshard.sources.attach import SourceRun
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection, quote

#: Nothing was passed: timestamps are counted from 0.
NOTHING: Final = -1

#: A stream is begun some microseconds before, or after, its first change is timestamped.
_BEGIN_US: Final = 1_000_000


@attrs.frozen
class Bound:
    """Something that holds deletions up.

    Attributes:
        upto: deletions that are timestamped later than this.
        why: what it is, and what to do.
    """

    upto: int
    why: str


@attrs.frozen
class Shards:
    """What the shards of a store have that its master lacks.

    Attributes:
        streams: the ids of the streams that they are of.
        bounds: those of which changes wait, or that cannot be read.
    """

    streams: frozenset[bytes] = frozenset()
    bounds: tuple[Bound, ...] = ()


@attrs.frozen
class Seen:
    """What was learnt before the master was locked, and takes long: it stays true whatever is merged since.

    Attributes:
        shards: the store's own shards. What is written to them later is timestamped later.
        timestamps: of each stream number the newest timestamp that the master has.
        recent: the numbers of streams of which something may have come within the grace period.
        next_id: the id that the next row was to get, ...
        last_no: ... and the highest number of a stream.
        now_us: the time, in microseconds since 1970.
        since_us: when the grace period began.
    """

    shards: Shards
    timestamps: Mapping[int, int]
    recent: frozenset[int]
    next_id: int
    last_no: int
    now_us: int
    since_us: int


def look(path: Path, now_us: int, since_us: int) -> Seen:
    """Look at a master, and at the shards beside it.

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
            shards = _look_at_shards(connection, Path(os.path.realpath(paths.shards(path.parent))))
            with sqlite.read_snapshot(connection):
                return Seen(
                    shards,
                    _newest_timestamps(connection),
                    _recent(connection, since_us),
                    identity.next_id(connection),
                    sqlite.scalar(connection, "SELECT max(stream_no) FROM edgeshard_streams") or 0,
                    now_us,
                    since_us,
                )
    finally:
        connection.close()


def _newest_timestamps(connection: Connection) -> dict[int, int]:
    found: dict[int, int] = {}
    timestamped = "SELECT DISTINCT table_name FROM edgeshard_columns WHERE column_name = ?"
    for (name,) in sqlite.fetch(connection, timestamped, (format.TIMESTAMP,)):
        sql = f"SELECT _stream, max({format.TIMESTAMP}) FROM {quote(name)} GROUP BY _stream"
        for number, timestamp in sqlite.fetch(connection, sql):
            if timestamp is not None:
                found[number] = max(timestamp, found.get(number, timestamp))
    return found


# -- the store's own shards -------------------------------------------------------------------------------------------


def _look_at_shards(connection: Connection, folder: Path) -> Shards:
    keyed = {name.lower() for name in catalog.load_keys(connection)}
    every = [SourceRun(file, own=True) for file in scan.shard_files(folder)]
    streams: set[bytes] = set()
    bounds: list[Bound] = []
    for group in attach.groups([job for job in every if not job.quarantine]):
        with attach.attached(connection, group) as attached, sqlite.read_snapshot(connection):
            for job in attached:
                try:
                    origin = job.open(connection)
                    oldest = _oldest_waiting(connection, origin, keyed)
                    is_whole = source_streams.are_truncated_rows_held(connection, origin)
                    streams |= source_streams.stream_ids(connection, origin)
                except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                    job.quarantine_for(error)
                else:
                    if oldest is not None:
                        bounds.append(Bound(oldest - 1, f"{job.file.name} has changes that wait; merge"))
                    if not is_whole:  # what the next merge will call a gap
                        why = f"{job.file.name} gave up rows that are missing here; merge the database that has them"
                        bounds.append(Bound(NOTHING, why))
        attach.remove_empty_wals(group)
    # one that a merger removed meanwhile was merged
    bounds += [
        Bound(NOTHING, f"{job.file.name} cannot be read: {job.quarantine.reason}")
        for job in every
        if job.quarantine and (job.file.defect or scan.find_database(job.file.path) is not None)
    ]
    return Shards(frozenset(streams), tuple(bounds))


def _oldest_waiting(connection: Connection, origin: Source, keyed: set[str]) -> int | None:
    """The oldest timestamp of changes of keyed tables that wait in a shard; None where none waits."""
    found: list[int] = []
    for _, pieces in diff.missing_by_stream(connection, origin):
        for piece in pieces:
            found += _timestamps(connection, origin, keyed, piece)
    return min(found, default=None)


def _timestamps(connection: Connection, origin: Source, keyed: set[str], piece: Block) -> Iterator[int]:
    for table in origin.tables:
        if not table.is_timestamped and table.name.lower() not in keyed:
            continue
        timestamp = (
            format.TIMESTAMP if table.is_timestamped else "0"
        )  # written before its class had a key: older than all
        sql = (
            f"SELECT min(coalesce({timestamp}, 0)), 0 FROM {quote(origin.schema)}.{quote(table.name)} NOT INDEXED "
            "WHERE _id BETWEEN ? AND ?"
        )
        with sqlite.limit_steps_in_block(connection, sqlite.reading_steps(connection, origin.schema)):
            ((oldest, _),) = sqlite.fetch(connection, sql, (piece.first_id, piece.last_id))
        if oldest is not None:
            # a stranger may have written anything
            yield oldest if isinstance(oldest, int) else NOTHING


# -- the streams ------------------------------------------------------------------------------------------------------


def bounds(connection: Connection, seen: Seen) -> Iterator[Bound]:
    """All that holds deletions up, as of the caller's transaction; those timestamped up to the lowest may go."""
    yield Bound(seen.since_us, "")  # the grace period itself, which needs no word
    yield from seen.shards.bounds
    missing = _missing(connection)
    recent = _recent_now(connection, seen)
    sql = "SELECT stream_no, stream_id, agent_id, began_at FROM edgeshard_streams"
    for number, stream_id, agent, began_at in sqlite.fetch(connection, sql):
        if number in missing:
            yield Bound(NOTHING, f"rows of agent {agent!r:.80} are missing here; merge what has them (see status)")
        elif number in recent and stream_id not in seen.shards.streams:
            upto = _reached(seen, seen.timestamps.get(number), began_at)
            yield Bound(upto, f"agent {agent!r:.80} may still bring older changes; merge what has them, or wait")


def _reached(seen: Seen, timestamp: int | None, began_at: str) -> int:
    """The timestamp that all that a stream has yet to bring lies behind."""
    if timestamp is not None:
        return timestamp
    try:
        began = datetime.datetime.fromisoformat(began_at)
        began_us = NOTHING if began.tzinfo is None else int(began.timestamp() * 1_000_000) - _BEGIN_US
    except (ValueError, OverflowError):  # a stranger may have written anything
        return NOTHING
    return began_us if began_us <= seen.now_us else NOTHING  # a clock that is ahead may be set right


def _missing(connection: Connection) -> set[int]:
    """The streams of which rows are known to exist somewhere that never came here."""
    numbers = dict(sqlite.fetch(connection, "SELECT stream_id, stream_no FROM edgeshard_streams"))
    found = set()
    for gap in streams.gaps(connection):
        stream_id = bytes.fromhex(gap.stream)
        gone = [pruning.seqs for pruning in pruned_ranges.elsewhere(connection, stream_id)]
        if subtract([Range(gap.first, gap.last)], gone):
            found.add(numbers[stream_id])
    return found | set(receipts.streams_with_unknown_rows(connection))


def _recent(connection: Connection, since_us: int) -> frozenset[int]:
    """The streams of which something may have come within the grace period."""
    first = arrivals.first_since(connection, since_us / 1e6)
    found = set(_arrived(connection, identity.next_id(connection) if first is None else first))
    found |= pruned_ranges.streams_since(connection, since_us / 1e6, rules.DELETIONS)
    heard_of = extents.range_rows(connection).keys() | pruned_ranges.stream_numbers(connection)
    return frozenset(found | (streams.numbers(connection) - heard_of))


def _arrived(connection: Connection, first_id: int) -> Iterator[int]:
    """The streams of which rows came by ids from this one on."""
    sql = "SELECT DISTINCT stream_no FROM edgeshard_blocks WHERE first_id + last - first >= ?"
    yield from (number for (number,) in sqlite.fetch(connection, sql, (first_id,)))


def _recent_now(connection: Connection, seen: Seen) -> frozenset[int]:
    """The same, with what came since it was looked."""
    if identity.next_id(connection) == seen.next_id:
        return seen.recent
    sql = "SELECT stream_no FROM edgeshard_streams WHERE stream_no > ?"
    new = sqlite.fetch(connection, sql, (seen.last_no,))
    return seen.recent.union(_arrived(connection, seen.next_id), (number for (number,) in new))
