"""Find rows that a master held, and that this one may not know of: in the notes of removed shards, and in the shards.

A merge tells the master of them (merge/removal_notes, and the truncations of each shard). Until then an older master
that was just put back does not know them. So whoever reports what is missing looks here as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.files import paths, scan
from edgeshard.inspect.pending import MasterView, find_pending
from edgeshard.master import identity, removed_shards
from edgeshard.master.known_rows import KnownRows
from edgeshard.sqlite import Connection

#: How long to wait for a shard that is locked, in seconds; then what it truncated is not reported now.
_BUSY_TIMEOUT_S = 0.25


@attrs.frozen
class Absences:
    """What is known of rows outside the master.

    Attributes:
        rows: rows that a master held.
        unnamed: why there may be more, which cannot be named, or "".
        notes: what a master records that knows all of the notes: see `identity.notes_known`.
    """

    rows: tuple[KnownRows, ...] = ()
    unnamed: str = ""
    notes: tuple[bytes | None, int] = (None, 0)


def find(connection: Connection, root: Path) -> Absences:
    """Return what the notes and the shards of a store say. A shard that cannot be read is left to `status`.

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
    found = [
        find_pending(connection, view, file) for file in scan.shard_files(Path(os.path.realpath(paths.shards(root))))
    ]
    sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)
    truncated = [each for pending in found if pending is not None for each in pending.truncated]
    return Absences((*notes.rows, *truncated), notes.unnamed, notes.known)
