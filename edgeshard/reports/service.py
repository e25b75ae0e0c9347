"""Who merges a store, and whether merges end."""

from __future__ import annotations

import datetime
from typing import Final

import attrs

from edgeshard import units
from edgeshard.reports.base import Report

#: A merge that is at work may commit nothing for so many seconds.
IDLE_MAX_S: Final = 300.0


@attrs.frozen(repr=False)
class WatcherStatus(Report):
    """The watcher of a store: the process that merges new rows as they come.

    Attributes:
        pid: its process, or None if it is not known, or of another container.
        since: since when it has watched the store, or None if it is not known.
        pass_age_s: how long ago it finished a pass, or committed rows in one, in seconds; None if it is not known.
        rescan_s: how often it checks all shards, in seconds, or None if it is not known.
        is_stopped: whether a signal has stopped its process.
        is_stuck: whether it has not finished a pass for several rescans, although rows are pending.
    """

    _computed = ("is_stalled",)

    pid: int | None
    since: datetime.datetime | None
    pass_age_s: float | None
    rescan_s: float | None
    is_stopped: bool
    is_stuck: bool

    @property
    def is_stalled(self) -> bool:
        """Whether it merges nothing."""
        return self.is_stopped or self.is_stuck

    def _line(self) -> str:
        who = units.process("a watcher", self.pid)
        if self.is_stopped:
            return f"{who} is stopped, and merges nothing"
        if self.is_stuck:
            since = f"has not finished a pass for {self.pass_age_s:.0f} s"
            return f"{who} {since}, although rows are pending; it should do so every {self.rescan_s:.3g} s"
        return f"{who} merges this store"


@attrs.frozen(repr=False)
class MergeStatus(Report):
    """A merge, or a prune, that was at work when the store was read: the process that holds ``merge.lock``.

    Attributes:
        pid: the process, or None if it is not known, or of another container.
        is_stopped: whether a signal has stopped it.
        idle_s: for how long it has committed nothing, in seconds, or None if that is not known. A merge commits every
            few seconds at least.
    """

    pid: int | None
    is_stopped: bool
    idle_s: float | None

    @property
    def is_stalled(self) -> bool:
        """Whether it is stopped, or has committed nothing for longer than a merge that is at work."""
        return self.is_stopped or (self.idle_s or 0.0) > IDLE_MAX_S

    def _line(self) -> str:
        who = units.process("a merge", self.pid)
        if self.is_stopped:
            return f"{who} is stopped, and keeps other mergers from the store"
        if self.idle_s is None:
            return f"{who} is at work"
        return f"{who} has committed nothing for {units.duration(self.idle_s)}, and keeps other mergers from the store"
