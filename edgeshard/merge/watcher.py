"""A merger that watches a store: it merges new rows promptly, and costs nothing while there are none.

    pass -- rows found --> wait until the interval is over --> pass ...
      |                                                         |
      no rows: watch, scan once more, sleep  <------------------+
      ^                                |
      +---- pass <-- first event, or a rescan is due, or a signal

While rows come nothing is watched: events for each commit would cost the writers a fifth of their throughput. The scan
after the watch began closes the gap between the last pass and the watch. An event only ever means "scan again"; the
rescan is what guarantees that everything is found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs
from filelock import FileLock

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, EdgeshardError, StorageIOError, quoted
from edgeshard.files import fingerprint, folders, lock_holder, lock_pulse, paths, store_folder
from edgeshard.files import locks as file_locks
from edgeshard.log_fields import fields
from edgeshard.merge import locks
from edgeshard.merge.folder_watch import FolderWatch
from edgeshard.merge.listener import Listener
from edgeshard.merge.merger import Merger
from edgeshard.options import MAX_INTERVAL_S, OBSERVERS
from edgeshard.retention import store_rules
from edgeshard.retention.scheduler import PruneScheduler
from edgeshard.retention.store_rules import Retention
from edgeshard.shard import write_profile
from edgeshard.shard.write_profile import WriteProfile

logger = logging.getLogger("edgeshard.merge")

#: How often a watcher that stands by asks whether it is its turn, at least, in seconds. That takes 50 µs.
_LONGEST_STANDBY_S: Final = 5.0


@attrs.frozen
class _Settings:
    """How a watcher works.

    Attributes:
        root: the store's folder.
        interval_s: the least time between the beginnings of two passes under load, in seconds.
        rescan_s: how often all shards are scanned thoroughly, event or no event, in seconds.
        observer: one of `OBSERVERS`.
        waits: whether the first row after a quiet time waits for the interval, so that it is merged with others.
    """

    root: Path
    interval_s: float
    rescan_s: float
    observer: str
    waits: bool

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return paths.shards(self.root)

    def check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigurationError: one of them is not valid.
        """
        for name, value in (("interval", self.interval_s), ("rescan", self.rescan_s)):
            if not isinstance(value, (int, float)) or not 0 < value <= MAX_INTERVAL_S:
                cause = (
                    f"{name} must be a number of seconds above 0 and up to {MAX_INTERVAL_S:.0f}, got {quoted(value)}"
                )
                raise ConfigurationError("watch store", self.root, cause)
        if self.observer not in OBSERVERS:
            cause = f"observer must be one of {', '.join(OBSERVERS)}, got {quoted(self.observer)}"
            raise ConfigurationError("watch store", self.root, cause)


class _Requests:
    """Requests to a watcher from signal handlers and other threads.

    Attributes:
        queue: wakes the watcher. An item is the number of the watch that saw a change, or 0. Not an Event: its
            set() in a signal handler could wait forever for a lock that the interrupted code holds.
        is_stopping: whether to end.
        is_rescan_wanted: whether to scan all shards thoroughly now.
    """

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.is_stopping = False
        self.is_rescan_wanted = False

    def stop(self) -> None:
        self.is_stopping = True
        self.queue.put(0)

    def rescan(self) -> None:
        self.is_rescan_wanted = True
        self.queue.put(0)


@attrs.define
class _Progress:
    """Where a watcher is.

    Attributes:
        began: when the last pass began (monotonic, seconds).
        found_rows: how many rows it found.
        rescan_at: when to scan all shards thoroughly again (monotonic, seconds).
        is_unprompted: whether the next pass is made for no other reason than that a rescan is due.
        failures: how many attempts failed since all worked.
        is_retrying: whether the last attempt failed.
        failed_with: the class and the path of the error that the log has, or None if all works.
        commits: how many commits of the merger others were told of.
    """

    began: float = 0.0
    found_rows: int = 0
    rescan_at: float = 0.0
    is_unprompted: bool = False
    failures: int = 0
    is_retrying: bool = False
    failed_with: tuple[type[EdgeshardError], str] | None = None
    commits: int = 0


class Watcher:
    """Merges the new rows of one store until `stop` is called.

    Args:
        root: the store's folder; it is made if it does not exist.
        interval_s: the least time between the beginnings of two passes under load, in seconds.
        rescan_s: how often all shards are scanned thoroughly, event or no event, in seconds.
        observer: one of `OBSERVERS`.
        keep_empty: keep the shards of agents that have ended.
        listener: is called for what the watcher does.
        prune: the rules by which the master is pruned now and then, between passes.
        profile: the write profile.

    Raises:
        ConfigurationError: an argument that cannot work.
    """

    def __init__(
        self,
        root: Path,
        *,
        interval_s: float = 1.0,
        rescan_s: float = 30.0,
        observer: str = "auto",
        keep_empty: bool = False,
        listener: Listener | None = None,
        prune: Retention = store_rules.NONE,
        profile: WriteProfile = write_profile.NORMAL,
    ) -> None:
        self._settings = _Settings(root, interval_s, rescan_s, observer, profile.waits)
        self._settings.check()
        self._listener = listener or Listener()
        self._requests = _Requests()
        self._progress = _Progress()
        self._lock = _WatchLock(root, rescan_s, self._should_stop)
        self._watch = FolderWatch(self._settings.shards, observer, interval_s, self._requests.queue.put)
        self._merger = Merger(
            root, keep_empty=keep_empty, watching=True, should_stop=self._should_stop, profile=profile, prune=prune
        )
        self._scheduler = _scheduler(root, prune, profile)
        self._turn = threading.RLock()  # held while the merger uses the master and the shards
        sqlite.await_turn(self._turn)

    # -- from signal handlers and other threads ------------------------------------------------------------------------

    def stop(self) -> None:
        """Finish the current shard, and return from `run`."""
        self._requests.stop()

    def rescan(self) -> None:
        """Scan all shards thoroughly now."""
        self._requests.rescan()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def open(self, lock_wait_s: float = 0.0) -> bool:
        """Start to watch the store, and merge once; return False if `stop` was called meanwhile.

        Args:
            lock_wait_s: how long to wait for another merger that watches it, in seconds; -1 waits forever.

        Raises:
            MergeInProgressError: another merger watches it.
            StorageError: the folder or the master cannot be made, read or written.
        """
        folders.make_folder(store_folder.resolve_shards(self._settings.root), self._settings.root)
        try:
            if self._lock.take(lock_wait_s):
                self._listener.opened()
                self._pass()
        except BaseException:
            self.close()
            raise
        return self._lock.is_held

    def run(self) -> None:
        """Merge new rows until `stop` is called. Call `open` first. Failures are logged, and tried again."""
        try:
            self._work()
        finally:
            self.close()

    def run_in_turn(self) -> None:
        """Do what `open` and `run` do as soon as no other merger watches the store, until `stop` is called."""
        try:
            if self._await_turn():
                logger.info(
                    "%s: this process watches the store from now on",
                    self._settings.root,
                    extra=fields(store=self._settings.root, state="started"),
                )
                self._listener.opened()
                self._attempt_pass()
                self._work()
        finally:
            self.close()

    def _await_turn(self) -> bool:
        """Try now and then to take the lock; return False if `stop` was called."""
        while not self._requests.is_stopping:
            try:
                if self._lock.take_if_free():
                    folders.make_folder(store_folder.resolve_shards(self._settings.root), self._settings.root)
                    return True
            except EdgeshardError as error:
                self._lock.release()
                if not self._progress.failures:
                    logger.warning(
                        "waiting to watch the store: %s", error, extra=fields(store=self._settings.root, error=error)
                    )
                self._progress.failures += 1
            self._requests.is_rescan_wanted = False  # the first pass is thorough
            self._sleep(time.monotonic() + min(self._settings.rescan_s / 10, _LONGEST_STANDBY_S))
        return False

    def _work(self) -> None:
        while not self._requests.is_stopping:
            self._attempt_pass(wait=True)

    def _attempt_pass(self, *, wait: bool = False) -> None:
        try:
            if wait:
                self._await_work()
            self._pass()
        except EdgeshardError as error:
            self._fail(error)

    def close(self) -> None:
        """Stop watching the store; `run` does so when it ends."""
        self._watch.end()
        try:
            if self._scheduler is not None:
                self._scheduler.close()
            if self._merger.is_open and self._settings.root.is_dir():  # the lock would create a removed folder again
                self._close_merger()
        except (EdgeshardError, OSError) as error:  # only what the merger remembers is lost
            logger.debug("%s", error)
        finally:
            with self._turn:
                self._merger.abandon()
            self._lock.release()

    def _close_merger(self) -> None:
        held = locks.merge_lock(self._settings.root, 0.0, lambda: False)
        if held is not None:
            try:
                with self._turn:
                    self._merger.close()
            finally:
                held.release()

    def _pass(self) -> None:
        progress, thorough = self._progress, time.monotonic() >= self._progress.rescan_at
        # cleared before the scan, so that no request is lost: a signal may set it at any moment
        if self._requests.is_rescan_wanted:
            self._requests.is_rescan_wanted, thorough = False, True
        self._lock.ensure_in_place()
        held = locks.merge_lock(self._settings.root, -1, self._should_stop)
        if held is None:
            return
        try:
            before, progress.began = progress.began, time.monotonic()
            if progress.began > before + 2 * self._settings.interval_s:
                self._watch.forget_fruitless()
            with self._turn:
                report = self._merger.run(thorough=thorough)
        finally:
            held.release()
        self._lock.beat()
        if thorough:
            progress.rescan_at = time.monotonic() + self._settings.rescan_s
            self._watch.forget_failure()
        progress.found_rows = report.rows
        while not self._requests.queue.empty():
            self._watch.accept(self._requests.queue.get())
        self._watch.judge(report.rows, unprompted=progress.is_unprompted)
        self._listener.merged(report if self._scheduler is None else self._scheduler.add_to_report(report))

    def _should_stop(self) -> bool:
        self._listener.beat()
        # a pass may take hours if much is pending, and is no failure
        if self._progress.commits != self._merger.commits:
            self._progress.commits = self._merger.commits
            self._lock.beat()
        return self._requests.is_stopping

    # -- failures -----------------------------------------------------------------------------------------------------

    def _fail(self, error: EdgeshardError) -> None:
        """Log a failure unless it is the last one again, and report it. The next attempt scans everything."""
        self._progress.failures += 1
        self._progress.is_retrying = True
        level = logging.DEBUG if self._progress.failed_with == (type(error), error.path) else logging.ERROR
        extra = fields(store=self._settings.root, state="failing", error=error)
        logger.log(level, "%s; trying again in %.3g s", error, self._retry_s(), extra=extra)
        self._progress.failed_with = (type(error), error.path)
        self._listener.failed(error)
        self._watch.end()
        self._progress.rescan_at = 0.0

    def _recover(self) -> None:
        """Log and report that what had failed works: rows were found, or the store is watched again."""
        if self._progress.failures:
            text = "merging into %s works again, after %d failures"
            extra = fields(store=self._settings.root, state="recovered")
            logger.warning(text, self._settings.root, self._progress.failures, extra=extra)
            self._progress.failures, self._progress.failed_with = 0, None
            self._listener.recovered()

    def _retry_s(self) -> float:
        """Return how long to wait after a failure, in seconds: longer each time, up to the time of a rescan."""
        return min(self._settings.interval_s * 2.0 ** min(self._progress.failures - 1, 10), self._settings.rescan_s)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _await_work(self) -> None:
        """Sleep until there may be something to merge, or to try again."""
        self._progress.is_unprompted = False
        if self._progress.is_retrying:
            self._progress.is_retrying = False
            self._sleep(time.monotonic() + self._retry_s())
        elif self._progress.found_rows:
            self._recover()
            self._sleep(self._progress.began + self._settings.interval_s)
        else:
            self._await_news()

    def _await_news(self) -> None:
        """Watch the folder, or scan it in each interval, until there may be new rows or a rescan is due."""
        is_new = not self._watch.is_active
        if is_new:
            if self._watch.is_fruitless:
                self._sleep(self._progress.began + self._settings.interval_s)
            self._begin_watch()
            self._recover()
        while not self._requests.is_stopping:
            # a watch that began before the last pass saw everything that came after that pass
            if (is_new or not self._watch.is_active) and self._merger.has_news():
                self._gather()
                return
            is_new = False
            until = self._progress.rescan_at
            if not self._watch.is_active:
                until = min(until, time.monotonic() + self._settings.interval_s)
            self._sleep(until)
            if self._watch.has_changed or self._is_rescan_due():
                self._progress.is_unprompted = not self._watch.has_changed and not self._requests.is_rescan_wanted
                self._gather()
                return

    def _begin_watch(self) -> None:
        self._watch.end()
        if self._watch.is_usable:
            self._lock.ensure_in_place()  # else a removed folder would be created again
            self._watch.begin()

    def _gather(self) -> None:
        """Let more rows join the first one, if the write profile asks for few writes."""
        if self._settings.waits and not self._is_rescan_due():
            has_changed, until = False, time.monotonic() + self._settings.interval_s
            while not self._is_woken() and time.monotonic() < until:
                has_changed, self._watch.has_changed = has_changed or self._watch.has_changed, False
                self._sleep(until)
            self._watch.has_changed = has_changed or self._watch.has_changed

    def _is_rescan_due(self) -> bool:
        return self._requests.is_rescan_wanted or time.monotonic() >= self._progress.rescan_at

    def _is_woken(self) -> bool:
        return self._requests.is_stopping or self._requests.is_rescan_wanted

    def _sleep(self, until: float) -> None:
        """Wait until a time (monotonic), or until a request or an event comes."""
        while not self._is_woken() and not self._watch.has_changed:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            try:
                self._watch.accept(self._requests.queue.get(timeout=min(left_s, self._listener.beat_s)))
            except queue.Empty:
                self._listener.beat()


class _WatchLock:
    """``watch.lock`` of one store, even after its whole folder was replaced.

    Args:
        root: the store's folder.
        rescan_s: how often all shards are scanned thoroughly, in seconds, which other processes are told.
        should_stop: called while waiting for the lock; returns whether to stop.
    """

    def __init__(self, root: Path, rescan_s: float, should_stop: Callable[[], bool]) -> None:
        self._root = root
        self._rescan_s = rescan_s
        self._path = paths.watch_lock(root)
        self._should_stop = should_stop
        self._held: FileLock | None = None
        self._note = b""
        self._pulse: lock_pulse.Pulse | None = None
        self._file: tuple[int, int] | None = None

    @property
    def is_held(self) -> bool:
        """Whether the lock is held."""
        return self._held is not None

    def take(self, wait_s: float) -> bool:
        """Take the lock; return False if `should_stop` returned True meanwhile."""
        return self._keep(locks.watch_lock(self._root, wait_s, self._should_stop))

    def take_if_free(self) -> bool:
        """Take the lock; return False if another process has it, or just asked whether one has it."""
        return self._keep(file_locks.lock(self._path))

    def _keep(self, held: FileLock | None) -> bool:
        self._held = held
        if held is not None:
            self._note = lock_holder.leave_note(self._path, "watch")
            self._pulse = lock_pulse.Pulse(self._path, self._rescan_s)
            with sqlite.translate_errors("watch store", str(self._root)):
                self._file = fingerprint.identity(self._path)
        return self.is_held

    def beat(self) -> None:
        """Tell other processes that the watcher gets on."""
        if self._pulse is not None:
            self._pulse.beat()

    def ensure_in_place(self) -> None:
        """Hold the lock that other processes see.

        Raises:
            StorageIOError: the folder was removed. It is not created again, because its disk may come back.
            MergeInProgressError: another merger watches the folder that is there now.
        """
        with sqlite.translate_errors("watch store", str(self._root)):
            if self._held is not None and fingerprint.identity(self._path) == self._file:
                return
            if not self._root.is_dir():
                raise StorageIOError("watch store", self._root, "its folder is missing; bring it back")
        self.release()
        self.take(0.0)
        logger.warning(
            "the folder %s was replaced; opening all shards again",
            self._root,
            extra=fields(store=self._root, state="replaced"),
        )

    def release(self) -> None:
        """Release the lock if it is held."""
        held, self._held = self._held, None
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            pulse.end()
        if held is not None:
            lock_holder.remove_note(self._path, self._note)
            held.release()


# -- forks ------------------------------------------------------------------------------------------------------------

_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()

_parents_watchers: list[Watcher] = []


def _after_fork_in_child() -> None:
    """Keep the watchers of the parent, which are not to be ended here. (Their connections: see `sqlite.forks`.)"""
    _parents_watchers.extend(_watchers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _scheduler(root: Path, prune: Retention, profile: WriteProfile) -> PruneScheduler | None:
    if not prune:
        return None
    # between two passes, however long one takes; the prune ends if the watcher does
    return PruneScheduler(paths.master(root), prune, partial(locks.merge_lock_held, root, -1), profile.slowness)


@contextlib.contextmanager
def in_thread(watcher: Watcher, *, standby: bool = False) -> Iterator[None]:
    """Run a watcher in a thread while the block lasts.

    A process that is forked inside the block has no such thread: the watcher goes on in the parent only. filelock
    closes the child's copy of the lock, so that the store can be watched again as soon as the parent ends.

    Args:
        watcher: the watcher, opened unless it stands by.
        standby: whether it waits for its turn.

    Raises:
        BaseException: the error that ended the thread, unless `stop` ended it.
    """
    ended_by: list[BaseException] = []

    def run() -> None:
        try:
            if standby:
                watcher.run_in_turn()
            else:
                watcher.run()
        except BaseException as error:
            logger.error("the merger in this process ended: %s", error, extra=fields(error=error))
            ended_by.append(error)

    thread = threading.Thread(target=run, name="edgeshard merger", daemon=True)
    _watchers.add(watcher)
    try:
        thread.start()
        yield
    finally:
        watcher.stop()
        if thread.ident is None:  # it could not be started
            watcher.close()
        else:
            thread.join()
    if ended_by:
        raise ended_by[0]
