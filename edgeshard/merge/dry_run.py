"""What a merge would do, found by reading alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import scan
from edgeshard.files.fingerprint import State
from edgeshard.master import database, shard_states, streams
from edgeshard.reports import MergeReport, Quarantined
from edgeshard.sources import attach
from edgeshard.sources.attach import Quarantine, SourceRun
from edgeshard.sqlite import Connection


def dry_run(master_path: Path, folder: Path, sources: Iterable[SourceRun]) -> MergeReport:
    """Say what a merge of the shards in `folder`, and of `sources`, would do.

    Raises:
        StorageError: the master, or the folder, cannot be read.
    """
    began = time.monotonic()
    exists = scan.find_database(str(master_path)) is not None
    connection = (
        database.open_master(master_path, writable=False) if exists else sqlite.open_in_memory(format.MASTER_TABLES)
    )
    try:
        with sqlite.translate_errors("read master", str(master_path)):
            report = _report(connection, folder, list(sources))
    finally:
        connection.close()
    return attrs.evolve(report, seconds=time.monotonic() - began)


def _report(connection: Connection, folder: Path, sources: list[SourceRun]) -> MergeReport:
    before = shard_states.load_states(connection)
    shards = [SourceRun(file, own=True) for file in scan.shard_files(folder)]
    due = [job for job in shards + sources if _is_due(job, before)]
    rows = truncated = 0
    for group in attach.groups(due):
        with attach.attached(connection, group) as attached, sqlite.read_snapshot(connection):
            for job in attached:
                try:
                    missing, present = job.count_rows(connection)
                except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                    job.quarantine_for(error)
                else:
                    rows += missing
                    truncated += present if job.own else 0
        attach.remove_empty_wals(group)
    aside = tuple(
        Quarantined(job.file.path, job.quarantine.reason)
        for job in shards + sources
        if job.quarantine and not _is_gone(job)
    )
    gaps = streams.gaps(connection)
    return MergeReport(rows, truncated, shards=len(due), quarantined=aside, gaps=gaps, dry_run=True)


def _is_gone(job: SourceRun) -> bool:
    """Whether it is a shard that a merger removed meanwhile: nothing keeps mergers out of a dry run's way."""
    return job.own and not job.file.defect and scan.find_database(job.file.path) is None


def _is_due(job: SourceRun, before: dict[str, tuple[State, str]]) -> bool:
    """Whether to look into the file: not where it cannot be a shard, nor where it is as it was without news."""
    if job.quarantine:
        return False
    state, problem = before.get(job.file.name, ((), ""))
    if job.own and state and state == job.file.state:
        if problem:
            job.quarantine = Quarantine(problem, is_lasting=True)
        return False
    return True
