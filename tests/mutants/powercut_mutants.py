"""Faults that the simulator must find: each is patched into edgeshard from outside.

Nothing is patched while actors run: they run in turns, and would take back one another's patches.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

from edgeshard import format, sqlite
from edgeshard.files import folders
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import extents, pruned_ranges, superseded
from edgeshard.merge import apply, chunk, conflicts, reap, truncate
from edgeshard.merge.target import Target
from edgeshard.records import hlc
from edgeshard.retention import plan, prune, watermark, window
from edgeshard.retention.holds import Hold
from edgeshard.shard import truncations
from edgeshard.shard.shard import Shard
from edgeshard.sources import attach, diff
from edgeshard.sources.source import Source
from edgeshard.sqlite import Connection, quote
from tests.crash.powercut.machine import Patch

#: What is to be called before a connection commits, by its id.
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
_apply = window.delete
_note_pruning = pruned_ranges.record
_settle = conflicts.settle


@contextlib.contextmanager
def _hooked(hooks: Hooks, connection: Connection, hook: Callable[[], None]) -> Iterator[None]:
    """Before the connection commits in the block, the hook is called."""
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


def no_new_stream(shard: Shard, *arguments: Any, **options: Any) -> None:
    """A handle goes on in the shard's last stream, where the rows in the file end."""
    _init(shard, *arguments, **options)
    last = sqlite.scalar(shard._connection, "SELECT max(stream_no) FROM edgeshard_streams")
    if last is not None:
        gone = "SELECT max(last) FROM edgeshard_truncations WHERE stream_no = ?"
        ends = [format.row_id(last, sqlite.scalar(shard._connection, gone, (last,)) or 0)]
        for (name,) in sqlite.fetch(shard._connection, "SELECT DISTINCT table_name FROM edgeshard_columns"):
            ends.append(sqlite.scalar(shard._connection, f"SELECT max(_id) FROM {quote(name)}") or 0)
        shard._next_id = max(ends) + 1
        stream = "SELECT stream_id FROM edgeshard_streams WHERE stream_no = ?"
        shard._stream_id = sqlite.scalar(shard._connection, stream, (last,))


def master_at_normal(connection: Connection, level: str) -> None:
    """The master's commits are not synced."""
    _set_synchronous(connection, "NORMAL" if connection.filename.endswith("master.db") else level)


def truncate_before_the_commit() -> list[Patch]:
    """The shards are truncated as soon as their rows are copied, and then comes the master's commit."""

    def copy(target: Target, origin: Source, max_bytes: int, checked: Any = None, unwanted: Any = None) -> apply.Copied:
        master_id = sqlite.scalar(target.connection, "SELECT database_id FROM main.edgeshard_database")
        copied = _copy(target, origin, max_bytes, checked, unwanted)
        if checked is not None and copied.durable:  # one of the store's own
            truncate.truncate(origin, copied.durable, master_id)
        return copied

    return [(apply, "copy", copy)]


def truncate_everything(
    connection: Connection, shard: Any, durable: Any, master_id: Any, *_: Any
) -> tuple[int, dict[int, int]]:
    """The whole shard is emptied, whatever the master holds."""
    with sqlite.immediate(connection):
        gone = truncations.record(connection, durable, master_id)
        deleted = truncations.delete_all(connection, [table.name for table in shard.tables])
    sqlite.checkpoint(connection)
    return deleted, gone


def ranges_apart() -> list[Patch]:
    """The ranges are written in a transaction of their own, after that of the rows."""
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


def no_commit_of_its_own() -> list[Patch]:
    """A merge that finds nothing to copy commits nothing, and truncates."""
    hooks: Hooks = {}

    def commit_chunk(connection: Connection, remaining: list[attach.SourceRun], done: Any) -> None:
        before = sqlite.scalar(connection, _NEXT_ID)

        def roll_back() -> None:
            if sqlite.scalar(connection, _NEXT_ID) == before:
                connection.execute("ROLLBACK")

        with _hooked(hooks, connection, roll_back):
            _commit_chunk(connection, remaining, done)

    return [(chunk, "commit_chunk", commit_chunk), (sqlite, "immediate", _immediate_with(hooks))]


_NEXT_ID = "SELECT next_id FROM main.edgeshard_database"


def ignore_with_a_wrong_range(target: Target, origin: Any, number: int, piece: Block, *_: Any, **__: Any) -> None:
    """Rows whose ids are taken are passed over in silence; and ids are taken, for a block ends one too early."""
    connection = target.connection
    shift = target.next_id - piece.first_id
    for table in origin.tables:
        connection.execute(
            _copy_statement(origin.schema, table).replace("INSERT INTO", "INSERT OR IGNORE INTO", 1),
            (shift, number, piece.first - piece.first_id, piece.first_id, piece.last_id),
        )
    extents.add_block(connection, number, Block(piece.first, piece.last, target.next_id))
    target.next_id += max(1, len(piece) - 1)
    connection.execute("UPDATE main.edgeshard_database SET next_id = ?", (target.next_id,))


def sync_path_of_one(folder: str | os.PathLike[str], levels: int | None = 2) -> None:
    """Whoever made a folder may never have made its name durable; nobody else does."""
    if levels is not None:
        folders.sync_folder(folder)


def sync_at_power_does_nothing(shard: Shard) -> None:
    """What an earlier handle wrote at "process" stays as it is."""
    if shard.durability != "power":
        _sync(shard)


def truncation_is_not_noted(connection: Connection, durable: dict[bytes, int], master_id: bytes) -> dict[int, int]:
    """Rows are deleted without a word of it."""
    numbers = {stream: sqlite.scalar(connection, _NUMBER, (stream,)) for stream in durable}
    return {number: durable[stream] for stream, number in numbers.items() if number is not None}


_NUMBER = "SELECT stream_no FROM edgeshard_streams WHERE stream_id = ?"


def prune_at_normal(connection: Connection, *arguments: Any, **options: Any) -> Any:
    """The commits of a prune are not synced."""
    _set_synchronous(connection, "NORMAL")
    return _begin_prune(connection, *arguments, **options)


def range_goes_with_its_rows(connection: Connection, scope: Any, goes: Any, reason: str) -> None:
    """What is pruned leaves the ranges, too."""
    _apply(connection, scope, goes, reason)
    for number in goes.window.blocks:
        sql = "SELECT first, last FROM edgeshard_pruned_ranges WHERE stream_no = ?"
        gone = [Range(*row) for row in sqlite.fetch(connection, sql, (number,))]
        left = subtract(diff.held_ranges(connection, number), gone)
        connection.execute("DELETE FROM edgeshard_ranges WHERE stream_no = ?", (number,))
        connection.executemany(
            "INSERT INTO edgeshard_ranges VALUES (?, ?, ?)", [(number, part.first, part.last) for part in left]
        )


def prunings_apart() -> list[Patch]:
    """What was pruned is noted in a transaction of its own, after that in which the rows go."""
    later: dict[int, list[tuple[Any, ...]]] = {}

    def note(connection: Connection, *arguments: Any) -> None:
        later.setdefault(id(connection), []).append((connection, *arguments))

    def step_apart(run: Any, *arguments: Any) -> Any:
        result = _prune_window(run, *arguments)
        with sqlite.immediate(run.connection):
            for asked in later.pop(id(run.connection), []):
                _note_pruning(*asked)
        return result

    return [(pruned_ranges, "record", note), (window, "prune_window", step_apart)]


def block_is_not_cut(_: Connection, number: int, blocks: Any, gone: Any) -> list[Range]:
    """Rows go, and their block stays."""
    return [part for block in blocks for part in plan.cut(block, gone)[1]]


def prunings_are_not_noted(*_: Any) -> None:
    """Rows go without a word of it."""


def transactions_are_divided(connection: Connection, row_id: int) -> None:
    """A step ends where it likes, also in the middle of a transaction."""


def settled_apart() -> list[Patch]:
    """What was replaced is deleted in a transaction of its own, after that which brought the newer rows."""
    later: dict[int, list[int]] = {}

    def settle(target: Target, first_id: int) -> None:
        later.setdefault(id(target.connection), []).append(first_id)

    def commit_chunk(connection: Connection, remaining: list[attach.SourceRun], done: Any) -> None:
        _commit_chunk(connection, remaining, done)
        for first_id in later.pop(id(connection), []):
            with sqlite.immediate(connection):
                _settle(Target.load(connection), first_id)

    return [(conflicts, "settle", settle), (chunk, "commit_chunk", commit_chunk)]


def replaced_is_not_counted(*_: Any) -> None:
    """Rows are replaced, and nothing says how many."""


def a_clock_that_runs_back(floor: int) -> Callable[[], int]:
    """Each handle begins with an older time than the one before."""
    del floor
    made = next(_handles)
    seqs = itertools.count(1)
    return lambda: 10**15 - made * 10**6 + next(seqs)


_handles = itertools.count(1)


def collected_too_early(_: Connection, inputs: watermark.WatermarkInputs) -> Iterator[Hold]:
    """A deletion goes once the grace period is over, whatever may still come."""
    yield Hold(inputs.since_us, "")


class _FoldersWithoutSync:
    """The module folders, but that no folder is synced."""

    def __getattr__(self, name: str) -> Any:
        return getattr(folders, name)

    def sync_folder(self, path: Any) -> None:
        """Nothing."""


#: What to patch for each.
MUTANTS: dict[str, Callable[[], list[Patch]]] = {
    "no new stream an opening": lambda: [(Shard, "__init__", no_new_stream)],
    "master at NORMAL": lambda: [(sqlite, "set_synchronous", master_at_normal)],
    "truncate before the commit": truncate_before_the_commit,
    "truncate everything": lambda: [(truncate, "_truncate", truncate_everything)],
    "ranges in a transaction of their own": ranges_apart,
    "no durable commit of its own before truncation": no_commit_of_its_own,
    "OR IGNORE with a wrong range": lambda: [(apply, "_copy_block", ignore_with_a_wrong_range)],
    "truncation is not noted": lambda: [(truncations, "record", truncation_is_not_noted)],
    "a removal that syncs no folder": lambda: [(reap, "folders", _FoldersWithoutSync())],
    "a folder's own name is not synced": lambda: [(folders, "sync_path", sync_path_of_one)],
    "sync at power does nothing": lambda: [(Shard, "sync", sync_at_power_does_nothing)],
    "prune at NORMAL": lambda: [(prune, "_begin", prune_at_normal)],
    "a range goes with its pruned rows": lambda: [(window, "delete", range_goes_with_its_rows)],
    "prunings in a transaction of their own": prunings_apart,
    "prunings are not noted": lambda: [(pruned_ranges, "record", prunings_are_not_noted)],
    "rows are pruned and their block is not cut": lambda: [(window, "_cut_blocks", block_is_not_cut)],
    "what was replaced goes in a transaction of its own": settled_apart,
    "what was replaced is not counted": lambda: [(superseded, "add", replaced_is_not_counted)],
    "a clock that runs back": lambda: [(hlc, "clock", a_clock_that_runs_back)],
    "a deletion is collected too early": lambda: [(watermark, "holds", collected_too_early)],
    "a prune divides transactions": lambda: [(extents, "transaction_at", transactions_are_divided)],
}
