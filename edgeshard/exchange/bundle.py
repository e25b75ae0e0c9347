"""A bundle: what the other side lacks of a master, in one file to be carried there, whole or not at all.

    1  TARGET.new is made and locked (publishing), and made a database of ours, of role bundle
    2  the operator copies into it, in one snapshot of the master, what the other side never held
    3  it is closed, and sealed with a checksum
    4  it is made durable, and gets its name    <- the commit point

Its streams are all that the master knows, each with the highest seq known to exist: whoever merges a bundle and missed
the one before names what is missing. Its ranges are what is in it, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from edgeshard import format, sqlite
from edgeshard.files import atomic_file
from edgeshard.format import blocks
from edgeshard.format.ranges import Range
from edgeshard.master import database
from edgeshard.merge import apply
from edgeshard.merge.target import Target
from edgeshard.sources import checksum, diff, source
from edgeshard.sqlite import Connection

_ACTION = "export to"

_SCHEMA = "master"

Progress = Callable[[int, int], None]


@attrs.frozen
class ExportReport:
    """What one export wrote.

    Attributes:
        path: the bundle.
        rows: rows in it.
        streams: streams that it has rows of.
        left_out: rows that the master has and the bundle has not, because the other side has or had them.
        size_bytes: the size of the file.
    """

    path: str
    rows: int
    streams: int
    left_out: int
    size_bytes: int

    def __str__(self) -> str:
        line = f"exported {self.rows} rows of {self.streams} streams in {self.size_bytes} bytes"
        return f"{line}; {self.left_out} rows are there already" if self.left_out else line

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return attrs.asdict(self)


def export(
    master_path: Path,
    target: str | os.PathLike[str],
    unwanted: Mapping[bytes, Sequence[Range]],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write what a master has, without the rows of each stream that are unwanted; see `Store.export`."""
    path = atomic_file.resolved(target)
    database.open_master(master_path, writable=False).close()  # what is wrong with it is said before anything is made
    with (
        sqlite.translate_errors(_ACTION, path),
        atomic_file.made(path, master_path, _ACTION, force=force) as unfinished,
    ):
        mark = checksum.new_mark()
        connection = _begin(unfinished, mark)
        try:
            report = _fill(connection, master_path, unwanted, progress)
        finally:
            connection.close()
        checksum.seal(unfinished, mark)
        return attrs.evolve(report, path=path, size_bytes=os.path.getsize(unfinished))


def _begin(path: str, mark: bytes) -> Connection:
    script = (
        f"{format.BUNDLE_TABLES}"
        "INSERT INTO edgeshard_database(database_id, role) VALUES (randomblob(16), ?);"
        f"INSERT INTO {format.CHECKSUM_TABLE} VALUES (?)"
    )
    return sqlite.begin_file(path, format.BUNDLE_PAGE_SIZE, script, (format.BUNDLE, mark), format.IDENTITY)


def _fill(
    connection: Connection, master_path: Path, unwanted: Mapping[bytes, Sequence[Range]], progress: Progress | None
) -> ExportReport:
    try:
        sqlite.attach(connection, str(master_path), _SCHEMA)
        with sqlite.immediate(connection):  # one snapshot of the master, for as long as it takes
            return _copy(connection, source.open_source(connection, _SCHEMA, str(master_path)), unwanted, progress)
    except sqlite.DATA_ERRORS as error:
        if not sqlite.is_damage(error):
            raise  # of the target's
        raise sqlite.explain(error, "export", str(master_path)) from error


def _copy(
    connection: Connection, origin: source.Source, unwanted: Mapping[bytes, Sequence[Range]], progress: Progress | None
) -> ExportReport:
    to_do = streams = present = 0
    for stream, pieces in diff.missing_pieces(connection, origin, unwanted):
        to_do += sum(map(len, pieces))
        present += sum(map(len, stream.blocks))
        streams += bool(pieces)
    rows, finished = 0, False
    target = attrs.evolve(Target.load(connection), is_indexed=False)
    while not finished:
        copied = apply.copy(target, origin, blocks.CHUNK_BYTES, unwanted=unwanted)
        rows, finished = rows + copied.rows, copied.finished
        if progress is not None:
            progress(rows, to_do)
    if rows != to_do:
        raise AssertionError(f"{rows} rows were copied, not {to_do}")  # it was one snapshot
    return ExportReport("", rows, streams, present - rows, 0)
