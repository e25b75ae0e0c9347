"""Measure what fills a store, in bytes by kind: rows, indexes, bookkeeping, free pages, WALs, shards, other files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeshard import format, sqlite
from edgeshard.files import fingerprint, paths
from edgeshard.files.os_errors import explain_os_error
from edgeshard.master import catalog, retired
from edgeshard.reports import SpaceUse
from edgeshard.sqlite import Connection

#: A master up to this size, in bytes, is read to tell its indexes from its rows; that takes 0.1 s.
_READ_BYTES: Final = 64 << 20

_SCHEMA_TABLE: Final = "sqlite_schema"


def measure(connection: Connection, root: Path) -> SpaceUse:
    """Return what fills a store, as of the caller's snapshot of its master. Its files may change meanwhile.

    Args:
        connection: the master; one in memory if there is none.
        root: the store's folder.

    Raises:
        AccessError, StorageIOError: a folder cannot be read.
    """
    master = paths.master(root)
    shards = wals = other = master_wal = 0
    try:
        in_master = _of_master(connection) if fingerprint.exists(master) else SpaceUse()
        for path, size in _files(root):
            if path.parent == root and path.name == master.name:
                continue
            if path.parent == root and str(path) in paths.side_files(master):
                master_wal += size
            elif path.parent != paths.shards(root):
                other += size
            elif path.name.endswith(paths.SHARD):
                shards += size
            elif path.name.endswith(tuple(paths.SHARD + suffix for suffix in paths.SIDE_FILES)):
                wals += size
            else:
                other += size
    except OSError as error:
        raise explain_os_error(error, "measure store", root) from error
    return SpaceUse(
        in_master.rows_bytes,
        in_master.indexes_bytes,
        in_master.bookkeeping_bytes,
        in_master.retired_bytes,
        in_master.free_bytes,
        master_wal,
        shards,
        wals,
        other,
    )


def _of_master(connection: Connection) -> SpaceUse:
    page_bytes = int(connection.pragma("page_size"))
    file_bytes, free = int(connection.pragma("page_count")) * page_bytes, int(connection.pragma("freelist_count"))
    used = file_bytes - free * page_bytes
    if not sqlite.has_statistics():  # an estimate: only the retired streams are counted
        estimated = retired.stream_count(connection) * retired.STREAM_BYTES
        return SpaceUse(used - estimated, None, estimated, estimated, free * page_bytes)
    indexes = sqlite.index_names(connection)
    ours = [name for table in format.DDL for name in (table, *indexes.get(table, ()))]
    bookkeeping = sqlite.tree_bytes(connection, [*ours, _SCHEMA_TABLE])
    of_retired = sqlite.tree_bytes(connection, retired.TABLES)
    in_indexes = None
    if file_bytes <= _READ_BYTES:
        tables = catalog.record_tables(connection)
        in_indexes = sqlite.tree_bytes(connection, [name for table in tables for name in indexes.get(table, ())])
    rows = used - bookkeeping - (in_indexes or 0)
    return SpaceUse(rows, in_indexes, bookkeeping, of_retired, free * page_bytes)


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield each file of a store's folder and of that of its shards, with its size."""
    for folder in (root, paths.shards(root)):
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=True):
                        yield folder / entry.name, entry.stat().st_size
