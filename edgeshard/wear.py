"""How many bytes edgeshard had written to its files, a day at a time: for flash, which wears with each.

Counted is what SQLite hands to the file system. A writer asks its connection how many pages it wrote to its log (which
takes 0.1 µs), and notes the sum in its lock file: at most once a minute, and at its close. A merger and a prune ask the
system what their thread wrote, which is exact (Linux), take over what the writers noted, and add it up in the master,
in a transaction that is made anyway, at most every ten minutes.

Not counted: a log that a writer copies into its own database because no merger did; -shm files; what snapshots,
bundles, pushes and receipts write; up to ten minutes of a merger that is killed, and a minute of an agent that is. Nor
what the file system adds for its journal, and the flash for its own blocks: see the README for the ratio.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from edgeshard import database, master
from edgeshard.database import Connection

logger = logging.getLogger("edgeshard.wear")

TABLE: Final = "edgeshard_wear"

#: Between two notes of a writer, and of a merger, in seconds.
WRITER_S: Final = 60.0
MERGER_S: Final = 600.0

# The lock file's two fields, each written by one side alone, and of a fixed width.
_FIELD = "{:<8}{:020d}\n"
_FIELD_BYTES: Final = 29
_WRITTEN, _TAKEN = "written", "taken"
#: What a lock file says beyond this, since it was last asked, is not believed: anyone may write there. 1 TB.
_BELIEVED_BYTES: Final = 10**12

_THREAD = "/proc/thread-self/io"
_UPSERT = (
    f"INSERT INTO main.{TABLE}(day, bytes, rows) VALUES (?, ?, ?) "
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


def log_bytes(path: Path) -> int:
    """The size of a database's log."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(f"{path}-wal").st_size
    return 0


def _since(before: int | None) -> int:
    now = None if before is None else thread_bytes()
    return 0 if now is None or before is None else max(0, now - before)


@attrs.define
class Sum:
    """Bytes that were written, and the rows that a merge brought by that."""

    bytes: int = 0
    rows: int = 0


@contextlib.contextmanager
def counted() -> Iterator[Sum]:
    """What the thread writes in the block, once it is over."""
    found, before = Sum(), thread_bytes()
    yield found
    found.bytes = _since(before)


# -- of one writer ----------------------------------------------------------------------------------------------------


class Noted:
    """What a writer, and those before it, had written to a shard, noted in its lock file.

    Args:
        lock: the lock file, which the writer holds.
        made_bytes: what making the shard took.
    """

    def __init__(self, lock: Path, made_bytes: int = 0) -> None:
        self._lock = lock
        self._before = _read(lock)[0] + made_bytes
        self._noted = 0 if made_bytes else self._before
        self._at = 0.0

    def look(self, connection: Connection, now: float) -> None:
        """Note it, unless that was done within the last minute. Where no row is being written."""
        if now >= self._at:
            self._at = now + WRITER_S
            self._note(database.logged_bytes(connection))

    @contextlib.contextmanager
    def closing(self, connection: Connection) -> Iterator[None]:
        """Note what there is, the last copying of the log included, which the block does."""
        logged = database.logged_bytes(connection)
        with counted() as count:
            yield
        self._note(logged + count.bytes)

    def _note(self, logged: int) -> None:
        written = self._before + logged
        if written != self._noted:
            self._noted = written
            _write(self._lock, _WRITTEN, written)


def take(lock: Path) -> int:
    """What was noted in a lock file and not yet taken, in bytes; from now on it is taken."""
    written, taken = _read(lock)
    if written <= taken:
        return 0
    _write(lock, _TAKEN, written)
    return min(written - taken, _BELIEVED_BYTES)


def _read(lock: Path) -> tuple[int, int]:
    """What was written, and what of that was taken."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # there is none, or it is not ours
        return 0, 0
    try:
        text = os.pread(handle, 2 * _FIELD_BYTES, 0).decode("ascii", "replace")
    except OSError:
        return 0, 0
    finally:
        os.close(handle)
    return _number(text[:_FIELD_BYTES], _WRITTEN), _number(text[_FIELD_BYTES:], _TAKEN)


def _number(field: str, name: str) -> int:
    digits = field.removeprefix(f"{name:<8}").strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and field.startswith(name) else 0


def _write(lock: Path, name: str, value: int) -> None:
    """Closing the file drops no lock: flock's belong to the opening that took them."""
    try:
        handle = os.open(lock, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            offset = 0 if name == _WRITTEN else _FIELD_BYTES
            os.pwrite(handle, _FIELD.format(name, value).encode(), offset)
        finally:
            os.close(handle)
    except OSError as error:  # a count is no reason to refuse a row
        logger.debug("what was written is not noted in %s: %s", lock, error)


# -- of a merger ------------------------------------------------------------------------------------------------------


class Meter:
    """What a merger, or a prune, writes in one thread, and what it takes over from writers."""

    def __init__(self) -> None:
        self._pending = Sum()
        self._unsure = Sum()  # noted in a transaction that is not committed yet
        self._mark: int | None = None
        self._due_at = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """All that the thread writes in the block counts."""
        self._mark = thread_bytes()
        try:
            yield
        finally:
            self._gather()
            self._mark = None

    def _gather(self) -> None:
        now = None if self._mark is None else thread_bytes()
        if now is not None and self._mark is not None:
            self._pending.bytes += max(0, now - self._mark)
            self._mark = now

    def take(self, locks: Iterator[Path]) -> None:
        """Take over what writers noted."""
        self._pending.bytes += sum(map(take, locks))

    def add(self, *, rows: int = 0, written: int = 0) -> None:
        """Count what somebody else wrote, or rows."""
        self._pending.bytes += written
        self._pending.rows += rows

    @property
    def is_due(self) -> bool:
        """Whether what is counted should be noted with the next commit."""
        return time.monotonic() >= self._due_at

    def note(self, connection: Connection, ahead_bytes: int = 0) -> None:
        """Add it to the master's sum of this day, in the caller's transaction; call `settled` once that is committed.

        Args:
            connection: the master.
            ahead_bytes: what is written after this, and not noted any more.
        """
        self._gather()
        self._pending = Sum(self._pending.bytes + self._unsure.bytes, self._pending.rows + self._unsure.rows)
        self._unsure, self._pending = self._pending, Sum()
        values = (_today(), self._unsure.bytes + ahead_bytes, self._unsure.rows)
        connection.execute(_UPSERT, values)

    def settled(self) -> None:
        """What was noted last is committed."""
        if self._unsure.bytes or self._unsure.rows:
            self._unsure = Sum()
            self._due_at = time.monotonic() + MERGER_S


def _today() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).date().isoformat()


# -- as it is told ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Wear:
    """What a store had written, as far as it is counted.

    Attributes:
        today_bytes: on this day (UTC).
        bytes: since the first day.
        days: from the first day to this one.
        rows: rows that were merged in that time.
    """

    today_bytes: int = 0
    bytes: int = 0
    days: int = 0
    rows: int = 0

    @property
    def bytes_a_day(self) -> float | None:
        """On average; None where nothing was counted."""
        return self.bytes / self.days if self.days else None

    @property
    def bytes_a_row(self) -> float | None:
        """On average; None where no row was merged."""
        return self.bytes / self.rows if self.rows else None


def of(connection: Connection) -> Wear:
    """What a master says."""
    if not master.has(connection, TABLE):
        return Wear()
    sql = f"SELECT sum(bytes), sum(rows), min(day) FROM main.{TABLE}"
    ((total, rows, first),) = database.fetch(connection, sql)
    if total is None:
        return Wear()
    today = database.scalar(connection, f"SELECT bytes FROM main.{TABLE} WHERE day = ?", (_today(),)) or 0
    days = (datetime.date.fromisoformat(_today()) - datetime.date.fromisoformat(first)).days + 1
    return Wear(today, total, max(1, days), rows)
