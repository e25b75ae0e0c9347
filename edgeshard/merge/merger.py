"""One pass of a merge, in the order that keeps every promise: scan, attach, copy, commit, truncate, remember."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path

import attrs

from edgeshard import sqlite, units
from edgeshard.errors import AccessError, DamagedError, EdgeshardError, OutOfDescriptorsError, printable
from edgeshard.files import fingerprint, paths, scan, store_folder
from edgeshard.files.scan import ScanResult, ShardFile
from edgeshard.format.ranges import size
from edgeshard.log_fields import fields
from edgeshard.master import (
    blocked_rows,
    damage,
    identity,
    leftovers,
    row_states,
    store_clock,
    user_objects,
    write_stats,
)
from edgeshard.merge import chunk, reap, truncate
from edgeshard.merge.blocked import count as blocked_counts
from edgeshard.merge.blocked import survey
from edgeshard.merge.master_handle import MasterHandle
from edgeshard.merge.merge_pass import MergePass, Progress
from edgeshard.merge.quota import MergeQuota, QuotaExhaustedError
from edgeshard.merge.removal_notes import RemovalNotes
from edgeshard.merge.shard_cache import CacheEntry, ShardCache
from edgeshard.merge.state_log import StateLog
from edgeshard.merge.target import Target
from edgeshard.reports import GAPS_MAX, Blocked, Gap, MergeReport, Quarantined
from edgeshard.retention import by_hand, clock_status, erase, refresh, store_rules
from edgeshard.retention.store_rules import Retention
from edgeshard.shard import write_profile
from edgeshard.shard.write_profile import WriteProfile
from edgeshard.sources import attach
from edgeshard.sources.attach import CopyProgress, Quarantine, ShardOutcome, SourceRun
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.merge")

#: For how many unchanged shards a thorough pass checks whether their agent has ended: a killed agent changes no file.
_AGENTS_CHECKED = 100

#: For how many agents a thorough pass removes leftovers.
_LEFTOVERS_REMOVED = 500


class Merger:
    """Merges into the master of one store, once or repeatedly.

    Between passes it keeps the master open, and remembers what it found in the shards, so that a pass costs little more
    than a stat of each shard.

    Args:
        root: the store's folder.
        keep_empty: keep the shards of agents that have ended.
        watching: whether passes follow one another closely: then not every pass truncates a busy shard.
        should_stop: called after each shard; once it returns True the pass ends, with what it has committed.
        profile: the write profile of a merger that watches.
        prune: the store's own rules, which are followed before rows are dropped to stay within a disk budget.
        erasing: whether rows are being erased: then what is deleted from shards is overwritten with zeros.

    Attributes:
        commits: how many chunks have ended, in all passes, whether or not they had anything to commit. A watcher sees
            by it that a pass makes progress.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_empty: bool = False,
        watching: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        profile: WriteProfile = write_profile.NORMAL,
        prune: Retention = store_rules.NONE,
        erasing: bool = False,
    ) -> None:
        self._root = root
        self._path = paths.master(root)
        self._keep_empty = keep_empty
        self._watching = watching
        self._erasing = erasing
        self.commits = 0
        self._refresh_error = ""
        self._should_stop = should_stop
        self._profile = profile
        self._meter = write_stats.Meter()
        self._folder = scan.Folder(paths.shards(root))
        self._quota = MergeQuota(root, self._path, prune, self._meter, should_stop)
        self._master = MasterHandle(self._path)
        self._removals = RemovalNotes(root)
        self._states = StateLog(root, self._path)
        self._forget()

    def _forget(self) -> None:
        self._cache = ShardCache(self._profile.held_s)
        self._generation = 0
        self._gaps: tuple[Gap, ...] | None = None
        self._missing_rows = 0
        self._blocked: tuple[Blocked, ...] = ()
        self._schema_version = 0

    @property
    def is_open(self) -> bool:
        """Whether it has the master open."""
        return self._master.is_open

    # -- a pass -------------------------------------------------------------------------------------------------------

    def run(
        self, sources: Sequence[SourceRun] = (), *, thorough: bool = True, progress: Progress | None = None
    ) -> MergeReport:
        """Make one pass over what changed. The caller holds ``merge.lock``.

        Args:
            sources: other databases to merge as well.
            thorough: also open shards whose last change may have been missed, or where something failed, and look for
                agents that died without a trace.
            progress: called after each commit.

        Raises:
            DiskBudgetError: the budget has no space for pending rows. What was committed stays.
            StorageError: the master or the folder cannot be read or written. The same holds.
        """
        began = time.monotonic()
        merge_pass = MergePass(time.time_ns(), self._keep_empty, self._should_stop, progress, self._meter)
        unreadable = [run for run in sources if run.quarantine]
        try:
            with sqlite.translate_errors("merge into", str(self._path)), self._meter.running():
                connection = self._begin()
                version = int(connection.pragma("schema_version"))
                by_hand.settle(connection, self._path, is_schema_new=version != self._schema_version)
                if version != self._schema_version:
                    self._warn_of_user_objects(connection)
                if erase.is_due(connection, self._root):
                    text = "completed an erasure in %s, which was killed or is newer than this copy of it: %s"
                    rows = erase.redo(connection, self._root)
                    extra = fields(store=self._root, rows=rows)
                    logger.warning(text, self._path, units.count(rows, "row"), extra=extra)
                self._find_gaps(connection)  # where this finds damage, nothing must have been deleted from shards yet
                scanned = self._scan()
                self._schema_version = int(connection.pragma("schema_version"))
                own = self._due(scanned, thorough)
                # a shard of the store that is named as well is merged once: it may be removed before its second turn
                own_paths = {run.file.path for run in own}
                due = [*own, *(run for run in sources if not run.quarantine and run.file.path not in own_paths)]
                self._meter.collect(paths.merge_lock(self._root), map(self._lock_path, scanned.names))
                self._merge_groups(connection, due, merge_pass)
                self._finish(connection, merge_pass, scanned, due, thorough)
                report = self._report([*due, *unreadable], merge_pass)
                report = attrs.evolve(report, refresh_error=self._refresh(merge_pass))
        except DamagedError:
            self._quota.abandon()
            self.abandon()
            # an error in reading may look like damage, and then the next merge tries again
            if (found := damage.confirm(self._path)) and damage.find(self._path) is None:
                damage.record(self._path, found)
            raise
        except BaseException as error:
            self._quota.abandon()
            self._forget()  # what is in the cache may be wrong now
            self._master.abandon(error)
            if isinstance(error, Exception):
                self._refresh(merge_pass)  # after rows that are committed
            raise
        if self._quota.is_exhausted:
            exhausted = self._quota.error(merge_pass.rows, len(self._cache.quarantined))
            if not self._watching:
                self.abandon()
            raise exhausted
        return attrs.evolve(report, seconds=time.monotonic() - began)

    def _refresh(self, merge_pass: MergePass) -> str:
        """Run the user's statements if rows came or went; return why that failed, or ""."""
        if not (merge_pass.rows or self._quota.dropped):
            return ""
        self._refresh_error = refresh.run(self._root, last_error=self._refresh_error)
        return self._refresh_error

    def _finish(
        self,
        connection: Connection,
        merge_pass: MergePass,
        scanned: ScanResult,
        due: Sequence[SourceRun],
        thorough: bool,
    ) -> None:
        """Do what follows the last commit of a pass: count, log, clean up and remember."""
        self._meter.add_rows(merge_pass.rows)
        for name in sorted(merge_pass.late_tables):
            text = "rows of table %s arrived after newer tombstones were collected: they may have been deleted before"
            logger.warning(text, name, extra=fields(store=self._root, table=name))
        if thorough and not merge_pass.is_stopping():
            self._remove_leftovers(scanned)
            names = scanned.names - {run.file.name for run in due if run.outcome.is_removed}
            self._cache.persist(connection, names, self._removals.take_known())
            self._forget_blocked_rows(connection, names)
            if not merge_pass.rows:
                store_clock.witness(connection)
        self._find_gaps(connection)
        if not self._watching or not (merge_pass.rows or self._profile.keeps_wal):
            self._master.shrink_wal()
        self._quota.make_space_for_writers(connection)
        self._quota.end()
        if self._watching and thorough:
            self._states.note_budget(self._quota.why_writers_are_refused())
            self._states.note_clock(clock_status.load(connection))

    def close(self) -> None:
        """Record in the master what was found in the shards, and close it.

        Raises:
            StorageError: the master cannot be written.
        """
        if not self._master.is_open:
            return
        try:
            with sqlite.translate_errors("merge into", str(self._path)), self._meter.running():
                self._cache.persist(self._master.connection, notes_known=self._removals.take_known())
                self._master.shrink_wal()
        finally:
            self.abandon()
            self._meter.leave(paths.merge_lock(self._root))

    def abandon(self) -> None:
        """Close the master, and remember nothing."""
        self._forget()
        self._master.close()

    def _begin(self) -> Connection:
        """Return the open master, after making sure of space for a step."""
        if not self._master.is_open:
            leftovers.remove(self._root)
        self._quota.begin()
        connection = self._open_master()
        self._quota.opened(connection)
        return connection

    def _open_master(self) -> Connection:
        """Return the open master; open it again if another file has its name now."""
        if self._master.is_open and not self._master.is_in_place():
            logger.warning(
                "%s was replaced; opening all shards again",
                self._path,
                extra=fields(store=self._root, state="replaced"),
            )
            self.abandon()
        if not self._master.is_open:
            self._cache.recall(self._master.open())
            self._removals.learn(self._master.connection)
        else:
            damage.ensure_not_known(self._path, "merge into")
        return self._master.connection

    def _warn_of_user_objects(self, connection: Connection) -> None:
        new = user_objects.note_new(connection)
        if new.triggers and not refresh.exists(self._root):
            text = "%s has triggers that do not fire when rows are merged: %s; see `edgeshard help manual-changes`"
            logger.warning(text, self._path, printable(", ".join(new.triggers)), extra=fields(store=self._root))
        if new.in_the_way:
            text = "%s lacks views of ours, because something made by hand has their names: %s; give it another name"
            logger.warning(text, self._path, printable(", ".join(new.in_the_way)), extra=fields(store=self._root))

    # -- which shards -------------------------------------------------------------------------------------------------

    def has_news(self) -> bool:
        """Return whether a pass would find something new, as far as the files show without being opened.

        Raises:
            AccessError, StorageIOError: the folder cannot be read.
        """
        return any(self._cache.is_changed(file) for file in self._scan().changed)

    def _scan(self) -> ScanResult:
        path = store_folder.resolve_shards(self._root)
        if path != self._folder.path:  # a link that leads elsewhere now
            self._folder = scan.Folder(path)
        return self._folder.scan(self._cache.states)

    def _due(self, scanned: ScanResult, thorough: bool) -> list[SourceRun]:
        """Return the shards to open in this pass."""
        self._cache.forget_all_but(scanned.names)
        due = {}
        for file in scanned.changed:
            entry = self._cache.get(file.name)
            if file.defect:
                self._cache.remember(file.name, CacheEntry((), file.defect))
            elif (
                entry is None
                or entry.state != file.state
                or entry.is_due_again(thorough=thorough, schema_version=self._schema_version)
            ):
                due[file.name] = file
        for name in self._cache.due_again(thorough=thorough, schema_version=self._schema_version):
            due.setdefault(name, self._unchanged(name))
        if thorough and not self._keep_empty:
            due.update(self._shards_of_ended_agents(due.keys()))
        return [
            SourceRun(file, own=True, copied=CopyProgress(checked=self._cache.checked(file)))
            for _, file in sorted(due.items())
        ]

    def _unchanged(self, name: str) -> ShardFile:
        return ShardFile(str(self._folder.path / name), self._cache.states[name])

    def _shards_of_ended_agents(self, due: Set[str]) -> dict[str, ShardFile]:
        """Return the shards whose agent has ended, from a sample of the unchanged ones."""
        unchanged = list(self._cache.states.keys() - due)
        sample = random.sample(unchanged, min(_AGENTS_CHECKED, len(unchanged)))
        return {file.name: file for file in map(self._unchanged, sample) if reap.has_agent_ended(file.path)}

    def _lock_path(self, name: str) -> str:
        return paths.lock_path(os.path.join(self._folder.path, name))

    # -- one group of sources -----------------------------------------------------------------------------------------

    def _merge_groups(self, connection: Connection, due: list[SourceRun], merge_pass: MergePass) -> None:
        """Merge all sources, so many at a time as can be attached together."""
        left, is_exhausted = due[:], False
        for group in attach.groups(due, lambda: self._quota.group_size):
            if merge_pass.is_stopping() or (self._quota.is_exhausted and self._quota.is_full):
                break
            self._quota.is_exhausted = False
            self._merge_group(connection, group, merge_pass)
            is_exhausted = is_exhausted or self._quota.is_exhausted
            del left[: len(group)]
        self._quota.is_exhausted = is_exhausted
        if is_exhausted:
            self._leave(left, merge_pass)

    def _merge_group(self, connection: Connection, group: list[SourceRun], merge_pass: MergePass) -> None:
        """Merge sources that are attached together, and remember how each of the store's shards was left."""
        for runs in self._attempts(connection, group, merge_pass):
            self._copy_and_truncate(connection, runs, merge_pass)
        for run in group:
            if run.quarantine and run.was_removed():
                run.quarantine = None
                self._cache.forget(run.file.name)
            elif run.own:
                if run.copied.unproven and not run.quarantine:
                    run.quarantine = Quarantine(_explain_unproven(run), is_lasting=True)
                self._remember(run, merge_pass.began_ns)

    def _attempts(
        self, connection: Connection, group: list[SourceRun], merge_pass: MergePass
    ) -> Iterator[list[SourceRun]]:
        """Yield the sources to copy together: first all, then each that failed, or has blocked rows, by itself.

        If the master lacks rows because another program deleted them, that is recorded, and the shards that still have
        them are tried again. Finally, yield all unfinished ones.
        """
        yield group
        is_schema_new = connection.pragma("schema_version") != self._schema_version
        for run in group:
            # a source that failed together with others may not be the one at fault, and what was blocked may fit now
            may_succeed = len(group) > 1 if run.quarantine else is_schema_new and bool(run.copied.blocked)
            if may_succeed and not merge_pass.is_stopping():
                _begin_again(run)
                yield [run]
        found_lacking = [run for run in group if run.quarantine and run.quarantine.is_masters]
        if found_lacking and not merge_pass.is_stopping() and by_hand.record_all(connection, self._path):
            for run in found_lacking:
                _begin_again(run)
                yield [run]
        yield from self._attempts_within_budget(connection, group, merge_pass)

    def _attempts_within_budget(
        self, connection: Connection, group: list[SourceRun], merge_pass: MergePass
    ) -> Iterator[list[SourceRun]]:
        """Yield the sources that have more to copy, now that truncating shards has freed space."""
        dropped_at = alone_at = -1  # how many rows were merged when that was done last
        while self._quota.budget is not None and not merge_pass.is_stopping():
            left = [run for run in group if not run.copied.is_finished and not run.quarantine]
            if not left:
                return
            is_short = self._quota.is_exhausted
            if is_short and not self._quota.await_quotas():
                if dropped_at != merge_pass.rows and self._quota.make_space_for_chunk(connection):
                    dropped_at = merge_pass.rows
                elif alone_at == merge_pass.rows:
                    return
            self._quota.is_exhausted = False
            if is_short:
                # one by one: SQLite makes a -shm file next to each that is attached, and what one needs for a large
                # transaction is not needed for the others
                alone_at = merge_pass.rows
                yield from ([run] for run in left)
            else:
                yield left

    def _copy_and_truncate(self, connection: Connection, runs: list[SourceRun], merge_pass: MergePass) -> None:
        """Copy what the sources have, in transactions of limited size; then truncate or remove the shards."""
        with attach.attached(connection, runs) as left:
            if merge_pass.progress is not None:
                merge_pass.rows_to_do += _count_pending(connection, left)
            while left:
                try:
                    with self._quota.chunk(connection, merge_pass, partial(_has_pending, connection, left)):
                        chunk.commit_chunk(connection, left, merge_pass)
                    self.commits += 1
                except QuotaExhaustedError:
                    break
                if merge_pass.progress is not None:
                    merge_pass.progress(merge_pass.rows, merge_pass.rows_to_do)
                left = [run for run in left if not run.copied.is_finished and not run.quarantine]
                if merge_pass.is_stopping() or self._quota.is_near_limit:
                    break
            self._truncate_or_remove(connection, runs, merge_pass)
        attach.remove_empty_wals(runs)

    def _truncate_or_remove(self, connection: Connection, runs: list[SourceRun], merge_pass: MergePass) -> None:
        """Remove the shards of agents that have ended; truncate the others, or leave that for later.

        The last connection to leave a shard removes its WAL, and one that only reads cannot. So the shard is detached
        before the connection that truncates it is closed.
        """
        master_id = identity.database_id(connection)
        removable = [run for run in runs if run.outcome.is_removable and not run.quarantine]
        # a process that may open few files attaches one source at a time, and cannot open it a second time as well
        for run in removable if len(runs) > 1 else runs:
            attach.detach(connection, run)
        if removable:
            self._master.ensure_in_place()
            self._removals.note(removable, master_id, self._quota.budget)
        deletable = [run for run in runs if self._is_deletable(run)]
        for run in deletable:
            run.outcome.state = run.file.state
        self._remove([run for run in deletable if run.outcome.is_removable], merge_pass)
        for run in deletable:
            if run.copied.durable and not (run.outcome.is_removed or run.quarantine or merge_pass.is_stopping()):
                self._master.ensure_in_place()
                with _quarantining(run):
                    self._truncate(run, master_id, partial(attach.detach, connection, run), merge_pass)

    def _is_deletable(self, run: SourceRun) -> bool:
        """Return whether rows of a source may be deleted from it, as far as the master holds them."""
        is_done = run.copied.is_finished or (self._quota.is_near_limit and bool(run.copied.durable))
        return run.own and is_done and not run.quarantine

    def _remove(self, runs: Sequence[SourceRun], merge_pass: MergePass) -> None:
        """Remove shards of agents that have ended, in groups; those that cannot be removed stay."""
        for run in runs:
            self._meter.collect_from(paths.lock_path(run.file.path))  # the lock file is removed as well
        left = [(run, reap.Removal(run.source, run.attached_file, run.copied.durable)) for run in runs]
        while left and not merge_pass.is_stopping():
            self._master.ensure_in_place()
            done = reap.remove([removal for _, removal in left], self._master.ensure_in_place)
            for run, removal in left[:done]:
                if removal.is_removed:
                    run.outcome.is_removed = True
                    merge_pass.removed += 1
                    merge_pass.truncated += run.copied.rows_in_source
                elif removal.error is not None:
                    with _quarantining(run):
                        raise removal.error
            del left[:done]

    def _truncate(self, run: SourceRun, master_id: bytes, detach: Callable[[], None], merge_pass: MergePass) -> None:
        run.outcome.has_merged_rows = True
        is_patient = self._watching and not self._quota.is_near_limit
        held_s = self._held_s(run)
        if is_patient and not truncate.is_truncation_due(
            run.copied.rows, run.copied.used_bytes, run.file.wal_bytes, held_s, self._profile.held_s
        ):
            return
        seen = run.copied.seen if run.copied.is_finished else None
        truncated = truncate.truncate(
            run.source,
            run.attached_file,
            run.copied.durable,
            master_id,
            detach,
            is_patient,
            self._quota.truncation_bytes(),
            seen,
            self._erasing,
        )
        if truncated is None:
            logger.debug(
                "%s is busy, or was replaced; it is truncated at the next merge",
                printable(run.file.path),
                extra=fields(store=self._root, shard=run.file.path),
            )
        else:
            run.had_no_wal, run.outcome = False, ShardOutcome(state=truncated.state)
            merge_pass.truncated += truncated.rows

    def _held_s(self, run: SourceRun) -> float:
        """Return for how long a shard has kept rows that the master holds."""
        entry = self._cache.get(run.file.name)
        return 0.0 if entry is None or entry.held_since is None else time.monotonic() - entry.held_since

    def _leave(self, runs: Sequence[SourceRun], merge_pass: MergePass) -> None:
        """Leave shards to the next pass because there is no quota; what was wrong with them still is."""
        for run in runs:
            if run.own:
                self._remember(run, merge_pass.began_ns)

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def _remember(self, run: SourceRun, began_ns: int) -> None:
        """Remember in which state the pass left a shard."""
        name, files = run.file.name, fingerprint.files(run.file.state)
        if run.copied.rows:
            self._cache.record_rows(name)
        if run.outcome.is_removed:
            self._cache.forget(name)
            logger.debug(
                "removed %s: its agent has ended, and the master holds its rows",
                printable(run.file.path),
                extra=fields(store=self._root, shard=run.file.path, state="removed"),
            )
        elif run.quarantine:
            reason = run.quarantine.reason
            settled = scan.is_settled(run.file.state, began_ns)
            # a read that fails may look like damage, so damage is believed only if it is found twice in a row
            lasting = run.quarantine.is_lasting and self._cache.reason_of(name) == reason
            entry = CacheEntry(run.file.state, reason, lasting, settled, is_denied=run.quarantine.is_denied)
            self._cache.remember(name, entry)
        elif not run.copied.is_finished:
            # without quota it may not even have been read, so what was wrong with it may still be
            reason = "" if run.copied.rows else self._cache.reason_of(name)
            is_denied = bool(reason) and self._cache.is_denied(name)
            entry = CacheEntry((), reason, checked=run.copied.checked, files=files, is_denied=is_denied)
            self._cache.remember(name, entry)
        else:
            held_since = time.monotonic() - self._held_s(run) if run.outcome.has_merged_rows else None
            settled = scan.is_settled(run.outcome.state, began_ns)
            # rows after a blocked one stay in the shard
            checked = run.copied.checked if run.outcome.has_merged_rows or run.copied.blocked else {}
            blocked_by = self._schema_version if run.copied.blocked else None
            entry = CacheEntry(
                run.outcome.state,
                settled=settled,
                held_since=held_since,
                checked=checked,
                blocked_by=blocked_by,
                files=files,
            )
            self._cache.remember(name, entry)

    def _remove_leftovers(self, scanned: ScanResult) -> None:
        """Remove what killed openings of shards left."""
        unfinished: dict[str, list[str]] = {stem: [] for stem in scanned.locks if not self._keep_empty}
        for name in scanned.unfinished:
            if match := paths.UNFINISHED_SHARD.fullmatch(name):
                unfinished.setdefault(match[1], []).append(name)
        for stem in sorted(unfinished)[:_LEFTOVERS_REMOVED]:
            try:
                reap.remove_leftovers(paths.shard_lock(self._folder.path, stem), unfinished[stem])
            except EdgeshardError as error:  # other files there do no harm
                logger.debug("%s", error)

    def _forget_blocked_rows(self, connection: Connection, names: Set[str]) -> None:
        """Forget the blocked rows of shards that are no longer there: they are missing now."""
        gone = {Path(each.path).name for each in self._blocked} - names
        if self._gaps is None:
            gone = blocked_rows.shards(connection) - names
        if gone:
            with sqlite.immediate(connection):
                blocked_rows.forget(connection, gone)
            self._gaps = None

    def _find_gaps(self, connection: Connection) -> None:
        generation = identity.generation(connection)
        if self._gaps is None or generation != self._generation:
            self._gaps = tuple(itertools.islice(row_states.gaps(connection), GAPS_MAX))
            self._missing_rows = row_states.missing_rows(connection)
            self._blocked = tuple(
                Blocked(str(self._folder.path / name), table, rows, cause)
                for name, table, cause, rows in blocked_rows.count(connection)
            )
        self._generation = generation

    def _report(self, runs: Sequence[SourceRun], merge_pass: MergePass) -> MergeReport:
        quarantined = [
            Quarantined(run.file.path, run.quarantine.reason, run.quarantine.is_denied)
            for run in runs
            if run.quarantine and not run.own
        ]
        for name, reason in self._cache.quarantined.items():
            quarantined.append(Quarantined(str(self._folder.path / name), reason, self._cache.is_denied(name)))
        quarantined.sort(key=lambda item: item.path)
        blocked = [
            Blocked(run.file.path, conflict.table, rows, conflict.cause)
            for run in runs
            if not run.own and not run.quarantine
            for conflict, rows in blocked_counts(run.copied.blocked).items()
        ]
        own = {item.path for item in self._blocked}  # which may have been named as well
        blocked = [*self._blocked, *(item for item in blocked if item.path not in own)]
        blocked.sort(key=lambda item: (item.path, item.table, item.reason))
        self._states.note_databases(quarantined, blocked)
        self._states.note_gaps(self._gaps or ())
        report = MergeReport(
            rows=merge_pass.rows,
            truncated=merge_pass.truncated,
            removed=merge_pass.removed,
            shards=sum(1 for run in runs if run.schema),
            quarantined=tuple(quarantined),
            blocked=tuple(blocked),
            gaps=self._gaps or (),
            missing_rows=self._missing_rows,
            stopped=merge_pass.stopped,
            dropped=self._quota.dropped,
            forgotten_streams=self._quota.forgotten_streams,
        )
        for result in self._quota.retention_results:
            report = result.add_to_report(report)
        return report


@contextlib.contextmanager
def _quarantining(run: SourceRun) -> Iterator[None]:
    """Quarantine a shard from which rows cannot be deleted."""
    try:
        yield
    except OutOfDescriptorsError:
        raise
    except (EdgeshardError, *sqlite.DATA_ERRORS) as error:
        cause = error.cause if isinstance(error, EdgeshardError) else error
        run.quarantine = Quarantine(
            f"its rows are merged, but cannot be deleted from it: {cause}", is_denied=isinstance(error, AccessError)
        )


def _begin_again(run: SourceRun) -> None:
    """Forget how far the merge has come with a source that is to be tried again."""
    run.quarantine = None
    run.copied.is_finished, run.copied.durable, run.copied.unproven = False, {}, {}
    run.copied.blocked = {}
    run.outcome.is_removable = False  # until a commit says so again


def _explain_unproven(run: SourceRun) -> str:
    stream_id, (first, *_) = next(iter(run.copied.unproven.items()))
    rows = sum(map(size, run.copied.unproven.values()))
    stay = "stays" if rows == 1 else "stay"
    return (
        f"{units.count(rows, 'row')} {stay} in it, such as seqs {first.first} to {first.last} of stream "
        f"{stream_id.hex()}: the master got rows with these addresses from elsewhere and pruned them, so that it "
        "cannot compare them. All else in it is merged. To keep them, stop its agent, merge once more, and "
        f"merge the file into a store of its own (Store.merge([{run.file.path!r}])). Then move it and its -wal away"
    )


def _has_pending(connection: Connection, runs: Iterable[SourceRun]) -> bool:
    return _count_pending(connection, runs) > 0


def _count_pending(connection: Connection, runs: Iterable[SourceRun]) -> int:
    rows = 0
    with sqlite.read_snapshot(connection):
        target = Target.load(connection)
        for run in runs:
            # what is wrong with a source is found, and reported, when it is copied
            with contextlib.suppress(EdgeshardError, *sqlite.DATA_ERRORS):
                rows += survey(target, run.open(connection)).rows
    return rows
