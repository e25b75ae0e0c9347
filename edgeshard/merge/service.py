"""The merger as a service: prompt when rows come, and idle at no cost when none do.

    pass -- rows found --> wait until the interval is over --> pass ...
      |                                                         |
      no rows: watch, look once more, sleep  <------------------+
      ^                                |
      +---- pass <-- first event, or the rescan is due, or a signal

While rows come nothing is watched: events for each commit would cost the writers a fifth of their throughput. The
look after the watch began closes the gap between the last pass and the watch. An event only ever means "look again";
the rescan is the guarantee that everything is found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from edgeshard import sqlite
from edgeshard.errors import ConfigurationError, EdgeshardError, StorageIOError
from edgeshard.files import fingerprint, folders
from edgeshard.files.fs_events import Watch
from edgeshard.merge import locks
from edgeshard.merge.merger import Merger
from edgeshard.reports import MergeReport
from edgeshard.retention import store_rules
from edgeshard.retention.store_rules import Retention
from edgeshard.shard import write_profile
from edgeshard.shard.write_profile import WriteProfile

if TYPE_CHECKING:
    from edgeshard.retention.scheduler import PruneScheduler


logger = logging.getLogger("edgeshard.merge")

#: How the service learns that there may be news: by the file system's events, by looking each interval, or by events
#: for as long as these are seen to arrive.
OBSERVERS: Final = ("auto", "native", "polling")

#: The longest interval, in seconds: some ten years, and well within what waiting for a lock can count.
LONGEST_S: Final = 3e8

#: Rescans in a row that find rows of which no event told, before events are no longer relied on.
_DEAF_AFTER = 2

#: Passes in a row for events that brought no rows, before such events have to wait for the interval. Not one: an agent
#: makes its files before it commits, and the first event of a commit comes before the commit is whole.
_VAIN_AFTER = 5


class Listener:
    """Hears what a service does. This one does nothing with it.

    Attributes:
        beat_s: how often `beat` wants to be called, in seconds.
    """

    beat_s: float = 3600.0

    def beat(self) -> None:
        """The service is alive."""

    def opened(self) -> None:
        """The store is watched from now on; the first pass, which may be long, begins."""

    def merged(self, report: MergeReport) -> None:
        """A pass is done."""

    def failed(self, error: EdgeshardError) -> None:
        """A pass failed, and will be tried again."""

    def recovered(self) -> None:
        """What had failed works again."""


class Service:
    """Merges what comes into one store until it is told to stop.

    Args:
        root: the store's folder; made where there is none.
        interval_s: the least time between the beginnings of two passes under load, in seconds.
        rescan_s: how often all shards are looked at, event or no event, in seconds.
        observer: one of `OBSERVERS`.
        keep_empty: leave the empty shards of agents that are gone.
        listener: hears what is done.
        prune: what goes from the master now and then, beside the passes.
        thrift: how sparing to be with what is written.

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
        thrift: WriteProfile = write_profile.NORMAL,
    ) -> None:
        for name, value in (("interval", interval_s), ("rescan", rescan_s)):
            if not isinstance(value, (int, float)) or not 0 < value <= LONGEST_S:
                cause = f"{name} is a number of seconds above 0 and up to {LONGEST_S:.0f}, not {value!r}"
                raise ConfigurationError("watch store", root, cause)
        if observer not in OBSERVERS:
            raise ConfigurationError("watch store", root, f"observer is one of {OBSERVERS}, not {observer!r}")
        self._root = root
        self._shards = root / "shards"
        self._interval_s = interval_s
        self._rescan_s = rescan_s
        self._observer = observer
        self._listener = listener or Listener()
        self._waits = thrift.waits
        self._merger = Merger(
            root, keep_empty=keep_empty, service=True, stopping=self._asked_to_stop, thrift=thrift, prune=prune
        )
        self._keeper = _keeper(root, prune, thrift)
        # not an Event: its set() in a signal handler can meet its own lock. An item is the number of the watch that
        # noticed something, or 0
        self._calls: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopping = False
        self._rescan_asked = False
        self._rescan_at = 0.0
        self._watch: Watch | None = None
        self._watch_no = 0
        self._has_noticed = False
        self._unprompted = False  # whether a pass is made for no other reason than that it is time for a rescan
        self._missed = 0
        self._vain = 0  # passes in a row for events that brought no rows
        self._is_unwatchable = False  # whether watching failed since the last rescan
        self._has_warned = False  # whether that was said since the last watch
        self._retrying = False
        self._failures = 0  # since all worked
        self._found = 0
        self._began = 0.0
        self._held: FileLock | None = None
        self._held_file: tuple[int, int] | None = None

    # -- from signal handlers and other threads ------------------------------------------------------------------------

    def stop(self) -> None:
        """Finish the shard at hand, and return from `run`."""
        self._stopping = True
        self._calls.put(0)

    def rescan(self) -> None:
        """Look at all shards now."""
        self._rescan_asked = True
        self._calls.put(0)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def open(self, lock_wait_s: float = 0.0) -> bool:
        """Become the one that watches the store, and merge once; False where told to stop meanwhile.

        Args:
            lock_wait_s: how long to wait for another that watches it, in seconds; -1 for ever.

        Raises:
            MergeInProgressError: another merger watches it.
            StorageError: the folder or the master cannot be made, read or written.
        """
        folders.make_folder(self._shards)
        try:
            if self._lock(lock_wait_s):
                self._listener.opened()
                self._pass()
        except BaseException:
            self.close()
            raise
        return self._held is not None

    def run(self) -> None:
        """Merge what comes until `stop` is called. Call `open` first. Failures are logged, and tried again."""
        try:
            while not self._stopping:
                try:
                    self._await_work()
                    self._pass()
                except EdgeshardError as error:
                    self._fail(error)
        finally:
            self.close()

    def _pass(self) -> None:
        thorough = time.monotonic() >= self._rescan_at
        if self._rescan_asked:  # cleared before the look, and never unseen: a signal may set it at any moment
            self._rescan_asked, thorough = False, True
        self._ensure_in_place()
        held = locks.merge_lock(self._root, -1, self._asked_to_stop)
        if held is None:
            return
        try:
            before, self._began = self._began, time.monotonic()
            if self._began > before + 2 * self._interval_s:
                self._vain = 0  # they come rarely
            report = self._merger.run(thorough=thorough)
        finally:
            held.release()
        if thorough:
            self._rescan_at = time.monotonic() + self._rescan_s
            self._is_unwatchable = False
        self._found = report.rows
        self._judge_watch(report.rows)
        self._listener.merged(report if self._keeper is None else self._keeper.add_to_report(report))

    def _fail(self, error: EdgeshardError) -> None:
        """Say it. The next attempt, after a while, looks at everything."""
        self._failures += 1
        self._retrying = True
        logger.error("%s; tried again in %.3g s", error, self._patience_s())
        self._listener.failed(error)
        self._unwatch()
        self._rescan_at = 0.0

    def _recover(self) -> None:
        """Say that what had failed works: rows were found, or the store is watched again."""
        if self._failures:
            logger.warning("merging into %s works again, after %d failures", self._root, self._failures)
            self._failures = 0
            self._listener.recovered()

    def _patience_s(self) -> float:
        """How long to wait after a failure, in seconds: longer each time, and no longer than for a rescan."""
        return min(self._interval_s * 2.0 ** min(self._failures - 1, 10), self._rescan_s)

    def _await_work(self) -> None:
        """Sleep until there may be something to merge, or to try again."""
        self._unprompted = False
        if self._retrying:
            self._retrying = False
            self._sleep(time.monotonic() + self._patience_s())
        elif self._found:
            self._recover()
            self._sleep(self._began + self._interval_s)
        else:
            self._idle()

    def _idle(self) -> None:
        is_new = self._watch is None
        if is_new:
            if self._vain >= _VAIN_AFTER:
                self._sleep(self._began + self._interval_s)
            self._begin_watch()
            self._recover()
        while not self._stopping:
            # a watch that began before the last pass saw whatever came after that
            if (is_new or self._watch is None) and self._merger.news():
                self._gather()
                return
            is_new = False
            until = self._rescan_at
            if self._watch is None:  # nothing tells us: look each interval
                until = min(until, time.monotonic() + self._interval_s)
            self._sleep(until)
            if self._has_noticed or self._is_rescan_due():
                self._unprompted = not self._has_noticed and not self._rescan_asked
                self._gather()
                return

    def _gather(self) -> None:
        """Let more rows come to the first one, where as little as can be is to be written."""
        if self._waits and not self._is_rescan_due():
            noticed, until = False, time.monotonic() + self._interval_s
            while not self._stopping and not self._rescan_asked and time.monotonic() < until:
                noticed, self._has_noticed = noticed or self._has_noticed, False
                self._sleep(until)
            self._has_noticed = noticed or self._has_noticed

    def _is_rescan_due(self) -> bool:
        return self._rescan_asked or time.monotonic() >= self._rescan_at

    def _sleep(self, until: float) -> None:
        """Wait until a time (monotonic), or until something calls."""
        while not self._stopping and not self._rescan_asked and not self._has_noticed:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            try:
                self._heed(self._calls.get(timeout=min(left_s, self._listener.beat_s)))
            except queue.Empty:
                self._listener.beat()

    def _hear(self) -> None:
        """What was called meanwhile."""
        while not self._calls.empty():
            self._heed(self._calls.get())

    def _heed(self, call: int) -> None:
        # not a watch of before, whose notice came late
        self._has_noticed = self._has_noticed or (self._watch is not None and call == self._watch_no)

    def _asked_to_stop(self) -> bool:
        self._listener.beat()
        return self._stopping

    # -- watching -----------------------------------------------------------------------------------------------------

    def _begin_watch(self) -> None:
        """Watch the folder that has the name now, unless it is better to look each interval."""
        self._unwatch()
        if self._observer == "polling" or self._missed >= _DEAF_AFTER or self._is_unwatchable:
            return
        self._ensure_in_place()  # else a folder that is gone would be made anew
        folders.make_folder(self._shards)
        self._watch_no += 1
        try:
            self._watch = Watch(Path(os.path.realpath(self._shards)), partial(self._calls.put, self._watch_no))
        except EdgeshardError as error:
            if self._observer == "native":
                raise
            self._is_unwatchable = True
            if not self._has_warned:
                logger.warning("%s; looking every %.3g s instead, until that is mended", error, self._interval_s)
            self._has_warned = True
        else:
            self._has_warned = False

    def _unwatch(self) -> None:
        watch, self._watch, self._has_noticed = self._watch, None, False
        if watch is not None:
            watch.close()

    def _judge_watch(self, rows: int) -> None:
        """Find out whether the watch can be relied on, and end it, unless there is no reason to."""
        self._hear()
        watch = self._watch
        if watch is not None and not watch.is_alive():
            logger.warning("the watch on %s had died, or its folder was replaced; watching anew", self._shards)
        elif self._has_noticed:
            self._missed = 0
        elif watch is not None and rows and self._unprompted and self._observer == "auto":
            self._missed += 1
            if self._missed == _DEAF_AFTER:
                text = "no events come from %s, although rows do; looking every %.3g s instead"
                logger.warning(text, self._shards, self._interval_s)
        self._vain = self._vain + 1 if self._has_noticed and not rows else 0
        if rows or self._has_noticed or (watch is not None and not watch.is_alive()):
            self._unwatch()

    # -- the store's folder -------------------------------------------------------------------------------------------

    def _ensure_in_place(self) -> None:
        """Hold the lock that others see, also after the whole folder was replaced.

        Raises:
            StorageIOError: the folder is gone; it is not made anew, since its disk may come back.
            MergeInProgressError: another merger watches the folder that is there now.
        """
        with sqlite.translate_errors("watch store", str(self._root)):
            if self._held is not None and fingerprint.identity(self._root / "watch.lock") == self._held_file:
                return
            if not self._root.is_dir():
                raise StorageIOError("watch store", self._root, "its folder is gone; bring it back")
        self._unlock()
        self._lock(0.0)
        logger.warning("the folder %s was replaced; all is looked into again", self._root)

    def _lock(self, wait_s: float) -> bool:
        self._held = locks.watch_lock(self._root, wait_s, self._asked_to_stop)
        with sqlite.translate_errors("watch store", str(self._root)):
            self._held_file = fingerprint.identity(self._root / "watch.lock")
        return self._held is not None

    def _unlock(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def close(self) -> None:
        """Give the store back; `run` does so at its end."""
        self._unwatch()
        try:
            if self._keeper is not None:
                self._keeper.close()
            if self._merger.is_open and self._root.is_dir():  # taking the lock would make a folder that is gone
                self._close_merger()
        except (EdgeshardError, OSError) as error:  # it is only what the merger remembers
            logger.debug("%s", error)
        finally:
            self._merger.abandon()
            self._unlock()

    def _close_merger(self) -> None:
        held = locks.merge_lock(self._root, 0.0, lambda: False)
        if held is not None:
            try:
                self._merger.close()
            finally:
                held.release()


def _keeper(root: Path, prune: Retention, thrift: WriteProfile) -> PruneScheduler | None:
    if not prune:
        return None
    from edgeshard.retention.scheduler import PruneScheduler  # whoever never prunes need not wait for it

    return PruneScheduler(root / "master.db", prune, thrift.slowness)


@contextlib.contextmanager
def in_thread(service: Service) -> Iterator[None]:
    """Run an opened service in a thread while the block lasts.

    Raises:
        BaseException: what the thread ended with, where it did not end because it was told to.
    """
    ended_by: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except BaseException as error:
            logger.error("the merger in this process ended: %s", error)
            ended_by.append(error)

    thread = threading.Thread(target=run, name="edgeshard merger", daemon=True)
    try:
        thread.start()
        yield
    finally:
        service.stop()
        if thread.ident is None:  # it could not be started
            service.close()
        else:
            thread.join()
    if ended_by:
        raise ended_by[0]
