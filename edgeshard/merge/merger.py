"""A whole merge, in the order that keeps every promise: look, attach, copy, commit, truncate or remove, remember."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Set
from pathlib import Path

import attrs

from edgeshard import sqlite
from edgeshard.errors import EdgeshardError, StorageIOError
from edgeshard.files import fingerprint, paths, scan
from edgeshard.files.scan import ScanResult, ShardFile
from edgeshard.format import blocks
from edgeshard.master import arrivals, database, identity, shard_states, streams, write_stats
from edgeshard.merge import apply, conflicts, late_changes, reap, truncate
from edgeshard.merge.quota import MergeQuota
from edgeshard.merge.shard_cache import CacheEntry, ShardCache
from edgeshard.reports import Gap, MergeReport, Quarantined
from edgeshard.retention import store_rules
from edgeshard.retention.store_rules import Retention
from edgeshard.shard import write_profile
from edgeshard.shard.write_profile import WriteProfile
from edgeshard.sources import attach, source
from edgeshard.sources.attach import SourceRun
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")

#: Called with (rows done, rows to do) as a merge goes on.
Progress = Callable[[int, int], None]

#: Quiet shards that a thorough pass asks whether their agent is gone: one that is killed changes no file.
_ASKED_AT_A_TIME = 100

#: Agents after whom a thorough pass sweeps.
_SWEPT_AT_A_TIME = 500


@attrs.define
class _Pass:
    """What one pass is to do, and what it has done."""

    keep_empty: bool
    stopping: Callable[[], bool]
    progress: Progress | None
    meter: write_stats.Meter
    rows: int = 0
    to_do: int = 0
    truncated: int = 0
    removed: int = 0
    stopped: bool = False
    room_bytes: int = blocks.CHUNK_BYTES
    copied_bytes: int = 0
    late: set[str] = attrs.Factory(set)

    def is_stopping(self) -> bool:
        self.stopped = self.stopped or self.stopping()
        return self.stopped


class Merger:
    """Merges into the master of one store, once or again and again.

    Between passes it keeps the master open, and remembers what it learnt of the shards, so that a pass costs little
    more than a stat of each shard.

    Args:
        root: the store's folder.
        keep_empty: leave the shards of agents that are gone.
        service: whether passes follow one another closely: then a busy shard is not truncated in each.
        stopping: asked after each shard; once it says yes the pass ends, with what it has committed.
        thrift: how sparing to be with what is written, as a service.
        prune: what is to go anyway, before a budget has rows dropped.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_empty: bool = False,
        service: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        thrift: WriteProfile = write_profile.NORMAL,
        prune: Retention = store_rules.NONE,
    ) -> None:
        self._root = root
        self._path = root / "master.db"
        self._keep_empty = keep_empty
        self._service = service
        self._stopping = stopping
        self._thrift = thrift
        self._meter = write_stats.Meter()
        self._folder = scan.Folder(Path(os.path.realpath(root / "shards")))
        self._room = MergeQuota(root, self._path, prune, self._meter, stopping)
        self._connection: Connection | None = None
        self._forget()

    def _forget(self) -> None:
        self._files: tuple[object, object] = (None, None)
        self._generation = 0
        self._memory = ShardCache(self._thrift.held_s)
        self._gaps: tuple[Gap, ...] | None = None
        self._told: set[Quarantined | Gap] = set()

    @property
    def is_open(self) -> bool:
        """Whether it has the master open."""
        return self._connection is not None

    # -- a pass -------------------------------------------------------------------------------------------------------

    def run(
        self, sources: Iterable[SourceRun] = (), *, thorough: bool = True, progress: Progress | None = None
    ) -> MergeReport:
        """One pass over what changed. The caller holds ``merge.lock``.

        Args:
            sources: other databases to merge as well.
            thorough: look again, too, where a change might not have shown, where something failed, and for agents
                that died without a trace.
            progress: called as the work goes on.

        Raises:
            StorageError: the master or the folder cannot be read or written. What was committed stays.
        """
        began = time.monotonic()
        try:
            with sqlite.translate_errors("merge into", str(self._path)), self._meter.running():
                report = self._run(self._open(), list(sources), thorough, progress)
        except BaseException:
            self.abandon()  # what it knew may not be so
            raise
        return attrs.evolve(report, seconds=time.monotonic() - began)

    def _run(
        self, connection: Connection, sources: list[SourceRun], thorough: bool, progress: Progress | None
    ) -> MergeReport:
        now_ns = time.time_ns()
        self._room.begin(connection)
        look = self._look()
        due = [*self._due(look, thorough), *(job for job in sources if not job.problem)]
        hopeless = [job for job in sources if job.problem]
        done = _Pass(self._keep_empty, self._stopping, progress, self._meter)
        self._meter.collect(self._root / "merge.lock", map(self._lock_path, look.names))
        for group in attach.groups(due):
            if done.is_stopping() or self._room.is_wanting:
                break
            self._merge_group(connection, group, done, now_ns)
        self._meter.add_rows(done.rows)
        for name in sorted(done.late):
            text = "rows of table %s came that are older than deletions that were pruned: they may have been deleted"
            logger.warning(text, name)
        names = look.names - {job.file.name for job in due if job.removed}
        self._memory.forget_all_but(names)
        if thorough and not done.is_stopping():
            self._sweep(look)
            self._memory.persist(connection, names)
        self._look_at_gaps(connection)
        if not self._service or not (done.rows or self._thrift.keeps_log):
            self._shrink_log(connection)
        if self._room.is_wanting:
            raise self._room.error(done.rows)
        return self._report([*due, *hopeless], done)

    def _lock_path(self, name: str) -> Path:
        return paths.lock_path(str(self._folder.path / name))

    def _look(self) -> ScanResult:
        path = Path(os.path.realpath(self._root / "shards"))
        if path != self._folder.path:  # a link that leads elsewhere now
            self._folder = scan.Folder(path)
        return self._folder.look(self._memory.states)

    def news(self) -> bool:
        """Whether a pass would find something new, as far as the files show from without.

        Raises:
            AccessError, StorageIOError: the folder cannot be looked at.
        """
        return any(self._memory.is_news(file) for file in self._look().changed)

    def _due(self, look: ScanResult, thorough: bool) -> list[SourceRun]:
        """The shards to look into."""
        self._memory.forget_all_but(look.names)
        files_due = {}
        for file in look.changed:
            known = self._memory.get(file.name)
            if file.problem:
                self._memory.remember(file.name, CacheEntry((), file.problem))
            elif known is None or known.state != file.state or known.is_due_again(thorough=thorough):
                files_due[file.name] = file
        for name in self._memory.due_again(thorough=thorough):
            files_due.setdefault(name, self._unchanged(name))
        if thorough and not self._keep_empty:
            files_due.update(self._of_agents_gone(files_due.keys()))
        return [
            SourceRun(file, own=True, checked=self._memory.checked(name)) for name, file in sorted(files_due.items())
        ]

    def _unchanged(self, name: str) -> ShardFile:
        return ShardFile(str(self._folder.path / name), self._memory.states[name])

    def _of_agents_gone(self, due: Set[str]) -> dict[str, ShardFile]:
        """Some of the quiet shards whose agent is gone."""
        quiet = list(self._memory.states.keys() - due)
        asked = random.sample(quiet, min(_ASKED_AT_A_TIME, len(quiet)))
        found = map(self._unchanged, asked)
        return {file.name: file for file in found if reap.is_agent_gone(file.path)}

    def _report(self, due: list[SourceRun], done: _Pass) -> MergeReport:
        aside = [Quarantined(job.file.path, job.problem) for job in due if job.problem and not job.own]
        for name, problem in self._memory.problems.items():
            aside.append(Quarantined(str(self._folder.path / name), problem))
        aside.sort(key=lambda item: item.path)
        self._tell(aside, self._gaps or ())
        report = MergeReport(
            rows=done.rows,
            truncated=done.truncated,
            removed=done.removed,
            shards=sum(1 for job in due if job.schema),
            quarantined=tuple(aside),
            gaps=self._gaps or (),
            stopped=done.stopped,
            dropped=self._room.dropped,
        )
        for kept in self._room.kept:
            report = kept.add_to_report(report)
        return report

    def _tell(self, aside: Iterable[Quarantined], gaps: Iterable[Gap]) -> None:
        """Log what is wrong, once."""
        told, self._told = self._told, {*aside, *gaps}
        for item in aside:
            if item not in told:
                logger.warning("set aside %s: %s", item.path, item.reason)
        for gap in gaps:
            if gap not in told:
                text = "%s lacks rows %d to %d of stream %s of agent %r"
                logger.warning(text, self._path, gap.first, gap.last, gap.stream, gap.agent)

    # -- the master ---------------------------------------------------------------------------------------------------

    def _open(self) -> Connection:
        """The master, opened anew where another one has its name, with what it says of the shards."""
        if self._connection is not None and self._files_now() != self._files:
            logger.warning("%s was replaced; all shards are looked into again", self._path)
            self.abandon()
        if self._connection is None:
            database.ensure_master(self._path)
            before = fingerprint.identity(self._path)
            self._connection = database.open_master(self._path, writable=True)
            self._memory.recall(self._connection)
            self._files = (before, fingerprint.identity(f"{self._path}-wal"))
        return self._connection

    def _files_now(self) -> tuple[object, object]:
        """Which files we commit to: the master's, and its log's."""
        return fingerprint.identity(self._path), fingerprint.identity(f"{self._path}-wal")

    def _ensure_in_place(self) -> None:
        """What was committed to a file that nobody finds any more must not be deleted from the shards."""
        if self._files_now() != self._files:
            cause = (
                "it was moved, deleted or replaced during the merge; nothing was deleted from the shards. Merge again"
            )
            raise StorageIOError("merge into", self._path, cause)

    def _look_at_gaps(self, connection: Connection) -> None:
        generation = identity.generation(connection)
        if self._gaps is None or generation != self._generation:
            self._gaps = streams.gaps(connection)
        self._generation = generation

    def _shrink_log(self, connection: Connection) -> None:
        if fingerprint.size(f"{self._path}-wal"):
            sqlite.shrink_wal(connection)

    def close(self) -> None:
        """Remember in the master what was learnt of the shards, and close it.

        Raises:
            StorageError: the master cannot be written.
        """
        if self._connection is None:
            return
        try:
            with sqlite.translate_errors("merge into", str(self._path)), self._meter.running():
                self._memory.persist(self._connection)
                self._shrink_log(self._connection)
        finally:
            self.abandon()
            self._meter.leave(self._root / "merge.lock")

    def abandon(self) -> None:
        """Close the master, and remember nothing."""
        connection, self._connection = self._connection, None
        self._forget()
        if connection is not None:
            connection.close()

    # -- one group of sources -----------------------------------------------------------------------------------------

    def _merge_group(self, connection: Connection, group: list[SourceRun], done: _Pass, now_ns: int) -> None:
        self._merge_together(connection, group, done)
        # one that failed in company may have suffered for another: it gets a group of its own
        for job in group:
            if job.problem and len(group) > 1 and not done.is_stopping():
                job.problem, job.lasting = "", False
                job.finished, job.durable = False, {}
                self._merge_together(connection, [job], done)
        self._merge_rest(connection, group, done)
        for job in group:
            if job.own and job.problem and scan.find_database(job.file.path) is None:
                job.problem = ""  # another merger removed it
                self._memory.forget(job.file.name)
            elif job.own:
                self._note(job, now_ns)

    def _merge_rest(self, connection: Connection, group: list[SourceRun], done: _Pass) -> None:
        """Within a budget: go on with what the sources still have, now that the shards gave back what was copied."""
        rows = -1
        while self._room.known is not None and not done.is_stopping():
            rest = [job for job in group if not job.finished and not job.problem]
            if not rest:
                return
            if self._room.is_wanting:
                if rows == done.rows or not self._room.make_room(connection):
                    return
                rows = done.rows
            self._merge_together(connection, rest, done)

    def _merge_together(self, connection: Connection, group: list[SourceRun], done: _Pass) -> None:
        """Copy what the sources have, in transactions of bounded size, and then truncate or remove the shards."""
        with attach.attached(connection, group) as remaining:
            if done.progress is not None:
                done.to_do += _rows_to_do(connection, remaining)
            while remaining and self._copy(connection, remaining, done):
                if done.progress is not None:
                    done.progress(done.rows, done.to_do)
                remaining = [job for job in remaining if not job.finished and not job.problem]
                if done.is_stopping() or self._room.is_tight:
                    break
        # detached first: the last connection to leave a shard tidies its log away
        master_id = sqlite.scalar(connection, "SELECT database_id FROM main.edgeshard_database")
        for job in group:
            may_clear = job.finished or (self._room.is_tight and job.durable)
            if job.own and may_clear and not job.problem and not done.is_stopping():
                self._ensure_in_place()
                self._clear(job, master_id, done)
        attach.tidy(group)

    def _copy(self, connection: Connection, remaining: list[SourceRun], done: _Pass) -> bool:
        """Copy and commit a chunk; False where rows wait, and there is no room for any."""
        room_bytes, before = self._room.chunk_bytes(connection), done.copied_bytes
        try:
            if not room_bytes and _rows_to_do(connection, remaining):
                self._room.is_wanting = True
                return False
            done.room_bytes = room_bytes or blocks.CHUNK_BYTES
            _commit_chunk(connection, remaining, done)
        except sqlite.DatabaseFailure as error:
            if self._room.known is None or not sqlite.is_full(error):
                raise
            self._room.is_wanting = True  # a writer's transaction, which is not divided, needs more than there is
            return False
        finally:
            self._room.copied(connection, done.copied_bytes - before)
        return True

    def _clear(self, job: SourceRun, master_id: bytes, done: _Pass) -> None:
        """Remove the shard, or truncate it, or leave it for later."""
        job.left = job.file.state
        try:
            if job.spent and self._remove(job):
                job.removed = True
                done.removed += 1
                done.truncated += job.present
            elif job.durable:
                self._truncate(job, master_id, done)
        except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
            cause = error.cause if isinstance(error, EdgeshardError) else error
            job.set_aside(f"its rows are merged, but cannot be deleted from it: {cause}", lasting=False)

    def _remove(self, job: SourceRun) -> bool:
        self._meter.take(paths.lock_path(job.file.path))  # which goes, too
        return reap.remove(job.opened, job.durable)

    def _truncate(self, job: SourceRun, master_id: bytes, done: _Pass) -> None:
        job.holds = True
        is_patient = self._service and not self._room.is_tight
        held_s = self._held_s(job)
        if is_patient and not truncate.is_truncation_due(
            job.rows, job.used_bytes, job.file.log_bytes, held_s, self._thrift.held_s
        ):
            return
        truncated = truncate.truncate(job.opened, job.durable, master_id, is_patient, self._room.left_bytes())
        if truncated is None:
            logger.info("%s is busy; it is truncated at the next merge", job.file.path)
        else:
            job.bare, job.holds, job.left = False, False, truncated.state
            done.truncated += truncated.rows

    def _held_s(self, job: SourceRun) -> float:
        known = self._memory.get(job.file.name)
        return 0.0 if known is None or known.holds_since is None else time.monotonic() - known.holds_since

    # -- remembering --------------------------------------------------------------------------------------------------

    def _note(self, job: SourceRun, now_ns: int) -> None:
        """Remember how a shard was left."""
        name = job.file.name
        if job.rows:
            self._memory.note_rows(name)
        if job.removed:
            self._memory.forget(name)
            logger.info("removed %s: its agent is gone, and the master holds its rows", job.file.path)
        elif job.problem:
            settled = scan.is_settled(job.file.state, now_ns)
            # one failure to read may look like damage: that is believed once it is found again
            lasting = job.lasting and self._memory.problem_of(name) == job.problem
            self._memory.remember(name, CacheEntry(job.file.state, job.problem, lasting, settled))
        elif not job.finished:
            self._memory.remember(name, CacheEntry((), checked=job.checked))
        else:
            since = time.monotonic() - self._held_s(job) if job.holds else None
            settled = scan.is_settled(job.left, now_ns)
            checked = job.checked if job.holds else {}
            self._memory.remember(name, CacheEntry(job.left, settled=settled, holds_since=since, checked=checked))

    def _sweep(self, look: ScanResult) -> None:
        """Remove what openings that were killed left."""
        half_made: dict[str, list[str]] = {stem: [] for stem in look.locks if not self._keep_empty}
        for name in look.half_made:
            if match := paths.HALF_MADE.fullmatch(name):
                half_made.setdefault(match[1], []).append(name)
        for stem in sorted(half_made)[:_SWEPT_AT_A_TIME]:
            try:
                reap.sweep(self._folder.path / f"{stem}.lock", half_made[stem])
            except EdgeshardError as error:  # what somebody put there is in nobody's way
                logger.debug("%s", error)


def _rows_to_do(connection: Connection, remaining: list[SourceRun]) -> int:
    rows = 0
    with sqlite.read_snapshot(connection):
        for job in remaining:
            # what is wrong with a source is found, and reported, when it is copied
            with contextlib.suppress(EdgeshardError, *sqlite.DATA_ERRORS):
                rows += job.count(connection)[0]
    return rows


class _SpoiltTransactionError(Exception):
    """SQLite found a source damaged, and writes nothing more before the transaction ends, not to the master either."""


def _commit_chunk(connection: Connection, remaining: list[SourceRun], done: _Pass) -> None:
    """One transaction of the master; it is begun anew without a source that spoils it."""
    copied = None
    while copied is None:
        copied = _copy_chunk(connection, [job for job in remaining if not job.problem], done)
    done.meter.settled()
    for job, part in copied:
        job.rows += part.rows
        job.finished, job.durable, job.present = part.finished, part.durable, max(job.present, part.present)
        job.checked, job.used_bytes = part.checked, part.used_bytes
        done.rows += part.rows
        done.copied_bytes += part.copied_bytes


def _copy_chunk(
    connection: Connection, remaining: list[SourceRun], done: _Pass
) -> list[tuple[SourceRun, apply.Copied]] | None:
    """Copy, and commit, unless there was nothing to do.

    Returns:
        What was copied of which source; None where one of them spoilt the transaction.
    """
    copied: list[tuple[SourceRun, apply.Copied]] = []
    sqlite.set_busy_timeout(connection, sqlite.BUSY_TIMEOUT_S)
    try:
        with contextlib.ExitStack() as transaction:
            try:
                transaction.enter_context(sqlite.immediate(connection))
            except sqlite.DATA_ERRORS as error:
                _blame_sources(connection, remaining, error)
                return []
            _copy_each(connection, remaining, done, copied)
    except _SpoiltTransactionError:
        return None
    return copied


def _blame_sources(connection: Connection, remaining: list[SourceRun], error: Exception) -> None:
    """Set all sources aside, of which one keeps a transaction from beginning; each is then tried by itself.

    BEGIN looks into each attached database, and does not say which of them it cannot read. One that is replaced while
    it is attached may be read beside the log of the other.

    Raises:
        Exception: what is wrong, where the master cannot be read either, or is locked.
    """
    if isinstance(error, sqlite.BUSY):
        raise error
    sqlite.scalar(connection, "SELECT generation FROM main.edgeshard_database")
    for job in remaining:
        job.blame(error)


def _copy_each(
    connection: Connection, remaining: list[SourceRun], done: _Pass, copied: list[tuple[SourceRun, apply.Copied]]
) -> None:
    sqlite.set_busy_timeout(connection, attach.SOURCE_BUSY_TIMEOUT_S)
    # a first statement that writes: no other merger changes the ranges from here on, and our own commit at FULL
    # makes durable what a killed merger committed before
    connection.execute("UPDATE main.edgeshard_database SET generation = generation + 1")
    before = connection.total_changes()
    room_bytes = done.room_bytes
    target = apply.Target.load(connection)
    first_id = target.next_id
    for job in remaining:
        if room_bytes <= 0 or done.is_stopping():
            break
        part = _copy_or_set_aside(connection, target, job, room_bytes, done)
        if part is None:
            target = apply.Target.load(connection)  # as it was before the savepoint
            continue
        room_bytes -= part.copied_bytes
        copied.append((job, part))
    if target.next_id > first_id:
        doubtful = late_changes.find(target, first_id)
        conflicts.settle(target, first_id)
        done.late |= late_changes.kept(target, doubtful)
        arrivals.note(connection, first_id)
        if done.meter.is_due:
            done.meter.note(connection)
    held = [job.durable for job in remaining] + [part.durable for _, part in copied]
    if connection.total_changes() == before and not any(held):
        connection.execute("ROLLBACK")


def _copy_or_set_aside(
    connection: Connection, target: apply.Target, job: SourceRun, room_bytes: int, done: _Pass
) -> apply.Copied | None:
    connection.execute("SAVEPOINT source")
    try:
        # in the snapshot that the rows are read from: an agent may have added a column a moment ago
        job.origin = job.open(connection)
        job.ensure_in_place()
        copied = apply.copy(target, job.origin, room_bytes, job.checked if job.own else None)
        if job.own and copied.rows:
            shard_states.note_merge(connection, job.file.name)
        job.spent = copied.finished and not done.keep_empty and _is_spent(connection, job)
        connection.execute("RELEASE source")
    except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO source")
        connection.execute("RELEASE source")
        if _is_the_masters(connection, job, error):
            raise
        job.blame(error)
        if sqlite.spoils_transaction(error):
            raise _SpoiltTransactionError from error
        return None
    return copied


def _is_spent(connection: Connection, job: SourceRun) -> bool:
    """Whether a shard's agent is gone, and this master holds all that the shard ever gave up."""
    return (
        job.own
        and job.opened.is_shard
        and reap.is_agent_gone(job.file.path)
        and source.has_given_up_only_what_is_held(connection, job.opened)
    )


def _is_the_masters(connection: Connection, job: SourceRun, error: Exception) -> bool:
    """Whether a failure to read or write is not the source's: that is found sound."""
    return (
        isinstance(error, sqlite.DatabaseFailure)
        and not isinstance(error, sqlite.BUSY)
        and not sqlite.is_bad_data(error)
        and not sqlite.is_exhaustion(error)
        and sqlite.is_sound(connection, job.schema)
    )
