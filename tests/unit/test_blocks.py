"""The decisions of a merge, as values."""

from __future__ import annotations

from edgeshard.format.blocks import Block, cut_chunk, pieces
from edgeshard.format.ranges import Range


def test_a_piece_keeps_the_ids_of_its_rows() -> None:
    assert Block(4, 6, 103) == Block(1, 9, 100).cut(4, 6)


def test_pieces_are_the_missing_parts_of_blocks_in_order_of_seq() -> None:
    blocks = [Block(11, 20, 500), Block(1, 10, 900)]

    assert [Block(5, 10, 904), Block(11, 12, 500)] == pieces([Range(5, 12)], blocks)


def test_a_piece_that_fits_is_not_cut() -> None:
    assert Block(1, 5, 1) == cut_chunk(Block(1, 5, 1), 5, None)


def test_a_chunk_is_as_large_as_there_is_room() -> None:
    assert Block(1, 3, 100) == cut_chunk(Block(1, 9, 100), 3, None)


def test_a_transaction_is_not_divided_however_large() -> None:
    assert Block(1, 8, 100) == cut_chunk(Block(1, 9, 100), 3, 107)


def test_a_false_note_of_a_transaction_cannot_reach_beyond_the_piece() -> None:
    assert Block(1, 9, 100) == cut_chunk(Block(1, 9, 100), 3, 10**12)
