"""Find out which changes of keyed tables are still pending in a store's own shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import scan
from edgeshard.format.blocks import Block
from edgeshard.retention.holds import NO_TIMESTAMP, Hold
from edgeshard.sources import attach, bounds, diff
from edgeshard.sources import streams as source_streams
from edgeshard.sources.attach import SourceRun
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection


@attrs.frozen
class OwnShards:
    """What the shards of a store have that its master lacks.

    Attributes:
        streams: the ids of the streams in these shards.
        holds: one for each shard with pending changes, with missing rows, or that cannot be read.
    """

    streams: frozenset[bytes] = frozenset()
    holds: tuple[Hold, ...] = ()


def scan_own_shards(connection: Connection, folder: Path) -> OwnShards:
    """Read all shards in a folder.

    Args:
        connection: the master.
        folder: the folder of its store's shards, without symbolic links.

    Raises:
        StorageError: the folder cannot be read.
    """
    runs = [SourceRun(file, own=True) for file in scan.shard_files(folder)]
    streams: set[bytes] = set()
    holds: list[Hold] = []
    for group in attach.groups([run for run in runs if not run.quarantine]):
        with attach.attached(connection, group) as attached, sqlite.read_snapshot(connection):
            for run in attached:
                try:
                    origin = run.open(connection)
                    oldest = _oldest_pending(connection, origin)
                    is_whole = source_streams.are_truncated_rows_held(connection, origin)
                    streams |= source_streams.stream_ids(connection, origin)
                except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                    run.quarantine_for(error)
                else:
                    if oldest is not None:
                        holds.append(Hold(oldest - 1, f"{run.file.name} has pending changes; merge"))
                    if not is_whole:  # the next merge will report a gap
                        reason = (
                            f"{run.file.name} was truncated by a merge into another database, and rows of it are "
                            "missing here; merge that database"
                        )
                        holds.append(Hold(NO_TIMESTAMP, reason))
        attach.remove_empty_wals(group)
    holds += [
        Hold(NO_TIMESTAMP, f"{run.file.name} cannot be read: {run.quarantine.reason}")
        for run in runs
        if run.quarantine and not run.was_removed()
    ]
    return OwnShards(frozenset(streams), tuple(holds))


def _oldest_pending(connection: Connection, origin: Source) -> int | None:
    """Return the oldest timestamp of pending changes of keyed tables, or None if none are pending."""
    found: list[int] = []
    for _, pieces in diff.missing_by_stream(connection, origin):
        for piece in pieces:
            found += _timestamps(connection, origin, piece)
    return min(found, default=None)


def _timestamps(connection: Connection, origin: Source, piece: Block) -> Iterator[int]:
    """Yield the oldest timestamp of each table's changes in one block of the shard.

    Raises:
        DamagedError: a timestamp is outside of what any clock shows.
    """
    for table in origin.tables:
        if table.is_timestamped:
            with bounds.bounded(connection, origin.schema):
                _, oldest, _ = source_streams.timestamps(connection, origin, table, piece)
            if oldest is not None:
                yield oldest
