"""Record which rows other programs deleted from a master, so that it does not contradict itself.

Somebody deletes rows with any SQLite tool, or drops a table. The master's own tables still say that the rows are there.
Left so, prunes, exports and hubs would take it for damage. Here the rows are cut out of the blocks and recorded by
address, with the reason "by hand". They stay in the ranges, so no copy brings them back. They are proof of nothing:
what a shard may lose is decided by `edgeshard.master.proven`, as always.

There are two ways to find them:

* Triggers note the address of each row that another program deletes (`edgeshard.master.by_hand`). `settle` looks for
  such notes, and for tables that were dropped. That takes no time if there are none, so each merge and each prune does.
* `find_all` compares rows and blocks, which reads the whole master. It is done only once something contradicts itself,
  and only if SQLite finds the file sound: a page that was lost also takes rows with it, and that is damage.

In the second case, if rows of the same stream were superseded, nobody can tell the two kinds apart. Then all seqs of
the stream that have no row are recorded as "by hand or superseded": a list that is too long is better than a wrong one.
`unrecorded` tells the same of a master that is only read.

Each transaction handles a few thousand seqs, and leaves the master without new contradictions; after a kill, the next
call continues.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from edgeshard import sqlite, units
from edgeshard.errors import DamagedError
from edgeshard.format.blocks import pieces
from edgeshard.format.ranges import Range, size
from edgeshard.log_fields import fields
from edgeshard.master import (
    agent_views,
    by_hand,
    catalog,
    database,
    extents,
    identity,
    pruned_ranges,
    soundness,
    superseded,
)
from edgeshard.retention import by_address
from edgeshard.sqlite import Connection, quote

logger = logging.getLogger("edgeshard.merge")

#: How many seqs one transaction handles, so that it keeps a merger waiting for less than 50 ms.
STEP_ROWS: Final = 2_000


def settle(connection: Connection, path: Path, *, is_schema_new: bool = True) -> int:
    """Record the rows whose deletion by another program was noted, and those of dropped tables; return how many.

    What was dropped, tables, columns or views, is made again: agents go on to write it, and people to read it.

    Args:
        connection: the master, open for writing, without a transaction.
        path: its path, for the log and for errors.
        is_schema_new: whether the schema may have changed since the last call.

    Raises:
        DamagedError: a table is gone, and SQLite finds that the master is damaged.
    """
    rows = 0
    while by_hand.has_notes(connection):
        rows += _settle_notes(connection)
    if rows:
        _log(path, rows)
    return rows + _make_again(connection, path) if is_schema_new else rows


def _make_again(connection: Connection, path: Path) -> int:
    """Make again what another program dropped; return how many rows of tables were recorded as deleted by hand."""
    with sqlite.read_snapshot(connection):  # a merger next to a prune may be making a table
        lost, dropped = catalog.lost_columns(connection), catalog.dropped_tables(connection)
    if lost or dropped:
        _ensure_sound(connection, path)
        with sqlite.immediate(connection):
            identity.increment_generation(connection)
            for sql in catalog.add_again(catalog.lost_columns(connection)):
                connection.execute(sql)
            for table in catalog.dropped_tables(connection):
                for statement in catalog.make_again(connection, table):
                    connection.execute(*statement)
                connection.execute(by_hand.forget_trigger(table))
                connection.execute(by_hand.note_deletions(table))
    if lost:
        names = [f"{table}.{column}" for table, columns in lost.items() for column, _ in columns]
        logger.warning(
            "%s: made again what was dropped by hand, without values: columns %s",
            path,
            ", ".join(names),
            extra=fields(file=path),
        )
    if dropped:
        logger.warning(
            "%s: made again what was dropped by hand, without rows: tables %s",
            path,
            ", ".join(dropped),
            extra=fields(file=path),
        )
    if agent_views.changes(connection):
        with sqlite.immediate(connection):
            for sql in agent_views.changes(connection):
                connection.execute(sql)
    return record_all(connection, path) if dropped else 0


def _has_changes(connection: Connection) -> bool:
    return by_hand.has_notes(connection) or bool(catalog.dropped_tables(connection) or catalog.lost_columns(connection))


def settle_file(path: Path, *, thorough: bool = False) -> int:
    """Open a master and call `settle`, or `record_all` if thorough; return how many seqs were recorded.

    Raises:
        StorageError: there is something to record, and the master cannot be written.
    """
    connection = database.open_master(path, writable=thorough)
    try:
        with database.translate_errors("examine master", path):
            if thorough:
                return record_all(connection, path)
            with sqlite.read_snapshot(connection):
                if not _has_changes(connection):
                    return 0
    finally:
        connection.close()
    connection = database.open_master(path, writable=True)
    try:
        with database.translate_errors("examine master", path):
            return settle(connection, path)
    finally:
        connection.close()


def _settle_notes(connection: Connection) -> int:
    rows = 0
    with sqlite.immediate(connection):
        identity.increment_generation(connection)
        for number, seqs in by_hand.notes(connection, STEP_ROWS).items():
            parts = pieces(seqs, extents.blocks_around(connection, number, seqs))
            gone = by_address.without_row(connection, parts)  # some may have been put back since
            rows += by_address.take_out(connection, number, gone, pruned_ranges.BY_HAND).without_row
            by_hand.forget(connection, number, seqs)
    return rows


def find_all(connection: Connection) -> dict[int, int]:
    """Map stream numbers to how many seqs in their blocks have neither a row nor a count as superseded.

    This reads all rows, in the caller's transaction.
    """
    rows: dict[int, int] = {}
    for name in catalog.present_tables(connection):
        sql = f"SELECT _stream, count(*) FROM main.{quote(name)} GROUP BY _stream"
        for number, count in sqlite.fetch(connection, sql):
            rows[number] = rows.get(number, 0) + count
    without_row = superseded.superseded_counts(connection)
    expected = extents.block_rows(connection).items()
    absent = {number: count - rows.get(number, 0) - without_row.get(number, 0) for number, count in expected}
    return {number: count for number, count in absent.items() if count > 0}


def has_wrong_blocks(connection: Connection) -> bool:
    """Return whether a row is not where its block says, or a block cannot be right, in the caller's transaction.

    Then a seq without a row says nothing about rows that were deleted. This reads all rows.
    """
    checks = (extents.blocks_outside_ranges, extents.overlapping_blocks, extents.doubled_ids)
    if any(next(check(connection), None) is not None for check in checks):
        return True
    return any(extents.stray_rows(connection, name) for name in catalog.present_tables(connection))


def unrecorded(connection: Connection) -> dict[int, list[Range]]:
    """Map stream numbers to the seqs whose rows other programs deleted, and that are not recorded as such yet.

    What was noted is known by address. If more rows of a stream are gone, these are all of its seqs without a row. It
    is empty if blocks are wrong. This reads all rows, in the caller's transaction.
    """
    absent = find_all(connection)
    if not absent or has_wrong_blocks(connection):
        return {}
    noted = by_hand.notes(connection)
    found = {}
    for number, rows in absent.items():
        blocks = extents.blocks(connection, number)
        gone = by_address.without_row(connection, pieces(noted.get(number, ()), blocks))
        found[number] = gone if size(gone) >= rows else by_address.without_row(connection, blocks)
    return found


def record_all(connection: Connection, path: Path) -> int:
    """Record all rows that other programs deleted, even if nothing noted it; return how many seqs were recorded.

    What was noted is recorded first, because it is known by address. Nothing more is recorded if blocks are wrong.

    Args:
        connection: the master, open for writing, without a transaction.
        path: its path, for the log and for errors.

    Raises:
        DamagedError: there are such rows, and SQLite finds that the master is damaged.
    """
    rows = 0
    while by_hand.has_notes(connection):
        rows += _settle_notes(connection)
    with sqlite.read_snapshot(connection):
        absent = {} if has_wrong_blocks(connection) else find_all(connection)
    if absent:
        _ensure_sound(connection, path)
    rows += sum(_record_stream(connection, number) for number in absent)
    if rows:
        _log(path, rows)
    return rows


def _record_stream(connection: Connection, number: int) -> int:
    rows, is_mixed = 0, None
    for block in extents.blocks(connection, number):
        for first in range(block.first, block.last + 1, STEP_ROWS):
            with sqlite.immediate(connection):
                counts = superseded.counts_of(connection, [number])
                count = counts.get(number, 0)
                if is_mixed is None:
                    is_mixed = number in counts
                    if is_mixed and number not in find_all(connection):  # somebody else has done it meanwhile
                        connection.execute("ROLLBACK")
                        return 0
                seqs = [Range(first, min(first + STEP_ROWS - 1, block.last))]
                parts = pieces(seqs, extents.blocks_around(connection, number, seqs))
                gone = by_address.without_row(connection, parts)
                if not gone or (count > 0 and not is_mixed):
                    connection.execute("ROLLBACK")
                    continue
                identity.increment_generation(connection)
                reason = pruned_ranges.BY_HAND_OR_SUPERSEDED if is_mixed else pruned_ranges.BY_HAND
                by_address.take_out(connection, number, gone, reason)
                # the superseded ones first: until all are done, a contradiction remains that makes the next call go on
                superseded.subtract(connection, number, min(count, size(gone)))
                rows += size(gone)
    return rows


def _ensure_sound(connection: Connection, path: Path) -> None:
    finding = next(soundness.findings(connection, "quick_check", 1), None)
    if finding is not None:
        cause = f"rows are gone, and SQLite finds: {finding}. Store.verify (`edgeshard verify`) says more"
        raise DamagedError("examine master", path, cause)


def _log(path: Path, rows: int) -> None:
    text = "%s deleted from %s by hand: Store.verify lists them, Store.accept_loss accepts the loss"
    logger.warning(text, units.count(rows, "row"), path, extra=fields(file=path, rows=rows))
