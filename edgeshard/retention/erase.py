"""Erase rows of a master for good: find them, and delete those that the store's list names.

The list (`erased_file`) decides; the order of the steps is in `edgeshard.merge.erase`. A master does what the list
names once, and again if an older copy of it was put back. Rows that it never held are recorded as if it had, so no copy
of a shard brings them. What a shard may lose is decided by `edgeshard.master.proven`, as always.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Final

import attrs

from edgeshard import sqlite
from edgeshard.budget import reserve, usage
from edgeshard.budget.policy import Budget
from edgeshard.errors import ConfigurationError, DamagedError
from edgeshard.format.ranges import Range, size, subtract, union
from edgeshard.log_fields import fields
from edgeshard.master import (
    catalog,
    database,
    erasures,
    extents,
    identity,
    pruned_ranges,
    rejected,
    retirement,
    streams,
    superseded,
    written_off,
)
from edgeshard.options import Params
from edgeshard.records import keys, queries
from edgeshard.records.queries import Call
from edgeshard.retention import by_address, erased_file
from edgeshard.retention.erased_file import ErasedStream
from edgeshard.sources import diff
from edgeshard.sqlite import Connection, quote
from edgeshard.sqlite.statements import read_one

logger = logging.getLogger("edgeshard.merge")

#: How many rows one transaction erases, so that it keeps a merger waiting for less than 50 ms.
STEP_ROWS: Final = 1_000

#: Within a disk budget, how many pages a row is assumed to write to the master's WAL, before that is measured.
PAGES_PER_ROW: Final = 4


def find(path: Path, table: str, where: str, params: Params) -> list[ErasedStream]:
    """Return the addresses of the rows of a table, and of its history, that meet a condition.

    Args:
        path: the master.
        table: the table.
        where: the condition, SQL that only reads.
        params: the values of its parameters.

    Raises:
        ConfigurationError: there is no such table, or it holds tombstones.
        QueryError: SQLite refused the condition.
        DamagedError: a row is not where its address says.
        StorageError: the master cannot be read.
    """
    condition = f"The condition is SQL over the columns of table {table}; it only reads"
    call = Call("erase from", str(path), "erase(table, where, {})", condition, lambda _: condition)
    bindings = queries.bind(call, where, params)
    if not where.strip():
        raise call.error("the condition is empty; to erase all rows, say where='true'")
    connection = database.open_master(path, writable=False)
    try:
        with sqlite.translate_errors("erase from", str(path)), sqlite.read_snapshot(connection):
            names = _tables(connection, path, table)
            origins = _origins(connection)
            sqlite.allow_only_reading(connection, ["main"])
            found: dict[int, list[Range]] = {}
            try:
                for name in names:
                    # the condition is on lines of its own, so that a comment in it ends there
                    ids = f"SELECT _id FROM {quote(name)} WHERE (\n{where}\n)"
                    sql = f"SELECT _stream, _seq, {extents.is_in_place('t')} FROM {quote(name)} t WHERE _id IN ({ids})"
                    with queries.explaining_mistakes(connection, call, sql, bindings):
                        for number, seq, is_in_place in read_one(connection, sql, bindings).rows:
                            if not is_in_place:  # by its address, another row would be erased
                                cause = f"rows of table {name} are not where the address says; see Store.verify"
                                raise DamagedError("erase from", path, cause)
                            found.setdefault(number, []).append(Range(seq, seq))
            finally:
                connection.authorizer = None  # it would refuse the end of the snapshot
    finally:
        connection.close()
    return [attrs.evolve(origins[number], seqs=tuple(union(seqs))) for number, seqs in found.items()]


def _origins(connection: Connection) -> dict[int, ErasedStream]:
    """Map the number of each stream to what is said of it, without rows."""
    return {
        number: ErasedStream(stream_id, agent_id, began_at, ())
        for number, stream_id, agent_id, began_at in streams.origins(connection)
    }


def _tables(connection: Connection, path: Path, table: str) -> list[str]:
    """Return the name of a table, and of its history, as the master spells them."""
    names = {name.lower(): name for name in catalog.record_tables(connection)}
    name = names.get(table.lower())
    if name is None:
        cause = f"there is no table {table!r:.120}; the master has {', '.join(sorted(names.values()))}"
        raise ConfigurationError("erase from", path, cause)
    keyed = catalog.load_keys(connection)
    if name.lower() in {keys.deleted_name(owner).lower() for owner in keyed}:
        cause = (
            f"table {name} holds tombstones: without them, older versions would come back with another copy. Prune "
            "them with deletions_older_than, once all databases know of them"
        )
        raise ConfigurationError("erase from", path, cause)
    history = names.get(keys.history_name(name).lower())
    return [name, history] if name in keyed and history is not None else [name]


def is_due(connection: Connection, root: Path) -> bool:
    """Return whether the store's list names erasures that this master has not done.

    A list that is damaged is made again from what the master has erased.

    Raises:
        DamagedError, FormatError: the list cannot be understood, and this master has erased nothing.
    """
    done = erasures.last_done(connection)
    try:
        return erased_file.number(root) > done
    except DamagedError as error:
        if not done:
            raise
        logger.warning("%s. It is made again from what the master has erased", error, extra=fields(error=error))
        erased_file.save(root, done, listed_by(connection))
        return False


def redo(connection: Connection, root: Path) -> int:
    """Do what the store's list names, as far as this master has not done it; return how many rows were erased.

    Within a disk budget, the steps are so small that the WAL fits into the reserve.

    Args:
        connection: the master, open for writing, without a transaction.
        root: the store.

    Raises:
        DamagedError, FormatError: the list cannot be understood.
    """
    last, listed = erased_file.load(root)
    budget = usage.load_budget(root)
    rows, step_rows, wal_pages = 0, STEP_ROWS, None
    if budget is not None:
        from edgeshard.retention import shrink  # slow to import for each merge, and needed only within a budget

        wal_pages = shrink.limit_wal(connection, budget)
        step_rows = min(STEP_ROWS, max(1, wal_pages // PAGES_PER_ROW))
    with sqlite.secure_delete(connection), _space(root, budget):
        for stream in listed:
            left = list(stream.seqs)
            while left:
                seqs, left = _divide(left, step_rows)
                pages_before = sqlite.wal_pages_written(connection)
                with sqlite.immediate(connection):
                    number = _stream_number(connection, stream)
                    if _is_done(connection, number, seqs):
                        connection.execute("ROLLBACK")
                        continue
                    identity.increment_generation(connection)
                    rows += _erase(connection, number, seqs)
                pages = sqlite.wal_pages_written(connection) - pages_before
                if wal_pages is not None and pages:  # all of a page is overwritten, and of a large row many pages
                    step_rows = min(STEP_ROWS, 2 * step_rows, max(1, size(seqs) * wal_pages // pages))
    with sqlite.immediate(connection):
        erasures.record(connection, last)
    return rows


def _space(root: Path, budget: Budget | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if budget is None else reserve.for_deleting(root, budget)


def _divide(seqs: list[Range], rows: int) -> tuple[list[Range], list[Range]]:
    """Divide sorted seqs into the first so many, and the others."""
    first: list[Range] = []
    for index, part in enumerate(seqs):
        if len(part) >= rows:
            taken = Range(part.first, part.first + rows - 1)
            return [*first, taken], [*subtract([part], [taken]), *seqs[index + 1 :]]
        first.append(part)
        rows -= len(part)
    return first, []


def _stream_number(connection: Connection, stream: ErasedStream) -> int:
    retirement.restore(connection, stream.stream_id, stream.agent_id, stream.began_at)
    known = streams.find(connection, stream.stream_id)
    if known is not None:
        return known[0]
    return streams.add(connection, stream.stream_id, stream.agent_id, stream.began_at)


def _is_done(connection: Connection, number: int, seqs: list[Range]) -> bool:
    return not extents.blocks_around(connection, number, seqs) and not subtract(
        seqs, diff.held_around(connection, number, seqs)
    )


def _erase(connection: Connection, number: int, seqs: list[Range]) -> int:
    """Erase some rows of a stream, in the caller's transaction; return how many there were."""
    taken = by_address.take_out(connection, number, seqs, pruned_ranges.ERASED)
    rejected.erase(connection, number, seqs)
    count = superseded.counts_of(connection, [number]).get(number, 0)
    superseded.subtract(connection, number, min(count, taken.without_row))
    held = diff.held_around(connection, number, seqs)
    never_held = subtract(seqs, held)
    if never_held:
        extents.add_ranges(connection, number, held, never_held)
        new_seqs = streams.raise_last_seq(connection, number, never_held[-1].last)
        streams.add_missing(connection, number, new_seqs - size(never_held))
        for part in never_held:
            pruned_ranges.record(connection, number, part, pruned_ranges.ERASED)
        written_off.forget(connection, number, never_held)
    return taken.rows


def listed_by(connection: Connection) -> list[ErasedStream]:
    """Return what this master has erased, as its own records say."""
    origins = _origins(connection)
    return [
        attrs.evolve(origins[number], seqs=tuple(seqs))
        for number, seqs in pruned_ranges.with_reason(connection, pruned_ranges.ERASED).items()
    ]
