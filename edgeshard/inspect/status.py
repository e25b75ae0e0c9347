"""Report what a store holds and what is pending, while writers and a merger keep working.

No writer or merger is disturbed. The only lock taken is a shared one, for an instant, to find out if an agent holds its
lock. The master and the shards are only read, one shard at a time, in transactions of milliseconds. Nothing is
created: as long as there is no master, all rows are pending. What is reported may be some milliseconds old.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.budget.usage import load_budget, measure
from edgeshard.errors import StorageError
from edgeshard.files import lock_holder, locks, paths, scan, store_folder
from edgeshard.files.scan import ShardFile
from edgeshard.format.ranges import size
from edgeshard.inspect import shard_names, verdict
from edgeshard.inspect.pending import MasterView, Pending, find_pending, united
from edgeshard.inspect.space import measure as measure_space
from edgeshard.master import (
    arrivals,
    catalog,
    damage,
    database,
    identity,
    known_rows,
    pruned_ranges,
    receipts,
    rejected,
    removed_shards,
    retired,
    row_states,
    streams,
    user_objects,
    versions,
    write_stats,
)
from edgeshard.merge import liveness
from edgeshard.records import hlc
from edgeshard.reports import (
    BudgetStatus,
    ClockAhead,
    Gap,
    MasterStatus,
    PeerStatus,
    RowStates,
    ShardStatus,
    StatusReport,
    WatcherStatus,
    add_states,
)
from edgeshard.retention import clock_status, refresh, rules
from edgeshard.sqlite import Connection

#: How long to wait for a shard that is locked, in seconds; then it is reported as locked.
_BUSY_TIMEOUT_S = 0.25


def status(root: Path) -> StatusReport:
    """Inspect a store; see `Store.status`."""
    path, shards_folder = paths.master(root), store_folder.resolve_shards(root)
    at = datetime.datetime.now(datetime.UTC)
    found = database.find_master(path, "read master")
    connection = database.open_empty(path) if found is None else database.open_master(path, writable=False)
    try:
        with database.translate_errors("read master", path):
            # before the snapshot: a note is written after the rows are committed
            notes = removed_shards.read(root, identity.notes_known(connection))
            with sqlite.read_snapshot(connection):
                view = MasterView.load(connection)
                stream_rows = row_states.load(connection)
                retired_states = row_states.retired_states(connection)
                master = _master_status(connection, path, found, _merged_at(connection, view, at))
                dropped_rows = pruned_ranges.by_reason(connection).get(rules.BUDGET, 0)
                peers = tuple(_peers(connection))
                rejected_rows = rejected.rows(connection)
                space = measure_space(connection, root)
                clock = None if found is None else clock_status.load(connection)
            sqlite.set_busy_timeout(connection, _BUSY_TIMEOUT_S)
            listed = list(scan.shard_files(shards_folder))
            budget = _budget_status(root, dropped_rows, listed)
            examined = [(file, find_pending(connection, view, file)) for file in listed]
            there = [(file, pending) for file, pending in examined if pending is not None]
            known = [*notes.rows, *(each for _, pending in there for each in pending.truncated)]
            stream_rows = known_rows.add_to(stream_rows, known_rows.select_unknown(connection, known))
            counters = [str(paths.merge_lock(root)), *(paths.lock_path(file.path) for file in listed)]
            written = write_stats.load(connection, counters)
    finally:
        connection.close()
    seqs = united(pending.seqs for _, pending in there)
    states = add_states([row_states.count_all(stream_rows, seqs), retired_states])
    gaps = row_states.find_gaps(stream_rows, seqs)
    shards = _in_order(_shard_status(view, file, pending, at) for file, pending in there)
    master = _with_states(master, states, gaps)
    blocked_rows = sum(map(size, united(pending.blocked_seqs for _, pending in there).values()))
    watching, watcher = _find_watcher(root, states.pending > blocked_rows)
    report = StatusReport(
        at,
        watching,
        master,
        shards,
        gaps,
        written,
        budget,
        states=states,
        peers=peers,
        space=space,
        unnamed=notes.unnamed,
        clock=clock,
        blocked_rows=blocked_rows,
        rejected_rows=rejected_rows,
        watcher=watcher,
        merge=liveness.find_merge(root) if _is_locked(paths.merge_lock(root)) else None,
    )
    return attrs.evolve(report, problems=verdict.find_problems(report))


def _find_watcher(root: Path, has_pending: bool) -> tuple[bool | None, WatcherStatus | None]:
    """Return whether a watcher merges new rows (None if unknown), and what is known of it."""
    if not (is_locked := _is_locked(paths.watch_lock(root))):
        return is_locked, None
    watcher = liveness.find_watcher(root, lambda: has_pending)
    return None if watcher is None else not watcher.is_stalled, watcher


def _with_states(master: MasterStatus, states: RowStates, gaps: tuple[Gap, ...]) -> MasterStatus:
    return attrs.evolve(
        master,
        rows=states.present,
        pruned_rows=states.pruned,
        collected_rows=states.collected,
        superseded_rows=states.superseded,
        gaps=len(gaps),
        missing_rows=states.missing,
    )


def _master_status(
    connection: Connection, path: Path, found: ShardFile | None, merged_at: datetime.datetime | None
) -> MasterStatus:
    """Return the status of the master, except for its rows."""
    if found is None:
        return MasterStatus(str(path))
    agents = {*streams.agents(connection), *retired.agents(connection)}
    retired_count = retired.stream_count(connection)
    known = damage.find(path)
    return MasterStatus(
        path=str(path),
        exists=True,
        size_bytes=found.file_bytes,
        wal_bytes=found.wal_bytes,
        agents=len(agents),
        streams=streams.count(connection)[0] + retired_count,
        retired_streams=retired_count,
        generation=identity.generation(connection),
        database=identity.database_id(connection).hex(),
        clocks_ahead=tuple(_clocks_ahead(connection)),
        triggers=() if refresh.exists(path.parent) else tuple(user_objects.triggers(connection)),
        damage="" if known is None else "; ".join(known.findings),
        merged_at=merged_at,
        tables=tuple(catalog.record_tables(connection)),
    )


def _merged_at(connection: Connection, view: MasterView, at: datetime.datetime) -> datetime.datetime | None:
    """Return when a merge last brought rows, of a shard or from elsewhere, or None if nothing says so.

    Times after `at` are those of a clock that was wrong, and say nothing.
    """
    times = (arrivals.latest(connection), *view.merged_at.values())
    return max((time for time in times if time is not None and time <= at), default=None)


def _peers(connection: Connection) -> Iterator[PeerStatus]:
    for peer in [*receipts.awaiting(connection), *receipts.peers(connection)]:
        yield PeerStatus(peer.database_id.hex(), peer.kind, peer.received_at, peer.trusted_at)


def _clocks_ahead(connection: Connection) -> Iterator[ClockAhead]:
    now = hlc.now_us()
    limit = now + hlc.REPORTED_AHEAD_US
    for table in catalog.tables_changed_after(connection, limit):
        for agent, timestamp in versions.newest_by_agent(connection, table, limit):
            yield ClockAhead(agent, table, (timestamp - now) / 1e6)


def _budget_status(root: Path, dropped_rows: int, shards: Sequence[ShardFile]) -> BudgetStatus | None:
    budget = load_budget(root)
    if budget is None:
        return None
    usage = measure(root)
    return BudgetStatus(
        max_bytes=budget.max_bytes,
        on_full=budget.on_full,
        limit_bytes=policy.current_limit(budget, usage),
        used_bytes=usage.used,
        dropped_rows=dropped_rows,
        promised_bytes=usage.promised,
        reserve_bytes=policy.reserve_bytes(budget),
        left_bytes=policy.left_for_writers(budget, usage),
        open_shards=usage.open,
        least_bytes=policy.least_budget(usage.open + 1),
        is_full=policy.is_full(budget, usage) or _is_refused(root, budget, shards),
        is_nearly_full=policy.is_nearly_full(budget, usage, was_warned=False),
    )


def _is_refused(root: Path, budget: policy.Budget, shards: Sequence[ShardFile]) -> bool:
    """Return whether the writer of the largest shard is refused to write: it is the first one for which that holds."""
    if not shards:
        return False
    largest = max(shards, key=lambda file: file.file_bytes)
    usage = measure(root, without=paths.stem_of(largest.name))
    return policy.is_refused(budget, usage, largest.file_bytes)


def _shard_status(view: MasterView, file: ShardFile, pending: Pending, at: datetime.datetime) -> ShardStatus:
    alive = _is_locked(paths.lock_path(file.path))
    holder = lock_holder.find_holder(paths.lock_path(file.path)) if alive else None
    return ShardStatus(
        name=file.name,
        agent=pending.agent or shard_names.agent_of(paths.stem_of(file.name), view.agents),
        alive=alive,
        pid=None if holder is None else holder.pid,
        pending_rows=pending.rows,
        oldest_age_s=None if pending.since is None else max(0.0, (at - pending.since).total_seconds()),
        oldest_is_bound=pending.is_bound,
        size_bytes=file.file_bytes + file.wal_bytes if file.state else shard_names.size_bytes(file.path),
        merged_at=view.merged_at.get(file.name),
        reason=pending.reason,
        denied_to=pending.denied_to,
        blocked=pending.blocked,
    )


def _is_locked(path: str | os.PathLike[str]) -> bool | None:
    try:
        return locks.is_locked(path)
    except StorageError:
        return None


def _in_order(shards: Iterable[ShardStatus]) -> tuple[ShardStatus, ...]:
    """Sort the shards: what needs attention comes first."""
    return tuple(
        sorted(
            shards,
            key=lambda shard: (
                not shard.reason,
                not shard.blocked,
                -(shard.pending_rows or 0),
                -(shard.oldest_age_s or 0.0),
                shard.agent or shard.name,
                shard.name,
            ),
        )
    )
