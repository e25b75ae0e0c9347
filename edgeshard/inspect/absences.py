"""Find out what a master does not know of rows that it lacks: from the notes of removed shards, and from the shards.

A merge tells the master of them (merge/removal_notes, and the truncations of each shard). Until then an older master
that was just put back does not know them, and takes rows for blocked that were merged into the newer one. So whoever
reports what is missing looks here as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.files import paths, scan
from edgeshard.inspect.pending import MasterView, find_pending, united
from edgeshard.master import blocked_rows, identity, removed_shards, row_states
from edgeshard.master.known_rows import KnownRows
from edgeshard.master.row_states import Pending
from edgeshard.sqlite import Connection

#: How long to wait for a shard that is locked, in seconds; then what it truncated is not reported now.
_BUSY_TIMEOUT_S = 0.25


@attrs.frozen
class Absences:
    """What is known of rows outside the master.

    Attributes:
        rows: rows that a master held.
        blocked: rows in the store's shards that are blocked: they are pending, not missing.
        unnamed: why there may be more, which cannot be named, or "".
        notes: what a master records that knows all of the notes: see `identity.notes_known`.
    """

    rows: tuple[KnownRows, ...] = ()
    blocked: Pending = row_states.NOTHING
    unnamed: str = ""
    notes: tuple[bytes | None, int] = (None, 0)


def find(connection: Connection, root: Path) -> Absences:
    """Return what the notes and the shards of a store say. A shard that cannot be read is left to `status`.

    What is recorded as blocked in a shard that cannot be read counts as blocked.

    Args:
        connection: the master, or a copy of it, open for reading, in no transaction.
        root: the store's folder.

    Raises:
        AccessError, StorageIOError: the folder of the shards cannot be read.
    """
    notes = removed_shards.read(root, identity.notes_known(connection))
    with sqlite.read_snapshot(connection):
        view = MasterView.load(connection)
    sqlite.set_busy_timeout(connection, _BUSY_TIMEOUT_S)
    listed = [(file.name, find_pending(connection, view, file)) for file in scan.shard_files(_shards(root))]
    sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)
    found = [(name, pending) for name, pending in listed if pending is not None]
    truncated = [each for _, pending in found for each in pending.truncated]
    unread = {name for name, pending in found if pending.rows is None}
    recorded = blocked_rows.by_stream(connection, unread) if unread else {}
    blocked = united([recorded, *(pending.blocked_seqs for _, pending in found)])
    return Absences((*notes.rows, *truncated), blocked, notes.unnamed, notes.known)


def _shards(root: Path) -> Path:
    return Path(os.path.realpath(paths.shards(root)))
