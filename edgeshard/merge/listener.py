"""The listener of a watcher: what a caller needs before the watcher is loaded."""

from __future__ import annotations

from edgeshard import reports
from edgeshard.errors import EdgeshardError


class Listener:
    """Receives the events of a watcher. Override what you need; these methods do nothing.

    Attributes:
        beat_s: how often to call `beat`, in seconds.
    """

    beat_s: float = 3600.0

    def beat(self) -> None:
        """Called now and then while the watcher works or sleeps."""

    def opened(self) -> None:
        """Called when the store is watched, before the first pass, which may take long."""

    def merged(self, report: reports.MergeReport) -> None:
        """Called after each pass."""

    def failed(self, error: EdgeshardError) -> None:
        """Called after a pass that failed and will be tried again."""

    def recovered(self) -> None:
        """Called when what had failed works again."""
