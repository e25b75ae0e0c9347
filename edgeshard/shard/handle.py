"""The state of an open shard: its connection and lock, the next row id, and whether it can still be used.

When a write fails, the class of the error says whether its row can be in the file:

* refused: it is not; its seq is used again
* disk full: it is not, but the tail of the WAL is unknown; the stream ends (together with an open transaction, which is
  undone), and the next write begins another
* anything else: it is ambiguous, and the row may come back after a crash; the handle is poisoned, and the caller opens
  the shard again
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from edgeshard import format, sqlite
from edgeshard.errors import (
    DiskBudgetError,
    DiskFullError,
    EdgeshardError,
    RecordError,
    ShardClosedError,
    ShardForkedError,
    ShardPoisonedError,
    StorageBusyError,
    StorageError,
    TransactionError,
)
from edgeshard.files import fingerprint, paths
from edgeshard.master.write_stats import WriterMeter
from edgeshard.options import DURABILITIES, TRANSACTION_WAIT_S, Durability
from edgeshard.records import codecs, fallbacks
from edgeshard.records.columns import Table
from edgeshard.records.fallbacks import Fallbacks
from edgeshard.shard import health, row_sizes
from edgeshard.shard.draft import Draft
from edgeshard.shard.inserts import RecordWriter, WriterKey
from edgeshard.shard.lookup import Lookups
from edgeshard.shard.quota import Quota
from edgeshard.shard.wal_limit import WalLimit
from edgeshard.sqlite import Connection

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

#: How often a writer checks its files, records its write statistics and renews its quota, at least, in seconds.
UPKEEP_INTERVAL_S: Final = 1.0

#: Stands for the next id while a row is written; otherwise a signal handler that writes then would use the same id.
WRITING: Final = 1 << 70


#: A WAL shorter than this, in bytes, may be left behind by a handle that is closed.
_SHORT_WAL_BYTES: Final = 64 << 10

#: How often to look again what the thread does that has the lock, in seconds.
_LOOK_AGAIN_S: Final = 1.0

#: How long a cancelled write waits at most until it notices, in seconds.
_LOOK_FOR_CANCEL_S: Final = 0.02


def _never() -> bool:
    return False


class OpenTransaction(Protocol):
    """A transaction that is open.

    Attributes:
        thread: the thread that opened it, by its ident.
    """

    thread: int


def _waited_cause(transaction: OpenTransaction, wait_s: float) -> str:
    return (
        f"waited {wait_s:g} s for a transaction of {_thread_name(transaction.thread)}. If that waits for this thread, "
        "write its rows in its own thread, or wait after its block; if it is only slow, pass a larger transaction_wait "
        "to store.shard"
    )


def _thread_name(ident: int) -> str:
    name = next((thread.name for thread in threading.enumerate() if thread.ident == ident), "")
    return f"thread {name!r} ({ident})" if name else f"thread {ident}"


class Handle:
    """An open shard without the methods that write to it; see `edgeshard.shard.shard.Shard`."""

    def __init__(
        self,
        *,
        path: Path,
        master_path: Path,
        agent: str,
        durability: Durability,
        connection: Connection,
        lock: health.ShardLock,
        meter: WriterMeter,
        connect: Callable[[], Connection],
        draft: Draft | None = None,
        lookups: Lookups | None = None,
        quota: Quota | None = None,
        replacing: Fallbacks = fallbacks.REFUSE,
        transaction_wait_s: float = TRANSACTION_WAIT_S,
    ) -> None:
        self.agent = agent
        self.path = str(path)
        self._master_path = master_path  # may lie elsewhere than two folders up: shards/ may be a symbolic link
        self.durability = durability
        self._lock_file: health.ShardLock | None = lock  # None: the handle was closed
        self._set_lock(threading.RLock())
        self._unusable: EdgeshardError | None = None
        self._next_id = 0  # 0: the next write begins a stream
        self._stream_id = b""
        self._writers: dict[WriterKey, RecordWriter] = {}
        self._fallbacks = replacing
        self._fitting: set[Table] = set()  # found to fit the store's master
        self._timestamp: Callable[[], int] | None = None  # the clock of keyed tables; None: no change was written yet
        self._is_clock_set_back: Callable[[], bool] | None = None  # of the same clock
        self._depth = 0  # of nested transactions
        self._open: OpenTransaction | None = None
        self._transaction_wait_s = transaction_wait_s
        self._thread: Executor | None = None  # for awaited writes; None: there was none yet
        self._starting_thread = threading.Lock()
        self._running: Callable[[], object] | None = None  # asks what runs in this thread; None: nothing takes turns
        self._task: object = None  # the coroutine or greenlet that has the transaction open
        self._aborted: BaseException | None = None  # what rolled the open transaction back
        self._files = health.ShardFiles(self.path)
        self._draft = draft  # None: the shard has a file
        self._connect = connect  # opens that file for its writer
        # whether to avoid the fsyncs of a process that opens an existing shard, adds a few rows and closes it
        self._spares_fsyncs = draft is None and quota is None and durability == "process"
        # whether the next transaction is the first to write to the file, whose WAL is probably empty then
        self._may_begin_wal = self._spares_fsyncs
        self._is_wal_unsynced = False
        self._upkeep_at = 0.0  # when the next upkeep is due
        self._check_at = 0.0  # when a write must call _check: at the next upkeep, or at once if it may be refused
        self._connection = connection
        self._execute = connection.cursor().execute
        self._lookups = lookups
        self._meter = meter
        self._quota = quota
        self._wal_limit = WalLimit(self.path, durability)  # without a quota
        self._follow_at = 0.0 if quota is None else math.inf  # when that limit must follow what was written
        self._limit_wal_or_draft()
        health.watch_forks(self)

    def _set_lock(self, lock: Any) -> None:
        self._lock, self._acquire, self._release = lock, lock.acquire, lock.release
        sqlite.await_turn(lock)

    # -- its turn -----------------------------------------------------------------------------------------------------

    def _await_turn(self, look_again_s: float = _LOOK_AGAIN_S, is_abandoned: Callable[[], bool] = _never) -> bool:
        """Wait for the lock, which another thread has.

        For one transaction of that thread this waits up to the limit, because that may be waiting for us. A write of
        its own ends by itself.

        Args:
            look_again_s: how often to look again what that thread does, in seconds.
            is_abandoned: asked then; returns whether to give up.

        Returns:
            Whether this thread has the lock now.

        Raises:
            TransactionError: a transaction is open for too long.
        """
        seen, until = None, 0.0
        while not is_abandoned():
            transaction, now, wait_s = self._open, monotonic(), look_again_s
            if transaction is not None:
                if transaction is not seen:
                    seen, until = transaction, now + self._transaction_wait_s
                if now >= until:
                    raise TransactionError("use shard", self.path, _waited_cause(transaction, self._transaction_wait_s))
                wait_s = min(until - now, look_again_s)
            if self._acquire(True, wait_s):
                return True
        return False

    def _take_turn(self, is_abandoned: Callable[[], bool]) -> bool:
        """Take the lock for a write that may be abandoned meanwhile; return whether it was taken."""
        return self._acquire(False) or self._await_turn(_LOOK_FOR_CANCEL_S, is_abandoned)

    def _end_turn(self) -> None:
        self._release()

    def _run_in_thread(self, work: Callable[[], None]) -> Future[None]:
        """Run something in the thread for awaited writes, after all that it was given before.

        Raises:
            TransactionError: this thread has a transaction open, for whose end that one would wait.
            ShardClosedError, ShardForkedError, ShardPoisonedError: the handle cannot be used any more.
        """
        transaction = self._open
        if transaction is not None and transaction.thread == threading.get_ident():
            cause = (
                "a transaction is open in this thread, and an awaited write, which runs in another, would wait for its "
                "end. Do not await inside a transaction; collect the rows first, and write them with awrite_many"
            )
            raise TransactionError("use shard", self.path, cause)
        with self._starting_thread:
            if self._unusable is not None:
                raise type(self._unusable)(*self._unusable.args)
            if self._thread is None:
                from concurrent.futures import ThreadPoolExecutor  # 5 ms, which only asyncio's users should pay

                self._thread = ThreadPoolExecutor(1, "edgeshard write")
            return self._thread.submit(work)

    def _end_thread(self) -> None:
        """Let the thread for awaited writes end. What it was given before is refused, because the shard is closed."""
        with self._starting_thread:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            if not self._acquire(False):
                self._await_turn()
            yield
        finally:
            try:  # noqa: SIM105  -- as in Shard.write
                self._release()
            except RuntimeError:  # refused or interrupted while waiting: the lock is not ours
                pass

    # -- whether it can be used ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse a handle that must not be used, or not now, and do the upkeep that is due."""
        if self._unusable is not None:
            # a new one each time: a traceback grows with each raise, and keeps the frames it went through alive
            raise type(self._unusable)(*self._unusable.args)
        if self._depth and self._running is not None and self._task != self._running():
            cause = (
                "another coroutine or greenlet has a transaction open; do not await or switch inside one. Collect the "
                "rows first, and write them with write_many"
            )
            raise TransactionError("use shard", self.path, cause)
        if self._depth and self._aborted is not None:
            cause = "an error undid this transaction; leave its block"
            raise TransactionError("use shard", self.path, cause) from self._aborted
        now = monotonic()
        if now >= self._upkeep_at:
            self._do_upkeep(now)
        if now >= self._follow_at and self._draft is None and not self._is_wal_unsynced:
            with sqlite.translate_errors("check shard", self.path):
                self._follow_at = self._wal_limit.follow(self._connection, now)
        if not self._depth:
            self._plan_check()

    def _do_upkeep(self, now: float) -> None:
        """Check the files, record the write statistics and renew the quota."""
        self._upkeep_at = now + UPKEEP_INTERVAL_S
        with sqlite.translate_errors("check shard", self.path):
            cause = self._find_outside_change()
        if cause:
            self._become_unusable(ShardPoisonedError("use shard", self.path, cause))
            raise ShardPoisonedError("use shard", self.path, cause)
        if self._lock_file is not None:
            self._lock_file.retake()
        if self._draft is None:
            self._meter.record_if_due(self._connection, now)
        if self._quota is not None:
            self._renew_quota(self._quota)
            self._quota.ensure_wal_may_grow(self._connection)

    def _plan_check(self) -> None:
        self._check_at = min(self._upkeep_at, self._follow_at)

    def _check_soon(self) -> None:
        """Have the next write do the upkeep."""
        self._upkeep_at = self._check_at = 0.0

    def _renew_quota(self, quota: Quota) -> None:
        quota.renew(self._connection)
        self._upkeep_at = min(self._upkeep_at, quota.renew_at)
        if not self._depth:
            self._plan_check()

    def _find_outside_change(self) -> str:
        """Return what happened to the files behind our back, or "". Call it while no row is being written."""
        if self._draft is not None:
            return ""
        if self._files.are_replaced(has_written=self._next_id != 0):
            return health.MOVED
        last_id = self._next_id - 1
        has_own_row = self._next_id not in (0, WRITING) and format.seq_of(last_id) != 0
        if not self._depth and has_own_row and health.has_lost_row(self._connection, last_id):
            return health.OVERWRITTEN
        return ""

    def _make_file(self, draft: Draft) -> None:
        """Make the shard's file of what the first transaction has committed in its draft, and open it.

        Raises:
            DiskFullError, StorageBusyError: nothing was written; the next transaction has a new draft.
            EdgeshardError: the handle is poisoned.
        """
        is_made = False
        try:
            with sqlite.translate_errors("make shard", self.path):
                self._meter.add(draft.publish(2 if self.durability == "power" else 1))
                is_made = True
                self._connection = self._connect()
                self._execute = self._connection.cursor().execute
                self._files.remember()
                self._meter.record_if_due(self._connection, monotonic())  # its agent may write no more for long
                self._limit_wal()
            if self._quota is not None:
                self._quota.request_new()
            self._draft = None  # last: until then the handle cannot be used
        except BaseException as error:
            cause = self._explain_failed_making(error, is_made=is_made)
            self._become_unusable(ShardPoisonedError("use shard", self.path, cause))
            if isinstance(error, (DiskFullError, StorageBusyError)):
                # these say that nothing was written, and that the handle stays usable
                if not self._begin_again(draft):
                    raise StorageError("make shard", self.path, cause) from error
                self._unusable = None  # until here, an interrupt would have left it poisoned
            raise

    def _explain_failed_making(self, error: BaseException, *, is_made: bool) -> str:
        """Return what went wrong with the shard's file, and where the rows of the first transaction are.

        Args:
            error: what was raised.
            is_made: whether the file was made, and is durable.
        """
        if is_made:
            return f"its file was made, with the first rows in it, but cannot be used ({error}); open it again"
        try:
            is_there = fingerprint.exists(self.path)
        except OSError:
            is_there = True  # perhaps
        if is_there:
            return f"its file could not be made ({error}), and whether it has the first rows is unknown; open it again"
        return f"its file could not be made ({error}); none of its rows was written. Open it again"

    def _begin_again(self, draft: Draft) -> bool:
        """Take a new draft if no file was made of the one before; return False if one may have been, or it fails."""
        try:
            if fingerprint.identity(self.path) is not None:
                return False
            self._draft = draft.renewed()
            self._connection = self._draft.connection
            self._execute = self._connection.cursor().execute
            self._limit_wal_or_draft()
        except (OSError, sqlite.DatabaseFailure):
            return False
        self._restart_clock()
        self._stream_id = b""
        return True

    def _become_unusable(self, error: EdgeshardError) -> None:
        self._unusable = error
        self._check_at = 0.0

    def _refuse_in_child(self) -> None:
        """Refuse all use after a fork, in the child; see `health`."""
        self._set_lock(threading.RLock())  # a thread of the parent may have held the other
        self._depth, self._open, self._thread, self._starting_thread = 0, None, None, threading.Lock()
        if self._lookups is not None:
            self._lookups.leave_to_parent()
        if self._quota is not None:
            self._quota.leave_to_parent()
        if self._lock_file is not None:
            self._become_unusable(
                ShardForkedError("use shard", self.path, self._in_child("it was opened before a fork"))
            )

    def _in_child(self, what: str) -> str:
        return (
            f"{what}, and belongs to one process. Keep the store, and open the shard in the child: "
            "store.shard(f'worker-{os.getpid()}'). With multiprocessing or an executor that goes into the function "
            "that runs there or into initializer=, with gunicorn into post_fork"
        )

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled, as multiprocessing does with what it gives to a child."""
        cause = self._in_child("an open shard cannot be copied or pickled: it holds a lock")
        raise ShardForkedError("copy shard", self.path, cause)

    def _restart_clock(self) -> None:
        """Have the next row begin a new stream: the wall clock was set back far, and timestamps of a stream grow."""
        self._next_id = 0
        self._timestamp = self._is_clock_set_back = None
        self._writers.clear()

    # -- the WAL ------------------------------------------------------------------------------------------------------

    def _limit_wal(self) -> None:
        if self._quota is None:
            self._wal_limit.begin(self._connection)
        else:
            self._quota.start(self._connection, self._meter, weakref.WeakMethod(self._check_soon))

    def _limit_wal_or_draft(self) -> None:
        """Set the limits of a new connection; a draft has no WAL, but a quota limits its file."""
        if self._draft is None or self._quota is not None:
            self._limit_wal()

    def _begin_transaction(self) -> None:
        if self._may_begin_wal:
            self._may_begin_wal, self._is_wal_unsynced = False, True
            self._is_wal_unsynced = sqlite.begin_in_empty_wal(self._connection)
        else:
            self._execute("BEGIN IMMEDIATE")

    def _end_unsynced_wal(self) -> None:
        """Set up the connection again, after the transaction that may have begun the WAL.

        Raises:
            StorageError: that failed, and the handle is poisoned. The transaction may be committed, so it is not one
                of the subclasses that say that nothing was written.
        """
        try:
            sqlite.set_synchronous(self._connection, DURABILITIES[self.durability])
            self._wal_limit.begin(self._connection)
        except BaseException as error:
            cause = f"an error left it without its settings ({error}); open it again"
            self._become_unusable(ShardPoisonedError("use shard", self.path, cause))
            if isinstance(error, sqlite.DatabaseFailure):
                raise StorageError("use shard", self.path, cause) from error
            raise
        self._is_wal_unsynced = False

    def _close_connection(self) -> None:
        """Close the connection; copy the WAL into the database and remove it, unless it may stay.

        That takes two fsyncs, longer than all else that a process does which adds one row to its agent's shard. At
        "power" nobody minds, within a disk budget nothing must be left over, and an agent that makes a new shard each
        time should leave a single file.
        """
        try:
            may_stay = self._spares_fsyncs and self._is_wal_short()
            checkpoints = not may_stay and not self._is_wal_unsynced
            with self._meter.closing(self._connection, checkpoints=checkpoints):
                if checkpoints:
                    sqlite.enable_checkpoint_on_close(self._connection)
                self._connection.close()
        finally:
            self._connection.close()  # whatever failed before; closing it twice is harmless

    def _is_wal_short(self) -> bool:
        try:
            return fingerprint.size(paths.wal(self.path)) in range(1, _SHORT_WAL_BYTES)
        except OSError:  # no reason not to close the shard
            return False

    # -- closing ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the shard, and let another handle open it. What was written stays; closing twice is harmless.

        Raises:
            TransactionError: a transaction of this thread was open; its rows were undone, and the shard is closed. Or
                one of another thread stays open; the shard is not closed.
            ShardPoisonedError: its files, or rows in them, are no longer there; it is closed.
        """
        with self._locked():
            if self._lock_file is None:
                return
            depth, self._depth, self._open = self._depth, 0, None
            lock_file, self._lock_file = self._lock_file, None
            is_usable = self._unusable is None
            closed = ShardClosedError("use shard", self.path, "it was closed; open it again")
            self._become_unusable(self._unusable or closed)
            if isinstance(self._unusable, ShardForkedError):
                return  # the files and the lock are the parent's
            cause = ""
            self._end_thread()
            try:
                with sqlite.translate_errors("close shard", self.path):
                    try:
                        cause = self._find_outside_change() if is_usable and not depth else ""
                    finally:
                        with contextlib.ExitStack() as parts:  # in reverse order, and all of them if one fails
                            if self._quota is not None:
                                parts.callback(self._quota.close)
                            if self._lookups is not None:
                                parts.callback(self._lookups.close)
                            draft = self._draft
                            if draft is not None:
                                parts.callback(draft.discard)
                            # if the file was made and could not be set up, both are open
                            if draft is None or self._connection is not draft.connection:
                                self._close_connection()
            finally:
                lock_file.release()
                for _ in range(depth):  # for each block that can no longer be left
                    self._release()
            if cause:  # no write has reported it, so this is the last chance
                raise ShardPoisonedError("close shard", self.path, cause)
            if depth:
                cause = "its transaction was open and is undone: none of its rows is written; write them again"
                raise TransactionError("close shard", self.path, cause)

    # -- failures -----------------------------------------------------------------------------------------------------

    def _retry_or_fail(self, error: BaseException, row_id: int, writer: RecordWriter, record: Any) -> None:
        """Handle a failed write of a single row; return normally if a retry stored it."""
        quota = self._quota
        if quota is None or self._depth or not sqlite.is_full(error):
            self._fail(error, row_id, writer, record)
        self._renew_quota(quota)
        if not quota.allows_writes:
            self._fail(error, row_id, writer, record)
        self._connection.set_last_insert_rowid(0)  # the row may have been inserted before it was undone
        try:
            row = writer.encode(row_id, record)
            quota.make_space(self._connection, writer, [row])
            self._execute(writer.sql, row)
            self._next_id = row_id + 1
        except BaseException as again:
            self._fail(again, row_id, writer, record)

    def _fail(
        self, error: BaseException, row_id: int = 0, writer: RecordWriter | None = None, record: Any = None
    ) -> NoReturn:
        """Put the handle into the state that `error` leaves it in, and raise what the caller should see."""
        if self._depth and not self._connection.in_transaction:
            self._aborted = error  # SQLite rolled the whole transaction back
        if isinstance(error, sqlite.ROW_REFUSED) or not isinstance(error, sqlite.DatabaseFailure):
            self._raise_record_error(error, row_id, writer, record)
        ours = sqlite.explain(error, "write to shard", self.path)
        if sqlite.is_full(error):
            self._next_id = 0
            self._aborted = error  # of the open transaction, if any: it would be in two streams
            if self._quota is not None:
                raise self._budget_error(self._quota, row_id) or ours from error
        elif sqlite.is_refused(error):
            self._reuse_id(row_id or self._next_id)
        else:
            cause = f"a write failed, and its outcome is unknown ({ours.cause}); open it again"
            self._become_unusable(ShardPoisonedError("use shard", self.path, cause))
        raise ours from error

    def _budget_error(self, quota: Quota, row_id: int) -> DiskBudgetError | None:
        """Return the error of a write that SQLite refused for lack of space; None if the budget is not the reason."""
        if not self._depth and self._is_surely_unwritten(quota):
            self._reuse_id(row_id)
        self._renew_quota(quota)
        self._upkeep_at = 0.0
        return None if quota.is_disk_full else quota.refusal()

    def _reuse_id(self, row_id: int) -> None:
        """Let the next row have an id that one had of which nothing is left."""
        self._next_id = row_id
        # SQLite may have inserted that row before it was undone, and _raise_record_error must not take it for the next
        self._connection.set_last_insert_rowid(0)

    def _is_surely_unwritten(self, quota: Quota) -> bool:
        """Return whether no part of what failed can come back, so that its seqs can be used again.

        Otherwise each refusal would end a stream, and the master remembers every stream forever.
        """
        return self._unusable is None and quota.is_wal_untouched(self._connection)

    def _raise_record_error(
        self, error: BaseException, row_id: int, writer: RecordWriter | None, record: Any
    ) -> NoReturn:
        """Tell a record that cannot be stored from an interrupt, which may come before the commit or after it."""
        inserted = bool(row_id) and self._connection.last_insert_rowid() == row_id
        if row_id:
            self._next_id = row_id + inserted
        if not inserted and writer is not None and isinstance(error, Exception):
            cause = codecs.why_unstorable(writer.table, record)
            if cause or isinstance(error, sqlite.ROW_REFUSED):
                cause = cause or f"table {writer.table.name}: {_why_refused(error, writer, record)}"
                raise RecordError("write to shard", self.path, cause) from error
        raise error


def _why_refused(error: Exception, writer: RecordWriter, record: Any) -> str:
    if sqlite.is_too_big(error):
        size = row_sizes.bytes_of(writer.encode(0, record))
        return f"the row has about {size:,} bytes, and a row has at most {format.ROW_BYTES_MAX:,}; write it in parts"
    return sqlite.explain(error, "", "").cause
