"""Take rows out of a master by their addresses, whatever rule or person asks for it, and record why."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from edgeshard import sqlite, units
from edgeshard.errors import DamagedError
from edgeshard.format.blocks import Block, pieces
from edgeshard.format.ranges import Range, clip, subtract, union
from edgeshard.master import catalog, extents, pruned_ranges
from edgeshard.retention import plan
from edgeshard.sqlite import Connection, quote


@attrs.frozen
class TakenOut:
    """What `take_out` did.

    Attributes:
        rows: how many rows were deleted.
        without_row: how many of the seqs had no row: it was superseded, or another program deleted it.
    """

    rows: int
    without_row: int


def take_out(connection: Connection, stream_no: int, seqs: Sequence[Range], reason: str) -> TakenOut:
    """Delete the rows with these addresses, cut them out of the blocks, and record it, in the caller's transaction.

    Seqs in no block are left alone. Superseded rows are not counted anew: that is the caller's part.

    Args:
        connection: the master.
        stream_no: the stream.
        seqs: the addresses.
        reason: why, for _edgeshard_pruned_ranges.

    Raises:
        DamagedError: other rows are where the blocks say that these are. Nothing was deleted.
    """
    blocks = extents.blocks_around(connection, stream_no, seqs)
    parts = pieces(seqs, blocks)
    ids = union(Range(part.first_id, part.last_id) for part in parts)
    if not parts:
        return TakenOut(0, 0)
    transactions = _transactions(connection, ids)
    deleted = 0
    for name in catalog.present_tables(connection):
        for run in ids:
            if strays := extents.stray_rows(connection, name, run):
                cause = (
                    f"{units.count(strays, 'row')} of table {name} not where the address says; Store.verify "
                    "(`edgeshard verify`) says more"
                )
                raise DamagedError("delete rows of", connection.filename, cause)
            connection.execute(f"DELETE FROM main.{quote(name)} WHERE _id BETWEEN ? AND ?", (run.first, run.last))
            deleted += connection.changes()
    for block in blocks:
        left, lost = plan.cut(block, ids)
        if lost:
            extents.replace_block(connection, stream_no, block, left)
    for part in union(Range(part.first, part.last) for part in parts):
        pruned_ranges.record(connection, stream_no, part, reason)
    for whole in transactions:
        if clip(ids, Range(whole.first, whole.first)) or clip(ids, Range(whole.last, whole.last)):
            extents.replace_transaction(connection, whole, _what_remains(connection, whole))
    return TakenOut(deleted, sum(map(len, parts)) - deleted)


def without_row(connection: Connection, parts: Sequence[Block]) -> list[Range]:
    """Return the seqs of these parts of a stream's blocks that have no row in any record table, in order."""
    tables, found = catalog.present_tables(connection), []
    for part in parts:
        ids = Range(part.first_id, part.last_id)
        with_row = [run for name in tables for run in extents.ids_with_row(connection, name, ids)]
        shift = part.first - part.first_id
        found += [Range(run.first + shift, run.last + shift) for run in subtract([ids], with_row)]
    return union(found)


def _transactions(connection: Connection, ids: Sequence[Range]) -> list[Range]:
    """Return the ids of each transaction of several rows that has some of these ids."""
    found: dict[int, Range] = {}
    for run in ids:
        at_first = extents.transaction_at(connection, run.first)
        begun = extents.transactions_from(connection, run)
        found.update((whole.first, whole) for whole in [*([at_first] if at_first else []), *begun])
    return list(found.values())


def _what_remains(connection: Connection, whole: Range) -> Range | None:
    """Return the ids of a transaction from its first row to its last one; None if that is one row or less."""
    ends: list[int] = []
    for name in catalog.present_tables(connection):
        for function in ("min", "max"):
            sql = f"SELECT {function}(_id) FROM main.{quote(name)} WHERE _id BETWEEN ? AND ?"
            end = sqlite.scalar(connection, sql, (whole.first, whole.last))
            ends += [] if end is None else [end]
    return Range(min(ends), max(ends)) if ends and min(ends) < max(ends) else None
