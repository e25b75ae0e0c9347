"""What a store holds and what waits to be merged, looked at while all work.

Nobody is disturbed: no lock is taken but the shared one that asks for an instant whether an agent's is held, the master
and the shards are only read, one shard at a time, in transactions of milliseconds. Nothing is made: where there is no
master yet, all rows wait. A shard whose file is as the merger remembers it holds no news, and is not opened.

What is read may be old by some milliseconds when it is reported: rows are merged and written meanwhile. Each shard is
compared with the master in one transaction, so no row is counted as waiting that the master holds.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from edgeshard import format, sqlite
from edgeshard.budget import policy
from edgeshard.budget.usage import load_budget, measure
from edgeshard.errors import ConfigurationError, DamagedError, EdgeshardError, SchemaConflictError, StorageError
from edgeshard.files import locks, paths, scan
from edgeshard.files.scan import ShardFile
from edgeshard.format.blocks import Block
from edgeshard.master import database, identity, pruned_ranges, shard_states, streams, superseded, write_stats
from edgeshard.master.write_stats import WriteStats
from edgeshard.merge import apply
from edgeshard.records import declare, hlc
from edgeshard.reports import Gap
from edgeshard.retention import rules
from edgeshard.sources import diff, source
from edgeshard.sources.source import Source, SourceStream
from edgeshard.sqlite import Connection, quote

#: How long to wait for a shard that somebody holds locked, in seconds; then it is reported as that.
_PATIENCE_S = 0.25

_SCHEMA = "shard"

_AGENT_DATA = declare.table_of(declare.AgentData).name

_SHARDS = "SELECT name, state, problem, merged_at FROM main.edgeshard_shards"

_STREAMS = "SELECT count(*), count(DISTINCT agent_id) FROM main.edgeshard_streams"

_ROWS = "SELECT coalesce(sum(last - first + 1), 0) FROM main.edgeshard_ranges"


@attrs.frozen
class ShardStatus:
    """One file in ``shards/``.

    Attributes:
        name: the file's name.
        agent: whose it is; None where that is unknown.
        alive: whether its agent has it open; None where nobody may tell us.
        waiting_rows: rows in it that the master does not hold; None where it cannot be read.
        oldest_age_s: for how long the oldest of them has waited, in seconds; None where none waits, or nothing says.
        oldest_is_bound: whether it has waited so long at the most: it carries no time of its own, but was written
            after its agent opened the shard and, where merges come to an end, after the last of them.
        size_bytes: the size of the file and its log.
        merged_at: when rows of it were last merged; None for never.
        problem: why it is not merged, or cannot be read now; "" where all is well.
    """

    name: str
    agent: str | None
    alive: bool | None
    waiting_rows: int | None
    oldest_age_s: float | None
    oldest_is_bound: bool
    size_bytes: int
    merged_at: datetime.datetime | None
    problem: str


@attrs.frozen
class ClockAhead:
    """An agent whose changes of a keyed table are timestamped ahead of this machine's clock: they count as the last.

    Attributes:
        agent: whose they are; "" where newer ones have replaced them.
        table: the table.
        ahead_s: how far ahead the last is, in seconds.
    """

    agent: str
    table: str
    ahead_s: float


@attrs.frozen
class MasterStatus:
    """The master.

    Attributes:
        path: its file.
        exists: whether there is one; all below is 0 where there is none.
        size_bytes: the size of the file.
        log_bytes: the size of its log.
        rows: rows that were ever merged into it, also those that were pruned since.
        pruned_rows: rows that were pruned since.
        replaced_rows: rows of keyed tables that were replaced since by newer ones.
        clocks_ahead: agents whose changes of keyed tables are timestamped more than a day ahead of this machine's clock.
        agents: agents whose rows it knows of.
        streams: streams that it knows of.
        gaps: runs of rows that are known to exist and that it never held; `StatusReport.gaps` names each.
        missing_rows: rows in them.
        generation: how often it was merged into, or a step of a prune was done.
        database: its id, in hexadecimal, by which other databases know it; "" where there is none.
    """

    path: str
    exists: bool = False
    size_bytes: int = 0
    log_bytes: int = 0
    rows: int = 0
    agents: int = 0
    streams: int = 0
    gaps: int = 0
    missing_rows: int = 0
    generation: int = 0
    database: str = ""
    pruned_rows: int = 0
    replaced_rows: int = 0
    clocks_ahead: tuple[ClockAhead, ...] = ()


@attrs.frozen
class BudgetStatus:
    """What the store takes, and may take, in bytes.

    Attributes:
        max_bytes: its budget.
        on_full: what happens where that is not enough.
        limit_bytes: what it may take now: less than the budget where the file system is too small for that.
        used_bytes: what it takes.
        dropped_rows: rows that were deleted from the master for it, ever.
    """

    max_bytes: int
    on_full: str
    limit_bytes: int
    used_bytes: int
    dropped_rows: int


@attrs.frozen
class StatusReport:
    """What `Store.status` found.

    Attributes:
        at: when it looked.
        watching: whether a merger watches the store; None where nobody may tell us.
        master: the master.
        shards: the shards; first those with a problem, then those with the most rows waiting, then by agent.
        gaps: rows known to exist that the master never held, by agent, stream and seq.
        wear: what was written to the files, as far as it is counted: see `edgeshard.wear`.
        budget: what the store takes of its budget; None where it has none.
    """

    at: datetime.datetime
    watching: bool | None
    master: MasterStatus
    shards: tuple[ShardStatus, ...]
    gaps: tuple[Gap, ...] = ()
    wear: WriteStats = attrs.Factory(WriteStats)
    budget: BudgetStatus | None = None

    @property
    def waiting_rows(self) -> int:
        """Rows in all shards that could be read which the master does not hold."""
        return sum(shard.waiting_rows or 0 for shard in self.shards)

    @property
    def oldest(self) -> ShardStatus | None:
        """The shard whose oldest row has waited longest; None where none waits."""
        waiting = [shard for shard in self.shards if shard.oldest_age_s is not None]
        return max(waiting, key=lambda shard: shard.oldest_age_s or 0.0, default=None)

    @property
    def problems(self) -> int:
        """Shards with a problem."""
        return sum(bool(shard.problem) for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether no shard has a problem and nothing is missing."""
        return not self.problems and not self.master.gaps

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        oldest = self.oldest
        return {
            "complete": self.complete,
            "waiting_rows": self.waiting_rows,
            "oldest_age_s": oldest and oldest.oldest_age_s,
            "oldest_is_bound": oldest is not None and oldest.oldest_is_bound,
            "problems": self.problems,
            "bytes_a_day": self.wear.bytes_a_day,
            "bytes_a_row": self.wear.bytes_a_row,
            **attrs.asdict(self, value_serializer=_plain),
        }

    def __str__(self) -> str:
        line = f"{self.waiting_rows} rows wait in {len(self.shards)} shards"
        oldest = self.oldest
        if oldest is not None:
            line += f", the oldest for {'at most ' if oldest.oldest_is_bound else ''}{oldest.oldest_age_s:.0f} s"
        if self.problems:
            line += f"; {self.problems} shards with a problem"
        if self.master.gaps:
            line += f"; {self.master.missing_rows} rows missing in {self.master.gaps} gaps"
        return line


def _plain(_of: object, _field: object, value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.datetime) else value


@attrs.frozen
class _Known:
    """What the master knows as the look begins.

    Attributes:
        target: its tables.
        agents: the agents' names, by the stems of their shards.
        looks: the state, as it is stored, and the problem of each shard file, by name, as the last merges found them.
        merged_at: when rows of each shard last came, by name.
    """

    target: apply.Target
    agents: dict[str, str]
    looks: dict[str, tuple[str, str]]
    merged_at: dict[str, datetime.datetime | None]


def status(root: Path) -> StatusReport:
    """Look at a store; see `Store.status`."""
    path = root / "master.db"
    at = datetime.datetime.now(datetime.UTC)
    found = _look_at_master(path)
    connection = (
        sqlite.open_in_memory(format.MASTER_TABLES) if found is None else database.open_master(path, writable=False)
    )
    try:
        with database.translate_errors("read master", path):
            with sqlite.read_snapshot(connection):
                known = _known(connection)
                gaps = () if found is None else streams.gaps(connection)
                of_master = _master_status(connection, path, found, gaps)
                of_budget = _budget_status(root, connection)
            sqlite.set_busy_timeout(connection, _PATIENCE_S)
            listed = scan.shard_files(Path(os.path.realpath(root / "shards")))
            shards = [_shard_status(connection, known, file, at) for file in listed]
            worn = write_stats.load(connection, [root / "merge.lock", *(paths.lock_path(file.path) for file in listed)])
    finally:
        connection.close()
    in_order = _in_order(shard for shard in shards if shard is not None)
    return StatusReport(at, _is_locked(root / "watch.lock"), of_master, in_order, gaps, worn, of_budget)


def _budget_status(root: Path, connection: Connection) -> BudgetStatus | None:
    known = load_budget(root)
    if known is None:
        return None
    usage = measure(root)
    dropped = pruned_ranges.by_reason(connection).get(rules.BUDGET, 0)
    return BudgetStatus(known.max_bytes, known.on_full, policy.current_limit(known, usage), usage.used, dropped)


def _look_at_master(path: Path) -> ShardFile | None:
    """The master's file, without opening it; None where there is none."""
    found = scan.find_database(str(path))
    if found is not None and found.problem:
        raise DamagedError("read master", path, f"{found.problem}. Move it away, or restore it from a snapshot")
    return found


def _known(connection: Connection) -> _Known:
    rows = sqlite.fetch(connection, _SHARDS)
    return _Known(
        target=apply.Target.load(connection),
        agents=agents_by_stem(connection),
        looks={name: (state, problem) for name, state, problem, _ in rows},
        merged_at={name: _time(merged_at) for name, _, _, merged_at in rows},
    )


def agents_by_stem(connection: Connection) -> dict[str, str]:
    """The agents that a master knows of, each by the name of its shard's file, without the ending."""
    found = {}
    for (agent,) in sqlite.fetch(connection, "SELECT DISTINCT agent_id FROM main.edgeshard_streams"):
        with contextlib.suppress(ConfigurationError):  # a foreign database may know names that have no shard
            found[paths.shard_stem(agent)] = agent
    return found


def _master_status(connection: Connection, path: Path, found: ShardFile | None, gaps: tuple[Gap, ...]) -> MasterStatus:
    if found is None:
        return MasterStatus(str(path))
    ((streams, agents),) = sqlite.fetch(connection, _STREAMS)
    return MasterStatus(
        path=str(path),
        exists=True,
        size_bytes=found.file_bytes,
        log_bytes=found.log_bytes,
        rows=sqlite.scalar(connection, _ROWS),
        agents=agents,
        streams=streams,
        gaps=len(gaps),
        missing_rows=sum(map(len, gaps)),
        generation=identity.generation(connection),
        database=identity.database_id(connection).hex(),
        pruned_rows=sum(pruned_ranges.by_reason(connection).values()),
        replaced_rows=sum(superseded.superseded_counts(connection).values()),
        clocks_ahead=tuple(_clocks_ahead(connection)),
    )


def _clocks_ahead(connection: Connection) -> Iterator[ClockAhead]:
    if not sqlite.has_table(connection, format.KEYS):
        return
    now = hlc.now_us()
    limit = now + hlc.REPORTED_AHEAD_US
    sql = f"SELECT table_name, last_timestamp FROM main.{format.KEYS} WHERE last_timestamp > ?"
    for name, last in sqlite.fetch(connection, sql, (limit,)):
        agents = sqlite.fetch(
            connection,
            f"SELECT agent_id, max({format.TIMESTAMP}) FROM main.{quote(name)} JOIN main.edgeshard_streams "
            f"ON stream_no = _stream WHERE {format.TIMESTAMP} > ? GROUP BY agent_id ORDER BY agent_id",
            (limit,),
        )
        yield from (ClockAhead(agent, name, (timestamp - now) / 1e6) for agent, timestamp in agents or [("", last)])


# -- one shard --------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Waiting:
    """What waits in a shard: how many rows, and since when (at the earliest, where that is a bound)."""

    rows: int | None = None
    since: datetime.datetime | None = None
    is_bound: bool = False
    agent: str | None = None
    problem: str = ""


def _shard_status(connection: Connection, known: _Known, file: ShardFile, at: datetime.datetime) -> ShardStatus | None:
    """What there is to say of a file; None where it is gone by now."""
    waiting = _waiting(connection, known, file)
    if waiting is None:
        return None
    return ShardStatus(
        name=file.name,
        agent=waiting.agent or _agent_of(known, file.name.removesuffix(".db")),
        alive=_is_locked(paths.lock_path(file.path)),
        waiting_rows=waiting.rows,
        oldest_age_s=None if waiting.since is None else max(0.0, (at - waiting.since).total_seconds()),
        oldest_is_bound=waiting.is_bound,
        size_bytes=file.file_bytes + file.log_bytes if file.state else _bytes(file.path) + _bytes(file.path + "-wal"),
        merged_at=known.merged_at.get(file.name),
        problem=waiting.problem,
    )


def _waiting(connection: Connection, known: _Known, file: ShardFile) -> _Waiting | None:
    """What waits in a file; None where it is gone by now."""
    if file.problem:
        return _Waiting(problem=file.problem)
    noted, problem = known.looks.get(file.name, ("", ""))
    if noted and noted == shard_states.state_note(file.state):
        return _Waiting(None if problem else 0, problem=problem)
    waiting = _read(connection, known, file)
    if waiting.rows is None and scan.find_database(file.path) is None:
        return None
    # what was noted without a state may be over by now, but it is for the next merge to say so
    return attrs.evolve(waiting, problem=waiting.problem or (problem if not noted else ""))


def _read(connection: Connection, known: _Known, file: ShardFile) -> _Waiting:
    """Attach a shard for as long as it takes to compare it with the master."""
    is_bare = not os.path.exists(file.path + "-wal")
    try:
        sqlite.attach(connection, file.path, _SCHEMA)
    except sqlite.DATA_ERRORS as error:
        return _Waiting(problem=_cause(error, file.path))
    is_readable = True
    try:
        waiting = _compare(connection, known, file)
        is_readable = waiting.rows is not None
    finally:
        sqlite.detach(connection, _SCHEMA)
        if is_bare and is_readable:
            sqlite.remove_empty_wal(file.path)  # the empty log is of our making
    return waiting


def _compare(connection: Connection, known: _Known, file: ShardFile) -> _Waiting:
    try:
        with sqlite.read_snapshot(connection):
            origin = source.open_source(connection, _SCHEMA, file.path)
            waiting = _count(connection, origin, known.merged_at.get(file.name))
    except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
        if _is_the_masters(connection, error):
            raise
        return _Waiting(problem=_cause(error, file.path))
    return attrs.evolve(waiting, problem=_conflict(known, origin))


def _count(connection: Connection, origin: Source, merged_at: datetime.datetime | None) -> _Waiting:
    waiting = _Waiting(0, agent=origin.agent_id if isinstance(origin.agent_id, str) else None)
    for stream, pieces in diff.missing_pieces(connection, origin):  # a shard's streams come in order of their age
        if pieces and not waiting.rows:
            since, is_bound = _oldest(connection, origin, stream, pieces[0], merged_at)
            waiting = attrs.evolve(waiting, since=since, is_bound=is_bound)
        waiting = attrs.evolve(waiting, rows=(waiting.rows or 0) + sum(map(len, pieces)))
    return waiting


def _oldest(
    connection: Connection, origin: Source, stream: SourceStream, piece: Block, merged_at: datetime.datetime | None
) -> tuple[datetime.datetime | None, bool]:
    """Since when the first row of the piece waits, and whether that is a bound."""
    written_at = _written_at(connection, origin, piece.first_id)
    if written_at is not None:
        return written_at, False
    bounds = [time for time in (_time(stream.began_at), merged_at) if time is not None]
    return max(bounds, default=None), bool(bounds)


def _written_at(connection: Connection, origin: Source, row_id: int) -> datetime.datetime | None:
    """The time that a row carries, where it is one of the table that dicts go to."""
    if not any(table.name == _AGENT_DATA and ("timestamp", "real") in table.columns for table in origin.tables):
        return None
    sql = f"SELECT timestamp FROM {quote(_SCHEMA)}.{quote(_AGENT_DATA)} NOT INDEXED WHERE _id = ?"
    return _time(sqlite.scalar(connection, sql, (row_id,)))


def _time(value: Any) -> datetime.datetime | None:
    """A time that may have been written by a stranger; None where it is none."""
    try:
        if isinstance(value, str):
            time = datetime.datetime.fromisoformat(value)
            return None if time.tzinfo is None else time
        return None if value is None else datetime.datetime.fromtimestamp(value, datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _conflict(known: _Known, origin: Source) -> str:
    """Why the rows of a shard that can be read cannot be merged, or ""."""
    try:
        for table in origin.tables:
            apply.check(known.target, origin, table)
    except SchemaConflictError as error:
        return error.cause
    return ""


# -- what is asked of files, and of errors ----------------------------------------------------------------------------


def _is_the_masters(connection: Connection, error: Exception) -> bool:
    """Whether a failure to read is not the shard's: that is found sound."""
    return (
        isinstance(error, sqlite.DatabaseFailure)
        and not isinstance(error, sqlite.BUSY)
        and not sqlite.is_bad_data(error)
        and sqlite.is_sound(connection, _SCHEMA)
    )


def _cause(error: Exception, path: str) -> str:
    ours = error if isinstance(error, EdgeshardError) else sqlite.explain(error, "read database", path)
    return ours.cause


def _agent_of(known: _Known, stem: str) -> str | None:
    """Whose shard it is, by its file's name alone."""
    try:
        return known.agents.get(stem) or (stem if paths.shard_stem(stem) == stem else None)
    except ConfigurationError:
        return None


def _is_locked(path: Path) -> bool | None:
    try:
        return locks.is_locked(path)
    except StorageError:
        return None


def _bytes(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:  # it is not there
        return 0


def _in_order(shards: Iterable[ShardStatus]) -> tuple[ShardStatus, ...]:
    """What needs attention first."""
    return tuple(
        sorted(
            shards,
            key=lambda shard: (
                not shard.problem,
                -(shard.waiting_rows or 0),
                -(shard.oldest_age_s or 0.0),
                shard.agent or shard.name,
                shard.name,
            ),
        )
    )
