"""One source of a merge: attached read-only, copied from, and blamed alone for what is wrong with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError, EdgeshardError, FormatError, StorageBusyError
from edgeshard.files import fingerprint, paths, scan
from edgeshard.files.fingerprint import State
from edgeshard.files.scan import ShardFile
from edgeshard.format.ranges import Range
from edgeshard.sources import checksum, diff, readonly_copy, source
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection

#: Shards attached at once; SQLite's limit is 125 here.
GROUP_SIZE = 100

#: How long a merge waits for a source that somebody holds locked, in seconds; then it goes on without it.
SOURCE_BUSY_TIMEOUT_S = 0.25


@attrs.define
class SourceRun:
    """One source of a merge, and how far it is.

    Attributes:
        file: the file, as it was found before it was opened.
        own: whether it is one of the store's own shards: its rows are deleted once the master holds them.
        schema: the name it is attached by.
        origin: what it is, as last read.
        rows: how many rows of it were copied.
        present: how many rows were in it.
        used_bytes: what its pages in use took.
        durable: what may be deleted after the next commit.
        checked: which rows of each stream were copied from it, or found equal: see `copy.copy`.
        finished: whether the master holds all of it.
        spent: whether it may be removed, once the transaction in which it was read is committed.
        left: the state in which it now is and has no news; () where it must be looked into again.
        holds: whether it still has rows that the master holds.
        removed: whether it was removed.
        problem: why it is set aside, or "".
        lasting: whether the problem stays until the file changes.
        bare: whether it had no log, so that one is of our making.
        whole: whether it is a bundle whose checksum was found to be right.
    """

    file: ShardFile
    own: bool
    schema: str = ""
    origin: Source | None = None
    rows: int = 0
    present: int = 0
    used_bytes: int = 0
    durable: dict[bytes, int] = attrs.Factory(dict)
    checked: Mapping[bytes, list[Range]] = attrs.Factory(dict)
    finished: bool = False
    spent: bool = False
    left: State = ()
    holds: bool = False
    removed: bool = False
    problem: str = ""
    lasting: bool = False
    bare: bool = False
    whole: bool = False

    @property
    def opened(self) -> Source:
        """The source, of a job whose rows were copied."""
        if self.origin is None:
            raise AssertionError(f"{self.file.path} was not read")
        return self.origin

    def set_aside(self, reason: str, *, lasting: bool) -> None:
        """Leave the source as it is, for a reason."""
        self.problem, self.lasting = reason, lasting

    def blame(self, error: Exception) -> None:
        """Set it aside. What is wrong with its file alone is not looked at again until the file changes."""
        ours = error if isinstance(error, EdgeshardError) else sqlite.explain(error, "read database", self.file.path)
        lasting = isinstance(error, (DamagedError, FormatError)) or sqlite.is_damage(error)
        self.set_aside(ours.cause, lasting=lasting)

    def ensure_in_place(self) -> None:
        """Refuse a shard that was replaced after it was looked at: it might be read beside the log of the other.

        Raises:
            StorageBusyError: it was.
        """
        found = fingerprint.identity(self.file.path)
        if self.own and self.file.state and (found is None or found[1] != self.file.state[0]):
            raise StorageBusyError("read database", self.file.path, "it was replaced just now; it is merged next time")

    def count(self, connection: Connection) -> tuple[int, int]:
        """How many rows a merge would copy from the source, and how many it has."""
        return diff.missing_rows(connection, self.open(connection))

    def open(self, connection: Connection) -> Source:
        """Learn what it is, and refuse a bundle that is not as it was written.

        Raises:
            DamagedError, FormatError: it is none of ours, or its bytes changed.
        """
        origin = source.open_source(connection, self.schema, self.file.path)
        if origin.role == format.BUNDLE and not self.whole:
            checksum.ensure_whole(connection, self.schema, self.file.path)
            self.whole = True
        return origin


def run_for_path(path: str | os.PathLike[str]) -> SourceRun:
    """A job for a database that the caller names."""
    real = os.path.realpath(path)  # it may well be a link
    if os.path.isdir(real):
        cause = f"it is a folder; name the databases in it, such as {paths.master(Path(real))}"
        return SourceRun(ShardFile(real, ()), own=False, problem=cause)
    file = scan.find_database(real) or ShardFile(real, (), "there is no such file")
    return SourceRun(file, own=False, problem=file.defect)


def groups(jobs: list[SourceRun]) -> Iterator[list[SourceRun]]:
    """The jobs whose sources are attached together."""
    for start in range(0, len(jobs), GROUP_SIZE):
        yield jobs[start : start + GROUP_SIZE]


@contextlib.contextmanager
def attached(connection: Connection, jobs: list[SourceRun]) -> Iterator[list[SourceRun]]:
    """Attach the sources read-only, and yield those that can be; the others are set aside."""
    schemas: list[str] = []
    with contextlib.ExitStack() as copies:
        sqlite.set_busy_timeout(connection, SOURCE_BUSY_TIMEOUT_S)
        try:
            for job in jobs:
                job.schema = f"source{len(schemas)}"
                job.bare = not os.path.exists(paths.wal(job.file.path))
                try:
                    _attach(connection, job, copies)
                    schemas.append(job.schema)
                    if not job.own:
                        _ensure_whole(connection, job)
                except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                    job.blame(error)
            yield [job for job in jobs if not job.problem]
        finally:
            for schema in schemas:
                sqlite.detach(connection, schema)
            sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)


def _attach(connection: Connection, job: SourceRun, copies: contextlib.ExitStack) -> None:
    """Attach a source, or a copy of it where it can only be read so."""
    path = job.file.path
    try:
        sqlite.attach(connection, path, job.schema)
    except sqlite.DATA_ERRORS as error:
        if job.own or not readonly_copy.is_needed(error, path):
            raise
        room = os.path.dirname(connection.filename)  # the master's folder; a dry run may have no master
        sqlite.attach(connection, copies.enter_context(readonly_copy.copied(path, room)), job.schema)


def _ensure_whole(connection: Connection, job: SourceRun) -> None:
    """Sum a bundle up before the master is locked for it: that takes as long as to read it from a slow stick."""
    with sqlite.read_snapshot(connection):
        job.open(connection)


def tidy(jobs: list[SourceRun]) -> None:
    """Remove the empty logs that reading made; not beside what was set aside, which is left as it is."""
    for job in jobs:
        if job.bare and not job.problem and not job.removed:
            sqlite.remove_empty_wal(job.file.path)
