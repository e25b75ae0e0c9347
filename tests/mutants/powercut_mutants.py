"""Faults that the simulator must find; each is patched into edgeshard from outside.

Patch nothing while actors run: they take turns, and would undo one another's patches.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeshard import format, sqlite
from edgeshard.budget import quotas
from edgeshard.files import atomic_file, fingerprint, folders
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import erasures, extents, leftovers, pruned_ranges, superseded
from edgeshard.merge import apply, chunk, conflicts, master_handle, reap, truncate
from edgeshard.merge.quota import MergeQuota
from edgeshard.merge.removal_notes import RemovalNotes
from edgeshard.merge.target import Target
from edgeshard.records import hlc
from edgeshard.retention import erase, erased_file, plan, prune, window
from edgeshard.shard import open as shard_open
from edgeshard.shard import truncations
from edgeshard.shard.shard import Shard
from edgeshard.sources import attach
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection, quote
from tests.crash.powercut.machine import Patch, patched

#: Functions to call before a connection commits, by the connection's `id()`.
Hooks = dict[int, Callable[[], None]]

_init = Shard.__init__
_sync = Shard.sync
_set_synchronous = sqlite.set_synchronous
_immediate = sqlite.immediate
_commit_chunk = chunk.commit_chunk
_copy = apply.copy
_add_ranges = extents.add_ranges
_copy_statement = apply._copy_statement
_begin_prune = prune._begin
_prune_window = window.prune_window
_delete = window.delete
_record_pruned = pruned_ranges.record
_settle = conflicts.settle


@contextlib.contextmanager
def _hooked(hooks: Hooks, connection: Connection, hook: Callable[[], None]) -> Iterator[None]:
    """Call the hook before the connection commits in the block."""
    hooks[id(connection)] = hook
    try:
        yield
    finally:
        del hooks[id(connection)]


def _immediate_with(hooks: Hooks) -> Callable[[Connection], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def immediate(connection: Connection) -> Iterator[None]:
        with _immediate(connection):
            yield
            if id(connection) in hooks and connection.in_transaction:
                hooks[id(connection)]()

    return immediate


def continue_last_stream(shard: Shard, *arguments: Any, **options: Any) -> None:
    """Continue the shard's last stream after the last row in the file, instead of beginning a new stream."""
    _init(shard, *arguments, **options)
    last = sqlite.scalar(shard._connection, "SELECT max(stream_no) FROM _edgeshard_streams")
    if last is not None:
        gone = "SELECT max(last) FROM _edgeshard_truncations WHERE stream_no = ?"
        ends = [format.row_id(last, sqlite.scalar(shard._connection, gone, (last,)) or 0)]
        for (name,) in sqlite.fetch(shard._connection, "SELECT DISTINCT table_name FROM _edgeshard_columns"):
            ends.append(sqlite.scalar(shard._connection, f"SELECT max(_id) FROM {quote(name)}") or 0)
        shard._next_id = max(ends) + 1
        stream = "SELECT stream_id FROM _edgeshard_streams WHERE stream_no = ?"
        shard._stream_id = sqlite.scalar(shard._connection, stream, (last,))


def master_at_normal(connection: Connection, level: str) -> None:
    """Do not sync the master's commits."""
    _set_synchronous(connection, "NORMAL" if connection.filename.endswith("master.db") else level)


def truncate_before_commit() -> list[Patch]:
    """Truncate the shards as soon as their rows are copied, before the master commits."""

    def copy(target: Target, origin: Source, max_bytes: int, own: Any = None, *more: Any) -> apply.Copied:
        master_id = sqlite.scalar(target.connection, "SELECT database_id FROM main._edgeshard_database")
        copied = _copy(target, origin, max_bytes, own, *more)
        if own is not None and copied.durable:  # it is one of the store's own shards
            truncate.truncate(origin, fingerprint.identity(origin.path), copied.durable, master_id)
        return copied

    return [(apply, "copy", copy)]


def truncate_everything(connection: Connection, shard: Any, durable: Any, master_id: Any, *_: Any) -> Any:
    """Delete all rows of the shard, whatever the master holds."""
    with sqlite.immediate(connection):
        gone = truncations.record(connection, durable, master_id)
        deleted = truncations.delete_all(connection, [table.name for table in shard.tables])
    sqlite.checkpoint(connection)
    return truncate._Deleted(deleted, gone)


def write_ranges_separately() -> list[Patch]:
    """Write the ranges in a separate transaction after that of the rows."""
    later: dict[int, list[tuple[Any, ...]]] = {}

    def commit_chunk(connection: Connection, remaining: list[attach.SourceRun], done: Any) -> None:
        later[id(connection)] = []
        _commit_chunk(connection, remaining, done)
        with sqlite.immediate(connection):
            for asked in later.pop(id(connection)):
                _add_ranges(*asked)

    def add_ranges(connection: Connection, number: int, held: Any, copied: Any) -> Any:
        later[id(connection)].append((connection, number, held, copied))
        return union([*held, *copied])

    return [(chunk, "commit_chunk", commit_chunk), (extents, "add_ranges", add_ranges)]


def truncate_without_a_commit() -> list[Patch]:
    """Truncate without a commit if a merge finds nothing to copy."""
    hooks: Hooks = {}

    def commit_chunk(connection: Connection, remaining: list[attach.SourceRun], done: Any) -> None:
        before = sqlite.scalar(connection, _NEXT_ID)

        def roll_back() -> None:
            if sqlite.scalar(connection, _NEXT_ID) == before:
                connection.execute("ROLLBACK")

        with _hooked(hooks, connection, roll_back):
            _commit_chunk(connection, remaining, done)

    return [(chunk, "commit_chunk", commit_chunk), (sqlite, "immediate", _immediate_with(hooks))]


_NEXT_ID = "SELECT next_id FROM main._edgeshard_database"


def ignore_with_wrong_range(target: Target, origin: Any, number: int, piece: Block, *_: Any, **__: Any) -> None:
    """Ignore rows whose ids are taken, and make blocks end one id too early, so that ids are taken."""
    connection = target.connection
    shift = target.next_id - piece.first_id
    for table in origin.tables:
        connection.execute(
            _copy_statement(origin.schema, table).replace("INSERT INTO", "INSERT OR IGNORE INTO", 1),
            (shift, number, piece.first - piece.first_id, piece.first_id, piece.last_id),
        )
    extents.add_block(connection, number, Block(piece.first, piece.last, target.next_id))
    target.next_id += max(1, len(piece) - 1)
    connection.execute("UPDATE main._edgeshard_database SET next_id = ?", (target.next_id,))


def sync_at_power_does_nothing(shard: Shard) -> None:
    """Do not sync what an earlier handle wrote at durability "process"."""
    if shard.durability != "power":
        _sync(shard)


def truncation_is_not_recorded(connection: Connection, durable: dict[bytes, int], master_id: bytes) -> dict[int, int]:
    """Delete rows without recording it."""
    numbers = {stream: sqlite.scalar(connection, _NUMBER, (stream,)) for stream in durable}
    return {number: durable[stream] for stream, number in numbers.items() if number is not None}


_NUMBER = "SELECT stream_no FROM _edgeshard_streams WHERE stream_id = ?"


def prune_at_normal(connection: Connection, *arguments: Any, **options: Any) -> Any:
    """Do not sync the commits of a prune."""
    _set_synchronous(connection, "NORMAL")
    return _begin_prune(connection, *arguments, **options)


def delete_ranges_of_pruned_rows(connection: Connection, scope: Any, batch: Any, reason: str) -> None:
    """Also delete pruned rows from the ranges."""
    _delete(connection, scope, batch, reason)
    for number in batch.window.blocks:
        sql = "SELECT first, last FROM _edgeshard_pruned_ranges WHERE stream_no = ?"
        gone = [Range(*row) for row in sqlite.fetch(connection, sql, (number,))]
        left = subtract(extents.ranges(connection, number), gone)
        connection.execute("DELETE FROM _edgeshard_ranges WHERE stream_no = ?", (number,))
        connection.executemany(
            "INSERT INTO _edgeshard_ranges VALUES (?, ?, ?)", [(number, part.first, part.last) for part in left]
        )


def record_pruned_rows_separately() -> list[Patch]:
    """Record pruned rows in a separate transaction after that which deletes them."""
    later: dict[int, list[tuple[Any, ...]]] = {}

    def note(connection: Connection, *arguments: Any) -> None:
        later.setdefault(id(connection), []).append((connection, *arguments))

    def prune_window(run: Any, *arguments: Any) -> Any:
        result = _prune_window(run, *arguments)
        with sqlite.immediate(run.connection):
            for asked in later.pop(id(run.connection), []):
                _record_pruned(*asked)
        return result

    return [(pruned_ranges, "record", note), (window, "prune_window", prune_window)]


def block_is_not_cut(_: Connection, number: int, blocks: Any, deleted: Any) -> list[Range]:
    """Delete rows, and leave their blocks as they are."""
    return [part for block in blocks for part in plan.cut(block, deleted)[1]]


def pruned_rows_are_not_recorded(*_: Any) -> None:
    """Prune rows without recording it."""


def transactions_are_divided(connection: Connection, row_id: int) -> None:
    """Let a prune step end in the middle of a transaction."""


def delete_superseded_rows_separately() -> list[Patch]:
    """Delete superseded rows in a separate transaction after that which brought the newer rows."""
    later: dict[int, list[Range]] = {}

    def settle(target: Target, ids: Range) -> None:
        later.setdefault(id(target.connection), []).append(ids)

    def commit_chunk(connection: Connection, remaining: list[attach.SourceRun], done: Any) -> None:
        _commit_chunk(connection, remaining, done)
        for ids in later.pop(id(connection), []):
            with sqlite.immediate(connection):
                _settle(Target.load(connection), ids)

    return [(conflicts, "settle", settle), (chunk, "commit_chunk", commit_chunk)]


def superseded_rows_are_not_counted(*_: Any) -> None:
    """Do not count superseded rows."""


def clock_that_goes_backwards(*_: Any) -> hlc.HybridClock:
    """Let each handle begin at an earlier time than the one before."""
    made = next(_handles)
    seqs = itertools.count(1)
    return hlc.HybridClock(lambda: 10**15 - made * 10**6 + next(seqs), lambda: False)


_handles = itertools.count(1)


class _NoFileHasBytes:
    """In place of `fingerprint`: a WAL that was left behind is not seen."""

    def __getattr__(self, name: str) -> Any:
        return getattr(fingerprint, name)

    def size(self, _: Any) -> int:
        return 0


class _FoldersWithoutSync:
    """Stands in for the module `folders`, but syncs no folder."""

    def __getattr__(self, name: str) -> Any:
        return getattr(folders, name)

    def sync_folder(self, path: Any) -> None:
        """Do nothing."""


#: What to patch for each mutant.
MUTANTS: dict[str, Callable[[], list[Patch]]] = {
    "continue the last stream": lambda: [(Shard, "__init__", continue_last_stream)],
    "master at NORMAL": lambda: [(sqlite, "set_synchronous", master_at_normal)],
    "truncate before the commit": truncate_before_commit,
    "truncate everything": lambda: [(truncate, "_truncate", truncate_everything)],
    "write ranges in a separate transaction": write_ranges_separately,
    "truncate without a durable commit": truncate_without_a_commit,
    "OR IGNORE with a wrong range": lambda: [(apply, "_copy_block", ignore_with_wrong_range)],
    "do not record truncations": lambda: [(truncations, "record", truncation_is_not_recorded)],
    "do not sync at durability power": lambda: [
        (Shard, "sync", sync_at_power_does_nothing),
        (shard_open, "fingerprint", _NoFileHasBytes()),
    ],
    "prune at NORMAL": lambda: [(prune, "_begin", prune_at_normal)],
    "delete the ranges of pruned rows": lambda: [(window, "delete", delete_ranges_of_pruned_rows)],
    "record pruned rows in a separate transaction": record_pruned_rows_separately,
    "do not record pruned rows": lambda: [(pruned_ranges, "record", pruned_rows_are_not_recorded)],
    "prune rows without cutting their blocks": lambda: [(window, "_cut_blocks", block_is_not_cut)],
    "delete superseded rows in a separate transaction": delete_superseded_rows_separately,
    "do not count superseded rows": lambda: [(superseded, "add", superseded_rows_are_not_counted)],
    "a clock that goes backwards": lambda: [(hlc, "clock", clock_that_goes_backwards)],
    "divide transactions in a prune": lambda: [(extents, "transaction_at", transactions_are_divided)],
}


# -- mutants that cuts of single procedures find ----------------------------------------------------------------------


def sync_folder_without_parent(folder: str | os.PathLike[str], levels: int | None = 2) -> None:
    """Sync only the folder itself, so its name may never become durable."""
    if levels is not None:
        folders.sync_folder(folder)


def publish_without_syncing_the_file(unfinished: str, path: str, **options: Any) -> bool:
    """Publish a file whose content may never become durable."""
    with patched([(os, "fsync", lambda _: None)]):
        published = _publish(unfinished, path, **options)
    folders.sync_folder(os.path.dirname(path))
    return published


def publish_without_syncing_the_folder(unfinished: str, path: str, **options: Any) -> bool:
    """Publish a file whose name may never become durable."""
    with patched([(folders, "sync_folder", lambda _: None)]):
        return _publish(unfinished, path, **options)


def erasure_is_done_before_it_begins(connection: Connection, root: Path) -> int:
    """Record an erasure as done before its rows are deleted."""
    with sqlite.immediate(connection):
        erasures.record(connection, erased_file.load(root)[0])
    return _redo(connection, root)


def notes_are_not_durable(connection: Connection, level: str) -> None:
    """Do not sync the notes of removed shards."""
    _set_synchronous(connection, "OFF" if connection.filename.endswith("removed-shards.db") else level)


def nothing_is_noted(*_: Any) -> None:
    """Note nothing of shards that are about to be removed."""


def nothing_is_removed(_: Path) -> None:
    """Leave unfinished files where they are."""


def wal_is_never_too_long(_: MergeQuota) -> bool:
    """Leave the WAL of the master as it is."""
    return False


def rows_are_dropped_first(quota: MergeQuota, connection: Connection) -> None:
    """Drop rows before shards are truncated."""
    _opened(quota, connection)
    quota.drop_rows(connection)


_opened = MergeQuota.opened
_publish = atomic_file.publish
_redo = erase.redo

#: For each mutant the procedure that finds it, and what to patch.
PROCEDURE_MUTANTS: dict[str, tuple[str, list[Patch]]] = {
    "do not sync the name of a new folder": ("first opening", [(folders, "sync_path", sync_folder_without_parent)]),
    "do not sync the file of a new shard": (
        "first opening",
        [(atomic_file, "publish", publish_without_syncing_the_file)],
    ),
    "do not sync the name of a new shard": (
        "first opening",
        [(atomic_file, "publish", publish_without_syncing_the_folder)],
    ),
    "remove a shard without syncing its folder": ("removal", [(reap, "_sync_folder", lambda *_: None)]),
    "remove a shard without a note": ("removal", [(RemovalNotes, "note", nothing_is_noted)]),
    "do not sync the notes of removed shards": ("removal", [(sqlite, "set_synchronous", notes_are_not_durable)]),
    "do not sync the list of erased rows": ("erase", [(atomic_file, "publish", publish_without_syncing_the_file)]),
    "record an erasure before it is done": ("erase", [(erase, "redo", erasure_is_done_before_it_begins)]),
    "do not sync the note of damage": ("damage note", [(atomic_file, "publish", publish_without_syncing_the_file)]),
    "do not sync the name of that note": (
        "damage note",
        [(atomic_file, "publish", publish_without_syncing_the_folder)],
    ),
    "leave unfinished masters": ("budget merge", [(leftovers, "remove", nothing_is_removed)]),
    "leave the WAL of a dead merger": (
        "budget merge",
        [(MergeQuota, "_is_wal_too_long", wal_is_never_too_long), (master_handle, "fingerprint", _NoFileHasBytes())],
    ),
    "drop rows before shards are truncated": ("budget drop", [(MergeQuota, "opened", rows_are_dropped_first)]),
    "do not sync the name of the quotas": ("large transaction", [(quotas, "folders", _FoldersWithoutSync())]),
}
