"""Erase rows of a store for good: rows of the master, and pending ones.

Rows in shards are not deleted there: a writer is at work in them, and leaves no holes in its seqs. They are merged, the
master erases them, and the shards are truncated as always.

    1  Take merge.lock. The steps below are repeated until nothing is found.
    2  Merge what is pending, and truncate the shards: all rows that were written before this are in the master now.
       This also completes an erasure that was killed.
    3  Find the rows in the master, with SQL that may only read.
    4  Replace erased.json by a list that has their addresses as well, durably. *This is the commit point*.
    5  Delete the rows from the master, in transactions of a limited size, overwriting them with zeros, and record their
       addresses as erased. Then record that the list is done.
    6  Empty the master's WAL.

If the process is killed, or the power is cut, before step 4, nothing was erased. After it, the next merge finds that
the list names more than the master has done, and goes on with step 5. So does a merge into an older master that was put
back. The rows stay in the ranges of the master, so no copy of a shard, a hub or a bundle brings them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from edgeshard import sqlite
from edgeshard.errors import DiskBudgetError
from edgeshard.files import fingerprint, paths, store_folder
from edgeshard.format.ranges import intersect, size
from edgeshard.master import database, erasures, receipts
from edgeshard.merge import locks
from edgeshard.merge.dry_run import dry_run
from edgeshard.merge.merger import Merger
from edgeshard.reports import ErasedElsewhere, EraseReport, MergeReport, Quarantined
from edgeshard.retention import erase, erased_file, refresh
from edgeshard.retention.erased_file import ErasedStream
from edgeshard.sqlite import Connection

_ACTION: Final = "erase from"

#: How often the steps are repeated at most, if an agent goes on writing such rows.
_ROUNDS: Final = 10


def erase_rows(
    root: Path, table: str, where: str, params: Any, *, lock_wait_s: float = sqlite.BUSY_TIMEOUT_S
) -> EraseReport:
    """Erase the rows of a table that meet a condition; see `Store.erase`."""
    path = paths.master(root)
    merger = Merger(root, erasing=True)
    erased: list[ErasedStream] = []
    rows = 0
    held = locks.merge_lock(root, lock_wait_s, lambda: False)
    try:
        for _ in range(_ROUNDS):
            unexamined = _merge(merger, root)
            found = erase.find(path, table, where, params)
            if not found:
                break
            rows += _erase(path, found)
            erased = erased_file.add(erased, found)
        merger.close()
        if rows:
            refresh.run(root)
        return _report(path, rows, erased, unexamined)
    finally:
        merger.abandon()
        if held is not None:
            held.release()


def preview(root: Path, table: str, where: str, params: Any) -> EraseReport:
    """Return what an erasure would erase of what the master has, and how many rows would be merged before."""
    path = paths.master(root)
    pending = dry_run(path, store_folder.resolve_shards(root), (), lambda: False)
    found = erase.find(path, table, where, params)
    report = _report(path, sum(size(each.seqs) for each in found), found, _not_merged(pending))
    return attrs.evolve(report, pending=pending.rows, is_wal_emptied=True, dry_run=True)


def _merge(merger: Merger, root: Path) -> tuple[Quarantined, ...]:
    """Merge what is pending; return the shards with rows that cannot be merged."""
    try:
        return _not_merged(merger.run())
    except DiskBudgetError as error:  # what is erased makes space
        return (Quarantined(str(store_folder.resolve_shards(root)), error.cause),)


def _not_merged(report: MergeReport) -> tuple[Quarantined, ...]:
    blocked = {each.path: each.reason for each in report.blocked}
    return (*report.quarantined, *(Quarantined(path, reason) for path, reason in sorted(blocked.items())))


def _erase(path: Path, found: Sequence[ErasedStream]) -> int:
    connection = database.open_master(path, writable=True)
    try:
        with database.translate_errors(_ACTION, path):
            last, listed = erased_file.load(path.parent)
            done = erasures.last_done(connection)
            if last < done:  # the list was lost
                listed = erased_file.add(listed, erase.listed_by(connection))
            erased_file.save(path.parent, max(last, done) + 1, erased_file.add(listed, found))
            rows = erase.redo(connection, path.parent)
            sqlite.shrink_wal(connection)
            return rows
    finally:
        connection.close()


def _report(path: Path, rows: int, erased: Sequence[ErasedStream], unexamined: tuple[Quarantined, ...]) -> EraseReport:
    connection = database.open_master(path, writable=False)
    try:
        with database.translate_errors(_ACTION, path), sqlite.read_snapshot(connection):
            elsewhere = tuple(_elsewhere(connection, erased))
    finally:
        connection.close()
    with sqlite.translate_errors(_ACTION, str(path)):
        is_wal_emptied = not fingerprint.size(paths.wal(path))
    return EraseReport(rows, 0, unexamined, elsewhere, is_wal_emptied)


def _elsewhere(connection: Connection, erased: Sequence[ErasedStream]) -> list[ErasedElsewhere]:
    found = []
    for peer in receipts.peers(connection):
        held = receipts.held_by(connection, peer.database_id)
        rows = sum(size(intersect(each.seqs, held.get(each.stream_id, ()))) for each in erased)
        found += [ErasedElsewhere(peer.database_id.hex(), peer.kind, rows)] if rows else []
    return found
