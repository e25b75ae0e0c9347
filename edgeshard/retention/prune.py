"""A whole prune: rule by rule, window by window, with room between for mergers; then the disk gets its pages back."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.budget import policy, usage
from edgeshard.errors import ConfigurationError
from edgeshard.format.ranges import Range
from edgeshard.master import arrivals, catalog, database, extents, identity, receipts, write_stats
from edgeshard.records import codecs, keys
from edgeshard.reports import PruneReport
from edgeshard.retention import plan, rules, shrink, tombstones, window
from edgeshard.retention.rules import Rules
from edgeshard.retention.shrink import can_shrink, log_bytes, page_bytes
from edgeshard.retention.window import Scope
from edgeshard.sqlite import Connection, quote

#: Called with (rows done, rows to do) as a prune goes on; the second is an estimate.
Progress = Callable[[int, int], None]

#: Between two transactions, in seconds: whoever waits for the lock asks for it every 2 ms (database.set_patience).
_PAUSE_S = 0.005

#: What a row may take of a short log before that is known: its page, and one of each of some indexes.
_PAGES_A_ROW: Final = 4

#: As few rows are deleted at a time as a size comes near: less is deleted too much.
_LAST_ROWS = 10


@attrs.define
class _Pass:
    """What a prune is to do, and what it has done."""

    connection: Connection
    path: str
    rules: Rules
    scope: Scope
    should_stop: Callable[[], bool]
    progress: Progress | None
    dry_run: bool
    peers: list[receipts.Peer] = attrs.Factory(list)
    held: Mapping[int, Sequence[Range]] = attrs.Factory(dict)
    row_bytes: float = 0.0
    to_do: int = 0
    by_reason: dict[str, int] = attrs.Factory(dict)
    kept_back: int = 0
    behind: int = 0
    unheard: int = 0
    why: tombstones.Why = attrs.Factory(tombstones.Why)
    collected: tuple[str, ...] = ()
    size_rows: int = attrs.Factory(lambda: plan.ROWS_FIRST)
    stopped: bool = False
    log_pages: int | None = None
    meter: write_stats.Meter = attrs.Factory(write_stats.Meter)

    @property
    def rows(self) -> int:
        return sum(self.by_reason.values())

    def is_stopping(self) -> bool:
        self.stopped = self.stopped or self.should_stop()
        return self.stopped

    def may_go(self) -> Mapping[int, Sequence[Range]] | None:
        """Of each stream, by its number here, the seqs that may go, as of this transaction; None: all of all.

        A receipt that comes meanwhile may say that peers hold less than they did.
        """
        if self.rules.spared:
            return self._of_others()
        kinds = self.rules.kinds
        if kinds is None:
            return None
        peers = receipts.peers(self.connection)
        if peers != self.peers:
            sql = "SELECT stream_id, stream_no FROM edgeshard_streams"
            numbers = dict(sqlite.fetch(self.connection, sql))
            held = receipts.held_elsewhere(self.connection, kinds)
            self.peers, self.held = peers, {numbers[stream_id]: ranges for stream_id, ranges in held.items()}
        return self.held

    def _of_others(self) -> Mapping[int, Sequence[Range]]:
        """All that agents have that are not spared; what they bring from now on is the newest, and not asked for."""
        if not self.held:
            sql = "SELECT stream_no, agent_id, last_seq FROM edgeshard_streams WHERE last_seq > 0"
            self.held = {
                number: [Range(1, last)]
                for number, agent, last in sqlite.fetch(self.connection, sql)
                if agent not in self.rules.spared
            }
        return self.held

    def limit_log(self, pages: int | None) -> None:
        """Have the log no longer than about twice that; None: as long as is good."""
        self.log_pages = pages
        if pages is not None:
            self.size_rows = max(plan.ROWS_FEWEST, pages // _PAGES_A_ROW)

    def has_room(self) -> bool:
        """Whether the log may grow: one that somebody reads cannot be begun anew, and is no reason to take more."""
        if self.log_pages is None or self.rules.size_reason != rules.BUDGET:
            return True
        most = self.log_pages * shrink.page_bytes(self.connection) * (policy.PRUNE_LOGS - 1)
        if shrink.log_bytes(self.path) > most:
            sqlite.shrink_wal(self.connection)
        return shrink.log_bytes(self.path) <= most

    def done(self, reason: str, goes: window.Going) -> None:
        if goes.rows:
            self.by_reason[reason] = self.by_reason.get(reason, 0) + goes.rows
        self.kept_back += goes.kept_back
        self.behind += goes.behind
        self.unheard += goes.unheard
        if self.progress is not None:
            self.progress(self.rows, max(self.to_do, self.rows))


def prune(
    path: Path,
    asked: Rules,
    *,
    shrink: bool = False,
    dry_run: bool = False,
    lock_wait_s: float = sqlite.BUSY_TIMEOUT_S,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> PruneReport:
    """Delete what the rules ask for from a master.

    Args:
        path: the master.
        asked: what is to go.
        shrink: give all free pages back to the disk; without this only as many as `Rules.max_bytes` asks for.
        dry_run: say what would be done, and do nothing.
        lock_wait_s: how long to wait, in each step, for somebody who holds the master locked, in seconds.
        should_stop: asked after each step; once it says yes the prune ends, with what it committed.
        progress: called as the work goes on.

    Raises:
        ConfigurationError: there is no such table.
        StorageError: the master cannot be read or written. What was committed stays.
    """
    began, log_pages = time.monotonic(), None
    connection = database.open_master(path, writable=not dry_run)
    try:
        with database.translate_errors("prune", path):
            if not dry_run:
                # what is measured is the database, and not how much of it waits in the log
                sqlite.shrink_wal(connection)
                log_pages = _limit_log(connection, path)
            sqlite.set_busy_timeout(connection, lock_wait_s)
            done = _begin(connection, path, asked, should_stop, progress, dry_run=dry_run)
            done.limit_log(log_pages)
            with done.meter.running():
                fits = _prune(done, began_s=time.time())
                shrunk = 0 if dry_run else _tidy(done, shrink=shrink)
            report = _report(done, shrunk, fits=fits)
    finally:
        connection.close()
    return attrs.evolve(report, seconds=time.monotonic() - began)


def _limit_log(connection: Connection, path: Path) -> int | None:
    """Keep the log short where the store has a budget; how long it may become, in pages."""
    limit = usage.limit(path.parent)
    if limit is None:
        return None
    log_bytes = policy.prune_log_bytes(limit)
    database.set_wal_limits(connection, log_bytes)
    return max(1, log_bytes // shrink.page_bytes(connection))


def _begin(
    connection: Connection,
    path: Path,
    asked: Rules,
    should_stop: Callable[[], bool],
    progress: Progress | None,
    *,
    dry_run: bool,
) -> _Pass:
    with sqlite.read_snapshot(connection):
        keyed = catalog.load_keys(connection)
        kept = tuple(table for name, key in keyed.items() for table, _ in keys.changed_tables(name, key))
        table = _table(connection, path, asked.table)
        if table is not None and not asked.asks_for_deletions_alone:
            _ensure_not_kept(path, table, kept)
        collected = _collected(path, asked, table, keyed)
        scope = Scope(str(path), tables=asked.tables if table is None else (table,), kept=kept)
        used = sqlite.used_bytes(connection)
        rows = sqlite.scalar(connection, "SELECT sum(last - first + 1) FROM edgeshard_blocks") or 0
    done = _Pass(connection, str(path), asked, scope, should_stop, progress, dry_run)
    done.row_bytes = used / max(1, rows)
    done.collected = collected
    return done


def _table(connection: Connection, path: Path, asked: str | None) -> str | None:
    """The table that was asked for, as it is spelt there."""
    if asked is None:
        return None
    names = {name.lower(): name for name in catalog.record_tables(connection)}
    if asked.lower() not in names:
        cause = f"there is no table {asked!r:.120} in it; it has {', '.join(sorted(names.values()))}"
        raise ConfigurationError("prune", path, cause)
    return names[asked.lower()]


def _ensure_not_kept(path: Path, table: str, kept: Sequence[str]) -> None:
    if table.lower() in {name.lower() for name in kept}:
        cause = (
            f"table {table} has a key: its rows are the newest of theirs, and older ones would come back; delete by key"
        )
        raise ConfigurationError("prune", path, cause)


def _collected(path: Path, asked: Rules, table: str | None, keyed: Mapping[str, keys.Key]) -> tuple[str, ...]:
    """The keyed tables of which deletions may go."""
    if asked.deletions_older_than_s is None:
        return ()
    names = [name for name, key in keyed.items() if key.deletes]
    if table is None:
        return tuple(names)
    found = tuple(name for name in names if table.lower() in (name.lower(), keys.deleted_name(name).lower()))
    if not found and asked.asks_for_deletions_alone:
        cause = f"table {table} has no deletions: it has no key, or a rule that knows none"
        raise ConfigurationError("prune", path, cause)
    return found


# -- the rules, one after the other -----------------------------------------------------------------------------------


def _prune(done: _Pass, began_s: float) -> bool:
    """Follow each rule; whether the master then fits."""
    position = 1
    for reason, bound in _bounds(done, began_s):
        if done.progress is not None:
            done.to_do = max(done.to_do, _rows_below(done, bound))
        position = _until(done, reason, position, bound, _never)
    _collect(done)
    if done.rules.max_bytes is None or done.is_stopping():
        return True
    return _make_room(done, position, done.rules.max_bytes)


def _bounds(done: _Pass, began_s: float) -> Iterator[tuple[str, int]]:
    """Of each rule the id below which rows go."""
    if done.rules.older_than_s is not None:
        with sqlite.read_snapshot(done.connection):
            bound = arrivals.first_since(done.connection, began_s - done.rules.older_than_s)
            bound = identity.next_id(done.connection) if bound is None else bound
            bound = _whole(done.connection, bound)
        yield rules.OLDER_THAN, bound
    if done.rules.keep_rows is not None:
        with sqlite.read_snapshot(done.connection):
            bound = _whole(done.connection, _newest(done, done.rules.keep_rows))
        yield rules.KEEP_ROWS, bound


def _newest(done: _Pass, rows: int) -> int:
    """The id of the first of so many of the newest rows; 1 where there are no more."""
    if rows == 0:
        return identity.next_id(done.connection)
    kept = {name.lower() for name in done.scope.kept}
    names = done.scope.tables or [name for name in catalog.record_tables(done.connection) if name.lower() not in kept]
    # in order, so that SQLite goes through all tables at the same time, and collects nothing
    ids = " UNION ALL ".join(f"SELECT _id FROM {quote(name)}" for name in names)
    found = sqlite.scalar(done.connection, f"{ids} ORDER BY 1 DESC LIMIT 1 OFFSET ?", (rows - 1,))
    return 1 if found is None else int(found)


def _whole(connection: Connection, bound: int) -> int:
    """The bound, or before it where it would divide a transaction."""
    across = extents.transaction_at(connection, bound - 1)
    return across.first if across is not None and across.last >= bound else bound


def _rows_below(done: _Pass, bound: int) -> int:
    sql = "SELECT sum(min(last, first + ? - 1 - first_id) - first + 1) FROM edgeshard_blocks WHERE first_id < ?"
    return sqlite.scalar(done.connection, sql, (bound, bound)) or 0


def _make_room(done: _Pass, position: int, max_bytes: int) -> bool:
    """Delete the oldest rows until the master takes no more than that; whether it does."""
    log = shrink.log_bytes(done.path)
    # a log that somebody's long read keeps from being emptied must not be a reason to delete everything
    room = max(max_bytes - log, max_bytes // 2)

    def excess() -> int:
        freed = done.rows * done.row_bytes if done.dry_run else 0
        return int(sqlite.used_bytes(done.connection) - freed) - room

    if done.progress is not None and excess() > 0:
        done.to_do = done.rows + int(excess() / max(1.0, done.row_bytes))
    bound = identity.next_id(done.connection)

    def enough() -> bool:
        over = excess()
        done.size_rows = min(done.size_rows, max(_LAST_ROWS, int(over / max(1.0, done.row_bytes))))
        return over <= 0

    _until(done, done.rules.size_reason, position, bound, enough)
    return excess() <= 0


def _never() -> bool:
    return False


def _until(done: _Pass, reason: str, position: int, bound: int, enough: Callable[[], bool]) -> int:
    """Delete what is allowed from `position` on and below `bound`; where the next rule goes on."""
    while not done.is_stopping() and not enough() and done.has_room():
        ids = _step(done, reason, functools.partial(_follow, done, reason, position, bound))
        if ids is None:
            break
        position = ids.last + 1
    return position


def _collect(done: _Pass) -> None:
    """Delete the deletions that may go, a table after the other."""
    grace_s = done.rules.deletions_older_than_s
    if grace_s is None or done.is_stopping():
        return
    old = tombstones.find(done.connection, Path(done.path), done.collected, grace_s)
    if old is None:
        return
    peers = tombstones.Peers()
    for name in old.tables:
        ids: Range | None = Range(0, 0)
        while ids is not None and not done.is_stopping():
            follow = functools.partial(_follow_deletions, done, old, peers, name, ids.last + 1)
            ids = _step(done, rules.DELETIONS, follow)


def _step(done: _Pass, reason: str, follow: Callable[[], window.Going | None]) -> Range | None:
    """One window, and time for others; which, or None where none is left."""
    logged = sqlite.wal_pages_written(done.connection)
    with sqlite.read_snapshot(done.connection) if done.dry_run else sqlite.immediate(done.connection):
        began = time.monotonic()  # until here we waited for others; from here on they wait for us
        goes = follow()
    took_s = time.monotonic() - began
    done.size_rows = plan.next_rows(done.size_rows, took_s)
    if goes is None:
        return None
    if done.log_pages is not None and goes.rows:
        logged = sqlite.wal_pages_written(done.connection) - logged
        done.size_rows = min(done.size_rows, plan.fitting_rows(goes.rows, logged, done.log_pages))
    done.done(reason, goes)
    if not done.dry_run:
        time.sleep(max(_PAUSE_S, took_s / 2))
    return goes.window.ids


def _follow(done: _Pass, reason: str, position: int, bound: int) -> window.Going | None:
    """Follow a rule in the next window, in the caller's transaction; what goes, or None where no window is left."""
    connection = done.connection
    scope = attrs.evolve(done.scope, may_go=done.may_go())
    if done.rules.spared:
        position = _first_of_others(connection, done.rules.spared, position)
    ids = window.window_from(connection, scope, position, bound, done.size_rows)
    goes = None if ids is None else window.going(connection, scope, ids)
    if goes is not None and goes.rows and not done.dry_run:
        window.apply(connection, scope, goes, reason)
    else:
        connection.execute("ROLLBACK")
    return goes


def _first_of_others(connection: Connection, spared: Sequence[str], position: int) -> int:
    """The first id from one on that is not of these agents, whose rows are passed over at once, and not in steps."""
    sql = (
        "SELECT min(max(first_id, ?1)) FROM edgeshard_blocks JOIN edgeshard_streams USING (stream_no) "
        "WHERE first_id + last - first >= ?1 AND agent_id NOT IN (SELECT value FROM json_each(?2))"
    )
    first = sqlite.scalar(connection, sql, (position, codecs.to_json(list(spared))))
    return identity.next_id(connection) if first is None else int(first)


def _follow_deletions(
    done: _Pass, old: tombstones.Old, peers: tombstones.Peers, name: str, position: int
) -> window.Going | None:
    """Follow the rule of deletions in the next window of a keyed table's."""
    connection = done.connection
    scope = attrs.evolve(done.scope, may_go=done.may_go(), tables=(keys.deleted_name(name),))
    ids = window.window_from(connection, scope, position, old.bound, done.size_rows)
    goes = None if ids is None else tombstones.going(connection, scope, ids, old, peers, done.why)
    if goes is not None and goes.rows and not done.dry_run:
        tombstones.apply(connection, scope, name, goes)
    else:
        connection.execute("ROLLBACK")
    return goes


# -- the disk ---------------------------------------------------------------------------------------------------------


def _tidy(done: _Pass, *, shrink: bool) -> int:
    """Give pages back, and forget what is said of rows that are gone; how many bytes."""
    connection = done.connection
    before = int(connection.pragma("page_count"))
    if can_shrink(connection):
        _shrink(done, 0 if shrink else _wanted_pages(done))
    if done.rows:
        with sqlite.immediate(connection):
            arrivals.forget_before(connection, _oldest(connection))
            done.meter.record(connection, log_bytes(done.path))  # all that comes after this is the log's end
    sqlite.shrink_wal(connection)
    return max(0, before - int(connection.pragma("page_count"))) * page_bytes(connection)


def _oldest(connection: Connection) -> int:
    sql = "SELECT _id FROM {} ORDER BY _id LIMIT 1"
    ids = [sqlite.scalar(connection, sql.format(quote(name))) for name in catalog.record_tables(connection)]
    return min((row_id for row_id in ids if row_id is not None), default=identity.next_id(connection))


def _wanted_pages(done: _Pass) -> int:
    """The pages that the file may have."""
    if done.rules.max_bytes is None:
        return int(done.connection.pragma("page_count"))
    return max(0, done.rules.max_bytes - shrink.log_bytes(done.path)) // shrink.page_bytes(done.connection)


def _shrink(done: _Pass, wanted: int) -> None:
    """Give pages back until the file has no more than that, or none is free."""
    step_pages, shrunk = shrink.PAGES_FIRST, 1
    most = shrink.PAGES_MOST if done.log_pages is None else max(1, done.log_pages // 2)
    while shrunk and not done.is_stopping() and done.has_room():
        with sqlite.immediate(done.connection):
            began = time.monotonic()
            before = int(done.connection.pragma("page_count"))
            pages = min(step_pages, most, int(done.connection.pragma("freelist_count")), before - wanted)
            if pages > 0:
                shrink.shrink_by(done.connection, pages)
            shrunk = before - int(done.connection.pragma("page_count"))
        took_s = time.monotonic() - began
        step_pages = shrink.next_pages(step_pages, took_s)
        time.sleep(max(_PAUSE_S, took_s / 2))


def _report(done: _Pass, shrunk: int, *, fits: bool) -> PruneReport:
    connection = done.connection
    log = shrink.log_bytes(done.path)
    return PruneReport(
        rows=done.rows,
        by_reason=dict(done.by_reason),
        kept_back=done.kept_back,
        tombstones_behind=done.behind,
        behind=tuple(sorted(done.why.behind)),
        tombstones_unheard=done.unheard,
        unheard=tuple(sorted(done.why.unheard)),
        used_bytes=sqlite.used_bytes(connection) + log,
        file_bytes=int(connection.pragma("page_count")) * shrink.page_bytes(connection),
        wal_bytes=log,
        free_bytes=shrink.free_bytes(connection),
        shrunk_bytes=shrunk,
        can_shrink=shrink.can_shrink(connection),
        fits=fits,
        dry_run=done.dry_run,
        stopped=done.stopped,
    )
