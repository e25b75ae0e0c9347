"""One source of a merge: attached read-only, copied from, and blamed alone for what is wrong with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

import attrs

from edgeshard import database, files, scan
from edgeshard.database import Connection
from edgeshard.errors import DamagedError, EdgeshardError, FormatError, StorageBusyError
from edgeshard.merge import copy, source
from edgeshard.merge.source import Source
from edgeshard.ranges import Range
from edgeshard.scan import ShardFile, State

#: Shards attached at once; SQLite's limit is 125 here.
GROUP_SIZE = 100

#: How long a merge waits for a source that somebody holds locked, in seconds; then it goes on without it.
SOURCE_BUSY_TIMEOUT_S = 0.25


@attrs.define
class Job:
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
        ours = error if isinstance(error, EdgeshardError) else database.explain(error, "read database", self.file.path)
        lasting = isinstance(error, (DamagedError, FormatError)) or database.is_damage(error)
        self.set_aside(ours.cause, lasting=lasting)

    def ensure_in_place(self) -> None:
        """Refuse a shard that was replaced after it was looked at: it might be read beside the log of the other.

        Raises:
            StorageBusyError: it was.
        """
        found = files.identity(self.file.path)
        if self.own and self.file.state and (found is None or found[1] != self.file.state[0]):
            raise StorageBusyError("read database", self.file.path, "it was replaced just now; it is merged next time")

    def count(self, connection: Connection) -> tuple[int, int]:
        """How many rows a merge would copy from the source, and how many it has."""
        return copy.missing_rows(connection, source.open_source(connection, self.schema, self.file.path))


def of_source(path: str | os.PathLike[str]) -> Job:
    """A job for a database that the caller names."""
    real = os.path.realpath(path)  # it may well be a link
    file = scan.look(real) or ShardFile(real, (), "there is no such file")
    return Job(file, own=False, problem=file.problem)


def groups(jobs: list[Job]) -> Iterator[list[Job]]:
    """The jobs whose sources are attached together."""
    for start in range(0, len(jobs), GROUP_SIZE):
        yield jobs[start : start + GROUP_SIZE]


@contextlib.contextmanager
def attached(connection: Connection, jobs: list[Job]) -> Iterator[list[Job]]:
    """Attach the sources read-only, and yield those that can be; the others are set aside."""
    schemas: list[str] = []
    database.set_patience(connection, SOURCE_BUSY_TIMEOUT_S)
    try:
        for job in jobs:
            job.schema = f"source{len(schemas)}"
            job.bare = not os.path.exists(job.file.path + "-wal")
            try:
                database.attach(connection, job.file.path, job.schema)
                schemas.append(job.schema)
            except database.OF_THE_DATA as error:
                job.blame(error)
        yield [job for job in jobs if not job.problem]
    finally:
        for schema in schemas:
            database.detach(connection, schema)
        database.set_patience(connection, database.BUSY_TIMEOUT_S)


def tidy(jobs: list[Job]) -> None:
    """Remove the empty logs that reading made; not beside what was set aside, which is left as it is."""
    for job in jobs:
        if job.bare and not job.problem and not job.removed:
            database.tidy(job.file.path)
