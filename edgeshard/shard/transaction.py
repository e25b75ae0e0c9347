"""One ``with shard.transaction()`` block: begin, commit, undo, at any depth."""

from __future__ import annotations

import contextlib
import threading
from typing import Final, NoReturn

from edgeshard import format, sqlite
from edgeshard.errors import (
    DiskFullError,
    ShardForkedError,
    ShardPoisonedError,
    StorageError,
    TransactionError,
)
from edgeshard.master import extents
from edgeshard.shard.handle import WRITING, Handle
from edgeshard.shard.health import running_asker

#: If a stream has fewer seqs left than this, a transaction begins another stream.
_LEAST_SEQS: Final = 1 << 30

_CLOSED_GENERATOR: Final = (
    "a generator was closed inside its transaction, and the rows that were written in it are undone, also those that "
    "were written elsewhere while the generator was suspended. Do not yield inside a transaction, except in a "
    "contextlib.contextmanager"
)

_LEFT_ELSEWHERE: Final = "a transaction was entered in one thread and left in another, and its rows are undone"

_ONE_THREAD: Final = "Enter and leave it in one function, without a yield to another thread"


class Transaction:
    """A block whose rows are committed together, and what to go back to if it fails.

    The outermost block is a SQLite transaction, a block inside another is a savepoint.

    A class and not a generator: an interrupt between the two halves of a generator would leave it half-entered.
    """

    __slots__ = ("_handle", "depth", "next_id", "stream_id", "thread")

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.depth = 0
        self.next_id = 0
        self.stream_id = b""
        self.thread = 0

    def __enter__(self) -> None:
        handle = self._handle
        try:
            if not handle._acquire(False):
                handle._await_turn()
            handle._check()
            if handle._next_id == WRITING:
                cause = (
                    "a row is being written; do not write from a signal handler or finalizer that interrupts a write"
                )
                raise TransactionError("use shard", handle.path, cause)
            self.depth, self.next_id, self.stream_id = handle._depth, handle._next_id, handle._stream_id
            self.thread = threading.get_ident()
            if not self.depth:
                handle._open = self
            handle._depth += 1
            handle._check_at = 0.0
            try:
                self._begin()
            except BaseException:
                # an interrupt may have come when the transaction had just begun
                try:
                    self._undo()
                finally:
                    handle._depth -= 1
                    if not handle._depth:
                        handle._open = None
                    self._resume()
                raise
        except BaseException:
            # not suppress(), which runs Python, and so may be interrupted, before the release
            try:  # noqa: SIM105
                handle._release()
            except RuntimeError:  # interrupted while waiting: the lock is not ours
                pass
            raise

    def _begin(self) -> None:
        handle = self._handle
        with sqlite.translate_errors("begin transaction in shard", handle.path):
            if self.depth:
                handle._execute(f"SAVEPOINT nested_{self.depth}")
                return
            handle._begin_transaction()
            handle._running = running_asker()
            handle._task, handle._aborted = handle._running and handle._running(), None
            if handle._is_clock_set_back is not None and handle._is_clock_set_back():
                handle._restart_clock()
                self.next_id = 0  # if the block is undone, the stream is not continued either
            if format.seq_of(self.next_id) > format.SEQ_MAX - _LEAST_SEQS:
                handle._next_id = 0
            if handle._quota is not None:
                handle._quota.hold(handle._connection)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        handle = self._handle
        if isinstance(handle._unusable, ShardForkedError):
            if error is None:
                handle._check()
            return  # the transaction, and the lock, are the parent's
        if handle._lock_file is None:
            handle._check()  # closed inside the block: the transaction is undone, and the lock released
        if threading.get_ident() != self.thread:
            self._leave_elsewhere(error)
        try:
            if error is not None:
                is_lost = isinstance(error, GeneratorExit) and handle._next_id != self.next_id
                self._undo(error)
                if is_lost:
                    raise TransactionError("commit to shard", handle.path, _CLOSED_GENERATOR) from error
                return
            try:
                self._end()
            except BaseException as failure:
                self._undo(failure)
                raise
        finally:
            handle._depth -= 1
            if not handle._depth:
                handle._open = None
            try:
                self._resume()
            finally:
                handle._release()

    def _leave_elsewhere(self, error: BaseException | None) -> NoReturn:
        """Undo a transaction in another thread than the one that entered it, whose lock cannot be released here."""
        handle = self._handle
        handle._set_lock(threading.RLock())
        handle._depth, handle._open = 0, None
        poisoned = ShardPoisonedError("use shard", handle.path, f"{_LEFT_ELSEWHERE}; open it again")
        handle._become_unusable(poisoned)
        if handle._connection.in_transaction:
            with sqlite.translate_errors("undo transaction in shard", handle.path):
                handle._execute("ROLLBACK")
        raise TransactionError("commit to shard", handle.path, f"{_LEFT_ELSEWHERE}. {_ONE_THREAD}") from error

    def _end(self) -> None:
        """Commit the outermost block, or release the savepoint of one inside it."""
        handle = self._handle
        if handle._aborted is not None:
            cause = "an error in it undid it; write its rows again"
            raise TransactionError("commit to shard", handle.path, cause) from handle._aborted
        if self.depth:
            with sqlite.translate_errors("end transaction in shard", handle.path):
                handle._execute(f"RELEASE nested_{self.depth}")
            return
        last_id = handle._next_id - 1
        # the block may have begun the stream itself
        first_id = max(self.next_id, format.row_id(format.stream_no_of(last_id), 1))
        try:
            if last_id > first_id:
                handle._execute(extents.INSERT_TRANSACTION, (first_id, last_id))
            handle._execute("COMMIT")
        except BaseException as error:
            handle._fail(error)
        if handle._draft is not None:
            if handle._next_id:  # the block wrote something
                handle._make_file(handle._draft)
        elif handle._files.identities is None:
            handle._files.remember()

    def _undo(self, error: BaseException | None = None) -> None:
        """Undo what the block wrote. Its seqs are used again if nothing of it can come back, or else its stream ends.

        Args:
            error: what failed in the block; None if the block was not entered.
        """
        handle = self._handle
        if handle._draft is not None and not handle._draft.is_open:
            return  # it could not be published, and the handle is poisoned
        quota = handle._quota
        can_reuse_seqs = self.depth > 0 or not isinstance(error, StorageError)
        is_unwritten = (
            isinstance(error, DiskFullError)
            and not self.depth
            and quota is not None
            and handle._is_surely_unwritten(quota)
        )
        handle._next_id = 0
        handle._writers.clear()  # the statements that made tables may be undone with it
        if handle._connection.in_transaction:
            with sqlite.translate_errors("undo transaction in shard", handle.path):
                if not self.depth:
                    handle._execute("ROLLBACK")
                elif handle._aborted is None:
                    self._undo_nested()
        else:
            # the transaction never began, or ended without us, perhaps by a commit
            can_reuse_seqs = error is None
        if can_reuse_seqs or is_unwritten:
            handle._reuse_id(self.next_id)
            handle._stream_id = self.stream_id

    def _undo_nested(self) -> None:
        handle = self._handle
        try:
            with contextlib.suppress(sqlite.NO_SUCH_SAVEPOINT):  # interrupted before it was made
                handle._execute(f"ROLLBACK TO nested_{self.depth}")
                handle._execute(f"RELEASE nested_{self.depth}")
        except BaseException as failure:
            handle._aborted = failure  # its rows may still be there, and must not be committed with the others
            raise

    def _resume(self) -> None:
        """Go back to the quick path after the outermost block; poison the handle if an interrupt kept it open."""
        handle = self._handle
        if handle._depth or handle._unusable is not None:
            return
        if handle._quota is not None:
            handle._quota.let_go()
        if handle._is_wal_unsynced and not handle._connection.in_transaction:
            handle._end_unsynced_wal()
        if handle._connection.in_transaction:
            cause = "an interrupt kept its transaction from being undone; open it again"
            handle._become_unusable(ShardPoisonedError("use shard", handle.path, cause))
        else:
            handle._plan_check()


class TransactionMethod:
    """``shard.transaction``, which is to be called: ``with shard.transaction():``."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __call__(self) -> contextlib.AbstractContextManager[None]:
        """Return the block; see `Shard.transaction`."""
        return Transaction(self._handle)

    def __enter__(self) -> NoReturn:
        cause = "the parentheses are missing: with shard.transaction():"
        raise TransactionError("begin transaction in shard", self._handle.path, cause)

    def __exit__(self, *_: object) -> None:
        """Do nothing: it is never entered."""
