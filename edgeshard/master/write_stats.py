"""How many bytes edgeshard had written to its files, a day at a time: for flash, which wears with each.

Counted is what SQLite hands to the file system. A writer asks its connection how many pages it wrote to its log (which
takes 0.1 µs), and notes the sum in its lock file: at most once a minute, and at its close. A merger and a prune ask the
system what their thread wrote, which is exact (Linux), and a merger takes over what the writers noted. It adds it up in
the master, in a transaction that is made anyway, a megabyte at a time, and leaves the rest in ``merge.lock``.

Not counted: a log that a writer copies into its own database because no merger did; -shm files; what snapshots,
bundles, pushes and receipts write; up to a megabyte of a merger that is killed, and a minute of an agent that is. Nor
what the file system adds for its journal, and the flash for its own blocks: see the README for the ratio.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.format import WRITE_STATS
from edgeshard.master import database
from edgeshard.reports import WriteStats
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.wear")

#: Between two notes of a writer, and two looks of a merger at them, in seconds.
WRITER_S: Final = 60.0

COLLECT_S: Final = 600.0

#: A merger notes so much at a time in the master, for a page more in a commit.
NOTE_BYTES: Final = 1_000_000

# What a lock file holds, twice: what was noted, and what of that was taken.
_RECORD = "{:020d} bytes {:020d} rows\n"

_RECORD_BYTES: Final = 53

_FORMED = re.compile(rb"(\d{20}) bytes (\d{20}) rows\n")

#: What a lock file says beyond this, since it was last asked, is not believed: anyone may write there.
_BELIEVED: Final = 10**12

_THREAD = "/proc/thread-self/io"

_UPSERT = (
    f"INSERT INTO main.{WRITE_STATS}(day, bytes, rows) VALUES (?, ?, ?) "
    "ON CONFLICT(day) DO UPDATE SET bytes = bytes + excluded.bytes, rows = rows + excluded.rows"
)


def thread_bytes() -> int | None:
    """What this thread has written to files since it began, in bytes; None where the system does not say (9 µs)."""
    try:
        with open(_THREAD, "rb") as file:
            fields = dict(line.split(b": ") for line in file.read().splitlines())
        return int(fields[b"wchar"])
    except (OSError, KeyError, ValueError):
        return None


def _since(before: int | None) -> int:
    now = None if before is None else thread_bytes()
    return 0 if now is None or before is None else max(0, now - before)


@attrs.define
class WriteCount:
    """Bytes that were written, and the rows that a merge brought by that."""

    bytes: int = 0
    rows: int = 0

    def __add__(self, other: WriteCount) -> WriteCount:
        return WriteCount(self.bytes + other.bytes, self.rows + other.rows)


@contextlib.contextmanager
def counted() -> Iterator[WriteCount]:
    """What the thread writes in the block, once it is over."""
    found, before = WriteCount(), thread_bytes()
    yield found
    found.bytes = _since(before)


# -- a count in a lock file -------------------------------------------------------------------------------------------


class LockFileCounter:
    """Bytes and rows that are noted in a lock file, in fields of a fixed width: sums, and how much of each was taken.

    The lock's holder adds, and a merger takes: each field is written by one side alone. Closing the file drops no lock,
    since flock's belong to the opening that took them.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock

    @property
    def sum(self) -> WriteCount:
        """All that was ever noted; nothing where there is no such file, or it says nothing of the kind."""
        noted, _ = self._read()
        return noted

    @property
    def left(self) -> WriteCount:
        """What was noted and not taken."""
        return _left(*self._read())

    def note(self, noted: WriteCount) -> None:
        """Note a sum in the place of the one before."""
        self._write(0, noted)

    def take(self) -> WriteCount:
        """What was noted and not taken; from now on it is taken."""
        noted, taken = self._read()
        if noted != taken:
            self._write(_RECORD_BYTES, noted)
        return _left(noted, taken)

    def _read(self) -> tuple[WriteCount, WriteCount]:
        try:
            handle = os.open(self._lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # there is none, or it is not ours
            return WriteCount(), WriteCount()
        try:
            text = os.pread(handle, 2 * _RECORD_BYTES, 0)
        except OSError:
            return WriteCount(), WriteCount()
        finally:
            os.close(handle)
        return _parse(text[:_RECORD_BYTES]), _parse(text[_RECORD_BYTES:])

    def _write(self, offset: int, noted: WriteCount) -> None:
        try:
            handle = os.open(self._lock, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.pwrite(handle, _RECORD.format(noted.bytes, noted.rows).encode(), offset)
            finally:
                os.close(handle)
        except OSError as error:  # a count is no reason to refuse a row
            logger.debug("what was written is not noted in %s: %s", self._lock, error)


def _parse(record: bytes) -> WriteCount:
    found = _FORMED.fullmatch(record)
    return WriteCount() if found is None else WriteCount(int(found[1]), int(found[2]))


def _left(noted: WriteCount, taken: WriteCount) -> WriteCount:
    return WriteCount(_believed(noted.bytes - taken.bytes), _believed(noted.rows - taken.rows))


def _believed(value: int) -> int:
    return min(max(0, value), _BELIEVED)


# -- of one writer ----------------------------------------------------------------------------------------------------


class WriterMeter:
    """What a writer, and those before it, had written to a shard.

    Args:
        lock: the lock file, which the writer holds.
        made_bytes: what making the shard took.
    """

    def __init__(self, lock: Path, made_bytes: int = 0) -> None:
        self._count = LockFileCounter(lock)
        before = self._count.sum.bytes
        self._before = before + made_bytes
        self._noted = before
        self._at = 0.0

    def look(self, connection: Connection, now: float) -> None:
        """Note it, unless that was done within the last minute. Where no row is being written."""
        if now >= self._at:
            self._at = now + WRITER_S
            self._note(sqlite.wal_bytes_written(connection))

    def add(self, count: int) -> None:
        """Count so many bytes more, which are written to the database and not to its log."""
        self._before += count

    @contextlib.contextmanager
    def closing(self, connection: Connection) -> Iterator[None]:
        """Note what there is, the last copying of the log included, which the block does."""
        logged = sqlite.wal_bytes_written(connection)
        with counted() as count:
            yield
        self._note(logged + count.bytes)

    def _note(self, logged: int) -> None:
        written = self._before + logged
        if written != self._noted:
            self._noted = written
            self._count.note(WriteCount(written))


# -- of a merger ------------------------------------------------------------------------------------------------------


class Meter:
    """What a merger, or a prune, writes in one thread, and what it takes over from writers."""

    def __init__(self) -> None:
        self._pending = WriteCount()
        self._unsure = WriteCount()  # noted in a transaction that is not committed yet
        self._mark: int | None = None
        self._collect_at = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All that the thread writes in the block counts."""
        self._pending, self._unsure = self._pending + self._unsure, WriteCount()  # of a commit that failed
        self._mark = thread_bytes()
        try:
            yield
        finally:
            self._gather()
            self._mark = None

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What the thread writes in the block is counted by somebody else: a prune has a meter of its own."""
        self._gather()
        try:
            yield
        finally:
            self._mark = None if self._mark is None else thread_bytes()

    def _gather(self) -> None:
        now = None if self._mark is None else thread_bytes()
        if now is not None and self._mark is not None:
            self._pending.bytes += max(0, now - self._mark)
            self._mark = now

    def collect(self, merge_lock: Path, locks: Iterable[Path]) -> None:
        """Now and then, take over what writers noted, and what mergers before this one left; under ``merge.lock``."""
        if time.monotonic() >= self._collect_at:
            self._collect_at = time.monotonic() + COLLECT_S
            for lock in (merge_lock, *locks):
                self.take(lock)

    def take(self, lock: Path) -> None:
        """Take over what is noted in a lock file."""
        self._pending = self._pending + LockFileCounter(lock).take()

    def add_rows(self, rows: int) -> None:
        """Count rows that were merged."""
        self._pending.rows += rows

    @property
    def is_due(self) -> bool:
        """Whether there is so much that it should be noted with the next commit."""
        return self._pending.bytes + self._unsure.bytes >= NOTE_BYTES

    def note(self, connection: Connection, ahead_bytes: int = 0) -> None:
        """Add it to the master's sum of this day, in the caller's transaction; call `settled` once that is committed.

        Args:
            connection: the master.
            ahead_bytes: what is written after this, and not noted any more.
        """
        self._gather()
        self._unsure, self._pending = self._pending + self._unsure, WriteCount()
        connection.execute(_UPSERT, (_today(), self._unsure.bytes + ahead_bytes, self._unsure.rows))

    def settled(self) -> None:
        """What was noted last is committed."""
        self._unsure = WriteCount()

    def leave(self, merge_lock: Path) -> None:
        """Leave what is not noted to the next merger; under ``merge.lock``."""
        left, self._pending, self._unsure = self._pending + self._unsure, WriteCount(), WriteCount()
        if left.bytes or left.rows:
            count = LockFileCounter(merge_lock)
            count.note(count.sum + left)


def _today() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).date().isoformat()


# -- what a report says ----------------------------------------------------------------------------------------------


def load(connection: Connection, locks: Iterable[Path]) -> WriteStats:
    """What a master says, and what these lock files say that it does not know yet."""
    left = sum((LockFileCounter(lock).left for lock in locks), WriteCount())
    days = dict(_days(connection))
    if not days and not left.bytes:
        return WriteStats()
    today = _today()
    noted = sum(days.values(), WriteCount())
    ages = datetime.date.fromisoformat(today) - datetime.date.fromisoformat(min(days, default=today))
    return WriteStats(
        today_bytes=days.get(today, WriteCount()).bytes + left.bytes,
        bytes=noted.bytes + left.bytes,
        days=max(1, ages.days + 1),
        rows=noted.rows + left.rows,
    )


def _days(connection: Connection) -> Iterator[tuple[str, WriteCount]]:
    if database.has(connection, WRITE_STATS):
        for day, count_bytes, rows in sqlite.fetch(connection, f"SELECT day, bytes, rows FROM main.{WRITE_STATS}"):
            yield day, WriteCount(count_bytes, rows)
