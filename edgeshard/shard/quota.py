"""A shard of a store that has a budget: it adds no more to the disk than was granted when it last looked.

A write costs nothing more: SQLite itself refuses a page beyond the grant (max_page_count), and its hook for commits
says how long the log is. Now and then, and where something was refused, the handle looks at what the whole store
takes, and gives itself another grant (budget.share). What is refused for want of a grant is tried once more after that;
nothing of it had reached the disk, and it is the same row by the same address.
"""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Final, NoReturn

import attrs
from filelock import FileLock

from edgeshard import sqlite
from edgeshard.budget import policy
from edgeshard.budget.policy import Budget, Usage, WriterQuota
from edgeshard.budget.usage import load_budget, measure
from edgeshard.errors import DiskBudgetError, DiskFullError
from edgeshard.master import write_stats
from edgeshard.shard.lookup import Lookups
from edgeshard.shard.shard import Durability, Shard, _Block, _Writer
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard")

#: Two looks are at least so far apart, in seconds, however often a write is refused.
_LEAST_LOOK_S: Final = 0.01

#: How long a writer waits for a merger to let go of its log, where there is no room for a longer one, in seconds.
_LOG_WAIT_S: Final = 0.25

#: What a new shard takes at once, with its files beside it, in bytes.
_NEW_SHARD: Final = 128 << 10


@attrs.frozen
class Look:
    """What a look at the store found, and what may be done.

    Attributes:
        noted: its budget.
        usage: what it takes.
        limit: what it may take, in bytes.
        share: what the writer that looked may do.
    """

    noted: Budget
    usage: Usage
    limit: int
    share: WriterQuota

    @classmethod
    def first(cls, root: Path, known: Budget) -> Look:
        """Measure a store.

        Args:
            root: its folder.
            known: its budget, where none is noted any more.

        Raises:
            AccessError, StorageIOError: it cannot be looked at.
            ConfigurationError: what is noted is no budget.
        """
        return cls._of(root, known, lambda most, usage: policy.writer_quota(most, usage, 0, 0))

    def again(self, root: Path, spent: int, ago_s: float) -> Look:
        """Measure it once more.

        Args:
            root: its folder.
            spent: what the writer that looks added since it last did, in bytes.
            ago_s: how long that is ago, in seconds.

        Raises:
            As `first`.
        """

        def share(most: int, usage: Usage) -> WriterQuota:
            rate = max(0, usage.used - self.usage.used) / max(ago_s, _LEAST_LOOK_S)
            return policy.writer_quota(most, usage, spent, self.share.wal_bytes, rate)

        return self._of(root, self.noted, share)

    @classmethod
    def _of(cls, root: Path, known: Budget, share: Callable[[int, Usage], WriterQuota]) -> Look:
        noted, usage = load_budget(root) or known, measure(root)
        most = policy.current_limit(noted, usage)
        return cls(noted, usage, most, share(most, usage))


def refusal(action: str, path: str | os.PathLike[str], found: Look, cause: str) -> DiskBudgetError:
    """The error of something for which there is no room."""
    usage = found.usage
    text = f"{policy.describe_usage(found.limit, found.noted, usage)}; one write may add {found.share.transaction_bytes} bytes. {cause}"
    return DiskBudgetError(action, path, text, usage.used, found.limit, usage.shards + usage.wals, usage.master)


_CAUSE: Final = {
    "error": "Nothing of this was written; merge, prune or push and prune, or raise the budget, and write it again",
    "drop-oldest": "Nothing of this was written; a merge drops the oldest rows of the master for it, but none of a "
    "table with a key: write it again",
}


@attrs.frozen
class Bound:
    """The budget that a shard is opened within.

    Attributes:
        root: the store's folder.
        known: the budget, where none is noted there any more.
    """

    root: Path
    known: Budget

    def ensure_room_for_shard(self, path: Path) -> None:
        """Refuse to make a new shard where there is no room for one.

        Raises:
            DiskBudgetError: there is none.
        """
        found = Look.first(self.root, self.known)
        if found.share.left_for_writers < _NEW_SHARD:
            raise refusal("make shard", path, found, _CAUSE[found.noted.on_full])


class _Log:
    """Copies the log into the database once it has its size, and has the shard look where that does not make it short.

    Called by SQLite after each commit. It knows the shard weakly: the connection knows it.

    Attributes:
        shard: whose log it is.
        quota: the size that the log should have, in pages.
        tolerated: the size from which on the shard looks before it writes more.
        pages: the size that it has.
        logged: how many pages the connection had given it by the last commit.
    """

    __slots__ = ("logged", "pages", "quota", "shard", "tolerated")

    def __init__(self, shard: BoundedShard) -> None:
        self.shard = weakref.ref(shard)
        self.quota = self.tolerated = self.pages = self.logged = 0

    def __call__(self, connection: Connection, _: str, pages: int) -> int:
        self.pages, self.logged = pages, sqlite.wal_pages_written(connection)
        if pages >= self.quota:
            shard = self.shard()
            # by a merger it would be counted there
            with write_stats.counted() as count, contextlib.suppress(*sqlite.BUSY):  # a merger does this very work
                sqlite.checkpoint_in_hook(connection)
            if shard is not None:
                shard._noted.add(count.bytes)
            if shard is not None and pages >= self.tolerated:
                shard._look_at = shard._check_at = 0.0
        return 0


class BoundedShard(Shard):
    """As `Shard`, in a store with a budget. Made by ``Store.shard``.

    Writing raises a DiskBudgetError, which is a DiskFullError, where the store has no room: nothing of that write is
    kept, and the handle goes on.
    """

    def __init__(
        self,
        path: Path,
        agent: str,
        durability: Durability,
        held: FileLock,
        lookups: Lookups | None = None,
        made_bytes: int = 0,
        *,
        bound: Bound,
    ) -> None:
        self._root = bound.root
        self._pages = 0  # of the file, at the last look
        self._is_near = False  # whether the end was warned of
        self._found = Look.first(bound.root, bound.known)
        self._looked_at = monotonic()
        self._log = _Log(self)
        super().__init__(path, agent, durability, held, lookups, made_bytes)
        self._page_bytes = int(self._connection.pragma("page_size"))
        self._pages = int(self._connection.pragma("page_count"))
        self._grant(0)
        self._limit_log()
        self._connection.set_wal_hook(self._log)  # in the place of wal_autocheckpoint

    # -- looking ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        is_due = monotonic() >= self._look_at
        super()._check()
        if is_due:
            self._renew()
            self._ensure_log_may_grow()

    def _renew(self) -> bool:
        """Look, and take another grant; whether there is one. In a transaction it is wide."""
        now = monotonic()
        # a program that tries again and again must not keep the merger from making room
        if self._found.share.row_bytes > 0 or now >= self._looked_at + _LEAST_LOOK_S:
            ago_s, self._looked_at = now - self._looked_at, now
            pages = int(self._connection.pragma("page_count"))
            spent, self._pages = max(0, pages - self._pages), pages
            before, self._found = self._found, self._found.again(self._root, spent * self._page_bytes, ago_s)
            if self._found.share.wal_bytes != before.share.wal_bytes:
                self._limit_log()
            self._warn()
        share = self._found.share
        self._grant(share.transaction_bytes if self._depth else share.row_bytes)
        self._look_at = min(self._look_at, self._looked_at + share.renew_after_s)
        if not self._depth:
            self._check_at = self._look_at
        return share.row_bytes > 0

    def _grant(self, count: int) -> None:
        """From now on the file may grow by so many bytes from what it had at the last look."""
        self._connection.pragma("max_page_count", max(1, self._pages + count // self._page_bytes))

    def _limit_log(self) -> None:
        log = self._log
        log.quota = self._found.share.wal_bytes // self._page_bytes
        log.tolerated = max(log.quota, log.pages) + log.quota // 4
        self._connection.pragma("journal_size_limit", self._found.share.wal_bytes)

    def _warn(self) -> None:
        """Say once that the end is near."""
        found, was_near = self._found, self._is_near
        self._is_near = policy.is_nearly_full(found.limit, found.usage, was_warned=was_near)
        if self._is_near and not was_near:
            logger.warning(
                "%s is nearly full: %s", self._root, policy.describe_usage(found.limit, found.noted, found.usage)
            )

    def _ensure_log_may_grow(self) -> None:
        """Refuse to write into a log that cannot be begun anew, and for which there is no more room.

        Raises:
            DiskBudgetError: it is so.
        """
        log = self._log
        if log.pages < log.tolerated:
            return
        if self._found.share.left_for_writers > 2 * self._found.share.wal_bytes:
            log.tolerated = log.pages + log.quota // 4
            return
        if not self._depth and self._begin_log_anew():
            log.tolerated, log.pages = log.quota + log.quota // 4, 0
            return
        self._look_at = self._check_at = 0.0
        raise self._refusal()

    def _begin_log_anew(self) -> bool:
        """Have the next commit begin the log from its start; False where somebody reads it for long."""
        sqlite.set_busy_timeout(self._connection, _LOG_WAIT_S)
        try:
            sqlite.restart_wal(self._connection)
        except sqlite.BUSY:
            return False
        finally:
            sqlite.set_busy_timeout(self._connection, sqlite.BUSY_TIMEOUT_S)
        return True

    # -- transactions -------------------------------------------------------------------------------------------------

    def _enter_block(self, block: _Block) -> None:
        with self._lock:
            super()._enter_block(block)
            if not block.depth:
                self._widen(block)

    def _widen(self, block: _Block) -> None:
        """What is begun is not cut for want of a grant that there is: it would be undone whole."""
        try:
            pages = int(self._connection.pragma("page_count"))
            share = self._found.share.transaction_bytes // self._page_bytes
            self._connection.pragma("max_page_count", max(1, pages + share))
        except BaseException as error:
            self._leave_block(block, error)
            raise

    # -- failures -----------------------------------------------------------------------------------------------------

    def _row_failed(self, error: BaseException, row_id: int, writer: _Writer, record: Any) -> None:
        if not sqlite.is_full(error) or self._depth or not self._renew():
            super()._row_failed(error, row_id, writer, record)
            return
        try:
            self._grant(self._found.share.transaction_bytes)  # one row may be larger than what is granted for many
            writer.insert(self._execute, row_id, record)
            self._next_id = row_id + 1
            self._grant(self._found.share.row_bytes)
        except BaseException as again:
            super()._row_failed(again, row_id, writer, record)

    def _failed(
        self, error: BaseException, row_id: int = 0, writer: _Writer | None = None, record: Any = None
    ) -> NoReturn:
        try:
            super()._failed(error, row_id, writer, record)
        except DiskFullError as full:
            if not self._depth and self._has_logged_nothing():
                self._next_id = row_id
            self._renew()
            self._look_at = 0.0
            if self._found.usage.free < policy.MIN_QUOTA_BYTES:  # others than the store fill the disk
                raise
            raise self._refusal() from full

    def _undo_block(self, block: _Block, error: BaseException | None = None) -> None:
        is_sure = isinstance(error, DiskFullError) and not block.depth and self._has_logged_nothing()
        super()._undo_block(block, error)
        if is_sure:
            self._next_id, self._stream_id = block.next_id, block.stream_id

    def _has_logged_nothing(self) -> bool:
        """Whether nothing was given to the log since the last commit: then no part of what failed can come back.

        Its seqs are used again. Otherwise each refusal would end a stream, of which the master remembers each for ever.
        """
        return self._unusable is None and sqlite.wal_pages_written(self._connection) == self._log.logged

    def _refusal(self) -> DiskBudgetError:
        return refusal("write to shard", self.path, self._found, _CAUSE[self._found.noted.on_full])
