"""Own the file ``reserve`` of a store: space that is set aside on the disk, so that a merge has it whatever others do.

The reserve counts whether or not the file is there (`edgeshard.budget.policy`). The file only keeps the bytes from
other programs, and from being counted twice: before a step of a merge that needs them, the file is cut by as much, and
after the merge it is made whole again. A process that is killed in between, or a power cut, leaves it shorter, or
missing; the next merge, or the next agent that opens a shard, makes it whole. Its content means nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from edgeshard import units
from edgeshard.budget import policy, quotas
from edgeshard.budget.policy import Budget, Usage
from edgeshard.budget.quotas import QuotaRecord
from edgeshard.budget.usage import measure
from edgeshard.files import modes, paths
from edgeshard.files.os_errors import explain_os_error

logger = logging.getLogger("edgeshard.budget")

#: A file system that cannot set space aside, or has none.
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC, errno.EDQUOT)


def make_whole(root: Path, budget: Budget, usage: Usage) -> None:
    """Make the reserve as large as it should be, as far as the budget and the file system have space for it.

    Called while the caller has the lock of the quotas. Nothing is done while a merger works, which needs the space.

    Raises:
        AccessError, StorageIOError: the file cannot be written.
    """
    wanted = _fitting(budget, usage, 0)
    if usage.reserve != wanted and not usage.merging:
        _resize(paths.reserve(root), usage.reserve, wanted)


def make_way(root: Path, budget: Budget, usage: Usage, step_bytes: int) -> None:
    """Cut the reserve so that a step of a merge has so many bytes, in the budget and on the file system.

    Called while the caller has the lock of the quotas.

    Raises:
        AccessError, StorageIOError: the file cannot be written.
    """
    physically = max(0, usage.reserve - max(0, step_bytes - usage.free))
    wanted = min(usage.reserve, physically, _fitting(budget, usage, step_bytes))
    if wanted < usage.reserve:
        _resize(paths.reserve(root), usage.reserve, wanted)


@contextlib.contextmanager
def for_deleting(root: Path, budget: Budget) -> Iterator[None]:
    """Give the block the half of the reserve that is for deleting rows.

    Raises:
        AccessError, StorageIOError, StorageBusyError: the store cannot be measured, or the file cannot be written.
    """
    record = QuotaRecord(root, quotas.MERGER)  # only its lock is taken
    try:
        with record.locked():
            make_way(root, budget, measure(root), policy.delete_bytes(budget))
        yield
        with record.locked():
            make_whole(root, budget, measure(root))
    finally:
        record.close()


def _fitting(budget: Budget, usage: Usage, step_bytes: int) -> int:
    fits = budget.max_bytes - usage.used - usage.promised - step_bytes
    return max(0, min(policy.set_aside(budget, usage), fits))


def _resize(path: Path, before: int, size: int) -> None:
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            handle = modes.create_file(path)
        try:
            if size < before:
                os.ftruncate(handle, size)
            else:
                _allocate(handle, size)
        finally:
            os.close(handle)
    except FileExistsError:
        logger.debug("another process makes %s", path)
    except OSError as error:
        raise explain_os_error(error, "reserve space in", path) from error


def _allocate(handle: int, size: int) -> None:
    before = os.fstat(handle).st_size
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
        # the disk is full because of others: the next merge tries again
        os.ftruncate(handle, before)
        logger.debug("cannot reserve %s: %s", units.size(size), error)
