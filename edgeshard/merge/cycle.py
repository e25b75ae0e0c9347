"""A whole merge, in the order that keeps every promise: lock, look, attach, copy, commit, truncate."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from edgeshard import database, files, format, master, scan
from edgeshard.database import Connection
from edgeshard.errors import (
    DamagedError,
    EdgeshardError,
    FormatError,
    MergeInProgressError,
)
from edgeshard.merge import copy, plan, source, truncate
from edgeshard.merge.source import Source
from edgeshard.report import Gap, MergeReport, SetAside
from edgeshard.scan import ShardFile

logger = logging.getLogger("edgeshard.merge")

#: Shards attached at once; SQLite's limit is 125 here.
GROUP_SIZE = 100

#: Called with (rows done, rows to do) as a merge goes on.
Progress = Callable[[int, int], None]

#: How long a merge waits for a source that somebody holds locked, in seconds; then it goes on without it.
SOURCE_BUSY_TIMEOUT_S = 0.25


@attrs.define
class _Job:
    """One source of a merge, and how far it is.

    Attributes:
        file: the file, as it was found before it was opened.
        truncating: whether its rows are deleted once the master holds them: in the store's own shards only.
        schema: the name it is attached by.
        origin: what it is, as last read.
        durable: what may be deleted after the next commit.
        finished: whether the master holds all of it.
        problem: why it is set aside, or "".
        lasting: whether the problem stays until the file changes.
        bare: whether it had no log, so that one is of our making.
    """

    file: ShardFile
    truncating: bool
    schema: str = ""
    origin: Source | None = None
    durable: dict[bytes, int] = attrs.Factory(dict)
    finished: bool = False
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
        self.problem, self.lasting = reason, lasting


@attrs.define
class _Totals:
    rows: int = 0
    to_do: int = 0
    truncated: int = 0
    looked_into: int = 0


def merge(
    root: Path,
    sources: Iterable[str | os.PathLike[str]] = (),
    *,
    dry_run: bool = False,
    lock_wait_s: float = 0.0,
    progress: Progress | None = None,
) -> MergeReport:
    """Merge a store's shards, and any other databases of ours, into the store's master.

    Args:
        root: the store's folder.
        sources: masters, shards or copies to merge as well; they are only read.
        dry_run: say what would be done, and do nothing.
        lock_wait_s: how long to wait for another merger, in seconds.
        progress: called as the work goes on.

    Raises:
        MergeInProgressError: another merger works on this master.
        StorageError: the master itself cannot be read or written. What was committed stays.
    """
    began = time.monotonic()
    master_path = root / "master.db"
    jobs = [_Job(file, truncating=True) for file in scan.shard_files(Path(os.path.realpath(root / "shards")))]
    jobs += [_Job(_source_file(path), truncating=False) for path in sources]
    if dry_run:
        report = _dry_run(master_path, jobs)
    else:
        files.make_folder(root)
        held = files.lock(root / "merge.lock", lock_wait_s)
        if held is None:
            raise MergeInProgressError(
                "merge into", master_path, "another merger is at work on it; wait, or use --lock-wait"
            )
        try:
            master.ensure_master(master_path)
            report = _merge_locked(master_path, jobs, progress)
        finally:
            held.release()
    return attrs.evolve(report, seconds=time.monotonic() - began)


def _source_file(path: str | os.PathLike[str]) -> ShardFile:
    # a source is named by the caller, who may well name a link to it
    real = os.path.realpath(path)
    return scan.look(real) or ShardFile(real, (), "there is no such file")


def _merge_locked(master_path: Path, jobs: list[_Job], progress: Progress | None) -> MergeReport:
    connection = master.open_master(master_path, writable=True)
    totals = _Totals()
    try:
        with database.explained("merge into", str(master_path)):
            before = master.looked_at(connection)
            due = [job for job in jobs if _is_due(job, before)]
            totals.looked_into = len(due)
            for group in _groups(due):
                _merge_group(connection, group, totals, progress)
                # one that failed in company may have suffered for another: it gets a group of its own
                for job in group:
                    if job.problem and len(group) > 1:
                        _retry_alone(connection, job, totals, progress)
            _remember(connection, jobs, before)
            found = master.gaps(connection)
            database.shrink_log(connection)
    finally:
        connection.close()
    return _report(master_path, jobs, totals, found)


def _report(
    master_path: Path, jobs: list[_Job], totals: _Totals, found: tuple[Gap, ...], *, dry_run: bool = False
) -> MergeReport:
    aside = tuple(SetAside(job.file.path, job.problem) for job in jobs if job.problem)
    for item in aside:
        logger.warning("set aside %s: %s", item.path, item.reason)
    for gap in found:
        logger.warning(
            "%s lacks rows %d to %d of stream %s of agent %r", master_path, gap.first, gap.last, gap.stream, gap.agent
        )
    return MergeReport(
        rows=totals.rows,
        truncated=totals.truncated,
        shards=totals.looked_into,
        quarantined=aside,
        gaps=found,
        dry_run=dry_run,
    )


def _groups(jobs: list[_Job]) -> Iterator[list[_Job]]:
    for start in range(0, len(jobs), GROUP_SIZE):
        yield jobs[start : start + GROUP_SIZE]


def _is_due(job: _Job, before: dict[str, tuple[str, str]]) -> bool:
    """Whether to look into the file: not where it cannot be a shard, nor where it is as it was without news."""
    if job.file.problem:
        job.set_aside(job.file.problem, lasting=False)
        return False
    state, problem = before.get(job.file.name, ("", ""))
    if job.truncating and state and state == _seen(job):
        if problem:
            job.set_aside(problem, lasting=True)
        return False
    return True


# -- one group of sources ---------------------------------------------------------------------------------------------


def _merge_group(connection: Connection, jobs: list[_Job], totals: _Totals, progress: Progress | None) -> None:
    """Copy what the sources have, in transactions of bounded size, and then truncate the shards."""
    with _attached(connection, jobs) as remaining:
        if progress is not None:
            totals.to_do += _rows_to_do(connection, remaining)
        while remaining:
            _commit_chunk(connection, remaining, totals)
            if progress is not None:
                progress(totals.rows, totals.to_do)
            remaining = [job for job in remaining if not job.finished and not job.problem]
    # detached first: the last connection to leave a shard tidies its log away
    master_id = database.scalar(connection, "SELECT database_id FROM main.edgeshard_database")
    for job in jobs:
        if job.truncating and job.finished and job.durable and not job.problem:
            _truncate(job, master_id, totals)
            job.bare = False
    _tidy(jobs)


def _tidy(jobs: list[_Job]) -> None:
    """Remove the empty logs that reading made; not beside what was set aside, which is left as it is."""
    for job in jobs:
        if job.bare and not job.problem:
            database.tidy(job.file.path)


def _rows_to_do(connection: Connection, jobs: list[_Job]) -> int:
    rows = 0
    with database.reading(connection):
        for job in jobs:
            # what is wrong with a source is found, and reported, when it is copied
            with contextlib.suppress(EdgeshardError, *database.OF_THE_DATA):
                rows += _count(connection, job)[0]
    return rows


def _retry_alone(connection: Connection, job: _Job, totals: _Totals, progress: Progress | None) -> None:
    job.problem, job.lasting = "", False
    job.finished, job.durable = False, {}
    _merge_group(connection, [job], totals, progress)


@contextlib.contextmanager
def _attached(connection: Connection, jobs: list[_Job]) -> Iterator[list[_Job]]:
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
                _blame_source(job, error)
        yield [job for job in jobs if not job.problem]
    finally:
        for schema in schemas:
            database.detach(connection, schema)
        database.set_patience(connection, database.BUSY_TIMEOUT_S)


def _blame_source(job: _Job, error: Exception) -> None:
    """Set a source aside. What is wrong with its file alone is not looked at again until the file changes."""
    ours = error if isinstance(error, EdgeshardError) else database.explain(error, "read database", job.file.path)
    lasting = isinstance(error, (DamagedError, FormatError)) or database.is_damage(error)
    job.set_aside(ours.cause, lasting=lasting)


def _commit_chunk(connection: Connection, jobs: list[_Job], totals: _Totals) -> None:
    """One transaction of the master. Nothing is committed where there was nothing to do."""
    rows = 0
    database.set_patience(connection, database.BUSY_TIMEOUT_S)
    with database.immediate(connection):
        database.set_patience(connection, SOURCE_BUSY_TIMEOUT_S)
        # a first statement that writes: no other merger changes the ranges from here on, and our own commit at FULL
        # makes durable what a killed merger committed before
        connection.execute("UPDATE main.edgeshard_database SET generation = generation + 1")
        before = connection.total_changes()
        room_bytes = plan.CHUNK_BYTES
        target = copy.Target.load(connection)
        for job in jobs:
            if room_bytes <= 0:
                break
            copied = _copy_or_set_aside(connection, target, job, room_bytes)
            if copied is None:
                target = copy.Target.load(connection)  # as it was before the savepoint
                continue
            room_bytes -= copied.copied_bytes
            rows += copied.rows
            job.finished, job.durable = copied.finished, copied.durable
        if connection.total_changes() == before and not any(job.durable for job in jobs):
            connection.execute("ROLLBACK")
    totals.rows += rows


def _copy_or_set_aside(connection: Connection, target: copy.Target, job: _Job, room_bytes: int) -> copy.Copied | None:
    connection.execute("SAVEPOINT source")
    try:
        # in the snapshot that the rows are read from: an agent may have added a column a moment ago
        job.origin = source.open_source(connection, job.schema, job.file.path)
        copied = copy.copy(target, job.origin, room_bytes)
        connection.execute("RELEASE source")
        return copied
    except (EdgeshardError, *database.OF_THE_DATA) as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO source")
        connection.execute("RELEASE source")
        if _is_the_masters(connection, job, error):
            raise
        _blame_source(job, error)
        return None


def _is_the_masters(connection: Connection, job: _Job, error: Exception) -> bool:
    """Whether a failure to read or write is not the source's: that is found sound."""
    return (
        isinstance(error, database.DatabaseFailure)
        and not isinstance(error, database.BUSY)
        and not database.is_bad_data(error)
        and database.is_sound(connection, job.schema)
    )


def _truncate(job: _Job, master_id: bytes, totals: _Totals) -> None:
    try:
        done = truncate.truncate(job.opened, job.durable, master_id)
    except (EdgeshardError, *database.OF_THE_DATA) as error:
        cause = error.cause if isinstance(error, EdgeshardError) else error
        job.set_aside(f"its rows are merged, but cannot be deleted from it: {cause}", lasting=False)
        return
    if done is None:
        logger.info("%s is busy; it is truncated at the next merge", job.file.path)
    else:
        totals.truncated += done.rows


# -- remembering ------------------------------------------------------------------------------------------------------


def _remember(connection: Connection, jobs: list[_Job], before: dict[str, tuple[str, str]]) -> None:
    """Note which of the store's own shards need no look until they change."""
    own = [job for job in jobs if job.truncating]
    looks = [
        (job.file.name, _seen(job), job.problem)
        for job in own
        if (job.lasting or (job.finished and not job.durable and not job.problem)) and scan.is_settled(job.file.state)
    ]
    changed = [look for look in looks if before.get(look[0]) != look[1:]]
    gone = set(before) - {job.file.name for job in own}
    if changed or gone:
        with database.immediate(connection):
            master.remember_looks(connection, changed, gone)


def _seen(job: _Job) -> str:
    """The state of a file as this version sees it: what one version cannot read, a later one may."""
    return f"{format.VERSION} {scan.state_text(job.file.state)}" if job.file.state else ""


# -- dry run ----------------------------------------------------------------------------------------------------------


def _dry_run(master_path: Path, jobs: list[_Job]) -> MergeReport:
    exists = master_path.exists()
    connection = master.open_master(master_path, writable=False) if exists else database.memory(format.MASTER_TABLES)
    totals = _Totals()
    try:
        with database.explained("read master", str(master_path)):
            before = master.looked_at(connection)
            due = [job for job in jobs if _is_due(job, before)]
            totals.looked_into = len(due)
            for group in _groups(due):
                with _attached(connection, group) as attached, database.reading(connection):
                    for job in attached:
                        try:
                            missing, present = _count(connection, job)
                        except (EdgeshardError, *database.OF_THE_DATA) as error:
                            _blame_source(job, error)
                        else:
                            totals.rows += missing
                            totals.truncated += present if job.truncating else 0
                _tidy(group)
            found = master.gaps(connection)
    finally:
        connection.close()
    return _report(master_path, jobs, totals, found, dry_run=True)


def _count(connection: Connection, job: _Job) -> tuple[int, int]:
    """How many rows a merge would copy from a source, and how many it has."""
    return copy.missing_rows(connection, source.open_source(connection, job.schema, job.file.path))
