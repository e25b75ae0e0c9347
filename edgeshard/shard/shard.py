"""The writer of one shard: its public methods, and the hot path of a write.

A write, step by step:

1. Take the handle's lock. Refuse if the handle was closed, poisoned, or crossed a fork.
2. Turn the record into values (`edgeshard.records.codecs`).
3. Execute one prepared INSERT, whose id is ``stream_no << 32 | seq``. Outside ``transaction()`` this commits.
   This is the commit point: the row survives a kill of the process, and at durability "power" a power cut.
4. Increment seq, and return it.

The first write of a handle begins a new stream in the same commit. So a shard that comes back from a power cut or from
a copy, and lacks rows that a master already holds, never gives out their addresses again.

What happens if step 3 fails is in `edgeshard.shard.handle`.
"""

from __future__ import annotations

import datetime
import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from edgeshard import format, sqlite
from edgeshard.errors import (
    ConfigurationError,
    EdgeshardError,
    ShardClosedError,
    ShardForkedError,
    ShardPoisonedError,
    TransactionError,
    printable,
)
from edgeshard.files import folders
from edgeshard.master import identity, reading, streams
from edgeshard.options import DURABILITIES, DecodeJson, OnError, Params
from edgeshard.records import codecs, columns, declare, hlc
from edgeshard.records.rows import Rows
from edgeshard.shard import health, inserts, own_rows, schema, store_master
from edgeshard.shard.async_write import AsyncWrite
from edgeshard.shard.handle import WRITING, Handle
from edgeshard.shard.inserts import RecordWriter, WriterKey
from edgeshard.shard.transaction import Transaction, TransactionMethod

_R = TypeVar("_R")

_SEQ_MASK: Final = format.SEQ_MAX

#: How many records of a list are encoded at a time.
_BATCH_ROWS: Final = 1_000

_TOO_MANY: Final = "one transaction cannot hold so many rows; write them in several"


class Shard(Handle):
    """An agent's own database, open for writing. Made by ``Store.shard``.

    May be used from several threads and from coroutines; not after a fork.

    Attributes:
        agent: the agent's name.
        path: the shard's file.
        durability: "process" (a committed row survives a kill at once; a power cut may take the last moments) or
            "power" (it survives a power cut as well).
    """

    def __enter__(self) -> Shard:
        if isinstance(self._unusable, (ShardClosedError, ShardForkedError)):
            raise type(self._unusable)(*self._unusable.args)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Shard {self.agent!r} at {printable(self.path)}>"

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def stream(self) -> str:
        """The id of the stream that the last write belongs to, in hexadecimal; "" before the first write.

        Together with a seq it is a row's address, in every database that the row reaches.
        """
        return self._stream_id.hex()

    def write(self, record: Any, *, table: str | type | None = None) -> int:
        """Write one row; it is committed when this returns, or when the open transaction is.

        Args:
            record: an instance of an attrs class, a dataclass, a pydantic model or a NamedTuple, or a dict.
            table: of a dict, the name of its table, which has the columns of ``agent_data``; or the TypedDict that it
                is an instance of. Without it a dict is a row of ``agent_data``.

        Returns:
            The row's seq in this handle's stream, from 1.

        Raises:
            RecordError: a value cannot be stored; nothing was written, and the handle stays usable.
            TableError, SchemaConflictError: the class cannot be a table of this shard; the same holds.
            DiskFullError, StorageBusyError: nothing was written; the same holds.
            ShardPoisonedError, StorageError: whether it was written is unknown; open the shard again.
            ShardClosedError, ShardForkedError, TransactionError: the handle cannot be used like this.
        """
        # "with self._lock", at two thirds of its cost; and the body of _insert, inlined: each saves 0.1 to 0.2 µs of
        # the 7 that a commit takes (measured)
        try:
            if not self._acquire(False):
                self._await_turn()
            if monotonic() >= self._check_at:
                self._check()
            if table is None:
                writer = self._writers.get(record.__class__)
            else:
                writer = self._writers.get(inserts.writer_key(record, table, self.path))
            row_id = self._next_id
            if writer is not None and row_id & _SEQ_MASK:
                # no signal handler runs between reading this attribute and writing it: there is no call between them
                self._next_id = WRITING
                try:
                    writer.insert(self._execute, row_id, record)
                    self._next_id = row_id + 1
                except BaseException as error:
                    self._next_id = 0  # until _fail decides
                    if isinstance(error, hlc.ClockSetBackError):
                        row_id = self._insert_in_new_stream(inserts.writer_key(record, table, self.path), record)
                    else:
                        self._retry_or_fail(error, row_id, writer, record)
            else:
                with Transaction(self):
                    row_id = self._insert(self._writer_for(inserts.writer_key(record, table, self.path)), record)
        except BaseException:
            # not suppress(), which runs Python, and so may be interrupted, before the release
            try:  # noqa: SIM105
                self._release()
            except RuntimeError:  # interrupted while waiting: the lock is not ours
                pass
            raise
        self._release()
        return row_id & _SEQ_MASK

    def delete(self, cls: type, *key: Any) -> int:
        """Delete the row with this key from a keyed table, whichever agent wrote it.

        A deletion is a change like any other: it gets a seq, and is committed when this returns, or when the open
        transaction is. What was written with the key before it, here or elsewhere, does not come back, even if it is
        merged later. A later write with the key is a new row. It does not matter whether such a row exists.

        Args:
            cls: the class, declared with ``@edgeshard.table(key=...)``.
            key: a value for each column of the key, in the order of their declaration.

        Returns:
            The deletion's seq in this handle's stream.

        Raises:
            TableError: the class has no key, its conflict rule does not support deletions, or values are missing.
            As `write`.
        """
        return self.write(declare.deletion(cls, key))

    def _insert_in_new_stream(self, key: WriterKey, record: Any) -> int:
        """Insert a row after the wall clock was set back far; nothing of it was written yet."""
        self._restart_clock()
        with Transaction(self):
            return self._insert(self._writer_for(key), record)

    def _insert(self, writer: RecordWriter, record: Any) -> int:
        if not self._next_id & format.SEQ_MAX:
            self._begin_stream()
        row_id = self._next_id
        self._next_id = WRITING
        try:
            writer.insert(self._execute, row_id, record)
            self._next_id = row_id + 1
        except BaseException as error:
            self._next_id = 0  # until _fail decides
            self._fail(error, row_id, writer, record)
        return row_id

    def write_many(self, records: Iterable[Any], *, table: str | type | None = None) -> int:
        """Write rows, of one class or several, in one transaction.

        Args:
            records: what `write` takes, any number of it.
            table: as of `write`, for all of them.

        Returns:
            How many rows were written.

        Raises:
            As `write`; then none of them was written.
        """
        if type(records) not in (list, tuple):
            inserts.ensure_several(records, self.path)
        with Transaction(self):
            if isinstance(records, (list, tuple)) and len(set(map(type, records))) == 1:
                return self._insert_list(self._writer_for(inserts.writer_key(records[0], table, self.path)), records)
            count = 0
            for _, group in itertools.groupby(records, type):
                run = iter(group)
                first = next(run)
                writer = self._writer_for(inserts.writer_key(first, table, self.path))
                count += self._insert_iterable(writer, itertools.chain([first], run))
            return count

    def _insert_list(self, writer: RecordWriter, records: Sequence[Any]) -> int:
        """Insert a list of records. Encoding a batch first makes them a quarter cheaper than `_insert_iterable`."""
        for start in range(0, len(records), _BATCH_ROWS):
            self._insert_batch(writer, records[start : start + _BATCH_ROWS])
        return len(records)

    def _insert_batch(self, writer: RecordWriter, batch: Sequence[Any]) -> None:
        if not self._next_id & format.SEQ_MAX:
            self._begin_stream()
        first_id = self._next_id
        if format.seq_of(first_id) + len(batch) - 1 > format.SEQ_MAX:
            raise TransactionError("write to shard", self.path, _TOO_MANY)
        self._next_id = WRITING
        try:
            encode = writer.encode
            rows = [encode(row_id, record) for row_id, record in enumerate(batch, first_id)]
            if self._quota is not None:
                self._quota.make_space(self._connection, writer, rows)
            self._connection.executemany(writer.sql, rows)
            self._next_id = first_id + len(batch)
        except BaseException as error:
            self._next_id = first_id
            culprit = next((record for record in batch if codecs.why_unstorable(writer.table, record)), batch[-1])
            self._fail(error, 0, writer, culprit)

    def _insert_iterable(self, writer: RecordWriter, records: Iterable[Any]) -> int:
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
                row = writer.encode(row_id, current)
                if self._quota is not None:
                    self._quota.make_space(self._connection, writer, [row])
                yield row
                pulling = True

        try:
            self._connection.executemany(writer.sql, rows())
        except BaseException as error:
            if pulling or isinstance(error, EdgeshardError):
                raise
            self._fail(error, 0, writer, current)
        return self._next_id - before

    @property
    def transaction(self) -> TransactionMethod:
        """Commit all rows of the block together, in the shard and later in the master, or none if it raises.

        A block inside a block can fail alone: what it wrote is undone, and the outer one goes on if it catches the
        error. Other threads wait for the block to end. A coroutine must not await inside it: if another one writes
        meanwhile, that one gets a TransactionError.

        Raises:
            As `write`.
        """
        return TransactionMethod(self)

    def sync(self) -> None:
        """Make everything written so far survive a power cut.

        Raises:
            TransactionError: a transaction of this thread is open.
            As `write`.
        """
        with self._locked():
            self._upkeep_at = 0.0  # rows in files without a name survive nothing
            self._check()
            if self._depth:
                raise TransactionError("sync shard", self.path, "its transaction is still open; leave its block first")
            if self._draft is not None:
                return  # nothing was written
            with sqlite.translate_errors("sync shard", self.path):
                self._commit_durably()
                folders.sync_path(os.path.dirname(self.path))

    def _commit_durably(self) -> None:
        """Commit a change at FULL, because only such a commit makes an fsync.

        This is needed at "power" as well: an earlier handle may have written at "process".
        """
        try:
            sqlite.set_synchronous(self._connection, "FULL")
            self._execute(identity.COUNT_CHANGE)
        except BaseException as error:
            self._fail(error)
        finally:
            sqlite.set_synchronous(self._connection, DURABILITIES[self.durability])

    # -- writing in asyncio -------------------------------------------------------------------------------------------

    def awrite(self, record: Any, *, table: str | type | None = None) -> AsyncWrite:
        """Write one row in a thread, so that an asyncio loop goes on meanwhile: ``seq = await shard.awrite(record)``.

        Rows have the order in which their writes are first awaited. Do not change a dict or list before that ends.

        A cancelled write is either kept or refused: one that has begun runs to its end before the cancellation is seen.
        Keep the object, and it says which::

            write = shard.awrite(record)
            try:
                seq = await write
            except asyncio.CancelledError:
                print("stored, as row", write.result) if write.kept else print("not stored")
                raise

        Args:
            record: see `write`.
            table: see `write`.

        Returns:
            A coroutine that returns the row's seq.

        Raises:
            TransactionError: a transaction is open in the loop's thread.
            ConfigurationError: no asyncio loop is running.
            As `write`.
        """
        return AsyncWrite(self, partial(self.write, record, table=table), "Shard.awrite")

    def awrite_many(self, records: Iterable[Any], *, table: str | type | None = None) -> AsyncWrite:
        """Write rows in one transaction in a thread; see `awrite` and `write_many`.

        This takes the place of ``transaction()`` in coroutines. If it is cancelled, all rows are kept or none.

        Args:
            records: the rows. If it is an iterator, it runs in that thread.
            table: see `write`.

        Returns:
            A coroutine that returns how many rows were written.

        Raises:
            As `awrite`.
        """
        return AsyncWrite(self, partial(self.write_many, records, table=table), "Shard.awrite_many")

    # -- looking up ---------------------------------------------------------------------------------------------------

    def lookup(self, sql: str, params: Params = ()) -> Rows:
        """Run one SELECT on the references that the shard was opened with, read-only.

        It takes no part in a transaction of the shard, sees none of the shard's rows, and waits only for other
        look-ups of this handle.

        Args:
            sql: the statement. A table of reference ``patterns`` is ``patterns.name``; several references can be
                joined. ``?`` or ``:name`` stand for parameters.
            params: their values, as those of `Store.query`.

        Returns:
            The rows; see `edgeshard.Row`.

        Raises:
            QueryError: the SQL or the parameters are mistaken, or it took far too long.
            ReferenceChangedError: a file has changed since the shard was opened; open the shard again.
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

    # -- reading its own rows -----------------------------------------------------------------------------------------

    def read(self, cls: type[_R], *, on_error: OnError = "raise") -> Iterator[_R]:
        """Yield the rows of a class that this shard still holds, as instances, in the order in which they were written.

        These are the rows that are pending: those that a merge has truncated are in the master, where `Store.read`
        finds them. Rows of an open transaction are not seen before it is committed. The rows are read in portions, so
        rows that are written meanwhile come last, and a merge may truncate some before they are reached.

        Of a keyed table, a shard holds the changes of its own agent: each version that was written is a row, also if a
        later one or a deletion follows. The current rows of all agents are in the master.

        Args:
            cls: the class.
            on_error: what becomes of a row that the class cannot have: "raise" an error that has its address, or "skip"
                it and log that error.

        Raises:
            As `Store.read`.
            ShardClosedError, ShardForkedError, ShardPoisonedError: the handle cannot be used any more.
        """
        self._ensure_readable()
        return reading.read(own_rows.source(self.path, self._open_to_read), cls, on_error)

    def query(self, sql: str, params: Params = (), *, json: DecodeJson = False) -> Rows:
        """Run one SELECT on the rows that this shard still holds, without a merge.

        The tables have the columns that they have in a master, so the same SQL runs on both: ``_seq`` is a row's seq,
        and ``_stream`` the number of its stream in this file. ``_id`` is not the one that a master will give it; it
        grows with each row that is written. As with `read`, rows that a merge has truncated are in the master, rows of
        an open transaction are not seen before it is committed, and keyed tables hold changes.

        Args:
            sql: the statement.
            params: the values of its parameters, as those of `Store.query`.
            json: which columns to decode, as for `Store.query`.

        Returns:
            The rows; see `edgeshard.Row`.

        Raises:
            QueryError: the SQL or the parameters are mistaken.
            UnreadableRowError: with `json`, a text is not JSON.
            StorageError: the shard cannot be read.
            ShardClosedError, ShardForkedError, ShardPoisonedError: the handle cannot be used any more.
        """
        self._ensure_readable()
        return own_rows.select(self.path, self._open_file, sql, params, json)

    def _open_to_read(self) -> sqlite.Connection:
        self._ensure_readable()
        return self._open_file()

    def _open_file(self) -> sqlite.Connection:
        return own_rows.open_to_read(self.path, has_file=self._draft is None)

    def _ensure_readable(self) -> None:
        if self._unusable is not None:
            raise type(self._unusable)(*self._unusable.args)
        if self._draft is None and self._files.are_replaced(has_written=self._next_id != 0):
            raise ShardPoisonedError("read shard", self.path, health.MOVED)

    # -- streams and tables -------------------------------------------------------------------------------------------

    def _begin_stream(self) -> None:
        """Begin a new stream inside the open transaction."""
        self._next_id = WRITING
        stream_id = secrets.token_bytes(16)
        began_at = datetime.datetime.now(datetime.UTC).isoformat()
        try:
            stream_no = streams.next_stream_no(self._connection)
            self._execute(streams.INSERT_NEW, (stream_no, self.agent, stream_id, began_at))
        except BaseException as error:
            self._next_id = 0
            self._fail(error)
        self._stream_id = stream_id
        self._next_id = format.row_id(stream_no, 1)

    def _writer_for(self, key: WriterKey) -> RecordWriter:
        writer = self._writers.get(key)
        if writer is None:
            declared = inserts.table_for(key)
            table = self._ensure_table(codecs.with_fallbacks(declared, self._fallbacks))
            if table.form is None:
                writer = inserts.for_dicts(table, self.agent)
            else:
                writer = inserts.for_class(table, self._clock() if table.is_timestamped else None)
            if self._quota is not None:
                writer = self._quota.guard(writer)
            self._writers[key] = writer
        return writer

    def _clock(self) -> Callable[[], int]:
        """Return the clock for this handle's changes. It begins above the newest timestamps that its store knows."""
        if self._timestamp is None:
            with sqlite.translate_errors("read timestamps of", self.path):
                known = schema.newest_timestamps(self._connection)
            known_there, passed_us = store_master.known_times(self._master_path)
            clock = hlc.clock([*known, *known_there], passed_us, lambda: self._depth > 0)
            self._timestamp, self._is_clock_set_back = clock.next, clock.is_set_back
        return self._timestamp

    def _ensure_table(self, table: columns.Table) -> columns.Table:
        """Make the table, or add columns to it and widen those that an older version of the agent made.

        Returns:
            The table with the column types that it then has in the shard.
        """
        try:
            for statement in schema.changes(self._connection, table, self.path):
                self._writers.clear()  # other classes of the table may have to convert from now on
                self._execute(*statement)
            if table.name != inserts.AGENT_DATA and table not in self._fitting:
                store_master.ensure_fits(self._master_path, self.path, table)
                self._fitting.add(table)
            return schema.as_stored(self._connection, table)
        except EdgeshardError:
            raise
        except BaseException as error:
            self._fail(error)
