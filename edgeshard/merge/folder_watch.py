"""Watch the folder of shards by files/fs_events; fall back to scans when events cannot be relied on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgeshard.errors import EdgeshardError
from edgeshard.files import folders
from edgeshard.files.fs_events import Watch
from edgeshard.log_fields import fields

logger = logging.getLogger("edgeshard.merge")

#: How many rescans in a row may find rows without an event, before events are no longer relied on.
_MISSED_MAX = 2

#: How many passes in a row may follow an event and find no rows, before the next event must wait for the interval.
#: More than one: an agent makes its files before it commits, and the first event of a commit comes before the commit
#: is whole.
_FRUITLESS_MAX = 5


class FolderWatch:
    """Watches the folder of one store's shards, again and again.

    Args:
        folder: the folder.
        observer: one of `OBSERVERS`.
        interval_s: how often the watcher scans the folder while it is not watched, in seconds.
        notify: called with the number of the watch, from another thread, when something changed.

    Attributes:
        has_changed: whether something changed since the watch began.
    """

    def __init__(self, folder: Path, observer: str, interval_s: float, notify: Callable[[int], None]) -> None:
        self._folder = folder
        self._observer = observer
        self._interval_s = interval_s
        self._notify = notify
        self._watch: Watch | None = None
        self._number = 0
        self.has_changed = False
        self._missed = 0  # rescans in a row that found rows without an event
        self._fruitless = 0  # passes in a row after events that brought no rows
        self._has_failed = False  # since the last rescan
        self._is_failure_logged = False  # since the last watch that began

    @property
    def is_active(self) -> bool:
        """Whether the folder is watched now."""
        return self._watch is not None

    @property
    def is_usable(self) -> bool:
        """Whether to watch the folder, instead of scanning it in each interval."""
        return self._observer != "polling" and self._missed < _MISSED_MAX and not self._has_failed

    @property
    def is_fruitless(self) -> bool:
        """Whether events have brought no rows so often that the next watch should wait for the interval."""
        return self._fruitless >= _FRUITLESS_MAX

    def begin(self) -> None:
        """Watch the folder that has the name now, if that is possible.

        Raises:
            EdgeshardError: the folder cannot be watched, and the observer is "native", which rules out scans instead.
        """
        self.end()
        folders.make_folder(self._folder, self._folder.parent)
        self._number += 1
        try:
            self._watch = Watch(Path(os.path.realpath(self._folder)), partial(self._notify, self._number))
        except EdgeshardError as error:
            if self._observer == "native":
                raise
            self._has_failed = True
            if not self._is_failure_logged:
                logger.warning(
                    "%s; scanning every %.3g s until watching works again",
                    error,
                    self._interval_s,
                    extra=fields(file=self._folder, error=error),
                )
            self._is_failure_logged = True
        else:
            self._is_failure_logged = False

    def end(self) -> None:
        """End the watch, if there is one."""
        watch, self._watch, self.has_changed = self._watch, None, False
        if watch is not None:
            watch.close()

    def accept(self, number: int) -> None:
        """Record that something changed, unless the event is a late one of an earlier watch."""
        self.has_changed = self.has_changed or (self._watch is not None and number == self._number)

    def forget_failure(self) -> None:
        """Try to watch the folder again, after a rescan."""
        self._has_failed = False

    def forget_fruitless(self) -> None:
        """Count passes without rows from the beginning, because events come rarely."""
        self._fruitless = 0

    def judge(self, rows: int, *, unprompted: bool) -> None:
        """Decide after a pass whether events can be relied on, and end the watch unless it should go on.

        Args:
            rows: how many rows the pass found.
            unprompted: whether the pass was made for no other reason than that a rescan was due.
        """
        is_dead = self._watch is not None and not self._watch.is_alive()
        if is_dead:
            logger.warning(
                "the watch on %s had died, or its folder was replaced; watching it again",
                self._folder,
                extra=fields(file=self._folder),
            )
        elif self.has_changed:
            self._missed = 0
        elif self._watch is not None and rows and unprompted and self._observer == "auto":
            self._missed += 1
            if self._missed == _MISSED_MAX:
                text = "no events come from %s, although rows do; scanning every %.3g s instead"
                logger.warning(text, self._folder, self._interval_s, extra=fields(file=self._folder))
        self._fruitless = self._fruitless + 1 if self.has_changed and not rows else 0
        if rows or self.has_changed or is_dead:
            self.end()
