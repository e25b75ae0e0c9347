"""One transaction of a prune: rows, blocks, prunings and transactions together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from edgeshard import format, sqlite
from edgeshard.errors import DamagedError
from edgeshard.format.blocks import Block
from edgeshard.format.ranges import Range, subtract, union
from edgeshard.master import catalog, extents, pruned_ranges, superseded
from edgeshard.retention import plan
from edgeshard.retention.plan import Window
from edgeshard.sqlite import Connection, quote


@attrs.frozen
class Scope:
    """What a prune may touch.

    Attributes:
        path: the master, for errors.
        may_go: of each stream number, the seqs that may go, as far as it is asked whose they are; None: that is not.
        tables: the only tables whose rows go; None: all but those of `kept`.
        kept: tables whose rows stay: the newest of each key, and deletions, which `deletions` alone takes.
    """

    path: str
    may_go: Mapping[int, Sequence[Range]] | None = None
    tables: tuple[str, ...] | None = None
    kept: tuple[str, ...] = ()


@attrs.frozen
class Going:
    """What goes of a window.

    Attributes:
        window: what is there.
        ids: the ids that go.
        kept_back: how many rows were asked for and stay, for whose they are: nobody else holds them, or it is spared.
        behind: how many deletions were, since an older change may yet come.
        unheard: how many, since another database does not know of them.
    """

    window: Window
    ids: Sequence[Range]
    kept_back: int
    behind: int = 0
    unheard: int = 0

    @property
    def rows(self) -> int:
        """How many rows go."""
        return plan.count(self.ids)


def window_from(connection: Connection, scope: Scope, position: int, bound: int, rows: int) -> Range | None:
    """The next ids to look at, about `rows` of them, from `position` and below `bound`; None where no row is there.

    No transaction lies across its end, as long as none lies across `bound`.
    """
    firsts = [
        sqlite.scalar(connection, f"SELECT _id FROM {quote(name)} WHERE _id >= ? ORDER BY _id LIMIT 1", (position,))
        for name in scope.tables or catalog.record_tables(connection)
    ]
    first = min((first for first in firsts if first is not None), default=bound)
    if first >= bound:
        return None
    last = min(first + rows, bound) - 1
    begun = extents.transaction_at(connection, first)
    ended = extents.transaction_at(connection, last)
    return Range(begun.first if begun else first, ended.last if ended else last)


# -- looking ----------------------------------------------------------------------------------------------------------


def going(connection: Connection, scope: Scope, ids: Range) -> Going:
    """What goes of the rows by these ids; only read."""
    window = look(connection, ids)
    kept = [] if scope.may_go is None else plan.kept_back(window, scope.may_go)
    if scope.tables is None:
        asked = subtract(window.present, _islands(connection, scope.kept, ids))
    else:
        asked = _islands(connection, scope.tables, ids)
    goes = subtract(asked, kept)
    return Going(window, goes, plan.count(asked) - plan.count(goes))


def look(connection: Connection, ids: Range) -> Window:
    """What the master has by these ids."""
    spans: dict[int, Range] = {}
    for name in catalog.record_tables(connection):
        sql = f"SELECT _stream, min(_seq), max(_seq) FROM {quote(name)} WHERE _id BETWEEN ? AND ? GROUP BY _stream"
        for number, first, last in sqlite.fetch(connection, sql, (ids.first, ids.last)):
            before = spans.get(number, Range(first, last))
            spans[number] = Range(min(first, before.first), max(last, before.last))
    sql = "SELECT first_id, last_id FROM edgeshard_transactions WHERE first_id BETWEEN ? AND ? ORDER BY first_id"
    transactions = [Range(*row) for row in sqlite.fetch(connection, sql, (ids.first, ids.last))]
    blocks = {number: _blocks(connection, number, span, ids) for number, span in spans.items()}
    return Window(ids, blocks, transactions)


def _blocks(connection: Connection, number: int, seqs: Range, ids: Range) -> list[Block]:
    """The blocks of a stream that have some of these seqs, and some of these ids."""
    sql = (
        "SELECT first, last, first_id FROM edgeshard_blocks WHERE stream_no = ?1 AND first <= ?3 AND first >= "
        "coalesce((SELECT max(first) FROM edgeshard_blocks WHERE stream_no = ?1 AND first <= ?2), 0) ORDER BY first"
    )
    found = [Block(*row) for row in sqlite.fetch(connection, sql, (number, seqs.first, seqs.last))]
    return [block for block in found if block.first_id <= ids.last and block.last_id >= ids.first]


def _islands(connection: Connection, tables: Sequence[str], ids: Range) -> list[Range]:
    """The ids of some tables' rows, as ranges."""
    return union(island for table in tables for island in islands(connection, table, ids))


def islands(connection: Connection, table: str, ids: Range, upto: int | None = None) -> list[Range]:
    """The ids of a table's rows, as ranges; where a timestamp is given, of those that are timestamped so, or before."""
    which = "" if upto is None else f"AND {format.TIMESTAMP} <= {upto:d}"
    sql = (
        "SELECT min(_id), max(_id) FROM (SELECT _id, _id - row_number() OVER (ORDER BY _id) AS island "
        f"FROM {quote(table)} WHERE _id BETWEEN ? AND ? {which}) GROUP BY island ORDER BY 1"
    )
    return [Range(*row) for row in sqlite.fetch(connection, sql, (ids.first, ids.last))]


# -- deleting ---------------------------------------------------------------------------------------------------------


def apply(connection: Connection, scope: Scope, goes: Going, reason: str) -> None:
    """Delete what goes, in the caller's transaction, in which it was looked up.

    Raises:
        DamagedError: there are other rows than the blocks say.
    """
    # of two receipts the one with more merges, or more of these, is the later, whatever the clock says
    connection.execute("UPDATE edgeshard_database SET generation = generation + 1")
    deleted, replaced = 0, _replaced(connection, scope, goes)
    for name in scope.tables or catalog.record_tables(connection):
        for ids in goes.ids:
            connection.execute(f"DELETE FROM {quote(name)} WHERE _id BETWEEN ? AND ?", (ids.first, ids.last))
            deleted += connection.changes()
    lost = {number: _cut_blocks(connection, number, blocks, goes.ids) for number, blocks in goes.window.blocks.items()}
    if deleted + replaced != goes.rows or sum(sum(map(len, seqs)) for seqs in lost.values()) != goes.rows:
        cause = f"{deleted} rows are where its blocks say {goes.rows}; `edgeshard verify` says more"
        raise DamagedError("prune", scope.path, cause)
    for number, seqs in lost.items():
        for part in union(seqs):
            pruned_ranges.record(connection, number, part, reason)
    for whole, left in plan.transactions_left(goes.window, goes.ids):
        connection.execute("DELETE FROM edgeshard_transactions WHERE first_id = ?", (whole.first,))
        if left is not None:
            connection.execute("INSERT INTO edgeshard_transactions VALUES (?, ?)", (left.first, left.last))


def _replaced(connection: Connection, scope: Scope, goes: Going) -> int:
    """How many of the seqs that go have no row any more, since newer ones replaced it; they no longer count as such."""
    total = 0
    known = superseded.superseded_counts(connection) if scope.tables is None else {}
    concerned = goes.window.blocks.keys() & known.keys()
    rows = _rows_by_stream(connection, goes) if concerned else {}
    for number in concerned:
        seqs = [part for block in goes.window.blocks[number] for part in plan.cut(block, goes.ids)[1]]
        gone = sum(map(len, seqs)) - rows.get(number, 0)
        if not 0 <= gone <= known[number]:
            cause = f"{gone} rows of stream number {number} are not where its blocks say; `edgeshard verify` says more"
            raise DamagedError("prune", scope.path, cause)
        connection.execute(f"UPDATE {format.SUPERSEDED} SET rows = rows - ? WHERE stream_no = ?", (gone, number))
        total += gone
    return total


def _rows_by_stream(connection: Connection, goes: Going) -> dict[int, int]:
    """How many rows go of each stream number."""
    found: dict[int, int] = {}
    for name in catalog.record_tables(connection):
        for ids in goes.ids:
            sql = f"SELECT _stream, count(*) FROM {quote(name)} WHERE _id BETWEEN ? AND ? GROUP BY _stream"
            for number, rows in sqlite.fetch(connection, sql, (ids.first, ids.last)):
                found[number] = found.get(number, 0) + rows
    return found


def _cut_blocks(connection: Connection, number: int, blocks: Sequence[Block], gone: Sequence[Range]) -> list[Range]:
    """Take these ids out of a stream's blocks; the seqs that are lost."""
    lost = []
    for block in blocks:
        left, seqs = plan.cut(block, gone)
        if seqs:
            connection.execute("DELETE FROM edgeshard_blocks WHERE stream_no = ? AND first = ?", (number, block.first))
            connection.executemany(
                "INSERT INTO edgeshard_blocks VALUES (?, ?, ?, ?)",
                [(number, part.first, part.last, part.first_id) for part in left],
            )
        lost += seqs
    return lost
