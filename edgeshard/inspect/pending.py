"""Compare one shard file with the master: how many rows are pending, since when, and why a merge refuses it.

The shard is attached for as long as the comparison takes, in one transaction with the master, so no row that the master
holds is counted as pending. A shard whose file is as the last merge left it has nothing new, and is not opened.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from edgeshard import sqlite
from edgeshard.errors import AccessError, EdgeshardError, OutOfDescriptorsError
from edgeshard.files import paths, scan
from edgeshard.files.scan import ShardFile
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, size, union
from edgeshard.inspect import shard_names
from edgeshard.master import shard_states
from edgeshard.master.known_rows import KnownRows
from edgeshard.merge import blame
from edgeshard.merge.blocked import count, seqs_by_stream, survey
from edgeshard.merge.target import Target
from edgeshard.records import declare
from edgeshard.reports import Blocked, DeniedTo
from edgeshard.sources import identity
from edgeshard.sources.source import Source, SourceStream
from edgeshard.sources.streams import truncated_beyond
from edgeshard.sqlite import Connection, quote

_SCHEMA = "shard"

_AGENT_DATA = declare.table_of(declare.AgentData).name

#: More than any time has. A stranger's text may be as large as a row.
_TIME_CHARS = 40


@attrs.frozen
class MasterView:
    """What the master knows of agents and shard files, read once.

    Attributes:
        target: its tables.
        agents: the agents' names, by the names of their shards without ".db".
        notes: the state as it is stored, the reason for a quarantine or "", and whether that is only that the merger
            had no permission, per shard file, from the last merges.
        merged_at: when rows of each shard file last came.
    """

    target: Target
    agents: dict[str, str]
    notes: dict[str, tuple[str, str, bool]]
    merged_at: dict[str, datetime.datetime | None]

    @classmethod
    def load(cls, connection: Connection) -> MasterView:
        """Read it from an open master."""
        noted = shard_states.load_notes(connection)
        return cls(
            target=Target.load(connection),
            agents=shard_names.agents_by_stem(connection),
            notes={name: (state, reason, bool(is_denied)) for name, state, reason, is_denied, _ in noted},
            merged_at={name: _time(merged_at) for name, *_, merged_at in noted},
        )


@attrs.frozen
class Pending:
    """What is pending in a shard.

    Attributes:
        rows: how many rows, or None if they cannot be counted.
        seqs: these rows, by the id of their stream.
        since: since when the oldest is pending, or None if unknown.
        is_bound: whether `since` is only a bound: the row may have been written later.
        agent: the shard's agent, or None if the shard was not read.
        reason: why a merge refuses the shard, or why it cannot be read; "" if all is well.
        denied_to: who has no permission, if `reason` is only that; see `ShardStatus`.
        blocked: those of the rows that cannot be merged, counted.
        blocked_seqs: these rows, by the id of their stream.
        truncated: rows that the shard had, that a master holds or held, and that this master may not know of.
    """

    rows: int | None = None
    since: datetime.datetime | None = None
    is_bound: bool = False
    agent: str | None = None
    reason: str = ""
    denied_to: DeniedTo = ""
    seqs: Mapping[bytes, Sequence[Range]] = attrs.Factory(dict)
    blocked: tuple[Blocked, ...] = ()
    blocked_seqs: Mapping[bytes, Sequence[Range]] = attrs.Factory(dict)
    truncated: tuple[KnownRows, ...] = ()


def find_pending(connection: Connection, view: MasterView, file: ShardFile) -> Pending | None:
    """Return what is pending in a shard file, or None if it was removed meanwhile.

    Args:
        connection: the master, open for reading.
        view: what the master knew when the inspection began.
        file: the shard file, as it was listed.

    Raises:
        apsw.Error: the master itself cannot be read.
    """
    if file.defect:
        return Pending(reason=file.defect)
    noted, reason, is_denied = view.notes.get(file.name, ("", "", False))
    if noted and noted == shard_states.format_state(file.state):
        return Pending(None if reason else 0, reason=reason)
    pending = _attach_and_compare(connection, view, file)
    if pending.rows is None and scan.find_database(file.path) is None:
        return None
    if not noted and reason and (not pending.reason or pending.denied_to):
        # a reason that was recorded without a state may be outdated, but only the next merge finds out
        return attrs.evolve(pending, reason=reason, denied_to="merger" if is_denied else "")
    return pending


def united(found: Iterable[Mapping[bytes, Sequence[Range]]]) -> dict[bytes, list[Range]]:
    """Return the rows that are in any of the shards, by the id of their stream, each once: two may be copies of one."""
    seqs: dict[bytes, list[Range]] = {}
    for by_stream in found:
        for stream_id, parts in by_stream.items():
            seqs[stream_id] = union([*seqs.get(stream_id, ()), *parts])
    return seqs


def _attach_and_compare(connection: Connection, view: MasterView, file: ShardFile) -> Pending:
    had_no_wal = not os.path.exists(paths.wal(file.path))
    try:
        sqlite.attach(connection, file.path, _SCHEMA)
    except sqlite.DATA_ERRORS as error:
        return _unread(error, file.path)
    is_readable = True
    try:
        pending = _compare(connection, view, file)
        is_readable = pending.rows is not None
    finally:
        sqlite.detach(connection, _SCHEMA)
        if had_no_wal and is_readable:
            sqlite.remove_empty_wal(file.path)  # reading made it
    return pending


def _compare(connection: Connection, view: MasterView, file: ShardFile) -> Pending:
    try:
        with sqlite.read_snapshot(connection):
            origin = identity.open_source(connection, _SCHEMA, file.path)
            return _count(view, origin, view.merged_at.get(file.name))
    except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
        if blame.is_masters_fault(connection, _SCHEMA, error):
            raise
        return _unread(error, file.path)


def _count(view: MasterView, origin: Source, merged_at: datetime.datetime | None) -> Pending:
    connection = view.target.connection
    found = survey(view.target, origin)
    pending = Pending(0, agent=origin.agent_id if isinstance(origin.agent_id, str) else None)
    if found.missing:  # a shard's streams come in order of their age
        stream, pieces = found.missing[0]
        since, is_bound = _oldest(connection, origin, stream, pieces[0], merged_at)
        pending = attrs.evolve(pending, since=since, is_bound=is_bound)
    seqs = {stream.stream_id: [Range(piece.first, piece.last) for piece in pieces] for stream, pieces in found.missing}
    blocked = [
        Blocked(origin.path, conflict.table, rows, conflict.cause) for conflict, rows in count(found.blocked).items()
    ]
    truncated = tuple(
        KnownRows(stream.stream_id, stream.agent_id, part, database_id)
        for stream, part, database_id in truncated_beyond(connection, origin)
    )
    rows = sum(map(size, seqs.values()))
    return attrs.evolve(
        pending,
        rows=rows,
        seqs=seqs,
        blocked=tuple(blocked),
        blocked_seqs=seqs_by_stream(found.blocked),
        truncated=truncated,
    )


def _oldest(
    connection: Connection, origin: Source, stream: SourceStream, piece: Block, merged_at: datetime.datetime | None
) -> tuple[datetime.datetime | None, bool]:
    """Return since when the first row of the piece is pending, and whether that is only a bound."""
    written_at = _written_at(connection, origin, piece.first_id)
    if written_at is not None:
        return written_at, False
    bounds = [time for time in (_time(stream.began_at), merged_at) if time is not None]
    return max(bounds, default=None), bool(bounds)


def _written_at(connection: Connection, origin: Source, row_id: int) -> datetime.datetime | None:
    """Return the time in a row, or None unless it is a row of the table that dicts go to."""
    if not any(table.name == _AGENT_DATA and ("timestamp", "datetime") in table.columns for table in origin.tables):
        return None
    table = f"{quote(_SCHEMA)}.{quote(_AGENT_DATA)}"
    sql = f"SELECT substr(timestamp, 1, {_TIME_CHARS}) FROM {table} NOT INDEXED WHERE _id = ?"
    return _time(sqlite.scalar(connection, sql, (row_id,)))


def _time(value: Any) -> datetime.datetime | None:
    """Parse a time that a stranger may have written, or return None if it is not one."""
    try:
        if isinstance(value, str):
            time = datetime.datetime.fromisoformat(value)
            return None if time.tzinfo is None else time
        return None if value is None else datetime.datetime.fromtimestamp(value, datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _unread(error: Exception, path: str) -> Pending:
    ours = error if isinstance(error, EdgeshardError) else sqlite.explain(error, "read database", path)
    if isinstance(ours, OutOfDescriptorsError):
        raise ours  # it is not the shard's fault
    return Pending(reason=ours.cause, denied_to="user" if isinstance(ours, AccessError) else "")
