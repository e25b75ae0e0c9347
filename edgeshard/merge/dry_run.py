"""What a merge would do, found by reading alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import attrs

from edgeshard import database, format, master, scan
from edgeshard.database import Connection
from edgeshard.errors import EdgeshardError
from edgeshard.merge import job as jobs
from edgeshard.merge.job import Job
from edgeshard.report import MergeReport, SetAside
from edgeshard.scan import State


def dry_run(master_path: Path, folder: Path, sources: Iterable[Job]) -> MergeReport:
    """Say what a merge of the shards in `folder`, and of `sources`, would do.

    Raises:
        StorageError: the master, or the folder, cannot be read.
    """
    began = time.monotonic()
    exists = scan.look(str(master_path)) is not None
    connection = master.open_master(master_path, writable=False) if exists else database.memory(format.MASTER_TABLES)
    try:
        with database.explained("read master", str(master_path)):
            report = _report(connection, folder, list(sources))
    finally:
        connection.close()
    return attrs.evolve(report, seconds=time.monotonic() - began)


def _report(connection: Connection, folder: Path, sources: list[Job]) -> MergeReport:
    before = master.looked_at(connection)
    shards = [Job(file, own=True) for file in scan.shard_files(folder)]
    due = [job for job in shards + sources if _is_due(job, before)]
    rows = truncated = 0
    for group in jobs.groups(due):
        with jobs.attached(connection, group) as attached, database.reading(connection):
            for job in attached:
                try:
                    missing, present = job.count(connection)
                except (EdgeshardError, *database.OF_THE_DATA) as error:
                    job.blame(error)
                else:
                    rows += missing
                    truncated += present if job.own else 0
        jobs.tidy(group)
    aside = tuple(SetAside(job.file.path, job.problem) for job in shards + sources if job.problem and not _is_gone(job))
    gaps = master.gaps(connection)
    return MergeReport(rows, truncated, shards=len(due), quarantined=aside, gaps=gaps, dry_run=True)


def _is_gone(job: Job) -> bool:
    """Whether it is a shard that a merger removed meanwhile: nothing keeps mergers out of a dry run's way."""
    return job.own and not job.file.problem and scan.look(job.file.path) is None


def _is_due(job: Job, before: dict[str, tuple[State, str]]) -> bool:
    """Whether to look into the file: not where it cannot be a shard, nor where it is as it was without news."""
    if job.file.problem:
        job.set_aside(job.file.problem, lasting=False)
        return False
    state, problem = before.get(job.file.name, ((), ""))
    if job.own and state and state == job.file.state:
        if problem:
            job.set_aside(problem, lasting=True)
        return False
    return True
