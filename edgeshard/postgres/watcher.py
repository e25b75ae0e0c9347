"""Push what merges bring, again and again, and keep going when the server or the network fails.

While nothing is new, a check reads one row of the master and asks the server nothing. After a while the connection is
closed, because a server has connections for a limited number of devices.
"""

from __future__ import annotations

import queue
import secrets
import time
from pathlib import Path
from typing import Final

from edgeshard.errors import (
    ConfigurationError,
    EdgeshardError,
    PostgresError,
    PostgresUnavailableError,
    StorageError,
    quoted,
)
from edgeshard.files import scan
from edgeshard.options import MAX_INTERVAL_S
from edgeshard.postgres import plan
from edgeshard.postgres.address import parse_dsn
from edgeshard.postgres.options import BATCH, INTERVAL_S, Listener, OnInvalid
from edgeshard.postgres.pusher import Pusher
from edgeshard.postgres.reader import MasterReader

#: After how many seconds without new rows the connection is closed.
IDLE_S: Final = 30.0


class PushWatcher:
    """Pushes one store's master until `stop` is called.

    Args:
        path: the master; if it does not exist yet, wait for it.
        dsn: the database.
        interval_s: how often to check whether a merge brought rows, in seconds.
        batch: rows per transaction.
        inserts: use only INSERT.
        retry_rejected: try rejected rows again, once.
        on_invalid: what to do with characters that PostgreSQL cannot store.
        distribute: see `Pusher`.
        listener: receives what happens.

    Raises:
        ConfigurationError: an argument is not valid, or psycopg is not installed.
    """

    def __init__(
        self,
        path: Path,
        dsn: str,
        *,
        interval_s: float = INTERVAL_S,
        batch: int = BATCH,
        inserts: bool = False,
        retry_rejected: bool = False,
        on_invalid: OnInvalid = "reject",
        distribute: bool = False,
        listener: Listener | None = None,
    ) -> None:
        if not isinstance(interval_s, (int, float)) or not 0 < interval_s <= MAX_INTERVAL_S:
            cause = f"interval must be above 0 and at most {MAX_INTERVAL_S:.0f} seconds, got {quoted(interval_s)}"
            raise ConfigurationError("push", path, cause)
        self._path = path
        self._interval_s = interval_s
        self._listener = listener or Listener()
        self._should_stop = False
        # not an Event, whose set() in a signal handler can block on a lock that the interrupted thread holds
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._pusher = Pusher(
            path,
            parse_dsn(dsn),
            batch=batch,
            inserts=inserts,
            retry_rejected=retry_rejected,
            on_invalid=on_invalid,
            distribute=distribute,
            should_stop=lambda: self._should_stop,
        )
        self._pushed_at = 0.0
        self._pushed_state = (0, 0)  # the master's, when all of its rows had been pushed or rejected
        self._failures = 0
        self._has_worked = False

    def stop(self) -> None:
        """Finish the current chunk and return from `run`. Signal handlers and other threads may call it."""
        self._should_stop = True
        self._wake_ups.put(None)

    def run(self) -> None:
        """Push until `stop` is called.

        Raises:
            PostgresError, StorageError: nothing has worked yet, and waiting will not help.
        """
        self._listener.opened()
        try:
            while not self._should_stop:
                self._sleep(self._check())
        finally:
            self._pusher.close()

    def _check(self) -> float:
        """Push if there are new rows, and return after how many seconds to check again."""
        try:
            self._push_new_rows()
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

    def _push_new_rows(self) -> None:
        if scan.find_database(str(self._path)) is None:
            return  # nothing was merged yet
        with MasterReader(self._path) as master:
            state = master.state()
        if state == self._pushed_state and not self._pusher.retries_tables:
            if time.monotonic() - self._pushed_at > IDLE_S:
                self._pusher.close()
            return
        report = self._pusher.run()
        self._pushed_at = time.monotonic()
        if not report.stopped:
            self._pushed_state = state
        if report.rows or report.rejected:
            self._listener.pushed(report)

    def _fail(self, error: EdgeshardError) -> float:
        self._failures += 1
        delay_s = max(self._interval_s, plan.back_off_s(self._failures, secrets.randbelow(1000) / 1000))
        self._listener.failed(error, delay_s)
        return delay_s

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._should_stop and (left_s := until - time.monotonic()) > 0:
            try:
                self._wake_ups.get(timeout=left_s)
            except queue.Empty:
                return
