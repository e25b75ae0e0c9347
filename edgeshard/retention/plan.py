"""Which ids of a window go, as pure functions over small values. Ids and seqs alike are kept as sorted ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from edgeshard.format.blocks import Block, pieces
from edgeshard.format.ranges import Range, clip, intersect, size, subtract, union

#: For how long one transaction of a prune should keep a merger waiting, in seconds.
STEP_S = 0.02

#: How many rows a transaction begins with, and the fewest and the most that it takes.
ROWS_FIRST, ROWS_LEAST, ROWS_MOST = 1_000, 100, 50_000

#: As few rows are deleted at a time where each writes as much as the log may have.
ROWS_FEWEST = 10


@attrs.frozen
class Window:
    """What a master has by some consecutive ids.

    Attributes:
        ids: these.
        blocks: of each stream number, the blocks that reach into the window, whole.
        transactions: the ids of each transaction of several rows that begins in it; it ends in it, too.
    """

    ids: Range
    blocks: Mapping[int, Sequence[Block]]
    transactions: Sequence[Range]

    @property
    def present(self) -> list[Range]:
        """The ids in it by which there is a row."""
        return intersect((_ids(block) for blocks in self.blocks.values() for block in blocks), [self.ids])


def kept_back(window: Window, may_go: Mapping[int, Iterable[Range]]) -> list[Range]:
    """The ids of rows that may not go, and of those that were written in one transaction with such a row.

    Args:
        window: the rows.
        may_go: of each stream number, the seqs that may.
    """
    stay = lacking(window, may_go)
    return union([*stay, *_sharing(window.transactions, stay)])


def lacking(window: Window, elsewhere: Mapping[int, Iterable[Range]]) -> list[Range]:
    """The ids of rows whose seqs are not among those of each stream number."""
    found = []
    for number, blocks in window.blocks.items():
        parts = [_part(block, ids) for block in blocks for ids in clip([_ids(block)], window.ids)]
        held = [_ids(piece) for piece in pieces(elsewhere.get(number, ()), parts)]
        found += subtract(map(_ids, parts), held)
    return union(found)


def transactions_left(window: Window, gone: Iterable[Range]) -> list[tuple[Range, Range | None]]:
    """The transactions that change once these ids are gone, and what is left of each: None where it is one row or less.

    Only a prune of a single table leaves a part of one.
    """
    left = subtract(window.present, gone)
    changed: list[tuple[Range, Range | None]] = []
    for whole in window.transactions:
        parts = clip(left, whole)
        part = Range(parts[0].first, parts[-1].last) if parts else None
        if part != whole:
            changed.append((whole, part if part is not None and len(part) > 1 else None))
    return changed


def cut(block: Block, gone: Sequence[Range]) -> tuple[list[Block], list[Range]]:
    """What is left of a block without these ids, which are sorted and disjoint, and the seqs that it loses."""
    here = clip(gone, _ids(block))
    left = [_part(block, ids) for ids in subtract([_ids(block)], here)]
    lost = [_part(block, ids) for ids in here]
    return left, [Range(part.first, part.last) for part in lost]


def next_rows(rows: int, took_s: float) -> int:
    """How many rows the next transaction takes, after one of `rows` took `took_s`."""
    wanted = int(rows * min(2.0, max(0.5, STEP_S / max(took_s, 1e-6))))
    return min(ROWS_MOST, max(ROWS_LEAST, wanted))


def fitting_rows(rows: int, logged: int, most: int) -> int:
    """How many rows a transaction may take for a log of `most` pages, where one of `rows` gave it `logged`.

    What it gives once, however many rows go, counts for each of them here: so it is rather less.
    """
    return max(ROWS_FEWEST, rows * most // max(1, logged))


def count(ids: Iterable[Range]) -> int:
    """How many ids there are."""
    return size(union(ids))


def _ids(block: Block) -> Range:
    return Range(block.first_id, block.last_id)


def _part(block: Block, ids: Range) -> Block:
    first = block.first + ids.first - block.first_id
    return Block(first, first + len(ids) - 1, ids.first)


def _sharing(spans: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """Those of the spans that have an id in common with one of the others; these are sorted and disjoint."""
    return [span for span in spans if clip(others, span)]
