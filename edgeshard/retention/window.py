"""One transaction of a prune: delete what a rule selects among some consecutive ids, and record it by address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs

from edgeshard import format, sqlite, units
from edgeshard.errors import DamagedError
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import catalog, extents, identity, pruned_ranges, superseded, tombstone_gc
from edgeshard.records.json_values import to_json
from edgeshard.retention import bookkeeping, by_hand, plan
from edgeshard.retention.pace import pause
from edgeshard.retention.plan import PruneBatch, Window
from edgeshard.retention.run import PruneRun
from edgeshard.retention.scope import Scope
from edgeshard.sqlite import Connection, quote

#: How often what a transaction depends on is read again because others changed it before the master was locked.
_ATTEMPTS: Final = 5

_ACTION: Final = "prune"

_NEXT_STEP: Final = "Store.verify (`edgeshard verify`) says more"


class ContradictionError(DamagedError):
    """The master's rows are not those that its blocks say. Nothing was deleted."""


class OutdatedError(Exception):
    """What a transaction of a prune depends on has changed since it was read. Nothing was deleted."""


class Selector(Protocol):
    """Says which rows of a window to delete.

    What grows with the history of a master is read by `prepare`, before the master is locked: it would keep mergers
    waiting.
    """

    def prepare(self, connection: Connection) -> None:
        """Read what takes long, in the caller's snapshot; nothing if it is still current."""

    def select(self, connection: Connection, scope: Scope, ids: Range) -> PruneBatch:
        """Select rows with these ids, as of the caller's transaction; only read.

        Raises:
            OutdatedError: what was prepared is no longer current.
        """


def prune_windows(
    run: PruneRun,
    scope: Scope,
    reason: str,
    position: int,
    end_id: int,
    selector: Selector,
    is_enough: Callable[[], bool] = lambda: False,
) -> int:
    """Delete window by window, from `position` on and below `end_id`; return the id at which the next rule continues.

    The arguments are those of `prune_window`. Once `is_enough` returns True, no further window is begun.
    """
    while not run.is_stopping() and not is_enough() and run.pace.may_grow_wal():
        batch = prune_window(run, scope, reason, position, end_id, selector)
        if batch is None:
            break
        if batch.rows and not run.dry_run:  # what that frees counts for the next window, too
            bookkeeping.retire(run, batch.window.blocks)
        position = batch.window.ids.last + 1
    return position


def prune_window(
    run: PruneRun,
    scope: Scope,
    reason: str,
    position: int,
    end_id: int,
    selector: Selector,
) -> PruneBatch | None:
    """Delete what a rule selects in the next window, in one transaction; then rest, so that mergers get the lock.

    Args:
        run: the prune.
        scope: what the rule may delete.
        reason: the name of the rule.
        position: the id to begin at.
        end_id: the id at which to stop; it divides no transaction.
        selector: says which of the ids to delete.

    Returns:
        What was deleted, or None if there is no row from `position` on and below `end_id`, or if others changed the
        master again and again while we read it. Then the next prune continues.
    """
    connection = run.connection
    for _ in range(_ATTEMPTS):
        # 1. Read what may take long, while others write.
        with sqlite.read_snapshot(connection):
            scope = attrs.evolve(scope, deletable=run.deletable.read(connection))
            selector.prepare(connection)
            if run.rules.protected_agents:
                position = _skip_streams(connection, run.deletable.protected_streams(connection), position)
        # 2. Lock the master; delete a window, and record it.
        with contextlib.suppress(OutdatedError):
            try:
                return _prune_window(run, scope, reason, position, end_id, selector)
            except ContradictionError:
                # somebody may have deleted rows with another program, and evaded what notes that
                if not by_hand.record_all(connection, Path(run.path)):
                    raise
    return None


def _prune_window(
    run: PruneRun, scope: Scope, reason: str, position: int, end_id: int, selector: Selector
) -> PruneBatch | None:
    connection = run.connection
    written_before = sqlite.wal_pages_written(connection)
    with sqlite.read_snapshot(connection) if run.dry_run else run.transaction():
        began = time.monotonic()  # until here we waited for others; from here on they wait for us
        # another prune may have been here, and another receipt may have arrived
        if not run.deletable.is_current(connection):
            raise OutdatedError
        ids = next_window(connection, scope, position, end_id, run.pace.window_rows)
        batch = None if ids is None else selector.select(connection, scope, ids)
        if batch is not None and batch.rows and not run.dry_run:
            delete(connection, scope, batch, reason)
        else:
            if batch is not None and run.dry_run:
                _count_by_table(run, scope, batch)
            connection.execute("ROLLBACK")
    took_s = time.monotonic() - began
    run.pace.adapt(batch, took_s, sqlite.wal_pages_written(connection) - written_before)
    if batch is not None:
        run.progress.add(reason, batch)
        if not run.dry_run:
            pause(took_s)
    return batch


def _count_by_table(run: PruneRun, scope: Scope, batch: PruneBatch) -> None:
    for name in scope.tables or catalog.record_tables(run.connection):
        sql = f"SELECT count(*), min(_id), max(_id) FROM {quote(name)} WHERE _id BETWEEN ? AND ?"
        for ids in batch.ids:
            rows, first_id, last_id = sqlite.fetch(run.connection, sql, (ids.first, ids.last))[0]
            if rows:
                run.progress.add_to_table(name, rows, first_id, last_id)


def _skip_streams(connection: Connection, stream_nos: Iterable[int], position: int) -> int:
    """Return the first id of a row that is not of these streams, so that all rows before it are skipped at once."""
    firsts = [
        sqlite.scalar(
            connection,
            f"SELECT _id FROM {quote(name)} WHERE _id >= ? AND _stream NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY _id LIMIT 1",
            (position, to_json(sorted(stream_nos))),
        )
        for name in catalog.record_tables(connection)
    ]
    return min((first for first in firsts if first is not None), default=identity.next_id(connection))


def next_window(connection: Connection, scope: Scope, position: int, end_id: int, rows: int) -> Range | None:
    """Return the next ids to examine, about `rows` of them from `position` on, or None if no row is there.

    The window divides no transaction, as long as `end_id` divides none.
    """
    firsts = [
        sqlite.scalar(connection, f"SELECT _id FROM {quote(name)} WHERE _id >= ? ORDER BY _id LIMIT 1", (position,))
        for name in scope.tables or catalog.record_tables(connection)
    ]
    first = min((first for first in firsts if first is not None), default=end_id)
    if first >= end_id:
        return None
    last = min(first + rows, end_id) - 1
    at_first = extents.transaction_at(connection, first)
    at_last = extents.transaction_at(connection, last)
    return Range(at_first.first if at_first else first, at_last.last if at_last else last)


# -- selecting: only read ---------------------------------------------------------------------------------------------


class AllRows:
    """Selects all rows that the scope allows to delete."""

    def prepare(self, connection: Connection) -> None:
        """Nothing takes long."""

    def select(self, connection: Connection, scope: Scope, ids: Range) -> PruneBatch:
        """Select the rows with these ids; see `select`."""
        return select(connection, scope, ids)


def select(connection: Connection, scope: Scope, ids: Range) -> PruneBatch:
    """Select all rows with these ids that the scope allows to delete."""
    window = load_window(connection, ids)
    must_stay = [] if scope.deletable is None else plan.not_deletable(window, scope.deletable)
    if scope.tables is None:
        wanted = subtract(window.present, _ids_of_tables(connection, catalog.current_tables(connection), ids))
    else:
        wanted = _ids_of_tables(connection, scope.tables, ids)
    selected = subtract(wanted, must_stay)
    return PruneBatch(window, selected, kept_back=plan.count(wanted) - plan.count(selected))


def load_window(connection: Connection, ids: Range) -> Window:
    """Read what the master has under these ids.

    Raises:
        ContradictionError: a stream has rows there, and no block.
    """
    seqs: dict[int, Range] = {}
    for name in catalog.record_tables(connection):
        sql = f"SELECT _stream, min(_seq), max(_seq) FROM {quote(name)} WHERE _id BETWEEN ? AND ? GROUP BY _stream"
        for number, first, last in sqlite.fetch(connection, sql, (ids.first, ids.last)):
            before = seqs.get(number, Range(first, last))
            seqs[number] = Range(min(first, before.first), max(last, before.last))
    transactions = extents.transactions_from(connection, ids)
    blocks = {number: extents.blocks_with(connection, number, span, ids) for number, span in seqs.items()}
    if unknown := [number for number, found in blocks.items() if not found]:
        cause = f"rows of stream number {unknown[0]} are in no block; {_NEXT_STEP}"
        raise ContradictionError(_ACTION, connection.filename, cause)
    return Window(ids, blocks, transactions)


def _ids_of_tables(connection: Connection, tables: Sequence[str], ids: Range) -> list[Range]:
    return union(run for table in tables for run in ids_of_rows(connection, table, ids))


def ids_of_rows(connection: Connection, table: str, ids: Range, up_to: int | None = None) -> list[Range]:
    """Return which of these ids a table's rows have; with `up_to`, only of rows with that timestamp or an older one."""
    which = "" if up_to is None else f" AND {format.TIMESTAMP} <= {up_to:d}"
    sql = sqlite.select_id_runs(f"{quote(table)} WHERE _id BETWEEN ? AND ?{which}")
    return [Range(*row) for row in sqlite.fetch(connection, sql, (ids.first, ids.last))]


# -- deleting ---------------------------------------------------------------------------------------------------------


def delete(connection: Connection, scope: Scope, batch: PruneBatch, reason: str) -> None:
    """Delete a batch, in the caller's transaction, in which it was selected.

    Raises:
        ContradictionError: the rows are not those that the blocks say, by number or by address.
    """
    # by the generation, others tell which of two receipts of this master is the later one, even if its clock jumped
    identity.increment_generation(connection)
    if scope.tombstones_of:
        _record_newest_tombstone(connection, scope, batch)
    without_row = _forget_superseded(connection, scope, batch)
    deleted = 0
    for name in scope.tables or catalog.record_tables(connection):
        for ids in batch.ids:
            # what is recorded as pruned is derived from the blocks, so it must be these rows that are deleted
            if strays := extents.stray_rows(connection, name, ids):
                cause = f"{units.count(strays, 'row')} of table {name} not where the address says; {_NEXT_STEP}"
                raise ContradictionError(_ACTION, scope.path, cause)
            connection.execute(f"DELETE FROM {quote(name)} WHERE _id BETWEEN ? AND ?", (ids.first, ids.last))
            deleted += connection.changes()
    lost = {
        number: _cut_blocks(connection, number, blocks, batch.ids) for number, blocks in batch.window.blocks.items()
    }
    if deleted + without_row != batch.rows or sum(sum(map(len, seqs)) for seqs in lost.values()) != batch.rows:
        cause = f"its blocks say {units.count(batch.rows, 'row')} where it has {deleted}; {_NEXT_STEP}"
        raise ContradictionError(_ACTION, scope.path, cause)
    for number, seqs in lost.items():
        for part in union(seqs):
            pruned_ranges.record(connection, number, part, reason)
    for whole, remaining in plan.changed_transactions(batch.window, batch.ids):
        extents.replace_transaction(connection, whole, remaining)


def _record_newest_tombstone(connection: Connection, scope: Scope, batch: PruneBatch) -> None:
    for table in scope.tables or ():
        for ids in batch.ids:
            sql = f"SELECT max({format.TIMESTAMP}) FROM {quote(table)} WHERE _id BETWEEN ? AND ?"
            newest = sqlite.scalar(connection, sql, (ids.first, ids.last))
            tombstone_gc.record(connection, scope.tombstones_of, newest, scope.grace_s)


def _forget_superseded(connection: Connection, scope: Scope, batch: PruneBatch) -> int:
    """Count the batch's seqs whose rows were superseded, and subtract them from the recorded count of such rows."""
    total = 0
    known = superseded.counts_of(connection, batch.window.blocks) if scope.tables is None else {}
    concerned = known.keys()
    rows = _rows_by_stream(connection, batch) if concerned else {}
    for number in concerned:
        seqs = [part for block in batch.window.blocks[number] for part in plan.cut(block, batch.ids)[1]]
        without_row = sum(map(len, seqs)) - rows.get(number, 0)
        if not 0 <= without_row <= known[number]:
            cause = (
                f"{units.count(without_row, 'row')} of stream number {number} not where its blocks say; {_NEXT_STEP}"
            )
            raise ContradictionError(_ACTION, scope.path, cause)
        superseded.subtract(connection, number, without_row)
        total += without_row
    return total


def _rows_by_stream(connection: Connection, batch: PruneBatch) -> dict[int, int]:
    found: dict[int, int] = {}
    for name in catalog.record_tables(connection):
        for ids in batch.ids:
            sql = f"SELECT _stream, count(*) FROM {quote(name)} WHERE _id BETWEEN ? AND ? GROUP BY _stream"
            for number, rows in sqlite.fetch(connection, sql, (ids.first, ids.last)):
                found[number] = found.get(number, 0) + rows
    return found


def _cut_blocks(connection: Connection, number: int, blocks: Sequence[Block], deleted: Sequence[Range]) -> list[Range]:
    """Cut these ids out of a stream's blocks; return the seqs that are lost."""
    lost = []
    for block in blocks:
        left, seqs = plan.cut(block, deleted)
        if seqs:
            extents.replace_block(connection, number, block, left)
        lost += seqs
    return lost
