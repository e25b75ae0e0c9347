"""Own _edgeshard_write_stats: how many bytes edgeshard writes to its files each day, because flash wears out.

We count the bytes that SQLite hands to the file system. A writer asks its connection how many pages it has written to
its WAL (which takes 0.1 µs), and records the sum in its lock file, at most once a minute and when it closes. A merger
and a prune ask the system what their thread has written, which is exact (Linux). A merger also collects what the
writers recorded. It adds everything up in the master, a megabyte at a time, in a transaction that it makes anyway, and
leaves the rest in ``merge.lock``.

Not counted: the checkpoints that a writer without a disk budget makes because no merger did; -shm files; what
snapshots, bundles, pushes and receipts write; up to a megabyte of a merger that is killed, and a minute of an agent
that is killed. Nor what the file system adds for its journal, and the flash for its own blocks; the user guide on flash
has measured ratios.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.reports import WriteStats
from edgeshard.sqlite import Connection

logger = logging.getLogger("edgeshard.write_stats")

#: How often a writer records its count, and how often a merger collects the counts, in seconds.
WRITER_S: Final = 60.0

COLLECT_S: Final = 600.0

#: How much a merger adds to the master at a time; it costs a page more in a commit.
NOTE_BYTES: Final = 1_000_000

# A lock file contains this twice: all that was ever counted, and how much of it was collected.
_RECORD = "{:020d} bytes {:020d} rows\n"

_RECORD_BYTES: Final = 53

_RECORD_PATTERN = re.compile(rb"(\d{20}) bytes (\d{20}) rows\n")

#: The largest plausible count in a lock file since it was last collected: anyone may write there.
_BELIEVED_MAX: Final = 10**12

_THREAD = "/proc/thread-self/io"

_UPSERT = (
    "INSERT INTO main._edgeshard_write_stats(day, bytes, rows) VALUES (?, ?, ?) "
    "ON CONFLICT(day) DO UPDATE SET bytes = bytes + excluded.bytes, rows = rows + excluded.rows"
)


def thread_bytes() -> int | None:
    """Return how many bytes this thread has written to files, or None if the system does not say (takes 9 µs)."""
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
    """Bytes that were written, and rows that were merged."""

    bytes: int = 0
    rows: int = 0

    def __add__(self, other: WriteCount) -> WriteCount:
        return WriteCount(self.bytes + other.bytes, self.rows + other.rows)


@contextlib.contextmanager
def counted() -> Iterator[WriteCount]:
    """Count the bytes that the thread writes in the block; the result is valid after it."""
    found, before = WriteCount(), thread_bytes()
    yield found
    found.bytes = _since(before)


# -- counts in lock files ---------------------------------------------------------------------------------------------


class LockFileCounter:
    """Bytes and rows counted in a lock file, in fields of a fixed width: totals, and how much of each was collected.

    The holder of the lock writes the totals, and a merger the other fields, so each has only one writer. Closing the
    file drops no lock, because flock's locks belong to the descriptor that took them.
    """

    def __init__(self, lock: str | os.PathLike[str]) -> None:
        self._lock = lock

    @property
    def total(self) -> WriteCount:
        """All that was ever counted; nothing if there is no such file, or it contains something else."""
        total, _ = self._read()
        return total

    @property
    def uncollected(self) -> WriteCount:
        """What was counted and not collected yet."""
        return _difference(*self._read())

    def record(self, total: WriteCount) -> None:
        """Replace the total."""
        self._write(0, total)

    def collect(self) -> WriteCount:
        """Return what was counted and not collected yet, and mark it as collected."""
        total, collected = self._read()
        if total != collected:
            self._write(_RECORD_BYTES, total)
        return _difference(total, collected)

    def _read(self) -> tuple[WriteCount, WriteCount]:
        try:
            handle = os.open(self._lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # there is no such file, or it is not ours
            return WriteCount(), WriteCount()
        try:
            text = os.pread(handle, 2 * _RECORD_BYTES, 0)
        except OSError:
            return WriteCount(), WriteCount()
        finally:
            os.close(handle)
        total, collected = text[:_RECORD_BYTES], text[_RECORD_BYTES:]
        parsed = _parse(total)
        return parsed, parsed if collected == total else _parse(collected)

    def _write(self, offset: int, count: WriteCount) -> None:
        try:
            handle = os.open(self._lock, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.pwrite(handle, _RECORD.format(count.bytes, count.rows).encode(), offset)
            finally:
                os.close(handle)
        except OSError as error:  # no reason to refuse a row
            logger.debug("count written bytes in %s: %s", self._lock, error)


def _parse(record: bytes) -> WriteCount:
    found = _RECORD_PATTERN.fullmatch(record)
    return WriteCount() if found is None else WriteCount(int(found[1]), int(found[2]))


def _difference(total: WriteCount, collected: WriteCount) -> WriteCount:
    return WriteCount(_believable(total.bytes - collected.bytes), _believable(total.rows - collected.rows))


def _believable(value: int) -> int:
    return min(max(0, value), _BELIEVED_MAX)


# -- a writer ---------------------------------------------------------------------------------------------------------


class WriterMeter:
    """Counts what a writer, and the writers before it, have written to a shard.

    Args:
        lock: the lock file, which the writer holds.
    """

    def __init__(self, lock: str | os.PathLike[str]) -> None:
        self._count = LockFileCounter(lock)
        self._before = self._recorded = self._count.total.bytes
        self._due_at = 0.0

    def record_if_due(self, connection: Connection, now: float) -> None:
        """Record the count, unless that was done within the last minute. Call this while no row is being written."""
        if now >= self._due_at:
            self._due_at = now + WRITER_S
            self._record(sqlite.wal_bytes_written(connection))

    def add(self, count: int) -> None:
        """Count bytes that are written to the database, and not to its WAL."""
        self._before += count

    @contextlib.contextmanager
    def closing(self, connection: Connection, *, checkpoints: bool) -> Iterator[None]:
        """Record the final count once the block has closed the connection.

        Args:
            connection: the shard's connection.
            checkpoints: whether closing it makes a checkpoint, which is counted as well.
        """
        logged = sqlite.wal_bytes_written(connection)
        with counted() if checkpoints else contextlib.nullcontext(WriteCount()) as count:
            yield
        self._record(logged + count.bytes)

    def _record(self, logged: int) -> None:
        written = self._before + logged
        if written != self._recorded:
            self._recorded = written
            self._count.record(WriteCount(written))


# -- a merger ---------------------------------------------------------------------------------------------------------


class Meter:
    """Counts what a merger, or a prune, writes in one thread, and what it collects from writers."""

    def __init__(self) -> None:
        self._pending = WriteCount()
        self._uncommitted = WriteCount()  # recorded in a transaction that is not committed yet
        self._mark: int | None = None
        self._collect_at = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count all that the thread writes in the block."""
        self._pending, self._uncommitted = self._pending + self._uncommitted, WriteCount()  # a commit failed
        self._mark = thread_bytes()
        try:
            yield
        finally:
            self._gather()
            self._mark = None

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Do not count what the thread writes in the block: a prune counts that with a meter of its own."""
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

    def collect(self, merge_lock: str | os.PathLike[str], locks: Iterable[str]) -> None:
        """Now and then, collect what writers counted and earlier mergers left. The caller holds ``merge.lock``."""
        if time.monotonic() >= self._collect_at:
            self._collect_at = time.monotonic() + COLLECT_S
            for lock in (merge_lock, *locks):
                self.collect_from(lock)

    def collect_from(self, lock: str | os.PathLike[str]) -> None:
        """Collect what is counted in a lock file."""
        self._pending = self._pending + LockFileCounter(lock).collect()

    def add_rows(self, rows: int) -> None:
        """Count merged rows."""
        self._pending.rows += rows

    @property
    def is_due(self) -> bool:
        """Whether there is enough to be recorded with the next commit."""
        return self._pending.bytes + self._uncommitted.bytes >= NOTE_BYTES

    def record(self, connection: Connection, ahead_bytes: int = 0) -> None:
        """Add the count to the master's total of today, in the caller's transaction; after it, call `committed`.

        Args:
            connection: the master.
            ahead_bytes: what will be written after this, and not be recorded any more.
        """
        self._gather()
        self._uncommitted, self._pending = self._pending + self._uncommitted, WriteCount()
        connection.execute(_UPSERT, (_today(), self._uncommitted.bytes + ahead_bytes, self._uncommitted.rows))

    def committed(self) -> None:
        """Forget what was recorded last: it is committed."""
        self._uncommitted = WriteCount()

    def leave(self, merge_lock: str | os.PathLike[str]) -> None:
        """Leave what is not recorded to the next merger. The caller holds ``merge.lock``."""
        left, self._pending, self._uncommitted = self._pending + self._uncommitted, WriteCount(), WriteCount()
        if left.bytes or left.rows:
            count = LockFileCounter(merge_lock)
            count.record(count.total + left)


def _today() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).date().isoformat()


# -- what a report says ----------------------------------------------------------------------------------------------


def load(connection: Connection, locks: Iterable[str]) -> WriteStats:
    """Return what a master has recorded, and what these lock files contain that it has not collected yet."""
    today, left, days = _today(), _uncollected(locks), dict(_days(connection))
    if not days and not left.bytes:
        return WriteStats()
    recorded = sum(days.values(), WriteCount())
    ages = datetime.date.fromisoformat(today) - datetime.date.fromisoformat(min(days, default=today))
    return WriteStats(
        today_bytes=days.get(today, WriteCount()).bytes + left.bytes,
        bytes=recorded.bytes + left.bytes,
        days=max(1, ages.days + 1),
        rows=recorded.rows + left.rows,
    )


def by_day(connection: Connection, locks: Iterable[str]) -> dict[str, WriteCount]:
    """Return the same for each day (ISO 8601, UTC) on which anything was recorded; what is not collected is today's."""
    days, today, left = dict(_days(connection)), _today(), _uncollected(locks)
    if left.bytes:
        days[today] = days.get(today, WriteCount()) + left
    return days


def _uncollected(locks: Iterable[str]) -> WriteCount:
    return sum((LockFileCounter(lock).uncollected for lock in locks), WriteCount())


def _days(connection: Connection) -> Iterator[tuple[str, WriteCount]]:
    for day, count_bytes, rows in sqlite.fetch(connection, "SELECT day, bytes, rows FROM main._edgeshard_write_stats"):
        yield day, WriteCount(count_bytes, rows)
