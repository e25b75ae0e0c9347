"""Own the file ``quotas`` of a store: which open shards may grow, to what size, and until when.

Each owner, an open shard or the merger, has a record of 24 bytes: who it is, a size in bytes, and until when that
holds, by the system's monotonic clock. Who wants more takes the file's lock, measures the store, and writes its record:
so two never get the same bytes. Giving some back, or keeping them for longer, needs no lock, because each owner writes
its own record only.

No process must live to put this in order: a record expires, or, if its owner holds it for a long transaction, ends with
the owner's lock file. What is not a valid record counts as none. Only two records must survive a power cut: the size of
the largest transaction that some shard may hold, for which merges need a larger reserve, and its weight.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from edgeshard.budget import policy
from edgeshard.errors import StorageBusyError
from edgeshard.files import folders, locks, modes, paths
from edgeshard.files.os_errors import explain_os_error

#: The merger's name among the owners; no shard's file has it.
MERGER: Final = ""

#: The owner of the record of the largest transaction that some shard may hold, in bytes.
_LARGEST: Final = "/largest"

#: The owner of the record of how many times their size in their shard such transactions count, in parts of 1,000.
_WEIGHT: Final = "/weight"

#: The owner of the record of a transaction for which there was no space, in bytes; the next merge clears it.
_WANTED: Final = "/wanted"

_RECORD: Final = struct.Struct("<QQq")

#: The time of a record that its owner holds until further notice, in nanoseconds.
_HELD_NS: Final = 1 << 62

#: For how long others count a quota, in nanoseconds: its owner renews it, or stops using it, after half of that.
_COUNTED_NS: Final = int(2 * policy.LEASE_S * 1e9)

#: Others have the lock for less than a millisecond, unless they are many: how often to ask for it, how long after one
#: another, and how long to wait in turn then, in seconds.
_LOCK_TRIES, _LOCK_POLL_S, _LOCK_WAIT_S = 5, 0.000_5, 10.0


@attrs.frozen
class Granted:
    """One record.

    Attributes:
        total_bytes: the size that the owner's files may have.
        is_held: whether the owner holds it until further notice: it counts as long as the owner lives.
        is_current: whether it has not expired, as far as time tells.
    """

    total_bytes: int
    is_held: bool
    is_current: bool


@functools.lru_cache(maxsize=4096)
def owner_key(owner: str) -> int:
    """Return the number of an owner, given the stem of its shard's file."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(owner), digest_size=8).digest(), "little") or 1


def load(root: Path) -> Mapping[int, Granted]:
    """Return what was granted, by the owner's number.

    Raises:
        AccessError, StorageIOError: it cannot be read.
    """
    try:
        with open(paths.quotas(root), "rb", opener=_open_to_read) as file:
            return _parse(file.read())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise explain_os_error(error, "read quotas", paths.quotas(root)) from error


def _open_to_read(path: str, _: int) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _parse(text: bytes) -> Mapping[int, Granted]:
    now, found = time.monotonic_ns(), {}
    for key, total_bytes, until in _RECORD.iter_unpack(text[: len(text) // _RECORD.size * _RECORD.size]):
        if key:
            is_held = until == _HELD_NS
            found[key] = Granted(total_bytes, is_held, is_held or now <= until <= now + _COUNTED_NS)
    return found


def wanted_transaction(granted: Mapping[int, Granted]) -> int:
    """Return the size of a transaction for which the next merge should make space, in bytes; 0 if there is none."""
    return _noted(granted, _WANTED)


def largest_transaction(granted: Mapping[int, Granted]) -> int:
    """Return the size of the largest transaction that was noted, in bytes; no shard need hold it any more."""
    return _noted(granted, _LARGEST)


def transaction_weight(granted: Mapping[int, Granted]) -> float:
    """Return how many times its size in its shard a transaction counts at most (`edgeshard.budget.policy.weight`)."""
    return max(1.0, _noted(granted, _WEIGHT) / 1_000)


def _noted(granted: Mapping[int, Granted], owner: str) -> int:
    noted = granted.get(owner_key(owner))
    return noted.total_bytes if noted else 0


class QuotaRecord:
    """The record of one owner. Only the holder of the owner's lock file makes one.

    Args:
        root: the store's folder.
        owner: the stem of the shard's file, or `MERGER`.

    Attributes:
        key: the owner's number.

    Raises:
        AccessError, StorageIOError: the file cannot be made or opened.
    """

    def __init__(self, root: Path, owner: str) -> None:
        self._path = paths.quotas(root)
        self.key = owner_key(owner)
        self._offset = -1
        self._has_durable_name = False
        try:
            with contextlib.suppress(FileExistsError):
                if not os.path.lexists(self._path):
                    os.close(modes.create_file(self._path))
            self._handle = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise explain_os_error(error, "open quotas", self._path) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from taking anything while the block measures the store.

        Raises:
            AccessError, StorageIOError: the file cannot be locked or changed.
            StorageBusyError: one other process has had the lock for seconds: it was stopped, perhaps.
        """
        handle = self._lock()
        try:
            self._show_that_it_is_taken(handle)
            yield
        finally:
            locks.unlock_open_file(handle)
            if handle != self._handle:
                os.close(handle)

    def _show_that_it_is_taken(self, handle: int) -> None:
        try:
            os.utime(handle)
        except OSError as error:
            raise explain_os_error(error, "lock quotas", self._path) from error

    def _lock(self) -> int:
        for _ in range(_LOCK_TRIES):
            if locks.lock_open_file(self._handle, self._path):
                return self._handle
            time.sleep(_LOCK_POLL_S)
        handle = locks.lock_in_turn(self._handle, self._path, _LOCK_WAIT_S)
        if handle is None:
            cause = f"another process has been measuring the store for {_LOCK_WAIT_S:.0f} seconds; try again"
            raise StorageBusyError("take quota from", self._path, cause)
        return handle

    def take(self, total_bytes: int) -> None:
        """Record a quota that expires. Called under the lock, or if it is no more than before.

        Raises:
            DiskFullError, StorageIOError: it cannot be written.
        """
        self._write(total_bytes, time.monotonic_ns() + _COUNTED_NS)

    def hold(self, total_bytes: int) -> None:
        """Record a quota that holds until the next call, or until the owner's lock file is free.

        Raises:
            DiskFullError, StorageIOError: it cannot be written.
        """
        self._write(total_bytes, _HELD_NS)

    def _write(self, total_bytes: int, until_ns: int) -> None:
        try:
            if self._offset < 0:
                self._offset = self._find(self.key)
            os.pwrite(self._handle, _RECORD.pack(self.key, total_bytes, until_ns), self._offset)
        except OSError as error:
            raise explain_os_error(error, "write quota to", self._path) from error

    def _find(self, owner: int) -> int:
        """Return where an owner's record is, or may be. Called under the lock."""
        records = self.read_all()
        keys = [key for key, _, _ in records]
        place = keys.index(owner) if owner in keys else keys.index(0) if 0 in keys else len(keys)
        return place * _RECORD.size

    def read_all(self) -> list[tuple[int, int, int]]:
        """Return the records of all owners: number, size in bytes, and until when it holds."""
        size = os.fstat(self._handle).st_size // _RECORD.size * _RECORD.size
        return list(_RECORD.iter_unpack(os.pread(self._handle, size, 0)))

    def note_transaction(self, counted_bytes: int, weight: float) -> None:
        """Record the largest transaction that some shard may hold, durably. Called under the lock.

        Args:
            counted_bytes: the size with which it counts.
            weight: how many times its size in its shard that is; a smaller one than before is not recorded.

        Raises:
            DiskFullError, StorageIOError: it cannot be written.
        """
        try:
            self._note(_LARGEST, counted_bytes)
            noted = {key: size for key, size, _ in self.read_all()}.get(owner_key(_WEIGHT), 1_000)
            if weight * 1_000 > noted:
                self._note(_WEIGHT, math.ceil(weight * 1_000))
            os.fsync(self._handle)  # merges rely on it as long as that transaction is there
            if not self._has_durable_name:  # the file may be new
                folders.sync_folder(self._path.parent)
                self._has_durable_name = True
        except OSError as error:
            raise explain_os_error(error, "write quota to", self._path) from error

    def want(self, size_bytes: int) -> None:
        """Record a transaction for which the next merge should make space; 0: none any more. Called under the lock.

        Raises:
            DiskFullError, StorageIOError: it cannot be written.
        """
        try:
            self._note(_WANTED, size_bytes)
        except OSError as error:
            raise explain_os_error(error, "write quota to", self._path) from error

    def _note(self, owner: str, size_bytes: int) -> None:
        key = owner_key(owner)
        os.pwrite(self._handle, _RECORD.pack(key, size_bytes, _HELD_NS), self._find(key))

    def clear(self, place: int) -> None:
        """Remove the record in this place."""
        os.pwrite(self._handle, bytes(_RECORD.size), place * _RECORD.size)

    def close(self) -> None:
        """Give everything back, and close the file."""
        handle, self._handle = self._handle, -1
        if handle < 0:
            return
        try:
            if self._offset >= 0:
                os.pwrite(handle, bytes(_RECORD.size), self._offset)
        except OSError as error:
            raise explain_os_error(error, "write quota to", self._path) from error
        finally:
            os.close(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", -1) >= 0:  # a handle that was never closed: the record expires
            os.close(self._handle)

    def leave_to_parent(self) -> None:
        """Close the file in a forked child; the record is the parent's."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def forget_dead(record: QuotaRecord, owners_alive: Callable[[], Mapping[int, bool]]) -> None:
    """Remove the records of owners that have ended without giving them back, so that the file stays short.

    Args:
        record: the caller's own record, whose lock is taken.
        owners_alive: called under the lock; returns which owners live, by their number. Others do not.
    """
    with record.locked():
        alive = owners_alive()
        for offset, (key, _, until_ns) in enumerate(record.read_all()):
            is_over = until_ns == _HELD_NS or not 0 <= until_ns - time.monotonic_ns() <= _COUNTED_NS
            if (
                key not in (0, record.key, *map(owner_key, (_LARGEST, _WEIGHT, _WANTED)))
                and is_over
                and not alive.get(key, False)
            ):
                record.clear(offset)
