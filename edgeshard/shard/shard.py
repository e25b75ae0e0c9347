"""One writer, one file: write, transaction, close.

A write, step by step:

1. Take the handle's lock; refuse where the handle was closed, poisoned, or crossed a fork.
2. Turn the record into values (tables.py).
3. Execute one prepared INSERT, whose id is ``stream_no << 32 | seq``. Outside ``transaction()`` this commits.
   This is the commit point: the row survives a kill of the process, and at durability "power" a power cut.
4. Count seq up, and return it.

The first write of a handle begins a new stream in the same commit, so a shard that comes back from a power cut or from
a copy, and has forgotten rows that a master already holds, never gives out their addresses again.

When step 3 fails, its error class says whether the row can be there. Refused: the seq is used again. Disk full: the
stream ends (with an open transaction, which is undone), and the next write begins another. Anything else is ambiguous,
the row may come back after a crash: the handle is poisoned, and the caller opens the shard anew.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import secrets
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal, NoReturn

import attrs
from filelock import FileLock

from edgeshard import format, sqlite
from edgeshard.errors import (
    ConfigurationError,
    EdgeshardError,
    FormatError,
    RecordError,
    ShardClosedError,
    ShardForkedError,
    ShardPoisonedError,
    StorageError,
    TransactionError,
)
from edgeshard.files import fingerprint, folders, paths
from edgeshard.master import write_stats
from edgeshard.records import codecs, columns, declare, hlc
from edgeshard.shard import hlc_floor, schema
from edgeshard.shard.lookup import Lookups
from edgeshard.sqlite import Connection, quote

Durability = Literal["process", "power"]

#: How each durability is named in SQLite.
DURABILITIES: Final = {"process": "NORMAL", "power": "FULL"}

#: The writer copies its log into its database itself once it has grown to this, in pages of 1024 bytes, because no
#: merger did. It takes as long as writing so much to the disk does: 4 MB 8 to 15 ms, 16 MB 20 to 38 ms (measured), and
#: no more in sum.
_CHECKPOINT_PAGES: Final = 4_000

#: The log is not cut to less than this, in bytes, as it begins anew: to overwrite what is there takes half the time of
#: an fsync that makes the file longer (measured).
_LOG_BYTES: Final = 3_000_000

#: At "power" it never is: it stays below what would tell a merger that the shard has to be truncated.
_CHECKPOINT_PAGES_AT_POWER: Final = 2_800

#: How often a writer looks whether its files are still the ones in the folder, in seconds.
_LOOK_INTERVAL_S: Final = 1.0

_SEQ_MASK: Final = format.SEQ_MAX

#: In place of the next id while a row is being written: a signal handler that writes meanwhile would take the same one.
_TAKEN: Final = 1 << 70

#: A stream with fewer seqs left than this is succeeded by another before a transaction begins.
_TRANSACTION_ROOM: Final = 1 << 30

#: Records of a list that are encoded at a time.
_BATCH_ROWS: Final = 1_000

_TOO_MANY: Final = "more rows than one transaction can hold"

_MOVED: Final = (
    "its files were moved, deleted or replaced while it was open; rows written since then went to the old files. "
    "Open it anew"
)

_OVERWRITTEN: Final = (
    "rows that were committed are gone from it: something wrote to it past its locks, which another SQLite library in "
    "this process drops when it closes the file. Open it anew, and write again what is in no master"
)


@attrs.frozen
class _Writer:
    """How records of one class are written.

    Attributes:
        table: their table.
        sql: the statement that inserts one.
        encode: makes its bindings of a row id and a record.
        insert: executes it, given a cursor's execute, a row id and a record.
    """

    table: columns.Table
    sql: str
    encode: Callable[[int, Any], tuple[Any, ...]]
    insert: Callable[[Callable[..., Any], int, Any], Any]


class _Block:
    """A ``with shard.transaction()``, and what to go back to where it fails.

    A class and not a generator: an interrupt between the two halves of a generator would leave it half-entered.
    """

    __slots__ = ("_shard", "depth", "next_id", "stream_id")

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.depth = 0
        self.next_id = 0
        self.stream_id = b""

    def __enter__(self) -> None:
        self._shard._enter_block(self)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._shard._leave_block(self, error)


class Shard:
    """An agent's own database, open for writing. Made by ``Store.shard``.

    May be used from several threads and from coroutines; not after a fork.

    Attributes:
        agent: the agent's name.
        path: the shard's file.
        durability: "process" (a committed row survives a kill at once, a power cut may take the last moments) or
            "power" (it survives a power cut as well).
    """

    def __init__(
        self,
        path: Path,
        agent: str,
        durability: Durability,
        held: FileLock,
        lookups: Lookups | None = None,
        made_bytes: int = 0,
    ) -> None:
        self.agent = agent
        self.path = str(path)
        self.durability = durability
        self._held: FileLock | None = held
        self._set_lock(threading.RLock())
        self._unusable: EdgeshardError | None = None
        self._next_id = 0  # 0: the next write begins a stream
        self._stream_id = b""
        self._writers: dict[type, _Writer] = {}
        self._timestamp: Callable[[], int] | None = None  # of keyed tables; None: none was written to yet
        self._depth = 0  # of nested transactions
        self._task: object = None  # the coroutine that has the transaction open
        self._aborted: BaseException | None = None  # what rolled the open transaction back
        self._files: tuple[tuple[int, int], ...] | None = None  # which files we write, by device and inode
        self._look_at = 0.0  # when to look at the files again
        self._check_at = 0.0  # when a write must call _check: at the next look, or at once where it may be refused
        self._connection = self._connect()
        self._execute = self._connection.cursor().execute
        self._lookups = lookups
        self._noted = write_stats.WriterMeter(paths.lock_path(str(path)), made_bytes)
        _open_shards.add(self)

    def _set_lock(self, lock: Any) -> None:
        self._lock, self._acquire, self._release = lock, lock.acquire, lock.release

    def _refuse_in_child(self) -> None:
        """After a fork, in the child. No connection may cross one: https://sqlite.org/howtocorrupt.html, 2.6."""
        self._set_lock(threading.RLock())  # a thread of the parent may have held the other
        self._depth = 0
        _crossed.append(self._connection)  # to close it here, even by garbage collection, would touch the files
        if self._lookups is not None:
            _crossed.append(self._lookups.leave_to_parent())
        if self._held is not None:
            cause = "it was opened before a fork; a child opens shards of its own"
            self._refuse_all(ShardForkedError("use shard", self.path, cause))

    # -- opening and closing ------------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        with sqlite.translate_errors("open shard", self.path):
            connection = sqlite.connect(self.path, writable=True)
            try:
                sqlite.check_identity(connection, "main", format.IDENTITY, self.path)
                row = connection.execute("SELECT role, agent_id FROM edgeshard_database").fetchone()
                if row is None or row[0] != format.SHARD:
                    raise FormatError("open shard", self.path, "it is an edgeshard database, but not a shard")
                if row[1] != self.agent:
                    raise FormatError("open shard", self.path, f"it belongs to agent {row[1]!r}, not to {self.agent!r}")
                sqlite.set_synchronous(connection, DURABILITIES[self.durability])
                is_power = self.durability == "power"
                pages = _CHECKPOINT_PAGES_AT_POWER if is_power else _CHECKPOINT_PAGES
                connection.wal_autocheckpoint(pages * format.SHARD_PAGE_SIZE // connection.pragma("page_size"))
                connection.pragma("journal_size_limit", _LOG_BYTES)
                if is_power:
                    # an earlier handle at "process" may have left the file's name unsynced
                    folders.sync_path(os.path.dirname(self.path))
            except BaseException:
                connection.close()
                raise
        return connection

    def close(self) -> None:
        """Close the shard, and let another open it. What was written stays; closing twice is fine.

        Raises:
            TransactionError: a transaction of this thread was open; its rows were undone, and the shard is closed.
            ShardPoisonedError: its files, or rows in them, are no longer there; it is closed.
        """
        with self._lock:
            if self._held is None:
                return
            depth, self._depth = self._depth, 0
            held, self._held = self._held, None
            is_usable = self._unusable is None
            self._refuse_all(self._unusable or ShardClosedError("use shard", self.path, "it was closed; open it again"))
            if isinstance(self._unusable, ShardForkedError):
                return  # the files and the lock are the parent's
            cause = ""
            try:
                with sqlite.translate_errors("close shard", self.path):
                    try:
                        cause = self._trouble() if is_usable and not depth else ""
                    finally:
                        with self._noted.closing(self._connection):
                            self._connection.close()
                        if self._lookups is not None:
                            self._lookups.close()
            finally:
                held.release()
                for _ in range(depth):  # for each block that cannot be left any more
                    self._release()
            if cause:  # not said before; now at the latest
                raise ShardPoisonedError("close shard", self.path, cause)
            if depth:
                cause = "its transaction was open, and is undone: none of the rows in it is written"
                raise TransactionError("close shard", self.path, cause)

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Shard {self.agent!r} at {self.path}>"

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def stream(self) -> str:
        """The id of the stream that the last write belongs to, in hexadecimal; "" before the first write.

        With a seq it is a row's address, in every database the row reaches.
        """
        return self._stream_id.hex()

    def write(self, record: Any) -> int:
        """Write one row; it is committed when this returns, or when the open transaction is.

        Args:
            record: an instance of an attrs class, or a JSON-able dict (a row of table ``agent_data``).

        Returns:
            The row's seq in this handle's stream, from 1.

        Raises:
            RecordError: a value cannot be stored; nothing was written, and the handle goes on.
            TableError, SchemaConflictError: the class cannot be a table of this shard; likewise.
            DiskFullError, StorageBusyError: nothing was written; likewise.
            ShardPoisonedError, StorageError: whether it was written is unknown; open the shard anew.
            ShardClosedError, ShardForkedError, TransactionError: the handle cannot be used so.
        """
        # "with self._lock", at two thirds of its price; and the body of _insert, spelled out: each saves 0.1 to 0.2 µs
        # of the 7 that a commit takes (measured)
        try:
            self._acquire()
            if monotonic() >= self._check_at:
                self._check()
            writer = self._writers.get(record.__class__)
            row_id = self._next_id
            if writer is not None and row_id & _SEQ_MASK:
                # no signal handler runs between the reading of this attribute and its writing: there is no call
                self._next_id = _TAKEN
                try:
                    writer.insert(self._execute, row_id, record)
                    self._next_id = row_id + 1
                except BaseException as error:
                    self._next_id = 0  # until _failed knows better
                    self._row_failed(error, row_id, writer, record)
            else:
                with self.transaction():
                    row_id = self._insert(self._writer_for(record), record)
        except BaseException:
            # not suppress(), which runs Python, and so may be interrupted, before the release
            try:  # noqa: SIM105
                self._release()
            except RuntimeError:  # interrupted as it waited: the lock is not ours
                pass
            raise
        self._release()
        return row_id & _SEQ_MASK

    def delete(self, cls: type, *key: Any) -> int:
        """Delete the row of a keyed table that has this key, wherever it was or will be written before now.

        It is a change like any other: it gets a seq, is committed when this returns, or when the open transaction is,
        and what was written with the key before it, here or elsewhere, does not come back. A later write with the key
        is a new row. Whether there is such a row is not asked.

        Args:
            cls: the class, declared with ``@edgeshard.table(key=...)``.
            key: a value of each column of the key, in the order of their declaration.

        Returns:
            The deletion's seq in this handle's stream.

        Raises:
            TableError: the class has no key, or its conflict rule knows no deletion, or the key is not whole.
            As `write`.
        """
        return self.write(declare.deletion(cls, key))

    def _insert(self, writer: _Writer, record: Any) -> int:
        if not self._next_id & format.SEQ_MAX:
            self._begin_stream()
        row_id = self._next_id
        self._next_id = _TAKEN
        try:
            writer.insert(self._execute, row_id, record)
            self._next_id = row_id + 1
        except BaseException as error:
            self._next_id = 0  # until _failed knows better
            self._failed(error, row_id, writer, record)
        return row_id

    def write_many(self, records: Iterable[Any]) -> int:
        """Write rows, of one class or several, in one transaction.

        Returns:
            How many.

        Raises:
            As `write`; then none of them was written.
        """
        with self.transaction():
            if isinstance(records, (list, tuple)) and len(set(map(type, records))) == 1:
                return self._insert_all(self._writer_for(records[0]), records)
            count = 0
            for _, group in itertools.groupby(records, type):
                run = iter(group)
                first = next(run)
                writer = self._writer_for(first)
                count += self._insert_run(writer, itertools.chain([first], run))
            return count

    def _insert_all(self, writer: _Writer, records: Sequence[Any]) -> int:
        """As `_insert_run`, of records that are all there: encoded first, they cost a quarter less (measured)."""
        for start in range(0, len(records), _BATCH_ROWS):
            self._insert_batch(writer, records[start : start + _BATCH_ROWS])
        return len(records)

    def _insert_batch(self, writer: _Writer, batch: Sequence[Any]) -> None:
        if not self._next_id & format.SEQ_MAX:
            self._begin_stream()
        first_id = self._next_id
        if format.seq_of(first_id) + len(batch) - 1 > format.SEQ_MAX:
            raise TransactionError("write to shard", self.path, _TOO_MANY)
        self._next_id = _TAKEN
        try:
            encode = writer.encode
            rows = [encode(row_id, record) for row_id, record in enumerate(batch, first_id)]
            self._connection.executemany(writer.sql, rows)
            self._next_id = first_id + len(batch)
        except BaseException as error:
            self._next_id = first_id
            culprit = next((record for record in batch if codecs.why_refused(writer.table, record)), batch[-1])
            self._failed(error, 0, writer, culprit)

    def _insert_run(self, writer: _Writer, records: Iterable[Any]) -> int:
        if not self._next_id & format.SEQ_MAX:
            self._begin_stream()
        before = self._next_id
        current: Any = None
        pulling = True  # from the caller's iterable, whose errors are the caller's

        def rows() -> Iterator[tuple[Any, ...]]:
            nonlocal current, pulling
            for current in records:
                pulling = False
                row_id = self._next_id
                if not row_id & format.SEQ_MAX:
                    raise TransactionError("write to shard", self.path, _TOO_MANY)
                self._next_id = row_id + 1
                yield writer.encode(row_id, current)
                pulling = True

        try:
            self._connection.executemany(writer.sql, rows())
        except BaseException as error:
            if pulling or isinstance(error, EdgeshardError):
                raise
            self._failed(error, 0, writer, current)
        return self._next_id - before

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Commit all rows of the block together, in the shard and later in the master, or none where it raises.

        A block inside a block can fail alone: what it wrote is undone, the outer one goes on if it catches the error.
        Other threads wait for the block to end. A coroutine must not await inside it: another one that writes
        meanwhile gets a TransactionError.

        Raises:
            As `write`.
        """
        return _Block(self)

    def _enter_block(self, block: _Block) -> None:
        try:
            self._acquire()
            self._check()
            if self._next_id == _TAKEN:
                cause = (
                    "a row is being written; do not write from a signal handler or finalizer that interrupts a write"
                )
                raise TransactionError("use shard", self.path, cause)
            block.depth, block.next_id, block.stream_id = self._depth, self._next_id, self._stream_id
            self._depth += 1
            self._check_at = 0.0
            try:
                with sqlite.translate_errors("begin transaction in shard", self.path):
                    self._execute(f"SAVEPOINT nested_{block.depth}" if block.depth else "BEGIN IMMEDIATE")
                if not block.depth:
                    self._task, self._aborted = _running_task(), None
                    if format.seq_of(block.next_id) > format.SEQ_MAX - _TRANSACTION_ROOM:
                        self._next_id = 0
            except BaseException:
                # an interrupt may have come when the transaction had just begun
                try:
                    self._undo_block(block)
                finally:
                    self._depth -= 1
                    self._settle()
                raise
        except BaseException:
            # not suppress(), which runs Python, and so may be interrupted, before the release
            try:  # noqa: SIM105
                self._release()
            except RuntimeError:  # interrupted as it waited: the lock is not ours
                pass
            raise

    def _leave_block(self, block: _Block, error: BaseException | None) -> None:
        if isinstance(self._unusable, ShardForkedError):
            if error is None:
                self._check()
            return  # the transaction, and the lock, are the parent's
        if self._held is None:
            self._check()  # closed inside the block: undone, and the lock given back
        try:
            if error is None:
                try:
                    self._end_block(block)
                except BaseException as failure:
                    self._undo_block(block, failure)
                    raise
            else:
                self._undo_block(block, error)
        finally:
            self._depth -= 1
            try:
                self._settle()
            finally:
                self._release()

    def _settle(self) -> None:
        """After a block: back to the quick path, unless an interrupt kept the block from being undone."""
        if self._depth or self._unusable is not None:
            return
        if self._connection.in_transaction:
            cause = "an interrupt kept its transaction from being undone; open it anew"
            self._refuse_all(ShardPoisonedError("use shard", self.path, cause))
        else:
            self._check_at = self._look_at

    def _end_block(self, block: _Block) -> None:
        if self._aborted is not None:
            raise TransactionError("commit to shard", self.path, "an error in it undid it") from self._aborted
        if block.depth:
            self._execute(f"RELEASE nested_{block.depth}")
            return
        last_id = self._next_id - 1
        # the block may have begun the stream itself
        first_id = max(block.next_id, format.row_id(format.stream_no_of(last_id), 1))
        try:
            if last_id > first_id:
                self._execute("INSERT INTO edgeshard_transactions VALUES (?, ?)", (first_id, last_id))
            self._execute("COMMIT")
        except BaseException as error:
            self._failed(error)
        if self._files is None:
            self._files = self._files_now()

    def _undo_block(self, block: _Block, error: BaseException | None = None) -> None:
        """Undo what the block wrote; its seqs are used again where that is certain, or else its stream ends."""
        self._next_id = 0
        self._writers.clear()  # the statements that made tables may be undone with it
        if not self._connection.in_transaction:
            # it never began, or ended under us; whether by a commit we may not know
            if error is None:
                self._next_id, self._stream_id = block.next_id, block.stream_id
            return
        with sqlite.translate_errors("undo transaction in shard", self.path):
            if not block.depth:
                self._execute("ROLLBACK")
            elif self._aborted is None:
                self._undo_nested(block)
        self._connection.set_last_insert_rowid(0)  # what _refused asks: that row is no longer there
        if block.depth or not isinstance(error, StorageError):
            self._next_id, self._stream_id = block.next_id, block.stream_id

    def _undo_nested(self, block: _Block) -> None:
        try:
            with contextlib.suppress(sqlite.NO_SUCH_SAVEPOINT):  # interrupted before it was made
                self._execute(f"ROLLBACK TO nested_{block.depth}")
                self._execute(f"RELEASE nested_{block.depth}")
        except BaseException as failure:
            self._aborted = failure  # its rows may still be there, and must not be committed with the others
            raise

    def sync(self) -> None:
        """Make all that was written so far survive a power cut.

        Raises:
            TransactionError: a transaction of this thread is open.
            As `write`.
        """
        with self._lock:
            self._look_at = 0.0  # rows in files that nobody finds survive nothing
            self._check()
            if self._depth:
                raise TransactionError("sync shard", self.path, "its transaction is still open; leave that first")
            with sqlite.translate_errors("sync shard", self.path):
                self._commit_durably()
                folders.sync_path(os.path.dirname(self.path))

    def _commit_durably(self) -> None:
        """Commit something: an fsync happens in a commit at FULL.

        At "power" as well: an earlier handle may have written at "process".
        """
        try:
            sqlite.set_synchronous(self._connection, "FULL")
            self._execute("UPDATE edgeshard_database SET generation = generation + 1")
        except BaseException as error:
            self._failed(error)
        finally:
            sqlite.set_synchronous(self._connection, DURABILITIES[self.durability])

    # -- looking up ---------------------------------------------------------------------------------------------------

    def lookup(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Run one SELECT on the references that the shard was opened with, read-only.

        It takes no part in a transaction of the shard, sees nothing of the shard's rows, and waits only for other
        look-ups of this handle.

        Args:
            sql: the statement; a table of reference ``patterns`` is ``patterns.name``, and several references can be
                joined. ``?`` or ``:name`` stand for parameters.
            params: their values, as those of `Store.query`.

        Returns:
            The rows, as tuples whose values are attributes as well: ``row.name``.

        Raises:
            QueryError: SQLite refused the statement, or it took far too long.
            ReferenceChangedError: a file is not what it was when the shard was opened; open the shard anew.
            StorageError: a reference cannot be read.
            ConfigurationError: the shard was opened without a reference.
            ShardClosedError, ShardForkedError, ShardPoisonedError: the handle cannot be used any more.
        """
        if self._unusable is not None:
            raise type(self._unusable)(*self._unusable.args)
        if self._lookups is None:
            cause = "it was opened without a reference; open it with store.shard(agent, reference={name: path})"
            raise ConfigurationError("look up from shard", self.path, cause)
        return self._lookups.lookup(sql, params)

    # -- streams and tables -------------------------------------------------------------------------------------------

    def _begin_stream(self) -> None:
        """Begin a new stream inside the open transaction."""
        self._next_id = _TAKEN
        stream_id = secrets.token_bytes(16)
        began_at = datetime.datetime.now(datetime.UTC).isoformat()
        try:
            last = sqlite.scalar(self._connection, "SELECT max(stream_no) FROM edgeshard_streams") or 0
            self._execute(
                "INSERT INTO edgeshard_streams(stream_no, agent_id, stream_id, began_at) VALUES (?, ?, ?, ?)",
                (last + 1, self.agent, stream_id, began_at),
            )
        except BaseException as error:
            self._next_id = 0
            self._failed(error)
        self._stream_id = stream_id
        self._next_id = format.row_id(last + 1, 1)

    def _writer_for(self, record: Any) -> _Writer:
        cls = type(record)
        writer = self._writers.get(cls)
        if writer is None:
            table = declare.table_of(declare.AgentData if isinstance(record, dict) else cls)
            table = self._ensure_table(table)
            own = ("_id", format.TIMESTAMP) if table.is_timestamped else ("_id",)
            names = [*own, *(column.name for column in table.columns)]
            marks = ", ".join("?" * len(names))
            sql = f"INSERT INTO {quote(table.name)}({', '.join(map(quote, names))}) VALUES ({marks})"
            if isinstance(record, dict):
                encode, insert = self._dict_functions(sql)
            else:
                encode, insert = codecs.functions(table, sql, self._clock() if table.is_timestamped else None)
            writer = self._writers[cls] = _Writer(table, sql, encode, insert)
        return writer

    def _clock(self) -> Callable[[], int]:
        """What timestamps the changes of this handle, above all that its store knows."""
        if self._timestamp is None:
            with sqlite.translate_errors("read timestamps of", self.path):
                floor = hlc_floor.newest(self._connection)
            self._timestamp = hlc.clock(max(floor, hlc_floor.newest_in_store(self.path)))
        return self._timestamp

    def _dict_functions(self, sql: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        agent, now, to_json = self.agent, time.time, codecs.to_json

        def encode(row_id: int, record: dict[str, Any]) -> tuple[int, str, float, str]:
            return (row_id, agent, now(), to_json(record))

        def insert(execute: Callable[..., Any], row_id: int, record: dict[str, Any]) -> None:
            execute(sql, (row_id, agent, now(), to_json(record)))

        return encode, insert

    def _ensure_table(self, table: columns.Table) -> columns.Table:
        """Make the table, or add or widen the columns of an older version of the agent; the table as it then is."""
        try:
            for statement in schema.changes(self._connection, table, self.path):
                self._writers.clear()  # other classes of the table may have to convert from now on
                self._execute(*statement)
            return schema.as_stored(self._connection, table)
        except EdgeshardError:
            raise
        except BaseException as error:
            self._failed(error)

    # -- failures -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse a handle that must not be used, or not now."""
        if self._unusable is not None:
            # a new one each time: a traceback grows with each raise, and keeps what it went through alive
            raise type(self._unusable)(*self._unusable.args)
        if self._depth and self._task is not _running_task():
            cause = "another coroutine has a transaction open; do not await inside one"
            raise TransactionError("use shard", self.path, cause)
        if self._depth and self._aborted is not None:
            raise TransactionError(
                "use shard", self.path, "an error undid this transaction; leave it"
            ) from self._aborted
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_INTERVAL_S
            with sqlite.translate_errors("look at shard", self.path):
                cause = self._trouble()
            if cause:
                self._refuse_all(ShardPoisonedError("use shard", self.path, cause))
                raise ShardPoisonedError("use shard", self.path, cause)
            self._noted.record_if_due(self._connection, now)
        if not self._depth:
            self._check_at = self._look_at

    def _trouble(self) -> str:
        """What somebody did to the files behind our back, or ""; asked where no row is being written."""
        if self._is_moved():
            return _MOVED
        return _OVERWRITTEN if not self._depth and self._has_lost_rows() else ""

    def _has_lost_rows(self) -> bool:
        """Whether our last row is neither in the file nor truncated: another connection wrote as if we had no lock."""
        last_id = self._next_id - 1
        if not format.seq_of(last_id) or self._next_id in (0, _TAKEN):
            return False
        sql = "SELECT max(last) FROM edgeshard_truncations WHERE stream_no = ?"
        self._connection.release_memory()  # what is in our cache is not what others find
        with sqlite.read_snapshot(self._connection):
            gone = sqlite.scalar(self._connection, sql, (format.stream_no_of(last_id),)) or 0
            names = sqlite.fetch(self._connection, "SELECT DISTINCT table_name FROM edgeshard_columns")
            return gone < format.seq_of(last_id) and not any(
                sqlite.scalar(self._connection, f"SELECT 1 FROM {quote(name)} WHERE _id = ?", (last_id,))
                for (name,) in names
            )

    def _is_moved(self) -> bool:
        """Whether the files that we write are no longer the ones that have our names."""
        found = self._files_now()
        if self._files is None and self._next_id:
            self._files = found  # which could not be seen after the first commit
        return self._files is not None and found not in (None, self._files)

    def _files_now(self) -> tuple[tuple[int, int], ...] | None:
        """Which files have our names; () where one is missing, None where the file system does not say."""
        try:
            names = (self.path, paths.wal(self.path))
            files = [fingerprint.identity(name, follow_symlinks=True) for name in names]
            return tuple(file for file in files if file is not None) if all(files) else ()
        except OSError:  # no reason to refuse a row, nor to call one in doubt that is committed
            return None

    def _refuse_all(self, error: EdgeshardError) -> None:
        self._unusable = error
        self._check_at = 0.0

    def _row_failed(self, error: BaseException, row_id: int, writer: _Writer, record: Any) -> None:
        """As `_failed`, of a row that `write` writes; it returns where the row is written after all."""
        self._failed(error, row_id, writer, record)

    def _failed(
        self, error: BaseException, row_id: int = 0, writer: _Writer | None = None, record: Any = None
    ) -> NoReturn:
        """Put the handle into the state that `error` leaves it in, and raise what the caller should see."""
        if self._depth and not self._connection.in_transaction:
            self._aborted = error  # SQLite rolled the whole transaction back
        if isinstance(error, sqlite.ROW_REFUSED) or not isinstance(error, sqlite.DatabaseFailure):
            self._refused(error, row_id, writer, record)
        ours = sqlite.explain(error, "write to shard", self.path)
        if sqlite.is_full(error):
            self._next_id = 0
            self._aborted = error  # of the open transaction, if any: it would be in two streams
        elif sqlite.is_refused(error):
            self._next_id = row_id or self._next_id
        else:
            cause = f"a write failed, and its outcome is unknown ({ours.cause}); open it anew"
            self._refuse_all(ShardPoisonedError("use shard", self.path, cause))
        raise ours from error

    def _refused(self, error: BaseException, row_id: int, writer: _Writer | None, record: Any) -> NoReturn:
        """Tell a record that cannot be stored from an interrupt, which may come before the commit or after it."""
        inserted = bool(row_id) and self._connection.last_insert_rowid() == row_id
        if row_id:
            self._next_id = row_id + inserted
        if not inserted and writer is not None and isinstance(error, Exception):
            cause = codecs.why_refused(writer.table, record)
            if cause or isinstance(error, sqlite.ROW_REFUSED):
                raise RecordError(
                    "write to shard", self.path, f"table {writer.table.name}: {cause or error}"
                ) from error
        raise error


# Asking for the pid at each write would cost 0.15 µs of the 7 (measured); the interpreter tells of a fork for nothing.
_open_shards: weakref.WeakSet[Shard] = weakref.WeakSet()

_crossed: list[Connection | None] = []


def _after_fork_in_child() -> None:
    for shard in list(_open_shards):
        shard._refuse_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _running_task() -> object:
    """The asyncio task that runs, or None; without importing asyncio where nobody did."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
