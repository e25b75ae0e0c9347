"""The state of one prune: `PruneRun`."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from edgeshard.master.clock_trust import TrustedClock
from edgeshard.retention.deletable import DeletableSeqs
from edgeshard.retention.pace import Pace
from edgeshard.retention.progress import PruneProgress
from edgeshard.retention.rules import Rules
from edgeshard.retention.scope import Scope
from edgeshard.sqlite import Connection


@attrs.define
class PruneRun:
    """One prune at work.

    Attributes:
        connection: the master.
        path: its path.
        rules: what to delete.
        scope: which tables the rules apply to.
        clock: the trusted time, as of the beginning.
        deletable: which seqs may be deleted.
        pace: how much each transaction does.
        progress: what was done so far.
        row_bytes: the average size of a row in the master, in bytes.
        dry_run: whether nothing is changed.
        should_stop: called after each transaction; returns whether to stop.
        stopped: whether it ever returned True.
    """

    connection: Connection
    path: str
    rules: Rules
    scope: Scope
    clock: TrustedClock
    deletable: DeletableSeqs
    pace: Pace
    progress: PruneProgress
    row_bytes: float
    dry_run: bool
    should_stop: Callable[[], bool]
    stopped: bool = False

    def is_stopping(self) -> bool:
        """Return whether the prune should stop; once `should_stop` returned True, it should."""
        self.stopped = self.stopped or self.should_stop()
        return self.stopped
