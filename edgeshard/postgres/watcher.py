"""Pushes what merges bring, again and again, and goes on through failures of the server and of the network.

A look each interval costs one row of the master where it is idle: the server is asked nothing, and after a while it is
left alone, since it has connections for some devices, and there may be many.
"""

from __future__ import annotations

import logging
import queue
import secrets
import time
from pathlib import Path
from typing import Final

from edgeshard.errors import ConfigurationError, EdgeshardError, PostgresError, PostgresUnavailableError, StorageError
from edgeshard.files import scan
from edgeshard.merge.watcher import MAX_INTERVAL_S
from edgeshard.postgres import plan, server
from edgeshard.postgres.pusher import BATCH, Pusher
from edgeshard.postgres.reader import Local
from edgeshard.reports import PushReport

logger = logging.getLogger("edgeshard.push")

INTERVAL_S: Final = 1.0

#: After how long without news the connection is given back, in seconds.
IDLE_S: Final = 30.0


class Listener:
    """Hears what the watch does. This one does nothing with it."""

    def opened(self) -> None:
        """The first look begins."""

    def pushed(self, report: PushReport) -> None:
        """A push is done, that pushed or held back something."""

    def failed(self, error: EdgeshardError, delay_s: float) -> None:
        """A push failed, and is tried again after so many seconds."""

    def recovered(self) -> None:
        """What had failed works again."""


class Watch:
    """Pushes one store's master until it is told to stop.

    Args:
        path: the master; where there is none yet, it is waited for.
        dsn: where to.
        interval_s: how often to look whether a merge brought rows, in seconds.
        batch: rows of a transaction.
        inserts: use INSERT statements alone.
        listener: hears what is done.

    Raises:
        ConfigurationError: an argument that cannot work.
    """

    def __init__(
        self,
        path: Path,
        dsn: str,
        *,
        interval_s: float = INTERVAL_S,
        batch: int = BATCH,
        inserts: bool = False,
        listener: Listener | None = None,
    ) -> None:
        if not isinstance(interval_s, (int, float)) or not 0 < interval_s <= MAX_INTERVAL_S:
            cause = f"interval is a number of seconds above 0 and up to {MAX_INTERVAL_S:.0f}, not {interval_s!r}"
            raise ConfigurationError("push", path, cause)
        self._path = path
        self._interval_s = interval_s
        self._listener = listener or Listener()
        self._stopping = False
        # not an Event: its set() in a signal handler can meet its own lock
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        where = server.address(dsn)
        self._pusher = Pusher(path, where, batch=batch, inserts=inserts, should_stop=lambda: self._stopping)
        self._pushed_at = 0.0
        self._seen = 0  # the next id of the master when all before it was pushed or held back
        self._failures = 0
        self._has_worked = False

    def stop(self) -> None:
        """Finish the chunk at hand, and return from `run`. For signal handlers and other threads."""
        self._stopping = True
        self._calls.put(None)

    def run(self) -> None:
        """Push what comes.

        Raises:
            UpstreamError, StorageError: before anything worked, and waiting will not help.
        """
        self._listener.opened()
        try:
            while not self._stopping:
                self._sleep(self._look())
        finally:
            self._pusher.close()

    def _look(self) -> float:
        """Push, if there is news; after how many seconds to look again."""
        try:
            self._push()
        except PostgresUnavailableError as error:
            return self._fail(error)
        except (PostgresError, StorageError) as error:
            if not self._has_worked:
                raise
            return self._fail(error)
        self._has_worked = True
        if self._failures:
            self._failures = 0
            self._listener.recovered()
        return self._interval_s

    def _push(self) -> None:
        if scan.find_database(str(self._path)) is None:
            return  # no merge made it yet
        with Local(self._path) as origin:
            next_id = origin.next_id()
        if next_id == self._seen and not self._pusher.holds_back:
            if time.monotonic() - self._pushed_at > IDLE_S:
                self._pusher.close()
            return
        report = self._pusher.run()
        self._pushed_at = time.monotonic()
        if not report.stopped:
            self._seen = next_id
        if report.rows or report.held_back:
            self._listener.pushed(report)

    def _fail(self, error: EdgeshardError) -> float:
        self._failures += 1
        delay_s = max(self._interval_s, plan.back_off_s(self._failures, secrets.randbelow(1000) / 1000))
        self._listener.failed(error, delay_s)
        return delay_s

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left_s := until - time.monotonic()) > 0:
            try:
                self._calls.get(timeout=left_s)
            except queue.Empty:
                return
