"""One transaction of a merge: copy a chunk of what the attached sources have, and commit it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError
from edgeshard.format.ranges import Range
from edgeshard.master import arrivals, blocked_rows, identity, shard_states, store_clock, streams
from edgeshard.merge import apply, blame, conflicts, late_changes, reap
from edgeshard.merge.apply import Copied, OwnShard, TargetLacksRowsError
from edgeshard.merge.merge_pass import MergePass
from edgeshard.merge.target import Target
from edgeshard.sources import attach, bounds
from edgeshard.sources import streams as source_streams
from edgeshard.sources.attach import CopyProgress, Quarantine, SourceRun
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection

#: How much a transaction copies where SQLite keeps in memory what the savepoints may have to restore, in bytes. That is
#: at worst one page of 4 KB for each row and index, if the values of an index come in random order.
_CHUNK_BYTES_IN_MEMORY: Final = 256 << 10

#: (id, agent, highest seq) of each stream of a shard that may be removed; None if it may not be.
_StreamsOfRemovable = list[tuple[bytes, str, int]] | None


def commit_chunk(connection: Connection, runs: Sequence[SourceRun], merge_pass: MergePass) -> None:
    """Copy the next chunk from the sources, and commit it in one transaction of the master.

    All that depends on the rows of one source happens in the savepoint of that source. A source that fails is
    quarantined: its part is rolled back to the savepoint, and the others continue. If it spoils the whole transaction,
    all of it is rolled back, and the next call continues without that source.

    Args:
        connection: the master, to which the sources are attached.
        runs: the sources that are not finished.
        merge_pass: says how much to copy, and counts what was copied.

    Raises:
        apsw.Error: the master cannot be read or written. Nothing was committed.
    """
    runs = [run for run in runs if not run.quarantine]
    copied: list[tuple[SourceRun, Copied, _StreamsOfRemovable]] = []
    late_tables: set[str] = set()
    sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)
    with contextlib.ExitStack() as transaction:
        # 1. Lock the master for writing.
        try:
            transaction.enter_context(sqlite.immediate(connection))
        except sqlite.DATA_ERRORS as error:
            _quarantine_all(connection, runs, error)
            return
        # 2. Write first: no other merger changes the ranges from here on, and our own commit at FULL makes durable
        #    what a killed merger committed before.
        sqlite.set_busy_timeout(connection, attach.SOURCE_BUSY_TIMEOUT_S)
        identity.increment_generation(connection)
        changes_before = connection.total_changes()
        target = Target.load(connection)
        first_id, bytes_left = target.next_id, _chunk_bytes(connection, merge_pass)
        # 3. Copy what the master lacks of each source; keep, for each key that came, the versions that its rule keeps.
        for run in runs:
            if bytes_left <= 0 or merge_pass.is_stopping():
                break
            connection.execute("SAVEPOINT source")
            try:
                with bounds.bounded(connection, run.schema):
                    # in the snapshot that the rows are read from: an agent may have added a column a moment ago
                    origin = run.open(connection)
                    run.ensure_in_place()
                    first_new_id = target.next_id
                    part = _copy(target, run, origin, bytes_left)
                    late = _settle(target, first_new_id)
                    removable = None if merge_pass.keep_empty else _streams_of_removable(connection, run, part)
                connection.execute("RELEASE source")
            except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
                if not _quarantine(connection, run, error):
                    return
                target = Target.load(connection)  # as it was before the savepoint
            else:
                bytes_left -= part.copied_bytes
                copied.append((run, part, removable))
                late_tables |= late
        # 4. Record when the rows arrived, and how much was written: neither depends on what a source says.
        if target.next_id > first_id:
            _record_arrival(connection, first_id, merge_pass)
        # 5. Commit, at the end of the block. This is needed even if nothing is missing, before a shard is truncated.
        is_durable_needed = any([*(run.copied.durable for run in runs), *(part.durable for _, part, _ in copied)])
        if connection.total_changes() == changes_before and not is_durable_needed:
            connection.execute("ROLLBACK")
    _count(copied, merge_pass)
    merge_pass.late_tables |= late_tables


def _chunk_bytes(connection: Connection, merge_pass: MergePass) -> int:
    return merge_pass.chunk_bytes if sqlite.spills(connection) else min(merge_pass.chunk_bytes, _CHUNK_BYTES_IN_MEMORY)


def _copy(target: Target, run: SourceRun, origin: Source, max_bytes: int) -> Copied:
    """Copy from one source. Which of its rows are blocked is recorded of a shard; of others, this merge remembers."""
    if not run.own:
        return apply.copy(target, origin, max_bytes, None, None, run.copied.blocked)
    connection, name = target.connection, run.file.name
    known = blocked_rows.load(connection, name)
    # nothing is ever deleted from a database in the folder of shards that is no shard
    own = OwnShard(name, run.copied.checked) if origin.is_shard else None
    part = apply.copy(target, origin, max_bytes, own, None, known)
    blocked_rows.record(connection, name, known, part.blocked)
    if part.rows:
        shard_states.record_merge(connection, name)
    return part


def _quarantine_all(connection: Connection, runs: Sequence[SourceRun], error: Exception) -> None:
    """Quarantine all sources because one of them kept the transaction from beginning; then each is tried by itself.

    BEGIN reads each attached database, and does not say which of them it cannot read. One that is replaced while
    it is attached may be read with the WAL of its replacement.

    Raises:
        Exception: the error, if the master is locked, or cannot be read either.
    """
    if isinstance(error, sqlite.BUSY):
        raise error
    identity.generation(connection)
    for run in runs:
        run.quarantine_for(error)


def _quarantine(connection: Connection, run: SourceRun, error: Exception) -> bool:
    """Undo what was copied of a source, and quarantine it.

    Returns:
        Whether the transaction goes on; if not, it was rolled back.

    Raises:
        Exception: the error, if it is the master's fault.
    """
    # an insert that cannot read the source (I/O error, out of memory), or that is ended, rolls back the transaction
    if connection.in_transaction:
        connection.execute("ROLLBACK TO source")
        connection.execute("RELEASE source")
    if blame.is_masters_fault(connection, run.schema, error):
        raise error
    run.quarantine_for(blame.explain_with_objects_made_by_hand(connection, run, error))
    if isinstance(error, TargetLacksRowsError):
        run.quarantine = Quarantine(error.cause, is_masters=True)
    if sqlite.spoils_transaction(error) and connection.in_transaction:
        connection.execute("ROLLBACK")
    return connection.in_transaction


def _streams_of_removable(connection: Connection, run: SourceRun, part: Copied) -> _StreamsOfRemovable:
    """Return (id, agent, highest seq) of each stream of a shard that may be removed, or None if it may not be.

    It may be removed if its agent has ended, and this master holds all that is in it and all that it ever truncated.
    """
    may_be_removed = run.own and part.finished and not part.blocked and run.source.is_shard
    if not may_be_removed or not reap.has_agent_ended(run.file.path):
        return None
    listed = source_streams.all_streams(connection, run.source, part.streams)
    has_truncated = any(stream.truncations for stream in listed)
    if has_truncated and not source_streams.are_truncated_rows_held(connection, run.source):
        return None
    # the agents are those that the master knows, not those that the shard claims
    known = [(stream, streams.find(connection, stream.stream_id)) for stream in listed]
    return [(stream.stream_id, found[1], stream.last_seq) for stream, found in known if found is not None]


def _settle(target: Target, first_id: int) -> set[str]:
    """Settle the rows of a source, with ids from `first_id` on; return the keyed tables that got late ones of them."""
    late_tables: set[str] = set()
    new = [Range(first_id, target.next_id - 1)] if target.next_id > first_id else []
    for ids in (*target.ids_to_settle_again, *new):
        late = late_changes.find(target, ids)
        conflicts.settle(target, ids)
        late_tables |= late_changes.find_kept(target, late)
    target.ids_to_settle_again.clear()
    return late_tables


def _record_arrival(connection: Connection, first_id: int, merge_pass: MergePass) -> None:
    arrivals.record(connection, first_id, store_clock.observe(connection, first_id))
    if merge_pass.meter.is_due:
        merge_pass.meter.record(connection)


def _count(copied: Sequence[tuple[SourceRun, Copied, _StreamsOfRemovable]], merge_pass: MergePass) -> None:
    """Record what was copied, and which shards may be removed, once that is committed."""
    merge_pass.meter.committed()
    for run, part, removable in copied:
        run.outcome.is_removable, run.outcome.last_seqs = removable is not None, removable or ()
        run.copied = CopyProgress(
            run.copied.rows + part.rows,
            part.present,
            part.used_bytes,
            part.durable,
            part.checked,
            part.unproven,
            part.blocked,
            part.seen,
            part.finished,
        )
        merge_pass.rows += part.rows
        merge_pass.copied_bytes += part.copied_bytes
