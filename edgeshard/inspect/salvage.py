"""Bring what can still be read of a damaged shard into the master.

    1  the agent's lock is taken, so that no writer has the shard open; the file is only read
    2  each page is read on its own (pages); what looks like a row of a stream and table that the shard knows (survey)
       is copied, with the address it always had, into a database of our format (rescue)
    3  that database is merged like any other source, so rows that the master already has are not duplicated
    4  it is removed

If the process is killed at any step, nothing is lost or duplicated: run it again. That also removes the database that
the killed one made. The damaged file is never changed.

Rows that are known to have existed, and that the master lacks afterwards, are gaps. Rows after the last one that
can be read, or that was recorded as truncated, cannot be known. But if the end of the file is cut off, its header, or
the last commit in its WAL, says how many pages there were.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import ConfigurationError, StorageBusyError, StorageError
from edgeshard.files import fingerprint, folders, lock_holder, locks, paths, private_folder, scan
from edgeshard.inspect.pages import Pages
from edgeshard.inspect.rescue import rescue
from edgeshard.inspect.survey import Survey, survey
from edgeshard.master import database, row_states
from edgeshard.merge import init_store, once
from edgeshard.merge.locks import merge_lock
from edgeshard.reports import Gap, SalvageReport
from edgeshard.sources import attach, diff

_ACTION = "salvage"

#: Where the database with what was rescued is while it is merged. Without a marker: it is in the store's own folder.
_FOLDERS: Final = private_folder.PrivateFolders("salvage-", "rescued.db")

#: Pages that are sampled to find out how large pages are.
_SAMPLE_PAGES = 200


def salvage(root: Path, path: str | os.PathLike[str]) -> SalvageReport:
    """Bring what can be read of a damaged shard into a store's master; see `Store.salvage`."""
    real = os.path.realpath(path)
    if scan.find_database(real) is None:
        raise ConfigurationError(_ACTION, real, "there is no such file; check the path")
    folders.make_folder(root)
    with sqlite.translate_errors(_ACTION, real), _agent_locked_out(root, real):
        _FOLDERS.remove_leftovers(root)  # they have copies of rows, which an erasure does not reach
        with _FOLDERS.make(root) as rescued:
            found, report = _read(root, real, rescued)
            return _merge(root, rescued, found, report) if found.streams else report


@contextlib.contextmanager
def _agent_locked_out(root: Path, path: str) -> Iterator[None]:
    """Keep the shard's agent from opening it.

    Raises:
        StorageBusyError: the agent has the shard open.
    """
    lock = paths.lock_path(path)
    if os.path.dirname(path) != os.path.realpath(paths.shards(root)) and not os.path.exists(lock):
        yield  # a copy that no agent opens
        return
    held = locks.lock(lock)
    if held is None:
        holder = lock_holder.find_holder(lock)
        where = f" in {holder.describe()}" if holder and holder.role == "agent" else ""
        raise StorageBusyError(_ACTION, path, f"its agent has it open{where}; stop the agent first")
    note = lock_holder.leave_note(lock, "salvage")
    try:
        yield
    finally:
        lock_holder.remove_note(lock, note)
        held.release()


def _read(root: Path, path: str, rescued: str) -> tuple[Survey, SalvageReport]:
    """Copy what can be read into a new database.

    Closing a file releases the locks that this process holds on it through SQLite. So no merger in another thread may
    have the shard open meanwhile: we hold the merge lock.
    """
    merging = merge_lock(root, -1, lambda: False)
    try:
        with _opened(path) as pages:
            found = survey(pages, path)
            rows, unassigned = rescue(pages, found, rescued) if found.streams else (0, 0)
            missing_pages = pages.missing
    finally:
        if merging is not None:
            merging.release()
    return found, SalvageReport(path, found.agent, rows, 0, len(found.streams), (), unassigned, missing_pages)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Pages]:
    with contextlib.ExitStack() as stack:
        database_file = _open_file(stack, path) or io.BytesIO()
        wal = _open_file(stack, paths.wal(path))
        # if the header says how large pages are, all of these are the same
        yield max((Pages(database_file, wal, size) for size in format.SHARD_PAGE_SIZES), key=_whole_rows)


def _whole_rows(pages: Pages) -> int:
    """Count the whole rows on the first pages, if pages are as large as assumed."""
    return sum(len(pages.cells(number)) for number in range(1, min(pages.count, _SAMPLE_PAGES) + 1))


def _open_file(stack: contextlib.ExitStack, path: str) -> BinaryIO | None:
    if not stat.S_ISREG(fingerprint.mode(path)):  # opening a FIFO would wait for its writer
        return None
    return stack.enter_context(os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb"))


def _merge(root: Path, rescued: str, found: Survey, report: SalvageReport) -> SalvageReport:
    """Merge what was read, and report what the master still lacks of the shard's streams."""
    merged = _count_new(paths.master(root), rescued, report.path)
    report_of_merge = once.merge(root, [rescued], lock_wait_s=-1)
    reasons = [item.reason for item in report_of_merge.quarantined if item.path == rescued]
    reasons += [item.reason for item in report_of_merge.blocked if item.path == rescued]
    for reason in reasons:
        raise _not_merged(report.path, reason)
    gaps = _find_gaps(paths.master(root), {stream.stream_id for stream in found.streams.values()})
    return attrs.evolve(report, merged=merged, gaps=gaps)


def _not_merged(path: str, reason: str) -> StorageError:
    return StorageError("merge what was salvaged from", path, reason)


def _find_gaps(master_path: Path, stream_ids: set[bytes]) -> tuple[Gap, ...]:
    connection = database.open_master(master_path, writable=False)
    try:
        return tuple(row_states.gaps(connection, stream_ids))
    finally:
        connection.close()


def _count_new(master_path: Path, rescued: str, path: str) -> int:
    """Count the rows rescued from a shard with this path that the master does not have."""
    init_store.make_master(master_path.parent, -1)
    connection = database.open_master(master_path, writable=False)
    try:
        run = attach.named_source(rescued)
        with attach.attached(connection, [run]), sqlite.read_snapshot(connection):
            if run.quarantine:
                raise _not_merged(path, run.quarantine.reason)
            return diff.count_missing(connection, run.open(connection))
    finally:
        connection.close()
