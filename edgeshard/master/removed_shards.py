"""Own _edgeshard_removed, in ``removed-shards.db``: up to which seq each stream of a removed shard was in the master.

A shard is removed once the master holds its rows. If an older copy of the master is put back, these rows are in neither
place, and only this file, which is outside of the master, knows that they exist. A merge adds what the master does not
know yet (`known_rows`), so the rows are reported as missing, by address.

Crash safety: a merge commits the note after the rows (merge, step 5), and before it removes the shard. A note is true
from then on, whether the shard is removed or not. The file has a rollback journal; at synchronous=EXTRA a commit
also survives a power cut.

Bounds: the newest `STREAMS_MAX` streams are kept, in about 60 bytes each; fewer within a small disk budget. A master
records up to which note it knows them all (``notes_known``). So a master that is put back, and that is older than the
oldest note, can tell that it cannot name all rows that it lacks.

Without the file, or if it is damaged, a merge makes a new one, and keeps the damaged one under another name.
A master that is older than the new file cannot name the rows of shards that were removed before it was made.
The notes belong to the folder, like the shards: those of another store would make its rows missing here.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, EdgeshardError, FormatError
from edgeshard.files import fingerprint, folders, paths, scan
from edgeshard.format.ranges import Range
from edgeshard.log_fields import fields
from edgeshard.master import identity
from edgeshard.master.known_rows import KnownRows
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")

#: The most streams that are noted.
STREAMS_MAX: Final = 20_000

#: Within a disk budget, one stream is noted for so many bytes of it, so that the notes take a 64th of the budget.
BUDGET_BYTES_PER_STREAM: Final = 64 * 64

_PAGE_BYTES = 1024

_ACTION: Final = "read notes"

#: How long to wait for another process that reads or writes the notes, in seconds.
_BUSY_TIMEOUT_S = 5.0


@attrs.frozen
class Notes:
    """The notes that a master does not know yet.

    Attributes:
        known: the id of the notes and the number of the newest one, which a master records once it knows them;
            (None, 0) if there are none.
        rows: the rows.
        forgotten: how many notes, which the master does not know either, were deleted because there were too many.
        problem: why the notes cannot be read, or "".
    """

    known: tuple[bytes | None, int] = (None, 0)
    rows: tuple[KnownRows, ...] = ()
    forgotten: int = 0
    problem: str = ""

    @property
    def unnamed(self) -> str:
        """Why rows may be missing that cannot be named, or ""."""
        if self.problem:
            return f"what removed shards had brought is not known: {self.problem}"
        if self.forgotten:
            return (
                f"the master is older than the oldest note of removed shards: rows of up to {self.forgotten} more "
                "streams may be missing, and cannot be named"
            )
        return ""


def limit(budget_bytes: int | None) -> int:
    """Return how many streams are noted in a store with a disk budget of so many bytes, or without any."""
    return STREAMS_MAX if budget_bytes is None else max(1, min(STREAMS_MAX, budget_bytes // BUDGET_BYTES_PER_STREAM))


def read(root: Path, known: tuple[bytes | None, int], *, is_merging: bool = False) -> Notes:
    """Return the notes that a master does not know yet. Nothing is raised if they cannot be read: see `Notes.problem`.

    Args:
        root: the store's folder.
        known: what the master records: see `identity.notes_known`.
        is_merging: whether the caller merges: then a note that a killed merger left half written is rolled back.
    """
    path = paths.removed_shards(root)
    try:
        writable = is_merging and os.path.lexists(f"{path}{paths.JOURNAL}")
        if scan.find_database(str(path)) is None:
            return Notes()
        with _opened(path, writable=writable) as connection, sqlite.read_snapshot(connection):
            return _read(connection, path, known)
    except EdgeshardError as error:
        return Notes(problem=str(error))


def _read(connection: Connection, path: Path, known: tuple[bytes | None, int]) -> Notes:
    notes_id = identity.database_id(connection)
    after = known[1] if known[0] == notes_id else 0
    bounds = "SELECT coalesce(min(note_no), 0), coalesce(max(note_no), 0) FROM _edgeshard_removed"
    ((first, last),) = sqlite.fetch_typed(connection, str(path), (int, int), bounds)
    rows = sqlite.fetch_typed(
        connection,
        str(path),
        (bytes, str, int, bytes),
        "SELECT stream_id, agent_id, last_seq, database_id FROM _edgeshard_removed WHERE note_no > ? ORDER BY note_no",
        (after,),
    )
    if not all(
        len(stream_id) == len(held_by) == 16 and 1 <= seq <= format.SEQ_MAX for stream_id, _, seq, held_by in rows
    ):
        raise DamagedError(_ACTION, path, "it holds impossible values")
    found = tuple(KnownRows(stream_id, agent, Range(1, seq), held_by) for stream_id, agent, seq, held_by in rows)
    return Notes((notes_id, last), found, max(0, first - 1 - after) if first else 0)


def record(root: Path, rows: Sequence[KnownRows], streams_max: int) -> tuple[bytes | None, int]:
    """Note durably which rows the master holds of shards that are about to be removed.

    Args:
        root: the store's folder.
        rows: the rows, from seq 1 on, which are committed in the master.
        streams_max: how many streams to keep; the oldest notes are deleted.

    Returns:
        What `Notes.known` is from now on.

    Raises:
        StorageError: they cannot be written.
    """
    path = paths.removed_shards(root)
    try:
        return _write(path, rows, streams_max)
    except (DamagedError, FormatError) as error:
        aside = path.with_name(f"{path.stem}-damaged-{secrets.token_hex(4)}{path.suffix}")
        logger.warning(
            "%s; it is now %s, and new notes are begun", error, aside.name, extra=fields(file=aside, error=error)
        )
        with sqlite.translate_errors("rename damaged notes", str(path)):
            for suffix in ("", paths.JOURNAL):
                if fingerprint.exists(f"{path}{suffix}"):
                    os.rename(f"{path}{suffix}", f"{aside}{suffix}")
            folders.sync_folder(root)
        return _write(path, rows, streams_max)


def _write(path: Path, rows: Sequence[KnownRows], streams_max: int) -> tuple[bytes | None, int]:
    if scan.find_database(str(path)) is None:
        with sqlite.translate_errors("make notes", str(path)):
            sqlite.create(
                str(path),
                _PAGE_BYTES,
                f"{format.NOTES_TABLES}{identity.INSERT}",
                (format.NOTES,),
                format.IDENTITY,
                wal=False,
            )
    with _opened(path, writable=True) as connection, sqlite.immediate(connection):
        last = int(sqlite.scalar(connection, "SELECT coalesce(max(note_no), 0) FROM _edgeshard_removed"))
        connection.executemany(
            "INSERT INTO _edgeshard_removed VALUES (?, ?, ?, ?, ?)",
            [
                (number, each.stream_id, each.agent_id, each.seqs.last, each.database_id)
                for number, each in enumerate(rows, last + 1)
            ],
        )
        last += len(rows)
        connection.execute("DELETE FROM _edgeshard_removed WHERE note_no <= ?", (last - streams_max,))
        return identity.database_id(connection), last


@contextmanager
def _opened(path: Path, *, writable: bool) -> Iterator[Connection]:
    with sqlite.translate_errors(_ACTION, str(path)):
        if (found := scan.find_database(str(path))) is not None and found.defect:
            raise DamagedError(_ACTION, path, found.defect)
        connection = sqlite.connect(str(path), writable=writable, busy_timeout_s=_BUSY_TIMEOUT_S)
        try:
            sqlite.check_identity(connection, "main", format.IDENTITY, str(path))
            if identity.role_and_agent(connection)[0] != format.NOTES:
                raise FormatError(_ACTION, path, "it is not what edgeshard notes of removed shards")
            if writable:
                sqlite.set_synchronous(connection, "EXTRA")
            yield connection
        except sqlite.DATA_ERRORS as error:
            if sqlite.is_bad_schema(error):
                raise DamagedError(_ACTION, path, f"its tables are not as edgeshard makes them: {error}") from error
            raise
        finally:
            connection.close()
