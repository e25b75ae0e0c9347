"""Decide which ids of a window to delete, and how large the next window is. Pure functions over small values.

Sets of ids and of seqs alike are sorted, disjoint ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from edgeshard.format.blocks import Block, pieces
from edgeshard.format.ranges import Range, clip, intersect, size, subtract, union

#: How long one transaction of a prune should keep a merger waiting, in seconds.
TRANSACTION_S = 0.02

#: How many rows the first transaction examines, and the fewest and the most that any does.
FIRST_ROWS, MIN_ROWS, MAX_ROWS = 1_000, 100, 50_000

#: How many streams the first transaction retires that retires any, and the most that one does; about 0.2 ms each.
FIRST_STREAMS, MAX_STREAMS = 50, 500

#: The fewest rows of a transaction if each row writes as much as the WAL may have.
MIN_ROWS_SHORT_WAL = 10


@attrs.frozen
class Window:
    """What a master has under some consecutive ids.

    Attributes:
        ids: these ids.
        blocks: the blocks that reach into the window, uncut, by stream number.
        transactions: the ids of each transaction of several rows that begins in the window; it ends in it, too.
    """

    ids: Range
    blocks: Mapping[int, Sequence[Block]]
    transactions: Sequence[Range]

    @property
    def present(self) -> list[Range]:
        """The ids in the window that a block has."""
        return intersect((_ids(block) for blocks in self.blocks.values() for block in blocks), [self.ids])


@attrs.frozen
class PruneBatch:
    """What one transaction of a prune deletes, and how many selected rows it keeps.

    Attributes:
        window: what is there.
        ids: the ids to delete.
        kept_back: rows that the rule selects and that stay, because no other database holds them or their agent is
            protected.
        behind: tombstones that stay because an older change may still arrive.
        unheard: tombstones that stay because another database does not know of them.
    """

    window: Window
    ids: Sequence[Range]
    kept_back: int = 0
    behind: int = 0
    unheard: int = 0

    @property
    def rows(self) -> int:
        """The number of rows to delete."""
        return count(self.ids)


def not_deletable(window: Window, deletable: Mapping[int, Sequence[Range]]) -> list[Range]:
    """Return the ids of rows that must stay, and of all rows that were written in one transaction with such a row.

    Args:
        window: the rows.
        deletable: the seqs that may be deleted, by stream number.
    """
    must_stay = missing_from(window, deletable)
    return union([*must_stay, *_overlapping(window.transactions, must_stay)])


def missing_from(window: Window, seqs: Mapping[int, Sequence[Range]]) -> list[Range]:
    """Return the ids of rows whose seqs are not among these seqs of their stream number."""
    found = []
    for number, blocks in window.blocks.items():
        parts = [_part(block, ids) for block in blocks for ids in clip([_ids(block)], window.ids)]
        # only what is near: a stream may have any number of ranges
        near = [item for part in parts for item in clip(seqs.get(number, ()), Range(part.first, part.last))]
        included = [_ids(piece) for piece in pieces(near, parts)]
        found += subtract(map(_ids, parts), included)
    return union(found)


def changed_transactions(window: Window, deleted: Iterable[Range]) -> list[tuple[Range, Range | None]]:
    """Return each transaction that loses rows, with what remains of it: None if that is one row or less.

    Only a prune of a single table leaves a part of one.
    """
    left = subtract(window.present, deleted)
    changed: list[tuple[Range, Range | None]] = []
    for whole in window.transactions:
        parts = clip(left, whole)
        part = Range(parts[0].first, parts[-1].last) if parts else None
        if part != whole:
            changed.append((whole, part if part is not None and len(part) > 1 else None))
    return changed


def cut(block: Block, deleted: Sequence[Range]) -> tuple[list[Block], list[Range]]:
    """Return what remains of a block without these ids, which are sorted and disjoint, and the seqs that it loses."""
    here = clip(deleted, _ids(block))
    left = [_part(block, ids) for ids in subtract([_ids(block)], here)]
    lost = [_part(block, ids) for ids in here]
    return left, [Range(part.first, part.last) for part in lost]


def next_size(size: int, took_s: float, least: int, most: int) -> int:
    """Return how many rows or pages the next transaction handles, after one that handled `size` took `took_s`."""
    wanted = int(size * min(2.0, max(0.5, TRANSACTION_S / max(took_s, 1e-6))))
    return min(most, max(least, wanted))


def rows_for_wal(rows: int, pages_written: int, wal_pages: int) -> int:
    """Return how many rows a transaction may delete for a WAL of `wal_pages`, if `rows` wrote `pages_written` to it.

    Some pages are written only once, however many rows are deleted. Here they count for each row, so the result is
    rather too low than too high.
    """
    return max(MIN_ROWS_SHORT_WAL, rows * wal_pages // max(1, pages_written))


def count(ids: Iterable[Range]) -> int:
    """Return how many ids there are."""
    return size(union(ids))


def _ids(block: Block) -> Range:
    return Range(block.first_id, block.last_id)


def _part(block: Block, ids: Range) -> Block:
    first = block.first + ids.first - block.first_id
    return Block(first, first + len(ids) - 1, ids.first)


def _overlapping(spans: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """Return the spans that have an id in common with one of the others, which are sorted and disjoint."""
    return [span for span in spans if clip(others, span)]
