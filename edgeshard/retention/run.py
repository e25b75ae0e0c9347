"""The state of one prune: `PruneRun`; and its transactions, which keep mergers out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import attrs

from edgeshard import sqlite
from edgeshard.errors import StorageIOError
from edgeshard.files import fingerprint
from edgeshard.master.clock_trust import TrustedClock
from edgeshard.retention.deletable import DeletableSeqs
from edgeshard.retention.pace import Pace
from edgeshard.retention.progress import PruneProgress
from edgeshard.retention.rules import Rules
from edgeshard.retention.scope import Scope
from edgeshard.sqlite import Connection

#: Holds ``merge.lock`` while its block runs. It is called with a function that says whether to stop waiting for the
#: lock, and yields whether it got it.
MergeLock = Callable[[Callable[[], bool]], AbstractContextManager[bool]]


class StoppedError(Exception):
    """The prune was asked to stop while it waited for a merger. Nothing of the transaction was done."""


@contextlib.contextmanager
def held_by_caller(_: Callable[[], bool]) -> Iterator[bool]:
    """Take no lock: a merger that prunes to stay within the disk budget holds it already."""
    yield True


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
        should_stop: called after each transaction, and while waiting for a merger; returns whether to stop.
        merge_lock: keeps mergers out of each `transaction`.
        stopped: whether `should_stop` has ever returned True, as far as `is_stopping` asked it.
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
    merge_lock: MergeLock = held_by_caller
    stopped: bool = False
    _file: tuple[int, int] | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._file = fingerprint.identity(self.path)

    def is_stopping(self) -> bool:
        """Return whether the prune should stop: whether `should_stop` has ever returned True."""
        self.stopped = self.stopped or self.should_stop()
        return self.stopped

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one write transaction of the master, while no merger is at work.

        SQLite alone would keep the transactions of mergers and prunes apart. But whoever replaces the master, or does
        something in several transactions, holds the lock of mergers, and a prune must not get in between.

        Raises:
            StoppedError: `should_stop` returned True while the prune waited.
            MergeInProgressError: another process held the lock for too long.
            StorageIOError: the master was replaced since the prune began.
        """
        with self.merge_lock(self.is_stopping) as is_held:
            if not is_held:
                raise StoppedError
            if fingerprint.identity(self.path) != self._file:
                cause = "it was moved, deleted or replaced during the prune; what was pruned in it before stays so"
                raise StorageIOError("prune", self.path, f"{cause}. Prune again")
            with sqlite.immediate(self.connection):
                yield
