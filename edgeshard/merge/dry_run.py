"""Report what a merge would do, without doing it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.files import scan
from edgeshard.files.fingerprint import State
from edgeshard.master import database, identity, known_rows, removed_shards, row_states, shard_states
from edgeshard.master.known_rows import KnownRows
from edgeshard.master.removed_shards import Notes
from edgeshard.merge import schema_merge
from edgeshard.merge.blocked import count as blocked_counts
from edgeshard.merge.blocked import survey
from edgeshard.merge.target import Target
from edgeshard.reports import GAPS_MAX, Blocked, Gap, MergeReport, Quarantined
from edgeshard.sources import attach
from edgeshard.sources import streams as source_streams
from edgeshard.sources.attach import Quarantine, SourceRun
from edgeshard.sqlite import Connection


def dry_run(
    master_path: Path,
    folder: Path,
    sources: Iterable[SourceRun],
    should_stop: Callable[[], bool] = lambda: False,
) -> MergeReport:
    """Report what a merge of the shards in `folder`, and of `sources`, would do.

    Args:
        master_path: the master; it may not exist yet.
        folder: the folder of the shards.
        sources: other databases to merge.
        should_stop: called after each shard; the report then covers those before it.

    Raises:
        StorageError: the master or the folder cannot be read.
    """
    began = time.monotonic()
    exists = scan.find_database(str(master_path)) is not None
    connection = database.open_master(master_path, writable=False) if exists else database.open_empty(master_path)
    try:
        with sqlite.translate_errors("read master", str(master_path)):
            notes = removed_shards.read(master_path.parent, identity.notes_known(connection))
            report = _report(connection, folder, list(sources), notes, should_stop)
    finally:
        connection.close()
    return attrs.evolve(report, seconds=time.monotonic() - began)


def _report(
    connection: Connection, folder: Path, named: list[SourceRun], notes: Notes, should_stop: Callable[[], bool]
) -> MergeReport:
    known_states = shard_states.load_states(connection)
    shards = [SourceRun(file, own=True) for file in scan.shard_files(folder)]
    own = {run.file.path for run in shards}
    named = [run for run in named if run.file.path not in own]
    due = [run for run in shards + named if _is_due(run, known_states)]
    rows = truncated = 0
    stopped = False
    blocked: list[Blocked] = []
    known = list(notes.rows)
    target = Target.load(connection)
    for group in attach.groups(due):
        with attach.attached(connection, group) as attached, sqlite.read_snapshot(connection):
            for run in attached:
                stopped = stopped or should_stop()
                if stopped:
                    break
                try:
                    found = survey(target, run.open(connection))
                except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                    run.quarantine_for(error)
                else:
                    rows += found.rows
                    truncated += found.deletable if run.own and run.source.is_shard else 0
                    known += _truncated(connection, run) if run.own else []
                    blocked += [
                        Blocked(run.file.path, conflict.table, count, conflict.cause)
                        for conflict, count in blocked_counts(found.blocked).items()
                    ]
                    schema_merge.plan_tables(target, found.fitting)  # the next source would find them
        attach.remove_empty_wals(group)
    quarantined = tuple(
        Quarantined(run.file.path, run.quarantine.reason, run.quarantine.is_denied)
        for run in shards + named
        if run.quarantine and not run.was_removed()
    )
    unknown = known_rows.select_unknown(connection, known)
    new_gaps = (Gap(each.agent_id, each.stream_id.hex(), each.seqs.first, each.seqs.last) for each in unknown)
    gaps = tuple(itertools.islice(itertools.chain(row_states.gaps(connection), new_gaps), GAPS_MAX))
    return MergeReport(
        rows,
        truncated,
        shards=len(due),
        quarantined=quarantined,
        blocked=tuple(sorted(blocked, key=lambda item: (item.path, item.table, item.reason))),
        gaps=gaps,
        missing_rows=row_states.missing_rows(connection) + sum(len(each.seqs) for each in unknown),
        stopped=stopped,
        dry_run=True,
    )


def _truncated(connection: Connection, run: SourceRun) -> list[KnownRows]:
    if not run.source.is_shard:
        return []
    return [
        KnownRows(stream.stream_id, stream.agent_id, part, database_id)
        for stream, part, database_id in source_streams.truncated_beyond(connection, run.source)
    ]


def _is_due(run: SourceRun, known_states: dict[str, tuple[State, str, bool]]) -> bool:
    """Return whether to open the file: not if it cannot be a shard, or has not changed since it had nothing new."""
    if run.quarantine:
        return False
    state, reason, _ = known_states.get(run.file.name, ((), "", False))
    if run.own and state and state == run.file.state:
        if reason:
            run.quarantine = Quarantine(reason, is_lasting=True)
        return False
    return True
