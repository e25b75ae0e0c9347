"""Export a bundle: the rows of a master that another store lacks, in one file that is complete or does not exist.

    1  create and lock an unfinished file (files/atomic_file), and make it a database with the role of a bundle
    2  copy into it, in one snapshot of the master, the rows that the receiver has never held
    3  close it, and seal it with a checksum
    4  make it durable, and give it its name    <- the commit point

A bundle lists all streams that the master knows, each with the highest seq known to exist. So if a bundle gets lost on
its way, the receiver of the next one knows exactly which rows are missing. Its ranges are exactly the rows in it. Of
the retired streams it lists those of which the receiver may not have held all rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import SchemaConflictError
from edgeshard.files import atomic_file, targets
from edgeshard.format import blocks
from edgeshard.format.ranges import Range, prefix
from edgeshard.master import identity as master_identity
from edgeshard.master import retired, streams
from edgeshard.merge import apply
from edgeshard.merge.target import Target
from edgeshard.reports import ExportReport
from edgeshard.retention import by_hand
from edgeshard.sources import checksum, diff, identity
from edgeshard.sources import streams as source_streams
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection

_ACTION: Final = "export to"

_SCHEMA: Final = "master"

Progress = Callable[[int, int], None]


def export(
    master_path: Path,
    target: str | os.PathLike[str],
    unwanted: Mapping[bytes, Sequence[Range]],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the rows of a master, except the unwanted ones of each stream, into a bundle; see `Store.export`."""
    by_hand.settle_file(master_path)  # this also reports what is wrong with it before making anything
    try:
        return _export(master_path, target, unwanted, force=force, progress=progress)
    except apply.SourceLacksRowsError:
        if not by_hand.settle_file(master_path, thorough=True):
            raise
    return _export(master_path, target, unwanted, force=force, progress=progress)


def _export(
    master_path: Path,
    target: str | os.PathLike[str],
    unwanted: Mapping[bytes, Sequence[Range]],
    *,
    force: bool,
    progress: Progress | None,
) -> ExportReport:
    path = targets.resolve_target(target)
    with (
        sqlite.translate_errors(_ACTION, path),
        atomic_file.staged(target, master_path, _ACTION, force=force) as unfinished,
    ):
        connection = sqlite.create_without_wal(
            unfinished, format.BUNDLE_PAGE_SIZE, format.BUNDLE_TABLES, (), format.IDENTITY
        )
        try:
            sqlite.allow_interrupt(connection)
            with sqlite.immediate(connection):
                master_identity.insert(connection, format.BUNDLE)
                mark = checksum.write_mark(connection)
            report = _copy_missing(connection, master_path, unwanted, progress)
        finally:
            connection.close()
        checksum.seal(unfinished, mark)
        return attrs.evolve(report, path=path, size_bytes=os.path.getsize(unfinished))


def _copy_missing(
    connection: Connection, master_path: Path, unwanted: Mapping[bytes, Sequence[Range]], progress: Progress | None
) -> ExportReport:
    """Copy the rows in one transaction, and so from one snapshot of the master, however long it takes."""
    try:
        sqlite.attach(connection, str(master_path), _SCHEMA)
        with sqlite.immediate(connection):
            source = identity.open_source(connection, _SCHEMA, str(master_path))
            streams.copy_all(connection, _SCHEMA)
            retired.copy_all(connection, _SCHEMA, partial(_is_wanted, unwanted))
            to_do, stream_count = _count(connection, source, unwanted)
            target = attrs.evolve(Target.load(connection), is_indexed=False)
            rows, finished = 0, False
            while not finished:
                copied = apply.copy(target, source, blocks.CHUNK_BYTES, unwanted=unwanted)
                for conflict in copied.blocked:  # the tables of one master do not contradict one another
                    raise SchemaConflictError("export", str(master_path), conflict.cause)
                rows, finished = rows + copied.rows, copied.finished
                if progress is not None:
                    progress(rows, to_do)
            if rows != to_do:
                raise AssertionError(f"{rows} rows were copied, not {to_do}")  # the snapshot has not changed
            left_out = source_streams.row_count(connection, source, ()) - rows
            return ExportReport("", rows, stream_count, left_out, 0)
    except sqlite.DATA_ERRORS as error:
        if not sqlite.is_damage(error):
            raise  # the error is about the bundle
        raise sqlite.explain(error, "export", str(master_path)) from error


def _is_wanted(unwanted: Mapping[bytes, Sequence[Range]], stream_id: bytes, last_seq: int) -> bool:
    """Return whether the receiver may not have held all rows of a retired stream."""
    return prefix(unwanted.get(stream_id, ()), 1) < last_seq


def _count(connection: Connection, source: Source, unwanted: Mapping[bytes, Sequence[Range]]) -> tuple[int, int]:
    """Return how many rows to copy, and from how many streams."""
    to_do = stream_count = 0
    for _, missing in diff.missing_by_stream(connection, source, unwanted):
        to_do += sum(map(len, missing))
        stream_count += bool(missing)
    return to_do, stream_count
