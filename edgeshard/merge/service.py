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

import logging
import os
import queue
import threading
import time
from pathlib import Path
from typing import Final

from filelock import FileLock

from edgeshard import files
from edgeshard.errors import ConfigurationError, EdgeshardError, StorageIOError
from edgeshard.merge import locks
from edgeshard.merge.cycle import Merger
from edgeshard.merge.notice import Watch
from edgeshard.report import MergeReport

logger = logging.getLogger("edgeshard.merge")

#: How the service learns that there may be news: by the file system's events, by looking each interval, or by events
#: for as long as these are seen to arrive.
OBSERVERS: Final = ("auto", "native", "polling")

#: Rescans in a row that find rows of which no event told, before events are no longer relied on.
_DEAF_AFTER = 2


class Listener:
    """Hears what a service does. This one does nothing with it.

    Attributes:
        beat_s: how often `beat` wants to be called, in seconds.
    """

    beat_s: float = 3600.0

    def beat(self) -> None:
        """The service is alive."""

    def watching(self) -> None:
        """The first pass is done, and the store is watched."""

    def merged(self, report: MergeReport) -> None:
        """A pass is done."""

    def failed(self, error: EdgeshardError) -> None:
        """A pass failed, and will be tried again."""


class Service:
    """Merges what comes into one store until it is told to stop.

    Args:
        root: the store's folder; made where there is none.
        interval_s: the least time between the beginnings of two passes under load, in seconds.
        rescan_s: how often all shards are looked at, event or no event, in seconds.
        observer: one of `OBSERVERS`.
        keep_empty: leave the empty shards of agents that are gone.
        listener: hears what is done.

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
    ) -> None:
        for name, value in (("interval", interval_s), ("rescan", rescan_s)):
            if not 0 < value < threading.TIMEOUT_MAX:
                raise ConfigurationError("watch store", root, f"{name} is a number of seconds above 0, not {value!r}")
        if observer not in OBSERVERS:
            raise ConfigurationError("watch store", root, f"observer is one of {OBSERVERS}, not {observer!r}")
        self._root = root
        self._shards = root / "shards"
        self._interval_s = interval_s
        self._rescan_s = rescan_s
        self._observer = observer
        self._listener = listener or Listener()
        self._merger = Merger(root, keep_empty=keep_empty, service=True, stopping=self._asked_to_stop)
        # not an Event: its set() in a signal handler can meet its own lock. Each item is the watch that noticed, if any
        self._calls: queue.SimpleQueue[Watch | None] = queue.SimpleQueue()
        self._stopping = False
        self._rescan_at = 0.0
        self._watch: Watch | None = None
        self._noticed: Watch | None = None
        self._missed = 0
        self._failures = 0
        self._held: FileLock | None = None
        self._held_inode = 0

    # -- from signal handlers and other threads ------------------------------------------------------------------------

    def stop(self) -> None:
        """Finish the shard at hand, and return from `run`."""
        self._stopping = True
        self._calls.put(None)

    def rescan(self) -> None:
        """Look at all shards now."""
        self._rescan_at = 0.0
        self._calls.put(None)

    # -- the loop -----------------------------------------------------------------------------------------------------

    def open(self, lock_wait_s: float = 0.0) -> bool:
        """Become the one that watches the store; False where told to stop meanwhile.

        Args:
            lock_wait_s: how long to wait for another, in seconds; -1 for ever.

        Raises:
            MergeInProgressError: another merger watches it.
            StorageError: the folder, or the lock in it, cannot be made.
        """
        files.make_folder(self._shards)
        self._held = locks.watch_lock(self._root, lock_wait_s, self._asked_to_stop)
        self._held_inode = self._lock_inode()
        return self._held is not None

    def run(self) -> None:
        """Merge what comes until `stop` is called. Call `open` first.

        Raises:
            EdgeshardError: the very first pass failed. Failures of later ones are logged, and tried again.
        """
        try:
            self._cycle(first=True)
            while not self._stopping:
                self._cycle()
        finally:
            self._close()

    def _cycle(self, *, first: bool = False) -> None:
        """A pass, and the wait for the next."""
        began = time.monotonic()
        try:
            report = self._pass(thorough=began >= self._rescan_at)
            self._failures = 0
            if report.rows or self._stopping:
                self._sleep(began + self._interval_s)
            else:
                self._idle(first=first)
        except EdgeshardError as error:
            if first:
                raise
            self._fail(error)

    def _pass(self, *, thorough: bool) -> MergeReport:
        self._ensure_in_place()
        noticed = self._noticed is not None and self._noticed is self._watch
        held = locks.merge_lock(self._root, -1, self._asked_to_stop)
        if held is None:
            return MergeReport(stopped=True)
        try:
            report = self._merger.run(thorough=thorough)
        finally:
            held.release()
        if thorough:
            self._rescan_at = time.monotonic() + self._rescan_s
        self._judge_watch(noticed=noticed, rows=report.rows)
        self._listener.merged(report)
        return report

    def _fail(self, error: EdgeshardError) -> None:
        """Say it, and wait, longer each time, before the next attempt."""
        self._failures += 1
        wait_s = min(self._interval_s * 2 ** min(self._failures - 1, 10), self._rescan_s)
        logger.error("%s; tried again in %.3g s", error, wait_s)
        self._listener.failed(error)
        self._unwatch()
        self._rescan_at = 0.0
        self._sleep(time.monotonic() + wait_s)

    def _idle(self, *, first: bool) -> None:
        """Sleep until something may have come."""
        self._begin_watch()
        if first:
            self._listener.watching()
        while not self._merger.news() and not self._stopping:
            until = self._rescan_at
            if self._watch is None:  # nothing tells us: look each interval
                until = min(until, time.monotonic() + self._interval_s)
            if self._sleep(until) or time.monotonic() >= self._rescan_at:
                return

    def _sleep(self, until: float) -> bool:
        """Wait until a time (monotonic), or until something calls; whether something did."""
        while not self._stopping:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            try:
                self._noticed = self._calls.get(timeout=min(left_s, self._listener.beat_s))
            except queue.Empty:
                self._listener.beat()
                continue
            if self._noticed is None or self._noticed is self._watch:  # and not a watch of before
                return True
        return True

    def _asked_to_stop(self) -> bool:
        self._listener.beat()
        return self._stopping

    # -- watching -----------------------------------------------------------------------------------------------------

    def _begin_watch(self) -> None:
        """Watch anew each time: whatever became of the folder, or of the watch before, does not matter then."""
        self._unwatch()
        if self._observer == "polling" or self._missed >= _DEAF_AFTER:
            return
        files.make_folder(self._shards)
        try:
            self._watch = Watch(Path(os.path.realpath(self._shards)), self._calls.put)
        except EdgeshardError as error:
            if self._observer == "native":
                raise
            logger.warning("%s; looking every %.3g s instead, until the next rescan", error, self._interval_s)

    def _unwatch(self) -> None:
        watch, self._watch, self._noticed = self._watch, None, None
        if watch is not None:
            watch.close()

    def _judge_watch(self, *, noticed: bool, rows: int) -> None:
        """Find out whether the watch can be relied on, and end it."""
        watch = self._watch
        if watch is not None and not watch.is_alive():
            logger.warning("the watch on %s had died, or its folder was replaced; watching anew", self._shards)
        elif noticed:
            self._missed = 0
        elif watch is not None and rows and self._observer == "auto":
            self._missed += 1
            if self._missed == _DEAF_AFTER:
                text = "no events come from %s, although rows do; looking every %.3g s instead"
                logger.warning(text, self._shards, self._interval_s)
        self._unwatch()

    # -- the store's folder -------------------------------------------------------------------------------------------

    def _ensure_in_place(self) -> None:
        """Hold the lock that others see, also after the whole folder was replaced.

        Raises:
            StorageIOError: the folder is gone; it is not made anew, since its disk may come back.
            MergeInProgressError: another merger watches the folder that is there now.
        """
        if self._held is not None and self._lock_inode() == self._held_inode:
            return
        if not self._root.is_dir():
            raise StorageIOError("watch store", self._root, "its folder is gone; bring it back")
        self._unlock()
        self.open()
        logger.warning("the folder %s was replaced; all is looked into again", self._root)

    def _lock_inode(self) -> int:
        try:
            return os.stat(self._root / "watch.lock").st_ino
        except FileNotFoundError:
            return 0

    def _unlock(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def _close(self) -> None:
        self._unwatch()
        try:
            held = locks.merge_lock(self._root, 0.0, lambda: False)
            if held is not None:
                with held:
                    self._merger.close()
        except EdgeshardError as error:  # it is only what the merger remembers
            logger.debug("%s", error)
        finally:
            self._unlock()
